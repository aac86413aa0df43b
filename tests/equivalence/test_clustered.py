"""Real models with clustered weights: what is written is what was chosen, for ONNX Runtime, for our passes, and compiled.

Run with ``GRAPHOPT_ZOO=<folder> pytest -m zoo``.
"""

from pathlib import Path

import numpy as np
import pytest

from graphopt import api
from graphopt.accuracy import verify
from graphopt.accuracy.verify import coarsest_tolerance, compare, self_difference
from graphopt.compression.clustering import cluster
from graphopt.model import statistics
from graphopt.passes import preset
from graphopt.passes.codes import Decode
from graphopt.rewriting.pipeline import Context, run
from tests.conftest import reference
from tests.equivalence.test_zoo import RUNNABLE, bound, feeds_for

pytestmark = pytest.mark.zoo

LARGEST = 3_000_000
"""Bytes of the models that are clustered here."""


CLUSTERS = 32


@pytest.mark.parametrize(
    "path", [path for path in RUNNABLE if path.stat().st_size < LARGEST], ids=lambda path: path.stem
)
def test_codes_are_what_they_stand_for(path: Path, tmp_path: Path) -> None:
    model = cluster(bound(path), clusters=CLUSTERS).model
    feeds = feeds_for(model)
    coded = verify.reference(model)(feeds)
    optimised, decoded = model.clone(), model.clone()
    run(optimised, preset("O2"), (), Context())
    assert statistics(optimised).bytes <= 1.05 * statistics(model).bytes
    Decode().apply(decoded, Context())
    for changed in (optimised, decoded):
        for expected, actual in zip(coded.values(), reference(changed, feeds), strict=True):
            np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-4 * np.abs(expected).max())
    built = api.build(model, tmp_path / "model.gopt", check=False)
    with api.load(built.path) as compiled:
        found = dict(zip(coded, compiled.run(None, feeds), strict=True))
    own = self_difference(coded, verify.reference(model, optimised=True)(feeds))
    assert compare(coded, found, own, coarsest_tolerance(model)).passed
