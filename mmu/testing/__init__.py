"""For users who property-test a hypervisor or a pager of their own."""
