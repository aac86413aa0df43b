"""What kernels need to know of the core that they run on."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Core:
    """`lanes` is the number of float32 lanes of a vector register, and the block of blocked layouts."""

    lanes: int
    registers: int
    """Vector registers."""
    multiply: str = ""
    """The instruction that convolutions and products consist of."""
    by_lane: bool = False
    """Whether that instruction takes a lane of a register as its scalar; elsewhere scalars are broadcast as they are loaded."""
    vector_cycles: float = 2.2
    """Cycles to load a vector from the second-level cache."""


SSE = Core(4, 16, "mulps, addps xmm")
AVX2 = Core(8, 16, "vfmadd ymm")
AVX512 = Core(16, 32, "vfmadd zmm")
NEON = Core(4, 32, "fmla v, by lane", by_lane=True, vector_cycles=0.6)
ARM32 = Core(4, 16, "vfma q", vector_cycles=0.6)
SVE512 = Core(16, 32, "fmla z")
SCALAR = Core(4, 8, "fmadd", vector_cycles=2.0)
"""32 registers of one float32 each, in which LLVM keeps vectors of four."""
