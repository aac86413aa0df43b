"""Kernel families and their schedules."""
