"""Kernels that memory limits on an NVIDIA GPU, next to a copy of as many bytes, to torch and to torch.compile.

`python benchmarks/cuda_memory.py build FOLDER [NAME...]` compiles them, for which no GPU is needed, and
`python benchmarks/cuda_memory.py measure FOLDER [NAME...] [--inductor]` runs them where there is one, with torch and graphopt-runtime alone.

Every case touches more than 128 MB, so that the L2 does not hold it. Bytes are those of operands and results, once each. `roofline` is the
bandwidth of torch's copy of as many bytes in the same run, and `share` ours over it, kernels alone by the profiler.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any, TypeAlias

import torch
from torch.nn import functional

from cuda_peers import Run, compile_model, do_half, error, kernels, ours, parser_of, show

Tensor: TypeAlias = torch.Tensor

HALF = ("fp16",)
TYPES = {"fp16": (torch.float16, "float16"), "fp32": (torch.float32, "float")}

OPSET = 23

NUMBERS = {"last": -1, "first": 0, "second": 1, "starts": 32, "ends": 96}
"""Of one element each, for operators that take axes and places as inputs."""


@dataclass(frozen=True)
class Case:
    """`text` are nodes of ONNX from `x` and `y` to `z`, `peer` is the same in torch. Where the kernel stands among others, `kernel` names
    it, and `channels_last` is how torch gets and gives images."""

    name: str
    shapes: tuple[tuple[int, ...], ...]
    out: tuple[int, ...]
    text: str
    peer: Callable[..., Tensor]
    kernel: str = ""
    channels_last: bool = False
    weights: Mapping[str, tuple[int, ...]] | None = None
    moved: int = 0
    """Elements that the named kernel reads and writes; of whole models all of them."""
    types: tuple[str, ...] = tuple(TYPES)
    reference: Callable[..., Tensor] | None = None
    """All of the model in torch, where `peer` is the kernel alone."""
    precision: str = "fp32"

    def elements(self) -> int:
        """Those that are read and written."""
        return self.moved or sum(torch.Size(shape).numel() for shape in (*self.shapes, self.out))


def rows(extent: int, total: int = 1 << 26) -> tuple[int, int]:
    """A matrix of so many elements whose rows have `extent`."""
    return total // extent, extent


def _norm(x: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
    return functional.layer_norm(x, x.shape[-1:], scale, bias)


def _rms(x: Tensor, scale: Tensor) -> Tensor:
    return functional.rms_norm(x, x.shape[-1:], scale)


def _depthwise(stride: int) -> Callable[[Tensor, Tensor], Tensor]:
    return lambda x, w: functional.conv2d(x, w, None, stride, 1, 1, x.shape[1])


def _images(
    name: str, kernel: str, size: tuple[int, ...], node: str, out: tuple[int, ...], peer: Any
) -> Case:
    """A kernel on images in channels-last form, as convolutions give them: behind a depthwise one of 1x1."""
    text = f"""t = Conv<group={size[1]}>(x, w)
               z = {node}"""
    moved = torch.Size(size).numel() + torch.Size(out).numel()

    def reference(x: Tensor, w: Tensor) -> Tensor:
        return peer(functional.conv2d(x, w, None, groups=size[1]), w)

    weights = {"w": (size[1], 1, 1, 1)}
    return Case(name, (size,), out, text, peer, kernel, True, weights, moved, HALF, reference)


def _transposed(name: str, shape: tuple[int, ...], order: tuple[int, ...]) -> Case:
    out = tuple(shape[axis] for axis in order)
    return Case(
        name, (shape,), out, f"z = Transpose<perm={list(order)}>(x)", lambda x: x.permute(order).contiguous()
    )


def _depthwise_cases(channels: int, size: int, stride: int, batch: int) -> list[Case]:
    """Results channel by channel, and pixel by pixel as what follows in a network takes them."""
    shape, out = (batch, channels, size, size), (batch, channels, size // stride, size // stride)
    text = f"t = Conv<group={channels}, pads=[1,1,1,1], strides=[{stride},{stride}]>(x, w)"
    weights, moved = {"w": (channels, 1, 3, 3)}, torch.Size(shape).numel() + torch.Size(out).numel()
    name, peer = f"depthwise 3x3/{stride} {channels}", _depthwise(stride)

    def reference(x: Tensor, w: Tensor) -> Tensor:
        return peer(x, w).permute(0, 2, 3, 1)

    last = (out[0], *out[2:], out[1])
    pixels = f"{text} z = Transpose<perm=[0, 2, 3, 1]>(t)"
    facts = ("depthwise", True, weights, moved, HALF)
    return [
        Case(f"{name} NCHW", (shape,), out, text.replace("t =", "z ="), peer, *facts),
        Case(f"{name} NHWC", (shape,), last, pixels, peer, *facts, reference),
    ]


FLAT = rows(4096)
IMAGES = (256, 3, 224, 224)
CASES = (
    Case("add relu", (FLAT, FLAT), FLAT, "s = Add(x, y) z = Relu(s)", lambda x, y: torch.relu(x + y)),
    Case("add gelu", (FLAT, FLAT), FLAT, "s = Add(x, y) z = Gelu(s)", lambda x, y: functional.gelu(x + y)),
    Case("bias gelu", (FLAT, (4096,)), FLAT, "s = Add(x, y) z = Gelu(s)", lambda x, y: functional.gelu(x + y)),
    *(
        Case(f"softmax {n}", (rows(n),), rows(n), "z = Softmax(x)", lambda x: torch.softmax(x, -1))
        for n in (128, 197, 512, 1000, 4096)
    ),
    *(
        Case(
            f"layer norm {n}", (rows(n),), rows(n), "z = LayerNormalization(x, a, b)", _norm,
            weights={"a": (n,), "b": (n,)},
        )
        for n in (384, 768, 1024, 4096)
    ),
    Case(
        "rms norm 4096", (rows(4096),), rows(4096), "z = RMSNormalization(x, a)", _rms, weights={"a": (4096,)}
    ),
    _transposed("transpose NCHW to NHWC", (32, 64, 160, 160), (0, 2, 3, 1)),
    _transposed("transpose NHWC to NCHW", (32, 160, 160, 64), (0, 3, 1, 2)),
    _transposed("transpose of heads", (128, 512, 12, 64), (0, 2, 1, 3)),
    _transposed("transpose of a matrix", (8192, 8192), (1, 0)),
    Case(
        "concat of channels", ((1 << 20, 32), (1 << 20, 64)), (1 << 20, 96), "z = Concat<axis=1>(x, y)",
        lambda x, y: torch.cat((x, y), 1),
    ),
    Case(
        "slice of channels", ((1 << 20, 96),), (1 << 20, 64), "z = Slice(x, starts, ends, second)",
        lambda x: x[:, 32:].contiguous(), moved=(1 << 20) * 128,
    ),
    Case("row sums 768", (rows(768),), (rows(768)[0], 1), "z = ReduceSum(x, last)", lambda x: x.sum(-1, True)),
    Case("column sums", (rows(4096),), (1, 4096), "z = ReduceSum(x, first)", lambda x: x.sum(0, True)),
    *_depthwise_cases(96, 112, 1, 64),
    *_depthwise_cases(96, 112, 2, 64),
    *_depthwise_cases(576, 28, 1, 160),
    _images(
        "max pool 3x3/2", "pool", (64, 64, 112, 112),
        "MaxPool<kernel_shape=[3,3], strides=[2,2], pads=[1,1,1,1]>(t)", (64, 64, 56, 56),
        lambda x, w: functional.max_pool2d(x, 3, 2, 1),
    ),
    _images(
        "max pool 5x5", "pool", (64, 256, 40, 40), "MaxPool<kernel_shape=[5,5], pads=[2,2,2,2]>(t)",
        (64, 256, 40, 40), lambda x, w: functional.max_pool2d(x, 5, 1, 2),
    ),
    _images(
        "global average", "reduce", (1024, 1280, 7, 7), "GlobalAveragePool(t)", (1024, 1280, 1, 1),
        lambda x, w: x.mean((2, 3), True),
    ),
    Case(
        "images to channels last", (IMAGES,), (256, 16, 224, 224), "z = Conv(x, w)",
        lambda x, w: x.to(torch.float16, memory_format=torch.channels_last), "pointwise", False,
        {"w": (16, 3, 1, 1)}, 256 * 224 * 224 * (3 + 4), ("fp32",), functional.conv2d, "fp16",
    ),
)  # fmt: skip


def path_of(folder: Path, case: Case, kind: str) -> Path:
    return folder / f"{case.name.replace(' ', '_').replace('/', 's')}.{kind}.gopt"


def weight(shape: Sequence[int], dtype: torch.dtype) -> Tensor:
    generator = torch.Generator().manual_seed(5)
    return (torch.rand(*shape, generator=generator) - 0.5).to(dtype)


def model_of(case: Case, kind: str) -> Any:
    import numpy as np
    import onnx

    dtype, name = TYPES[kind]
    inputs = zip("xy", case.shapes, strict=False)
    heads = ", ".join(f"{name}[{','.join(map(str, shape))}] {label}" for label, shape in inputs)
    result = f"{name}[{','.join(map(str, case.out))}] z"
    text = f'<ir_version: 10, opset_import: ["" : {OPSET}]> g ({heads}) => ({result}) {{ {case.text} }}'
    model = onnx.parser.parse_model(text)
    known = {label: weight(shape, dtype).numpy() for label, shape in (case.weights or {}).items()}
    known |= {label: np.array([value]) for label, value in NUMBERS.items()}
    used = {each for node in model.graph.node for each in node.input}
    for label, value in known.items():
        if label in used:
            model.graph.initializer.append(onnx.numpy_helper.from_array(value, label))
    return model


def build(folder: Path, cases: Sequence[tuple[Case, str]]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for case, kind in cases:
        compile_model(model_of(case, kind), path_of(folder, case, kind), case.precision)


def bandwidth(count: int, dtype: torch.dtype) -> float:
    """TB/s of torch's copy that reads and writes as many elements in sum."""
    x = torch.ones(count // 2, device="cuda", dtype=dtype)
    y = torch.empty_like(x)
    megabytes: float = 2e-6 * x.numel() * x.element_size()
    return megabytes / sum(kernels(lambda: y.copy_(x)).values())


def operands(case: Case, dtype: torch.dtype) -> list[Tensor]:
    generator = torch.Generator("cuda").manual_seed(3)
    return [
        torch.rand(shape, generator=generator, device="cuda").sub_(0.5).to(dtype) for shape in case.shapes
    ]


def measure_case(case: Case, kind: str, folder: Path, inductor: bool) -> dict[str, Any]:
    dtype = TYPES[kind][0]
    inputs, size = operands(case, dtype), dtype.itemsize
    known = [weight(shape, dtype).cuda() for shape in (case.weights or {}).values()]
    out = torch.full(case.out, float("nan"), device="cuda", dtype=dtype)
    times = kernels(ours(path_of(folder, case, kind), inputs, out))
    own = sum(time for name, time in times.items() if case.kernel in name)
    megabytes, roofline = 1e-6 * case.elements() * size, bandwidth(case.elements(), dtype)
    given = [x.to(memory_format=torch.channels_last) if case.channels_last else x for x in inputs]
    row: dict[str, Any] = {"kernel": case.name, "type": kind, "MB": megabytes, "us": own}
    row |= {"TB/s": megabytes / own, "roofline": roofline, "share": megabytes / own / roofline}
    row["torch us"] = sum(kernels(lambda: case.peer(*given, *known)).values())
    if inductor:
        row["compiled us"] = sum(kernels(_compiled(case.peer, [*given, *known])).values())
    return row | {"error": error(out, expected(case, inputs, known))}


def expected(case: Case, inputs: Sequence[Tensor], known: Sequence[Tensor]) -> Tensor:
    """The results of torch, in float32."""
    wide = [x.float() for x in (*inputs, *known)]
    return (case.reference or case.peer)(*wide).double()


def _compiled(peer: Callable[..., Tensor], inputs: Sequence[Tensor]) -> Run:
    torch._dynamo.reset()
    compiled = torch.compile(peer)
    return lambda: compiled(*inputs)


def measure(folder: Path, cases: Sequence[tuple[Case, str]], inductor: bool) -> list[dict[str, Any]]:
    torch.backends.cudnn.benchmark = True
    print(torch.cuda.get_device_name(), "torch", torch.__version__)
    rows = []
    with torch.no_grad():
        for case, kind in cases:
            if path_of(folder, case, kind).exists():
                rows.append(show(measure_case(case, kind, folder, inductor)))
                torch.cuda.empty_cache()
    return rows


def main() -> None:
    parser = parser_of(__doc__ or "")
    parser.add_argument("names", nargs="*", help="parts of names of cases")
    parser.add_argument("--type", nargs="+", choices=TYPES, default=list(TYPES))
    parser.add_argument("--inductor", action="store_true", help="torch.compile too")
    chosen = parser.parse_args()
    named = [case for case in CASES if not chosen.names or any(name in case.name for name in chosen.names)]
    cases = [(case, kind) for case, kind in product(named, chosen.type) if kind in case.types]
    do_half(
        chosen, lambda: build(chosen.folder, cases), lambda: measure(chosen.folder, cases, chosen.inductor)
    )


if __name__ == "__main__":
    main()
