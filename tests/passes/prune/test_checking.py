"""The check of exactness finds what is wrong."""

from dataclasses import replace

import numpy as np
import pytest

from graphopt.passes.prune.flow import Flow
from graphopt.passes.prune.rules import selection
from graphopt.passes.prune.rules.rule import Rule
from graphopt.passes.prune.rules.table import RULES
from tests.passes.prune.checking import between, check_exact, ints, random

BODY = (
    "d = Conv(x, k) e = AveragePool <kernel_shape = [3,3], pads = [1,1,1,1]> (d) b = Concat <axis = 1> (a, e)"
)


def test_labels_in_the_wrong_order_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def turned(flow: Flow, node) -> None:
        selection.concat(flow, node)
        flow.put(node.outputs[0], [block[:, ::-1] for block in flow.blocks(node.outputs[0])])

    model = between(BODY, k=random(8, 3, 1, 1), v=random(4, 16, 1, 1))
    check_exact(model)
    monkeypatch.setitem(RULES, ("", "Concat"), Rule(turned))
    with pytest.raises(AssertionError):
        check_exact(model)


def test_a_repair_that_is_forgotten_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    model = between("b = Gather <axis = 1> (a, i)", i=ints(*np.arange(8)[::-1]))
    check_exact(model)
    monkeypatch.setitem(RULES, ("", "Gather"), replace(RULES["", "Gather"], repair=None))
    with pytest.raises(Exception, match="indices"):
        check_exact(model)
