"""Patterns and rules as data, and passes in sequence."""
