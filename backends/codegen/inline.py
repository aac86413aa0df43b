"""Functions in LLVM's own language, for instructions whose operands have types that TIR cannot name. LLVM puts their bodies in
place of the calls.
"""

from __future__ import annotations

from dataclasses import dataclass

PAIR = 2
"""Halves of a word of 32 bits."""

_PAIRS = """
define <{lanes} x float> @{name}(<{lanes} x float> %sums, <{lanes} x float> %left, <{lanes} x float> %right) alwaysinline {{
  %a = bitcast <{lanes} x float> %left to <{halves} x {element}>
  %b = bitcast <{lanes} x float> %right to <{halves} x {element}>
  %total = call <{lanes} x float> @{intrinsic}(<{lanes} x float> %sums, <{halves} x {element}> %a, <{halves} x {element}> %b)
  ret <{lanes} x float> %total
}}
declare <{lanes} x float> @{intrinsic}(<{lanes} x float>, <{halves} x {element}>, <{halves} x {element}>)
"""

_WIDENING = """
define <{lanes} x float> @{name}(<{lanes} x float> %sums, <{lanes} x half> %left, <{lanes} x half> %right) alwaysinline {{
  %low = shufflevector <{lanes} x float> %sums, <{lanes} x float> poison, <{half} x i32> <{lower}>
  %high = shufflevector <{lanes} x float> %sums, <{lanes} x float> poison, <{half} x i32> <{upper}>
  %a = call <{half} x float> @llvm.aarch64.neon.{instruction}.v{half}f32.v{lanes}f16(<{half} x float> %low, <{lanes} x half> %left, <{lanes} x half> %right)
  %b = call <{half} x float> @llvm.aarch64.neon.{instruction}2.v{half}f32.v{lanes}f16(<{half} x float> %high, <{lanes} x half> %left, <{lanes} x half> %right)
  %total = shufflevector <{half} x float> %a, <{half} x float> %b, <{lanes} x i32> <{lower}, {upper}>
  ret <{lanes} x float> %total
}}
declare <{half} x float> @llvm.aarch64.neon.{instruction}.v{half}f32.v{lanes}f16(<{half} x float>, <{lanes} x half>, <{lanes} x half>)
declare <{half} x float> @llvm.aarch64.neon.{instruction}2.v{half}f32.v{lanes}f16(<{half} x float>, <{lanes} x half>, <{lanes} x half>)
"""


@dataclass(frozen=True)
class Inline:
    """A function: its name, and its definition in LLVM's language."""

    name: str
    definition: str


def pair_products(intrinsic: str, element: str, lanes: int) -> Inline:
    """`(sums, left, right)` to the sums with the products of pairs: float32 lanes, and words of two `element`s each as lanes of
    float32 too, which is the type for which LLVM multiplies by a lane on ARM."""
    name = f"graphopt_pairs_{element}_x{lanes}"
    facts = {"name": name, "intrinsic": intrinsic, "element": element, "lanes": lanes, "halves": PAIR * lanes}
    return Inline(name, _PAIRS.format(**facts))


def widening_sum(instruction: str, lanes: int) -> Inline:
    """`(sums, left, right)` to the sums with the products of float16 lanes, by an instruction for the lower lanes and one, whose name
    ends in 2, for the upper ones."""
    name, half = f"graphopt_widened_x{lanes}", lanes // 2
    lower, upper = (", ".join(f"i32 {i}" for i in part) for part in (range(half), range(half, lanes)))
    facts = {"name": name, "instruction": instruction, "lanes": lanes, "half": half}
    return Inline(name, _WIDENING.format(**facts, lower=lower, upper=upper))
