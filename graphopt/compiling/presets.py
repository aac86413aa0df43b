"""Runs the passes of a preset."""

from collections.abc import Sequence

import onnx_ir as ir

from graphopt.errors import GraphoptError
from graphopt.rewriting import pipeline
from graphopt.rewriting.pipeline import Context, Hook, Report


def run_preset(model: ir.Model, preset: str, hooks: Sequence[Hook], context: Context) -> Report:
    """Run a preset's passes on a normalised model. Raises GraphoptError for an unknown preset."""
    from graphopt.passes import PRESETS
    from graphopt.passes import preset as preset_passes

    if preset not in PRESETS:
        raise GraphoptError(f"unknown preset {preset!r}; choose one of {', '.join(PRESETS)}")
    return pipeline.run(model, preset_passes(preset), hooks, context)
