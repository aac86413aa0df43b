"""What is left of weights makes up for what became zero: the least squared error of what the layer computes.

The problem of Frantar and Alistarh, "SparseGPT", 2023, for a mask that is given. It is quadratic and has one solution for each
output; conjugate gradients (Hestenes and Stiefel, 1952) find those of all outputs at once, without an inverse, and every step
is nearer than the one before.
"""

from __future__ import annotations

import numpy as np

DAMPING = 0.01
"""Of the mean square of the rows, added to each: how much weights hold on to what they were."""

STEPS = 60

ACCURATE = 1e-3
"""Norm of the residual, as a share of the first one, at which an output is done."""


def compensated(weights: np.ndarray, keep: np.ndarray, products: np.ndarray) -> np.ndarray:
    """`weights` `[rows, outputs]` that are zero where `keep` is false, for inputs with these mean `products` of pairs, `[rows, rows]`."""
    system = _damped(products)
    diagonal = np.diag(system)[:, None]
    found = weights * keep
    residual = keep * (system @ (weights - found))
    scaled = residual / diagonal
    direction, size = scaled, _dot(residual, scaled)
    goal = ACCURATE**2 * size
    for _ in range(STEPS):
        if (size <= goal).all():
            break
        image = keep * (system @ direction)
        step = _ratio(size, _dot(direction, image))
        found = found + step * direction
        residual = residual - step * image
        scaled = residual / diagonal
        before, size = size, _dot(residual, scaled)
        direction = scaled + _ratio(size, before) * direction
    return np.asarray(found)


def _damped(products: np.ndarray) -> np.ndarray:
    """A matrix that is positive definite; rows that are always zero count as independent of the others."""
    system = products.astype(np.float64).copy()
    diagonal = np.diag_indices(len(system))
    system[diagonal] += DAMPING * (system[diagonal].mean() or 1.0)
    return system


def _dot(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """For each output."""
    return np.asarray((first * second).sum(axis=0))


def _ratio(numbers: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Zero where the second is."""
    return np.asarray(np.divide(numbers, others, out=np.zeros_like(numbers), where=others > 0))
