"""What runs on the hardware: pagers, hypervisor, dispatcher. Compiled too; the only writers of tables."""
