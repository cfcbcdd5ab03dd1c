"""DynamoRIO's view tool; the texts are from its documentation, samples and tests."""

import pytest
from test_trace_formats import read

from mmu.trace import import_trace
from mmu.trace.drview import recognised

OLDEST = b"""\
T468608   0x0000000000467c45  4c 8b 54 24 08       mov    0x08(%rsp), %r10
T468608     read  8 byte(s) @ 0x7fff9f5fd9b0
T468608   0x0000000000467c4f  0f 05                syscall
------------------------------------------------------------
T468610 <marker: timestamp 13270239527782712>
T468610 <marker: tid 468610 on core 0>
T468610   0x0000000000467c51  48 85 c0             test   %rax, %rax
T468608   0x0000000000405376  64 c7 04 25 18 00 00 movl   $0x00000001, %fs:0x18
T468608                       00 01 00 00 00
T468608     write 4 byte(s) @ 0x4eb898
T468608   0x0000000000405382  45 31 c0             xor    %r8d, %r8d
"""

NUMBERED = b"""\
Output format:
<record#>: T<tid> <record details>
------------------------------------------------------------
        1: T1774673 <marker: version 4>
   173369: T1774669 ifetch       3 byte(s) @ 0x0000000000402680 f3 48 a5             rep movsq
   173370: T1774669 read         8 byte(s) @ 0x00007f8881e37c70 by PC 0x0000000000402680
   173371: T1774669 write        8 byte(s) @ 0x00007f8881e37a70 by PC 0x0000000000402680
"""

COUNTED = b"""\
Output format:
<--record#-> <--instr#->: <---tid---> <record details>
------------------------------------------------------------
           2           0:     2444839 <marker: filetype 0xe08>
       10660        8011:     2444840 ifetch       4 byte(s) @ 0x0000000000401d68 91038040   add
       10662        8012:     2444840 <marker: system call 99>
       47446       37770:     2765543 read         8 byte(s) @ 0x00007fdf64e2adc8 by PC 0x404a7e
"""

NEWEST = b"""\
           1           0:       W0.T3 <marker: version 3>
           7           1:       W0.T3 ifetch       4 byte(s) @ 0x0000002a non-branch
           8           2:       W1.T3 ifetch       4 byte(s) @ 0x0000002a non-fetched instruction
           9           3:       W1.T4 ifetch       7 byte(s) @ 0x0000002a 64 c7 04 25 18 00 00 movl
           9           3:       W1.T4                                            00 01 00 00 00
          10           3:       W1.T4 pref-NTA     1 byte(s) @ 0x0000002a by PC 0x0000002a
          11           3:       W1.T4 dflush      64 byte(s) @ 0x0000002a by PC 0x0000002a
          12           3:       W1.T4 <entry type 99>
          13           3:       W1.T4 <thread 4 exited>
          14           3:     W-1.T-1 <marker: core is idle>
View tool results:
              3 : total instructions
"""


def test_the_oldest_form_counts_an_instructions_bytes():
    assert read("drview", OLDEST) == [
        (0x467C45, 2, 5, None, 468608),
        (0x7FFF9F5FD9B0, 0, 8, None, 468608),
        (0x467C4F, 2, 2, None, 468608),
        (0x467C51, 2, 3, None, 468610),
        (0x405376, 2, 12, None, 468608),
        (0x4EB898, 1, 4, None, 468608),
        (0x405382, 2, 3, None, 468608),
    ]


@pytest.mark.parametrize("piece", [1, 10, 100])
def test_bytes_that_go_on_in_the_next_line_are_counted_wherever_the_text_is_cut(piece):
    assert read("drview", OLDEST, piece) == read("drview", OLDEST)


def test_an_instruction_at_the_end_is_read():
    text = b"T1   0x0000000000405376  64 c7 04 25 18 00 00 movl\n"
    assert read("drview", text) == [(0x405376, 2, 7, None, 1)]
    assert read("drview", text + b"T1      00 01\n") == [(0x405376, 2, 9, None, 1)]
    assert read("drview", text + b"T1      00 01") == 2


def test_the_form_with_one_number_is_read():
    assert read("drview", NUMBERED) == [
        (0x402680, 2, 3, None, 1774669),
        (0x7F8881E37C70, 0, 8, None, 1774669),
        (0x7F8881E37A70, 1, 8, None, 1774669),
    ]


def test_the_form_with_two_numbers_is_read():
    assert read("drview", COUNTED) == [
        (0x401D68, 2, 4, None, 2444840),
        (0x7FDF64E2ADC8, 0, 8, None, 2765543),
    ]


def test_workloads_become_spaces_and_what_is_no_access_is_counted(tmp_path):
    (tmp_path / "view").write_bytes(NEWEST)
    made = import_trace(tmp_path / "view", tmp_path / "t")
    assert read("drview", NEWEST) == [(0x2A, 2, 4, 0, 3), (0x2A, 2, 7, 1, 4)]
    assert made.metadata["processes"] == {"0": 0, "1": 1}
    assert made.metadata["passed_over"] == {
        "headings, dividers and empty lines": 2,
        "markers": 2,
        "exits of threads": 1,
        "prefetches": 1,
        "cache flushes": 1,
        "instructions that were not fetched": 1,
        "entries without a name": 1,
    }


@pytest.mark.parametrize("text", [OLDEST, NUMBERED, COUNTED, NEWEST, OLDEST.split(b"\n", 1)[1]])
def test_every_form_is_recognised(text):
    assert recognised(text)


@pytest.mark.parametrize(
    "line",
    [
        b"hello",
        b"12",
        b"12:",
        b"12 13 14: T1 read 8 byte(s) @ 0x10",
        b"1:: T1 read         8 byte(s) @ 0x10",
        b"1: T read         8 byte(s) @ 0x10",
        b"1: T1 read         0 byte(s) @ 0x10",
        b"1: T1 read         8 byte(s) @ 10",
        b"1: T1 read         8 bytes @ 0x10",
        b"1: T1 read         8 byte(s) @ 0x10,",
        b"1: T1 read         8 byte(s) @ 0x800000000000",
        b"1: T1 read\0        8 byte(s) @ 0x10",
        b"1: T1 reads        8 byte(s) @ 0x10",
        b"1: T4294967296 read         8 byte(s) @ 0x10",
        b"1: T1 <mark: 3>",
        b"T1   0x0000000000405376  mov",
        b"12 : instructions",
    ],
)
def test_a_line_that_the_tool_does_not_print_is_refused(line):
    assert read("drview", NUMBERED + line + b"\n") == 8


def test_an_access_across_a_page_boundary_becomes_two_of_the_same_thread():
    text = b"1 1: W2.T7 read         8 byte(s) @ 0x0000000000001ffc by PC 0x0000000000401000\n"
    assert read("drview", text) == [(0x1FFC, 0, 4, 2, 7), (0x2000, 0, 4, 2, 7)]
