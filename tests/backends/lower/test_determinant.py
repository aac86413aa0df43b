"""Det, also where rows have to be exchanged or there is no pivot."""

import numpy as np

from tests.backends.lower.harness import Nodes

RNG = np.random.default_rng(0)


def test_determinants() -> None:
    nodes = Nodes()
    nodes.add("Det", RNG.standard_normal((2, 3, 5, 5)).astype(np.float32))
    nodes.add(
        "Det", np.array([[[0, 1, 2], [3, 0, 1], [1, 1, 0]], [[1, 2, 3], [2, 4, 6], [0, 0, 1]]], np.float32)
    )
    nodes.add("Det", np.array([[[3.0]]], np.float32))
    nodes.check()
