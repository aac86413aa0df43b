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
