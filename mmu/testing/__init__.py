"""For users who property-test a hypervisor or a pager of their own.

Import what you need from the modules; all but `strategies` and `example` do without Hypothesis.

==============  ======================================================================================
`tables`        `TableMemory`, `Tables`: page tables, EPT and NPT, made and changed by plain code
`processor`     `CheckedProcessor`: has TLBs and walk caches, and finds a missing invalidation
`strategies`    Hypothesis strategies: page tables, addresses, processors, hosts, traces, operations
`reference`     `translate`: a slow translation that follows the manuals, to compare a walker with
`operations`    `Session`: a model that invalidates whatever it must, or forgets what it is told to
`example`       a hypervisor with a bug, and the state machine that finds it
==============  ======================================================================================

The shortest of tests:

    from mmu.testing.processor import CheckedProcessor
    from mmu.testing.tables import TableMemory, Tables

    memory = TableMemory(pages=8)
    tables = Tables(memory)
    tables.map(0x40_0000, 0x1234_5000)
    cpu = CheckedProcessor(memory.view)
    cpu.load_cr3(tables.root)
    assert cpu.access(0x40_0123).maddr == 0x1234_5123
    tables.move(0x40_0000, 0x8000_0000)
    cpu.invlpg(0x40_0000)  # without which the next access is a StaleTranslation
    assert cpu.access(0x40_0123).maddr == 0x8000_0123
"""
