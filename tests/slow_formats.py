"""Slow and obvious readers of text formats; they share no code with the package.

Each takes a file's bytes and returns its accesses as (address, kind, size, process, thread), None where
the format does not tell, or the number of the line that it refuses.
"""

import re

READ, WRITE, FETCH = 0, 1, 2
HALVES = [(0, 1 << 47), ((1 << 64) - (1 << 47), 1 << 64)]
NUMBER = rb"(?:0[xX])?([0-9a-fA-F]{1,16})"


def lines_of(data, open_end=False):
    """The lines of a text, and the number of one that is cut off, or None."""
    lines = data.replace(b"\r\n", b"\n").split(b"\n")
    last = lines.pop()
    if last and open_end:
        lines.append(last)
    return lines, (len(lines) + 1 if last and not open_end else None)


def split(address, kind, size, process=None, thread=None):
    """An access as one or two, or None if its address is not canonical."""
    end = address + max(size, 1)
    if not any(low <= address and end <= high for low, high in HALVES):
        return None
    boundary = (address // 4096 + 1) * 4096
    if address + size <= boundary:
        return [(address, kind, size, process, thread)]
    return [
        (address, kind, boundary - address, process, thread),
        (boundary, kind, address + size - boundary, process, thread),
    ]


def read_all(data, one):
    """Every line by `one`, which returns accesses or None."""
    lines, cut_off = lines_of(data)
    accesses = []
    for number, line in enumerate(lines, 1):
        found = one(line)
        if found is None:
            return number
        accesses += found
    return cut_off or accesses


def lackey(data):
    writer = None

    def one(line):
        nonlocal writer
        message = re.match(rb"(==|--)([0-9]{1,18})\1", line)
        if message:
            same = writer in (None, int(message[2]))
            writer = int(message[2])
            return [] if same else None
        found = re.fullmatch(rb"(I | S| L| M) ([0-9a-fA-F]{1,16}),([0-9]{1,4})", line)
        if not line or not found:
            return None if line else []
        size = int(found[3])
        if not 1 <= size <= 4096:
            return None
        kinds = {b"I ": [FETCH], b" L": [READ], b" S": [WRITE], b" M": [READ, WRITE]}[found[1]]
        parts = [split(int(found[2], 16), kind, size) for kind in kinds]
        return None if None in parts else [access for part in parts for access in part]

    return read_all(data, one)


def din(data):
    def one(line):
        if not line.strip(b" \t"):
            return []
        found = re.fullmatch(rb"[ \t]*([0-4])[ \t]+" + NUMBER + rb"([ \t].*)?", line)
        if not found:
            return None
        label = int(found[1])
        return split(int(found[2], 16), label, 0) if label <= 2 else []

    return read_all(data, one)


def xdin(data):
    def one(line):
        if not line.strip(b" \t"):
            return []
        found = re.fullmatch(
            rb"[ \t]*([rwimcvRWIMCV])[ \t]+"
            + NUMBER
            + rb"([ \t]+"
            + NUMBER
            + rb"([ \t].*)?|[ \t]*)",
            line,
        )
        if not found:
            return None
        label, size = found[1].lower(), int(found[4] or b"0", 16)
        if label in b"cv":
            return []
        kind = {b"r": READ, b"m": READ, b"w": WRITE, b"i": FETCH}[label]
        return split(int(found[2], 16), kind, size) if size <= 4096 else None

    return read_all(data, one)


def encoding_size(text):
    """Bytes of an instruction whose encoding a text begins with."""
    pair = rb"(?:[0-9a-fA-F]{2}|[0-9a-fA-F]{8})(?=[ \t]|$)"
    found = re.match(rb"(?:" + pair + rb" )*" + pair + rb"|", text)
    return sum(len(word) // 2 for word in found[0].split())


OTHER_RECORDS = rb"<marker:|pref|(<thread|<entry|[id]flush)([ \t]|$)"


def drview(data):
    lines, cut_off = lines_of(data)
    workloads = re.search(rb"^ *\d+ +\d+: +W-?\d+\.", data[: 1 << 16], re.MULTILINE)
    accesses, number = [], 0
    while number < len(lines):
        line = lines[number].lstrip(b" \t")
        number += 1
        refused = number
        if re.match(rb"---|(Output|View)([ \t]|$)|<--recor|<record#|$", line):
            continue
        start = re.match(rb"\d{1,18} [ \t]*:[ \t]*total(?=[ \t]|$)", line)
        if start:
            continue
        start = re.match(rb"(?:\d{1,18}(?: [ \t]*\d{1,18})?:[ \t]*|(?=T))", line)
        if not start:
            return refused
        who = re.match(rb"(?:W-?(\d{0,9})\.)?T?(-?\d{1,18}) [ \t]*", line[start.end() :])
        if not who:
            return refused
        process = int(who[1] or 0) if workloads else None
        thread = int(who[2])
        rest = line[start.end() + who.end() :]
        word = re.match(rb"[^ \t]*", rest)[0]
        if word in (b"ifetch", b"read", b"write"):
            found = re.match(
                rb"[^ \t]*[ \t]*(\d{0,5})[ \t]*byte\(s\)(?=[ \t])[ \t]*@[ \t]*"
                rb"0x([0-9a-fA-F]{1,16})(?=[ \t]|$)[ \t]*(non-fetc)?",
                rest,
            )
            if not found or not 1 <= int(found[1] or 0) <= 4096:
                return refused
            address, size = int(found[2], 16), int(found[1])
            kind = {b"ifetch": FETCH, b"read": READ, b"write": WRITE}[word]
            if kind == FETCH and found[3]:
                continue
        elif rest.startswith(b"0x"):
            found = re.match(rb"0x([0-9a-fA-F]{1,16}) [ \t]*", rest)
            if not found:
                return refused
            address, kind, size = int(found[1], 16), FETCH, encoding_size(rest[found.end() :])
            while number < len(lines) and lines[number].startswith(b"T"):
                more = encoding_size(re.sub(rb"^[^ \t]*[ \t]*", b"", lines[number]))
                if not more:
                    break
                size += more
                number += 1
            if not 1 <= size <= 4096:
                return refused
        elif re.match(OTHER_RECORDS, rest) or encoding_size(rest):
            continue
        else:
            return refused
        found = split(address, kind, size, process, thread)
        if found is None or not 0 <= thread < 1 << 32:
            return refused
        accesses += found
    return cut_off or accesses


def perf_sample(address, operations, process, thread):
    """What a sample did."""
    if address < 1 << 16 or operations & 8:
        return []
    kinds = [kind for bit, kind in ((16, FETCH), (2, READ), (4, WRITE)) if operations & bit]
    return [(address, kind, 0, process, thread) for kind in kinds]


def event_after(text):
    """The name of the event that follows a thread, and what follows it; or None."""
    if text.startswith(b"["):
        processor = re.match(rb"\[\d{1,9}\][ \t]*", text)
        if not processor:
            return None
        text = text[processor.end() :]
    if re.match(rb"\d{1,18}\.", text):
        time = re.match(rb"\d{1,18}\.\d{1,18}:[ \t]*", text)
        if not time:
            return None
        text = text[time.end() :]
    period = re.match(rb"\d{1,18}(?:[ \t]+|$)", text)
    if period:
        text = text[period.end() :]
    name = re.match(rb"[^ \t]*", text)[0]
    if name.startswith(b"PERF_REC") or re.fullmatch(rb"[^0-9].*:", name):
        return name, text[len(name) :]
    return None


def number_in(text):
    """The padded number that a text begins with, and what follows it; or None."""
    found = re.match(rb"[ \t]*([0-9a-fA-F]{1,16})(?=[ \t]|$)", text)
    if not found or found.end() < 16:
        return None
    return int(found[1], 16), text[found.end() :]


def perf_script(data):
    head = data[: 1 << 20].replace(b"\r\n", b"\n")
    chains = b"\n\t" in head
    told = re.search(rb"(?<!\S)-?\d+/-?\d+ +(\[\d+\] +)?(\d+\.\d+: +)?(\d+ +)?\S+: ", head)

    def one(line):
        if not line or line[:1] in b"#\t":
            return []
        for start in re.finditer(rb"(?<![^ \t])-?\d{1,18}(?:/-?\d{1,18})?[ \t]+", line):
            event = event_after(line[start.end() :])
            if event:
                break
        else:
            return None
        name, rest = event
        if name.startswith(b"PERF_REC"):
            return []
        number = number_in(rest)
        if number is None:
            return None
        address, rest = number
        source, second = None, False
        while True:
            number = number_in(rest)
            if number is not None:
                second = True
                if number[1].lstrip(b" \t").startswith(b"|"):
                    source = number[0]
                break
            rest = rest.lstrip(b" \t")
            if not rest:
                break
            rest = rest[len(re.match(rb"[^ \t]*", rest)[0]) :]
        if not second and not chains:
            return None
        who = start[0].strip(b" \t").split(b"/")
        if split(address, READ, 0) is None or (len(who) == 2) != bool(told):
            return None
        process = int(who[0]) if told else None
        thread = int(who[-1])
        thread = (1 << 32) - 1 if thread == -1 else thread
        if not 0 <= thread < 1 << 32:
            return None
        if source is None or source >= 1 << 63:
            name = bytes(letter | 0x20 for letter in name)
            fetch_side = b"itlb" in name or b"icache" in name
            bits = 2 * (b"load" in name) + 4 * (b"store" in name)
            operations = bits if bits != 6 and not fetch_side else 0
        else:
            operations = source & 31
        return perf_sample(address, operations, process, thread)

    return read_all(data, one)


def perf_mem(data):
    head = data[: 1 << 16].replace(b"\r\n", b"\n").split(b"\n")
    names = next(line for line in head if line.startswith(b"# PID, TID, IP, ADDR, "))
    rows = [line for line in head if line.strip() and not line.startswith(b"#")]
    comma = bool(rows) and re.match(rb" *-?\d+,", rows[0]) is not None
    column = rb"," if comma else rb" [ \t]*"
    word, decimal = rb"0x[0-9a-fA-F]{1,16}", rb"[ \t]*-?\d{1,18}"
    pattern = rb"[ \t]*(-?\d{1,18})" + column + rb"[ \t]*(-?\d{1,18})" + column + word + column
    pattern += rb"0x([0-9a-fA-F]+)" + column
    if b"PHYS ADDR" in names:
        pattern += word + column
    if b"DATA PAGE SIZE" in names:
        pattern += rb"(?:N[^, ]{2}|0*(?:1|2|4|8|16|32|64|128|256|512|1024|2048|4096|8192)[KMG])"
        pattern += column
    pattern += decimal + column + rb"(" + word + rb")" + (rb"," if comma else rb" ") + rb".*"

    def one(line):
        if not line.strip(b" \t") or line.lstrip(b" \t").startswith(b"#"):
            return []
        found = re.fullmatch(pattern, line)
        if not found:
            return None
        digits = found[3]
        if digits.startswith(b"0") and len(digits) not in (1, 16):
            if not digits.startswith(b"016"):
                return None
            digits = digits[3:]
        thread = int(found[2])
        thread = (1 << 32) - 1 if thread == -1 else thread
        if not 1 <= len(digits) <= 16 or not 0 <= thread < 1 << 32:
            return None
        address = int(digits, 16)
        if split(address, READ, 0) is None:
            return None
        return perf_sample(address, int(found[4], 16) & 31, int(found[1]), thread)

    return read_all(data, one)


SLOW = {
    "lackey": lackey,
    "din": din,
    "xdin": xdin,
    "drview": drview,
    "perf-script": perf_script,
    "perf-mem": perf_mem,
}
