"""The data that every model here is trained on: scikit-learn's handwritten digits, split once and for all."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.datasets import load_digits

HELD_OUT = 360
LEVELS = 17

Pixels = NDArray[np.float32]


@dataclass(frozen=True)
class Split:
    """Images float32 [n, 1, 8, 8] with integer values 0..16, and labels int64 [n]."""

    images: Pixels
    labels: NDArray[np.int64]


def load() -> tuple[Split, Split]:
    """Training split (1437 images) and held-out split (360 images), shuffled with a fixed seed."""
    digits = load_digits()
    images = digits.images.astype(np.float32)[:, None]
    labels = digits.target.astype(np.int64)
    order = np.random.default_rng(0).permutation(len(labels))
    train, held_out = order[HELD_OUT:], order[:HELD_OUT]
    return Split(images[train], labels[train]), Split(images[held_out], labels[held_out])
