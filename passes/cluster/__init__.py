"""Weights that share a few values: found by k-means, stored as a codebook and the number of each weight's value in it."""
