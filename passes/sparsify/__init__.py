"""Sparsity: which weights become zero, and what the others make up for."""
