"""Hashes that tell apart what gives other results."""

import numpy as np

from graphopt.feeds.data import Dataset
from graphopt.feeds.fingerprint import fingerprint
from tests.conftest import make_model

TEXT = "agraph (float[N,2] x) => (float[N,2] y) {{ y = {}(x, w) }}"
DATA = Dataset({"x": np.zeros((3, 2), np.float32)}, np.zeros(3, np.int64))


def test_whatever_matters_changes_it() -> None:
    model = make_model(TEXT.format("MatMul"), w=np.eye(2, dtype=np.float32))
    found = [
        fingerprint(model, 1, DATA),
        fingerprint(model, 2, DATA),
        fingerprint(make_model(TEXT.format("MatMul"), w=2 * np.eye(2, dtype=np.float32)), 1, DATA),
        fingerprint(make_model(TEXT.format("Add"), w=np.eye(2, dtype=np.float32)), 1, DATA),
        fingerprint(model, 1, DATA, DATA),
        fingerprint(model, 1, Dataset({"x": np.ones((3, 2), np.float32)}, DATA.labels)),
        fingerprint(model, 1, Dataset(DATA.columns, np.ones(3, np.int64))),
        fingerprint(model, 1, Dataset({"z": DATA.columns["x"]}, DATA.labels)),
    ]
    assert len(set(found)) == len(found)


def test_the_same_is_the_same() -> None:
    model = make_model(TEXT.format("MatMul"), w=np.eye(2, dtype=np.float32))
    assert fingerprint(model.clone(), (1, "a"), DATA, None) == fingerprint(model, (1, "a"), DATA)
