"""Attention alone on an NVIDIA GPU, of rows with queries, keys and values of all heads as projections leave them, next to torch.

`python benchmarks/cuda_attention.py build FOLDER [NAME...]` compiles every case, for which no GPU is needed, and
`python benchmarks/cuda_attention.py measure FOLDER [NAME...]` runs them where there is one, with torch and graphopt-runtime alone.

Times are those of kernels by the profiler, each of which is over before the next one is asked for. The peer is torch's
`scaled_dot_product_attention`, which takes cuDNN's for float16 and CUTLASS's for float32.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any, TypeAlias

import torch
from torch.nn import functional

from cuda_peers import Run, compile_model, do_half, error, kernels, ours, parser_of, show

Tensor: TypeAlias = torch.Tensor

TYPES = {"fp16": (torch.float16, "float16"), "fp32": (torch.float32, "float")}

OPSET = 23

TEXT = """<ir_version: 10, opset_import: ["" : {opset}]> g ({inputs}) => ({type}[{batch},{count},{heads},{size}] y)
<int64[4] s = {{{batch}, {count}, {heads}, {size}}}> {{
    a, b, c = Split<axis=2, num_outputs=3>(x)
    d = Reshape(a, s) e = Reshape(b, s) f = Reshape(c, s)
    q = Transpose<perm=[0,2,1,3]>(d) k = Transpose<perm=[0,2,1,3]>(e) v = Transpose<perm=[0,2,1,3]>(f)
    z = Attention({operands}) y = Transpose<perm=[0,2,1,3]>(z) }}"""


@dataclass(frozen=True)
class Case:
    """`heads` of `count` queries and as many keys, with `size` elements each; `masked` adds a row of numbers to all scores of a batch."""

    name: str
    batch: int
    heads: int
    count: int
    size: int
    masked: bool = False

    def path(self, folder: Path, kind: str) -> Path:
        return folder / f"{self.name}.{kind}.gopt"

    def model(self, kind: str) -> str:
        """As text of ONNX."""
        name = TYPES[kind][1]
        inputs = [f"{name}[{self.batch},{self.count},{3 * self.heads * self.size}] x"]
        inputs += [f"{name}[{self.batch},1,1,{self.count}] m"] if self.masked else []
        facts = {"batch": self.batch, "count": self.count, "heads": self.heads, "size": self.size}
        operands = "q, k, v, m" if self.masked else "q, k, v"
        return TEXT.format(opset=OPSET, type=name, inputs=", ".join(inputs), operands=operands, **facts)

    def operands(self, dtype: torch.dtype) -> list[Tensor]:
        generator = torch.Generator("cuda").manual_seed(3)
        shape = self.batch, self.count, 3 * self.heads * self.size
        x = torch.randn(shape, generator=generator, device="cuda").to(dtype)
        mask = torch.zeros(self.batch, 1, 1, self.count, device="cuda", dtype=dtype)
        mask[..., self.count * 3 // 4 :] = float("-inf")
        return [x, mask] if self.masked else [x]

    def split(self, x: Tensor) -> list[Tensor]:
        """Queries, keys and values."""
        shape = self.batch, self.count, self.heads, self.size
        return [part.view(shape).transpose(1, 2) for part in x.split(self.heads * self.size, -1)]


CASES = (
    Case("bert_base_b8", 8, 12, 128, 64),
    Case("bert_base_b8_masked", 8, 12, 128, 64, True),
    Case("vit_b16_b8", 8, 12, 197, 64),
    Case("minilm_b8", 8, 12, 128, 32),
    Case("bert_base_b1", 1, 12, 128, 64),
    Case("vit_b16_b1", 1, 12, 197, 64),
    Case("minilm_b1", 1, 12, 128, 32),
    Case("heads_of_128", 4, 16, 256, 128),
    Case("long", 1, 16, 2048, 64),
)


def build(folder: Path, cases: Sequence[tuple[Case, str]]) -> None:
    import onnx

    folder.mkdir(parents=True, exist_ok=True)
    for case, kind in cases:
        compile_model(onnx.parser.parse_model(case.model(kind)), case.path(folder, kind), "fp32")


def apart(run: Run) -> Run:
    """Calls that are over before the next one."""

    def call() -> None:
        run()
        torch.cuda.synchronize()

    return call


def measure_case(case: Case, kind: str, folder: Path) -> dict[str, Any]:
    dtype = TYPES[kind][0]
    x, *mask = case.operands(dtype)
    query, key, value = case.split(x)
    out = torch.full(
        (case.batch, case.count, case.heads, case.size), float("nan"), device="cuda", dtype=dtype
    )
    times = kernels(apart(ours(case.path(folder, kind), [x, *mask], out)))
    own = sum(time for name, time in times.items() if "copy" not in name)
    peer = sum(
        kernels(apart(lambda: functional.scaled_dot_product_attention(query, key, value, *mask))).values()
    )
    wide = (each.double() for each in (query, key, value, *mask))
    expected = functional.scaled_dot_product_attention(*wide).transpose(1, 2)
    operations = 4e-6 * case.batch * case.heads * case.count**2 * case.size
    row: dict[str, Any] = {"case": case.name, "type": kind, "us": own, "TFLOP/s": operations / own}
    return row | {"torch us": peer, "ratio": own / peer, "error": error(out, expected)}


def measure(folder: Path, cases: Sequence[tuple[Case, str]]) -> list[dict[str, Any]]:
    torch.backends.cuda.matmul.allow_tf32 = False
    print(torch.cuda.get_device_name(), "torch", torch.__version__)
    with torch.no_grad():
        return [
            show(measure_case(case, kind, folder)) for case, kind in cases if case.path(folder, kind).exists()
        ]


def main() -> None:
    parser = parser_of(__doc__ or "")
    parser.add_argument("names", nargs="*", help="parts of names of cases")
    parser.add_argument("--type", nargs="+", choices=TYPES, default=list(TYPES))
    chosen = parser.parse_args()
    named = [case for case in CASES if not chosen.names or any(name in case.name for name in chosen.names)]
    cases = list(product(named, chosen.type))
    do_half(chosen, lambda: build(chosen.folder, cases), lambda: measure(chosen.folder, cases))


if __name__ == "__main__":
    main()
