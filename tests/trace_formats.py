"""One builder of samples for each form of each format that can be imported.

A builder takes a number of records and a seed, and returns a file's bytes. The first word of its name
in `SAMPLES` is the format's. Whoever adds a format adds a row here: it is then recognised, mutated and
measured with the others (`test_trace_formats.py`, `test_trace_fuzz.py`, `bench/test_import.py`).
"""

import binary_samples as binary
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

READ, WRITE, FETCH = 0, 1, 2


def accesses(records, seed=0):
    """Yield (address, kind, size) of a program that runs through its code and touches its data."""
    random = np.random.default_rng(seed)
    kinds = random.choice([READ, WRITE, FETCH], records, p=[0.2, 0.1, 0.7])
    sizes = np.where(
        kinds == FETCH, random.integers(1, 12, records), 1 << random.integers(0, 5, records)
    )
    pages = random.integers(0, 500, records) ** 2
    code = 0x401000 + np.cumsum(sizes * (kinds == FETCH)) % 0x20000
    data = 0x7F66_9DC7_0000 + pages * 4096 + random.integers(0, 511, records) * 8
    kernel = -(1 << 40) + data % (1 << 30)
    far = random.random(records) < 0.02
    address = np.where(kinds == FETCH, code, np.where(far, kernel, data)).view(np.uint64)
    return zip(address.tolist(), kinds.tolist(), sizes.tolist(), strict=True)


def lackey(records, seed=0):
    marks = {READ: " L", WRITE: " S", FETCH: "I "}
    lines = [
        "==42== Lackey, an example Valgrind tool",
        "==42== Command: /bin/sort -n a,b",
        "==42== ",
    ]
    for number, (address, kind, size) in enumerate(accesses(records, seed)):
        mark = " M" if kind == WRITE and number % 5 == 0 else marks[kind]
        lines.append(f"{mark} {address:08x},{size}")
    return "".join(line + "\n" for line in lines).encode()


def din(records, seed=0):
    lines = []
    for number, (address, kind, _) in enumerate(accesses(records, seed)):
        lines.append(f"{kind} {address:x}" + (" # a comment" if number % 97 == 0 else ""))
        if number % 53 == 0:
            lines.append(f"{3 + number % 2} 0")
    return "".join(line + "\n" for line in lines).encode()


def xdin(records, seed=0):
    lines = []
    for number, (address, kind, size) in enumerate(accesses(records, seed)):
        label = "m" if kind == READ and number % 11 == 0 else "rwi"[kind]
        lines.append(f"{label} {'0x' if number % 7 == 0 else ''}{address:x} {size:x}")
        if number % 53 == 0:
            lines.append(f"{'cv'[number % 2]} {address:x} 40 whole line")
    return "".join(line + "\n" for line in lines).encode()


RULE = "-" * 60
NAMES = {READ: "read", WRITE: "write", FETCH: "ifetch"}
TAILS = ("48 89 e7             mov    %rsp, %rdi", "non-branch", "c3                   ret")


def drview(records, seed=0):
    """The newest form: workloads and threads."""
    lines = ["Output format:", "<--record#-> <--instr#->: <---tid---> <record details>", RULE]
    lines.append(f"{1:12}{0:12}: {'W0.T3':>11} <marker: version 7>")
    instructions = 0
    for number, (address, kind, size) in enumerate(accesses(records, seed)):
        instructions += kind == FETCH
        who = f"W{number // 300 % 2}.T{3256418 + number // 100 % 3}"
        start = f"{number + 2:12}{instructions:12}: {who:>11} "
        tail = TAILS[number % 3] if kind == FETCH else f"by PC 0x{0x401000 + number:016x}"
        lines.append(f"{start}{NAMES[kind]:12}{size:2} byte(s) @ 0x{address:016x} {tail}")
        if number % 100 == 0:
            lines += [RULE, f"{start}<marker: timestamp 13270239527782712>"]
        if number % 70 == 0:
            other = ("pref-r-L1-NT", "dflush", "iflush")[number % 3]
            lines.append(f"{start}{other:12} 1 byte(s) @ 0x{address:016x} by PC 0x{0x401000:016x}")
        if number % 130 == 0:
            lines.append(
                f"{start}{'ifetch':12} 2 byte(s) @ 0x{0x401000:016x} non-fetched instruction"
            )
            lines.append(f"{start}{'':43}00 01 00 00")
            lines.append(f"{start}<thread 3256418 exited>")
    lines += ["View tool results:", f"{instructions:15} : total instructions"]
    return "".join(line + "\n" for line in lines).encode()


def drview_numbered(records, seed=0):
    """An earlier form: one number, no workload."""
    lines = ["Output format:", "<record#>: T<tid> <record details>", RULE]
    for number, (address, kind, size) in enumerate(accesses(records, seed)):
        tail = "f3 48 a5             rep movsq" if kind == FETCH else f"by PC 0x{0x402680:016x}"
        start = f"{number + 1:9}: T{1774669 + number // 200 % 2} "
        lines.append(f"{start}{NAMES[kind]:12}{size:2} byte(s) @ 0x{address:016x} {tail}")
    return "".join(line + "\n" for line in lines).encode()


def drview_oldest(records, seed=0):
    """The oldest form: an instruction is its bytes, which may go on in the next line."""
    lines = []
    for number, (address, kind, size) in enumerate(accesses(records, seed)):
        who = f"T{468608 + number // 150 % 2}"
        if kind == FETCH:
            encoding = [f"{(number + place) % 256:02x}" for place in range(size)]
            shown = " ".join(encoding[:7])
            lines.append(f"{who}   0x{address:016x}  {shown:20} movl   $0x00000001, %fs:0x18")
            if size > 7:
                lines.append(f"{who} {'':22}{' '.join(encoding[7:])}")
        else:
            lines.append(f"{who}     {NAMES[kind]:5} {size} byte(s) @ 0x{address:x}")
        if number % 100 == 99:
            lines += [RULE, f"{who} <marker: tid 468608 on core 2>"]
    return "".join(line + "\n" for line in lines).encode()


OPERATIONS = {READ: (0x68100142, "|OP LOAD|LVL L1 hit|SNP None|TLB L1 or L2 hit|LCK No|BLK  N/A")}
OPERATIONS[WRITE] = (0x5080184, "|OP STORE|LVL L1 hit|SNP N/A|TLB L2 miss|LCK N/A|BLK  N/A")
OPERATIONS[FETCH] = (0x5080190, "|OP EXEC|LVL N/A|SNP N/A|TLB N/A|LCK N/A|BLK  N/A")
COMMANDS = ("ls", "Web Content 12", "kworker/0:1")


def perf_script(records, seed=0):
    """What perf mem record asks for, with pages."""
    lines = ["# ========", "# cmdline : /usr/bin/perf mem record ls", "# ========", "#"]
    for number, (address, kind, _) in enumerate(accesses(records, seed)):
        word, text = OPERATIONS[kind]
        if number % 41 == 0:
            word, text = ((0x1E05080021, "|OP N/A|"), (0x1E05080028, "|OP PFETCH|"))[number % 2]
        page = ("4K", "2M", "N/A")[number % 3]
        shown = 0 if number % 43 == 0 else address
        lines.append(
            f"{COMMANDS[number % 3]:>16} {712 + number // 100 % 2}/{715 + number // 50 % 3} "
            f"[{number % 4:03}] {950 + number / 1e6:12.6f}: {1:10} cpu/mem-loads,ldlat=30/P: "
            f"{shown:16x} {word:16x} {text} {number % 900:16} {0x401000 + number:16x} "
            f"main+0x{number:x} (/usr/bin/ls) {address & 0xFFFFFFF:16x} {page}"
        )
    return "".join(line + "\n" for line in lines).encode()


def perf_script_events(records, seed=0):
    """Threads only; the event says what was done; addresses have symbols."""
    events = {READ: "mem_inst_retired.all_loads:P", WRITE: "mem-stores", FETCH: "page-faults"}
    lines = []
    for number, (address, kind, _) in enumerate(accesses(records, seed)):
        symbol = ("", " __progname", " [unknown]")[number % 3]
        lines.append(
            f"{COMMANDS[number % 3]:>16} {712 + number // 100 % 2:7} {950 + number / 1e6:12.6f}: "
            f"{events[kind]}: {address:16x}{symbol} {0x401000 + number:16x} add"
        )
    return "".join(line + "\n" for line in lines).encode()


def perf_script_chains(records, seed=0):
    """Call chains: the instruction is in the lines after the sample."""
    lines = []
    for number, (address, kind, _) in enumerate(accesses(records, seed)):
        event = "mem-loads" if kind == READ else "mem-stores"
        lines.append(f"ls  712/712 {950 + number / 1e6:12.6f}: {event}: {address:16x} ")
        lines += [f"\t{0x401000 + number:16x} main+0x{number:x} (/usr/bin/ls)", ""]
    return "".join(line + "\n" for line in lines).encode()


def perf_mem(records, seed=0):
    lines = ["# PID, TID, IP, ADDR, LOCAL WEIGHT, DSRC, SYMBOL"]
    for number, (address, kind, _) in enumerate(accesses(records, seed)):
        # perf pads the first sample's fields only, and writes 016 for a width of sixteen.
        shown = f"0x016{address:x}" if number == 0 else f"0x{address:x}"
        word = 0x1E05080021 if number % 41 == 0 else OPERATIONS[kind][0]
        lines.append(
            f"{11853 + number // 200 % 2:5} {11853 + number // 100 % 3:5} "
            f"0x{0xFFFFFFFF81752B6A + number:016x} {shown} {number % 900:5} 0x{word:06x} "
            "[kernel.kallsyms]:elf_load"
        )
    return "".join(line + "\n" for line in lines).encode()


def perf_mem_comma(records, seed=0):
    lines = ["# PID, TID, IP, ADDR, PHYS ADDR, DATA PAGE SIZE, LOCAL WEIGHT, DSRC, SYMBOL"]
    for number, (address, kind, _) in enumerate(accesses(records, seed)):
        page = ("4K", "2M", "1G", "N/A")[number % 4]
        lines.append(
            f"{11853 + number // 200 % 2},11853,0x{0x401000 + number:x},0x{address:x},"
            f"0x{address & 0xFFFFFFF:016x},{page},{number % 900},0x{OPERATIONS[kind][0]:x},ls:main"
        )
    return "".join(line + "\n" for line in lines).encode()


def csv(records, seed=0):
    lines = ["address,kind,size,space,thread,note"]
    for number, (address, kind, size) in enumerate(accesses(records, seed)):
        lines.append(
            f"0x{address:x},{('read', 'Write', 'ifetch')[kind]},{size},{7 + number // 300 % 2},"
            f'{number // 100 % 3},"a ""note"", {number}"'
        )
    return "".join(line + "\n" for line in lines).encode()


def csv_tabs(records, seed=0):
    """Decimal addresses, letters, sizes that are missing, the line ends of Windows."""
    lines = ["pc\tva\trw\tbytes"]
    for number, (address, kind, size) in enumerate(accesses(max(records, 40), seed)):
        lines.append(f"{number}\t{address}\t{'RWX'[kind]}\t{size if number % 3 else ''}")
    return "".join(line + "\r\n" for line in lines).encode()


def instructions(records, seed):
    """Instructions (ip, reads, writes) of the same program, as ChampSim has them."""
    ip, reads, writes = 0x401000, [], []
    for address, kind, _ in accesses(records, seed):
        if kind == FETCH:
            yield ip, reads[:4], writes[:2]
            ip, reads, writes = address, [], []
        else:
            (reads if kind == READ else writes).append(address)
    yield ip, reads[:4], writes[:2]


def champsim(records, seed=0):
    return b"".join(binary.instruction(*each) for each in instructions(records, seed))


def cloudsuite(records, seed=0):
    made = instructions(records, seed)
    return b"".join(
        binary.instruction(*each, asid=(i // 300 % 2, 1)) for i, each in enumerate(made)
    )


def dynamorio(records, seed=0):
    types = {READ: 0, WRITE: 1, FETCH: 10}
    entries = []
    for number, (address, kind, size) in enumerate(accesses(records, seed)):
        if kind == FETCH and number % 3 == 0:
            entries.append(binary.entry(47, size, 0x90))
        if number % 500 == 0:
            entries.append(binary.marker(2, 13270239527782712 + number) + binary.marker(3, 1))
        entries.append(binary.entry(types[kind], size, address))
    return binary.dynamorio(b"".join(entries), version=7)


def gem5(records, seed=0):
    packets = []
    for number, (address, kind, size) in enumerate(accesses(records, seed)):
        command = 22 if number % 40 == 1 else {READ: 1, WRITE: 4, FETCH: 1}[kind]
        flags = 0x100 if kind == FETCH else 0
        packets.append(binary.packet(command, address & (1 << 36) - 1, size, flags, 500 * number))
    return binary.gem5(*packets)


def parquet(records, seed=0):
    """A table of another tool, whose columns have usual names."""
    address, kind, size = zip(*accesses(records, seed), strict=True)
    columns = {"va": pa.array(address, pa.uint64()), "op": ["RWX"[k] for k in kind], "bytes": size}
    packed = pa.BufferOutputStream()
    pq.write_table(pa.table(columns), packed)
    return packed.getvalue().to_pybytes()


SAMPLES = {
    "lackey": lackey,
    "din": din,
    "xdin": xdin,
    "drview": drview,
    "drview numbered": drview_numbered,
    "drview oldest": drview_oldest,
    "perf-script": perf_script,
    "perf-script events": perf_script_events,
    "perf-script chains": perf_script_chains,
    "perf-mem": perf_mem,
    "perf-mem comma": perf_mem_comma,
    "csv": csv,
    "csv tabs": csv_tabs,
    "champsim": champsim,
    "cloudsuite": cloudsuite,
    "dynamorio": dynamorio,
    "gem5": gem5,
    "parquet": parquet,
}

BYTES = ("champsim", "cloudsuite", "dynamorio", "gem5", "parquet")  # that are no text


def format_of(sample):
    """Return the name of the format that a sample is of."""
    return sample.split()[0]
