"""What CPUID tells of a processor: its TLBs and data caches, and what it is.

`dump`      the text of a dump, or of what this machine says, as registers by leaf
`host`      this machine's own
`intel`     leaf 2, 4 and 18h
`amd`       leaves 80000005, 80000006, 80000019, 8000001D, 80000021 and 8000000A
`told`      all of it, with what is known to be told wrongly
`made`      a processor's file of it, with the rest from the nearest named one
"""
