"""Removing channels of networks of many architectures, from both exporters of torch, is the same as not seeing them."""

from pathlib import Path

import pytest

pytest.importorskip("torch")

from architectures import COMPACT, export
from graphopt.compiling.building import read
from graphopt.compression.pruner import prepare
from graphopt.model import normalise
from tests.conftest import random_feeds
from tests.passes.prune.checking import check_exact

EXPORTERS = {"script": "torch", "dynamo": "onnxscript"}


@pytest.mark.slow
@pytest.mark.parametrize("exporter", EXPORTERS)
@pytest.mark.parametrize("name", COMPACT)
def test_removed_is_not_seen(name: str, exporter: str, tmp_path: Path) -> None:
    pytest.importorskip(EXPORTERS[exporter])
    model = read(export(name, tmp_path, exporter))
    normalise(model)
    prepare(model)
    check_exact(model, (0.4,), random_feeds(model, free=4), tolerance=2e-4, alone=2)
