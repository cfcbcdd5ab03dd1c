"""Emulator of virtual address translation under a hypervisor."""
