"""Weights that make up for others: the optimum of linear algebra, and never worse than nothing."""

import numpy as np

from graphopt.passes.sparsify import compensate

RNG = np.random.default_rng(5)
X = RNG.standard_normal((400, 20)) @ RNG.standard_normal((20, 20))
W = RNG.standard_normal((20, 7))
KEEP = RNG.random((20, 7)) < 0.5


def test_the_solution_is_that_of_least_squares() -> None:
    products = X.T @ X / len(X)
    found = compensate.compensated(W, KEEP, products)
    assert not found[~KEEP].any()
    system = products + compensate.DAMPING * np.diag(products).mean() * np.eye(20)
    for output in range(7):
        kept = KEEP[:, output]
        exact = np.linalg.solve(system[np.ix_(kept, kept)], system[kept] @ W[:, output])
        np.testing.assert_allclose(found[kept, output], exact, atol=1e-2 * np.abs(exact).max())


def test_the_product_is_nearer_than_without() -> None:
    errors = [
        np.square(X @ (weights - W)).sum()
        for weights in (compensate.compensated(W, KEEP, X.T @ X / len(X)), W * KEEP)
    ]
    assert errors[0] < 0.5 * errors[1]


def test_inputs_that_are_always_zero_change_nothing() -> None:
    found = compensate.compensated(W, KEEP, np.zeros((20, 20)))
    np.testing.assert_allclose(found, W * KEEP)


def test_outputs_that_keep_all_or_nothing() -> None:
    keep = np.ones_like(KEEP)
    keep[:, 3] = False
    found = compensate.compensated(W, keep, X.T @ X)
    np.testing.assert_array_equal(found, W * keep)
