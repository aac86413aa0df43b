"""How other tools quantise a model, each with its defaults for the kind of model at hand."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path

import onnx

from graphopt.arrays import Feeds
from graphopt.compression.quantizer import LEAST_OPSET
from graphopt.feeds.data import Dataset

MOST = 300
"""Samples for ranges."""

FEW = 100
"""The same for methods that keep every activation in memory."""

LEAST_IR_VERSION = 4
"""From which on initializers need not be inputs too: tools add some that are not."""

Quantise = Callable[[Path, Dataset, Path], None]
"""From a model and calibration data, writes another model."""


def _newer(model: Path, output: Path) -> Path:
    """The model in an opset that has a scale for each channel."""
    content, path = onnx.load(model), output.with_suffix(".newer.onnx")
    if content.opset_import[0].version < LEAST_OPSET:
        content = onnx.version_converter.convert_version(content, LEAST_OPSET)
    content.ir_version = max(content.ir_version, LEAST_IR_VERSION)
    onnx.save(content, path)
    return path


def static_by_onnxruntime(method: str, model: Path, data: Dataset, output: Path) -> None:
    """QDQ with a scale for each channel; `method` finds ranges."""
    from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    most = MOST if method == "MinMax" else FEW

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self._batches: Iterator[Feeds] = data.batches(1, most)

        def get_next(self) -> Feeds | None:
            return next(self._batches, None)

    prepared = output.with_suffix(".prepared.onnx")
    quant_pre_process(_newer(model, output), prepared, skip_symbolic_shape=True)
    quantize_static(
        prepared, output, Reader(), per_channel=True, calibrate_method=getattr(CalibrationMethod, method)
    )


def dynamic_by_onnxruntime(model: Path, data: Dataset, output: Path) -> None:
    """Ranges at run time: what ONNX Runtime advises for transformers."""
    from onnxruntime.quantization import quantize_dynamic

    quantize_dynamic(_newer(model, output), output, per_channel=True)


def by_nncf(transformer: bool, model: Path, data: Dataset, output: Path) -> None:
    """NNCF's post-training quantisation of ONNX models."""
    import nncf

    kind = nncf.ModelType.TRANSFORMER if transformer else None
    feeds = nncf.Dataset(list(data.batches(1, MOST)))
    onnx.save(
        nncf.quantize(onnx.load(_newer(model, output)), feeds, subset_size=MOST, model_type=kind), output
    )


def peers(transformer: bool) -> Mapping[str, Quantise]:
    """Those that are tried on a model."""
    methods = ("MinMax",) if transformer else ("MinMax", "Entropy", "Percentile")
    static = {f"onnxruntime {method}": partial(static_by_onnxruntime, method) for method in methods}
    dynamic = {"onnxruntime dynamic": dynamic_by_onnxruntime} if transformer else {}
    return {**static, **dynamic, "nncf": partial(by_nncf, transformer)}
