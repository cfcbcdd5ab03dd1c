"""Recording under QEMU's user-mode emulation, by a plugin of our own."""
