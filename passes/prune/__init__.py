"""Structural pruning: which channels go together, which of them matter, and their removal."""
