"""The convolutions of ResNet-50 on an NVIDIA GPU in float16, next to cuDNN in channels-last form.

`python benchmarks/cuda_convolutions.py build FOLDER [--batch 1 8]` compiles each of them, for which no GPU is needed, and
`python benchmarks/cuda_convolutions.py measure FOLDER [--batch 1 8]` runs them where there is one, with torch and graphopt-runtime alone.
Times are those of kernels alone by the profiler, of cuDNN those of its fastest by `torch.backends.cudnn.benchmark`; inputs and results of
both have their channels last. Only where channels are no multiple of eight, as those of images, we move them, which is counted.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from cuda_nets import VALUES
from cuda_peers import compile_model, do_half, error, kernels, ours, parser_of, show

BATCHES = (1, 8)

LAST, FIRST = (0, 2, 3, 1), (0, 3, 1, 2)
"""Permutations that bring channels to the end, and back."""

STAGES = ((64, 3, 1), (128, 4, 2), (256, 6, 2), (512, 3, 2))
"""Channels of the 3x3 convolutions, blocks, and the stride of the first."""


@dataclass(frozen=True)
class Convolution:
    """`channels` of `size` x `size` pixels to `filters`, a square `kernel` of the same padding."""

    channels: int
    size: int
    filters: int
    kernel: int
    stride: int

    def __str__(self) -> str:
        return f"{self.channels}, {self.size} x {self.size}, {self.filters}, {self.kernel} x {self.kernel} / {self.stride}"

    @property
    def pad(self) -> int:
        return self.kernel // 2

    def shape(self, batch: int) -> tuple[int, ...]:
        return (batch, self.size, self.size, self.channels)

    def out(self, batch: int) -> tuple[int, ...]:
        return (batch, self.size // self.stride, self.size // self.stride, self.filters)

    def operations(self, batch: int) -> int:
        """Additions and multiplications."""
        return 2 * int(np.prod(self.out(batch))) * self.channels * self.kernel**2

    def path(self, folder: Path, batch: int) -> Path:
        name = "_".join(map(str, (self.channels, self.size, self.filters, self.kernel, self.stride)))
        return folder / f"conv_{name}.b{batch}.gopt"

    def weights(self) -> np.ndarray[Any, Any]:
        """Of few values, so that artifacts of them are small."""
        shape = (self.filters, self.channels, self.kernel, self.kernel)
        return np.random.default_rng(7).choice(VALUES, shape).astype(np.float16)


def convolutions() -> list[Convolution]:
    """Those of ResNet-50 (arXiv:1512.03385, with strides in the 3x3 ones) that differ, in their order."""
    return list(dict.fromkeys(_all()))


def _all() -> Iterator[Convolution]:
    yield Convolution(3, 224, 64, 7, 2)
    channels, size = 64, 56
    for middle, count, first in STAGES:
        for number in range(count):
            stride = first if number == 0 else 1
            yield Convolution(channels, size, middle, 1, 1)
            yield Convolution(middle, size, middle, 3, stride)
            if number == 0:
                yield Convolution(channels, size, 4 * middle, 1, stride)
            size //= stride
            yield Convolution(middle, size, 4 * middle, 1, 1)
            channels = 4 * middle


def build(folder: Path, cases: Sequence[tuple[Convolution, int]]) -> None:
    import onnx

    folder.mkdir(parents=True, exist_ok=True)
    for case, batch in cases:
        x, y = (
            onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT16, shape)
            for name, shape in (("x", case.shape(batch)), ("y", case.out(batch)))
        )
        steps: dict[str, Any] = {"strides": [case.stride] * 2, "pads": [case.pad] * 4}
        nodes = [
            onnx.helper.make_node("Transpose", ["x"], ["first"], perm=FIRST),
            onnx.helper.make_node("Conv", ["first", "w"], ["result"], **steps),
            onnx.helper.make_node("Transpose", ["result"], ["y"], perm=LAST),
        ]
        weights = onnx.numpy_helper.from_array(case.weights(), "w")
        graph = onnx.helper.make_graph(nodes, "conv", [x], [y], [weights])
        model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=8)
        compile_model(model, case.path(folder, batch), "fp32")


def measure_case(case: Convolution, batch: int, folder: Path) -> dict[str, Any]:
    torch.manual_seed(3)
    x = (torch.rand(case.shape(batch), device="cuda") - 0.5).half()
    w = torch.from_numpy(case.weights()).cuda()
    y = torch.full(case.out(batch), float("nan"), device="cuda", dtype=torch.float16)
    times = kernels(ours(case.path(folder, batch), [x], y))
    own = sum(times.values())
    first, filters = x.permute(FIRST), w.to(memory_format=torch.channels_last)
    peer = sum(kernels(lambda: functional.conv2d(first, filters, None, case.stride, case.pad)).values())
    reference = functional.conv2d(first.double(), w.double(), None, case.stride, case.pad).permute(LAST)
    return {
        "channels, pixels, filters, kernel / stride": str(case),
        "batch": batch,
        "us": own,
        "TFLOP/s": 1e-6 * case.operations(batch) / own,
        "cuDNN us": peer,
        "ratio": own / peer,
        "error": error(y, reference),
    }


def measure(folder: Path, cases: Sequence[tuple[Convolution, int]]) -> list[dict[str, Any]]:
    torch.backends.cudnn.benchmark = True
    print(torch.cuda.get_device_name(), "torch", torch.__version__, "cuDNN", torch.backends.cudnn.version())
    with torch.no_grad():
        rows = [show(measure_case(*case, folder)) for case in cases if case[0].path(folder, case[1]).exists()]
    for batch in sorted({row["batch"] for row in rows}):
        ratios = [row["ratio"] for row in rows if row["batch"] == batch]
        mean = statistics.geometric_mean(ratios)
        print(f"batch {batch}: geometric mean of {len(ratios)} ratios to cuDNN {mean:.3f}")
    return rows


def main() -> None:
    parser = parser_of(__doc__ or "")
    parser.add_argument("--batch", nargs="+", type=int, default=list(BATCHES))
    chosen = parser.parse_args()
    cases = list(product(convolutions(), chosen.batch))
    do_half(chosen, lambda: build(chosen.folder, cases), lambda: measure(chosen.folder, cases))


if __name__ == "__main__":
    main()
