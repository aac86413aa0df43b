"""What kernels need to know of the core that they run on."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum, auto

from graphopt.backends.kernels.speed import CORTEX_A72, ZEN5, Speed


class Scalars(Enum):
    """How the scalars of a step get to its multiply-adds."""

    BROADCAST = auto()
    """Each is broadcast as it is loaded."""
    LANES = auto()
    """As lanes of registers, each of which has those of one row or pixel for several steps."""
    LOW_LANES = auto()
    """The same, where instructions reach the lanes of half of the registers alone."""
    RUNS = auto()
    """As lanes of registers, each of which has those of several pixels for one step."""
    PAIRS = auto()
    """As registers that an instruction fills with those of two rows or pixels."""
    PACKED = auto()
    """As registers with those of two rows, which lie next to each other in memory."""


@dataclass(frozen=True)
class Dot:
    """How a core adds the products of four bytes of activations and four of weights to every int32 lane of a vector.

    Weights are int8. `signed` says whether activations are too, or uint8; `pairs` whether products are of int16 instead, two at
    a time, so that none can overflow. Where activations are lanes, they are the last operand.
    """

    instruction: str
    intrinsic: str
    """LLVM's name of it."""
    signed: bool = False
    pairs: bool = False
    rows: Scalars = Scalars.BROADCAST
    pixels: Scalars = Scalars.BROADCAST
    """How activations get to it in products, and in convolutions."""

    @property
    def by_lane(self) -> bool:
        """Whether it takes a lane of a register as its activations."""
        return self.rows is Scalars.LANES


@dataclass(frozen=True)
class MatrixDot(Dot):
    """How a core multiplies two rows of eight bytes of activations by two columns of eight weights, and adds the four products
    of row and column to the lanes of a vector. `intrinsic` is that for int8, `unsigned` that for uint8."""

    unsigned: str = ""


@dataclass(frozen=True)
class HalfDot:
    """How a core adds the products of two halves of activations and two of weights to every float32 lane of a vector."""

    instruction: str
    intrinsic: str
    """LLVM's name of it."""
    element: str = "bfloat"
    """LLVM's name of the type of a half."""
    dtype: str = "bfloat16"
    """Of a half."""
    terms: int = 0
    """Products that are added in halves at most."""


@dataclass(frozen=True)
class NarrowSum:
    """How a core multiplies float16 and adds in float16, in vectors of twice as many lanes; after `terms` products at most sums are added
    to others of float32."""

    instruction: str
    widening: str = ""
    """The instruction that adds products of float16 to float32; without, sums are converted first."""
    terms: int = 72
    dtype: str = "float16"
    """Of a half."""


DEFAULT_CACHE = 1 << 20
"""Of cores without an entry of their own: that of Zen 5, for which kernels were measured."""


@dataclass(frozen=True)
class Lookup:
    """How a core looks float32 numbers up in registers: LLVM's names of what takes as many numbers as a vector has lanes, and twice as
    many. Indices are int32, of which only as many low bits as are needed count."""

    one: str
    two: str


@dataclass(frozen=True)
class Core:
    """`lanes` is the number of float32 lanes of a vector register, and the block of blocked layouts."""

    lanes: int
    registers: int
    """Vector registers."""
    multiply: str = ""
    """The instruction that convolutions and products consist of."""
    scalars: Scalars = Scalars.BROADCAST
    speed: Speed = ZEN5
    dot: Dot | None = None
    """None where products of bytes are computed as those of float32 or int32."""
    half: HalfDot | NarrowSum | None = None
    """None where products of halves are computed as those of float32."""
    float16: NarrowSum | None = None
    """What takes the place of `half` where float16 is asked for."""
    cache: int = DEFAULT_CACHE
    """Bytes of a second-level cache that a core has to itself, by which kernels cut what they read again and again."""
    lookup: Lookup | None = None
    """None where weights of few values are kept as floats."""

    @property
    def by_lane(self) -> bool:
        """Whether multiply-adds of float32 take a lane of a register as their scalar."""
        return self.scalars is Scalars.LANES


SSE = Core(4, 16, "mulps, addps xmm")
AVX2 = Core(8, 16, "vfmadd ymm", dot=Dot("vpmaddwd ymm", "llvm.x86.avx2.pmadd.wd", pairs=True))
AVX_VNNI = Core(8, 16, "vfmadd ymm", dot=Dot("vpdpbusd ymm", "llvm.x86.avx512.vpdpbusd.256"))
AVX512 = Core(
    16,
    32,
    "vfmadd zmm",
    dot=Dot("vpmaddwd zmm", "llvm.x86.avx512.pmaddw.d.512", pairs=True),
    lookup=Lookup("llvm.x86.avx512.permvar.sf.512", "llvm.x86.avx512.vpermi2var.ps.512"),
)
AVX512_VNNI = replace(AVX512, dot=Dot("vpdpbusd zmm", "llvm.x86.avx512.vpdpbusd.512"))
AVX512_BF16 = replace(AVX512_VNNI, half=HalfDot("vdpbf16ps zmm", "llvm.x86.avx512bf16.dpbf16ps.512"))
NEON = Core(4, 32, "fmla v, by lane", scalars=Scalars.LANES, speed=CORTEX_A72)
NARROW = NarrowSum("fmla v.8h, by lane")
NARROW_FML = replace(NARROW, widening="fmlal", terms=40)
NEON_DOT = replace(
    NEON,
    float16=NARROW,
    dot=Dot(
        "sdot v, by lane",
        "llvm.aarch64.neon.sdot.v4i32.v16i8",
        signed=True,
        rows=Scalars.LANES,
        pixels=Scalars.RUNS,
    ),
)
NEON_I8MM = replace(
    NEON,
    float16=NARROW_FML,
    dot=MatrixDot(
        "smmla v, usmmla v",
        "llvm.aarch64.neon.smmla.v4i32.v16i8",
        rows=Scalars.PACKED,
        pixels=Scalars.PAIRS,
        unsigned="llvm.aarch64.neon.usmmla.v4i32.v16i8",
    ),
)
NEON_BF16 = replace(NEON_I8MM, half=HalfDot("bfdot v", "llvm.aarch64.neon.bfdot.v4f32.v8bf16"))
ARM32 = Core(4, 16, "vfma q", speed=replace(ZEN5, far_load=0.6))
SVE512 = Core(16, 32, "fmla z")
GPU = Core(1, 255, "FFMA")
"""A thread of a GPU, which has no vectors."""
GPU_HOPPER = replace(GPU, multiply="FFMA, HGMMA")
"""One whose tensor cores are fed from shared memory."""
SCALAR = Core(4, 8, "fmadd", speed=replace(ZEN5, far_load=2.0))
"""32 registers of one float32 each, in which LLVM keeps vectors of four."""
