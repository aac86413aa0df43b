"""The pipeline runs passes to the fixed point, calls hooks, and reports."""

import errno
import os
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import onnx_ir as ir
import pytest

from graphopt.errors import OutputError, VerificationError
from graphopt.rewriting.pattern import Op
from graphopt.rewriting.pipeline import (
    Context,
    Dump,
    Outcome,
    Repeat,
    Report,
    Stats,
    Step,
    StopAfter,
    Timing,
    Verify,
    run,
)
from graphopt.rewriting.rewrite import Rule, apply_rules
from tests.conftest import make_model, ops

TEXT = "agraph (float[2] x) => (float[2] y) { a = Neg(x) b = Abs(a) y = Exp(b) }"


@dataclass(frozen=True)
class Swap:
    """Replaces one operator by another."""

    name: ClassVar[str] = "swap"
    old: str = "Neg"
    new: str = "Sin"

    def apply(self, model: ir.Model, context: Context) -> Outcome:
        return apply_rules(
            model, [Rule("swap", Op(self.old, "x"), lambda match: match.op(self.new, [match["x"]]))]
        )


def test_passes_run_in_order_and_are_reported() -> None:
    model = make_model(TEXT)
    report = run(model, [Swap("Neg", "Sin"), Swap("Sin", "Cos")])
    assert ops(model) == {"Cos": 1, "Abs": 1, "Exp": 1}
    assert [step.name for step in report.steps] == ["swap", "swap"]
    assert report.applied == {"swap": 2}
    assert report.modified


def test_repeat_stops_at_the_fixed_point() -> None:
    report = run(make_model(TEXT), [Repeat([Swap("Cos", "Tan"), Swap("Sin", "Cos"), Swap("Neg", "Sin")])])
    assert report.applied == {"swap": 3}
    # Tan appears in the third round; the other two passes see it and change nothing.
    assert len(report.steps) == 3 * 2 + 1 + 2


def test_repeat_stops_at_its_limit() -> None:
    report = run(make_model(TEXT), [Repeat([Swap("Neg", "Sin"), Swap("Sin", "Neg")], limit=3)])
    assert len(report.steps) == 6


def test_repeat_is_a_pass_as_well() -> None:
    model = make_model(TEXT)
    assert Repeat([Swap("Neg", "Sin")]).apply(model, Context()).modified
    assert not Repeat([Swap("Neg", "Sin")]).apply(model, Context()).modified


def test_refusals_are_those_of_the_last_application() -> None:
    first, second = (Outcome(False, Counter(), Counter({("rule", "why"): count})) for count in (5, 2))
    assert Report([Step("cleanup", first), Step("cleanup", second)]).refused == {("rule", "why"): 2}


def test_stop_after_keeps_the_model_of_that_step() -> None:
    model = make_model(TEXT)
    report = run(model, [Swap("Neg", "Sin"), Swap("Sin", "Cos")], [StopAfter(1)])
    assert len(report.steps) == 1
    assert "Sin" in ops(model)


def test_timing_and_stats_have_an_entry_for_each_pass() -> None:
    timing, stats = Timing(), Stats()
    run(make_model(TEXT), [Swap("Neg", "Sin"), Swap("Sin", "Cos")], [timing, stats])
    assert [name for name, seconds in timing.seconds if seconds > 0] == ["swap", "swap"]
    assert [name for name, _ in stats.history] == ["input", "swap", "swap"]
    assert stats.history[-1][1].ops == {"Abs": 1, "Cos": 1, "Exp": 1}


def full_disk(*arguments: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_dump_writes_what_changed(tmp_path: Path) -> None:
    run(make_model(TEXT), [Swap("Neg", "Sin"), Swap("Tan", "Cos")], [Dump(tmp_path)])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["000-input.onnxtxt", "001-swap.onnxtxt"]
    assert "Sin" in (tmp_path / "001-swap.onnxtxt").read_text()


def test_dump_keeps_variants_apart(tmp_path: Path) -> None:
    dump = Dump(tmp_path)
    for _ in range(2):
        run(make_model(TEXT), [Swap("Neg", "Sin")], [dump])
    assert len(list(tmp_path.glob("*.onnxtxt"))) == len(list(tmp_path.glob("variant2/*.onnxtxt"))) == 2


def test_dump_into_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "write_text", full_disk)
    with pytest.raises(OutputError, match="No space left"):
        run(make_model(TEXT), [Swap("Neg", "Sin")], [Dump(tmp_path)])


def test_verify_names_the_pass_that_changed_the_result() -> None:
    feeds = {"x": np.array([0.5, 2.0], np.float32)}
    with pytest.raises(VerificationError, match=r"'swap' \(step 2\)"):
        run(make_model(TEXT), [Swap("Tan", "Cos"), Swap("Neg", "Sin")], [Verify(feeds)])


def test_verify_accepts_an_equal_result() -> None:
    hook = Verify({"x": np.array([-0.5, -2.0], np.float32)})
    report = run(make_model(TEXT), [Swap("Abs", "Relu")], [hook])
    assert report.modified
    assert not hook.skipped


def test_verify_lists_what_the_reference_cannot_run() -> None:
    hook = Verify({"x": np.zeros(2, np.float32)})
    run(make_model(TEXT), [Swap("Neg", "NoSuchOperator")], [hook])
    assert [name for name, _ in hook.skipped] == ["swap"]
