"""Which variant of a kernel computes a workload: the spaces to choose from, and who chooses."""
