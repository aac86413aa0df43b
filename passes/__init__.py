"""Model to model: the passes by name, and the presets that combine them."""

from graphopt.passes.cleanup import Cleanup
from graphopt.passes.codes import Decode
from graphopt.passes.control import InlineIf
from graphopt.passes.expand import Expand
from graphopt.passes.fold import Fold
from graphopt.passes.fuse import Fuse
from graphopt.passes.opset import ConvertOpset
from graphopt.passes.precision import Precision
from graphopt.passes.products import MergeProducts
from graphopt.passes.shapes import Shapes
from graphopt.rewriting.pipeline import Pass, Repeat

PASSES: dict[str, type[Pass]] = {
    "cleanup": Cleanup,
    "convert-opset": ConvertOpset,
    "decode": Decode,
    "expand": Expand,
    "fold": Fold,
    "fuse": Fuse,
    "inline-if": InlineIf,
    "merge-products": MergeProducts,
    "precision": Precision,
    "shapes": Shapes,
}

SIMPLIFY: tuple[Pass, ...] = (Shapes(), InlineIf(), Cleanup())
"""Bit for bit lossless, apart from what constant folding rounds."""

COMPILED_GROWTH = 1 << 28
"""Bytes by which folding one operator may enlarge a model that is about to be compiled."""

PRESETS: dict[str, tuple[Pass, ...]] = {
    "O0": (),
    "O1": SIMPLIFY,
    "O2": (*SIMPLIFY, Fuse()),
    "O3": (
        Shapes(max_growth=COMPILED_GROWTH),
        InlineIf(),
        Cleanup(),
        Fuse(for_compile=True),
        MergeProducts(),
    ),
}
"""Each is repeated until nothing changes. O3 is for compiling only: it uses operators of the domain ``graphopt``, and folds
large constants as well, since kernels want their weights at hand."""


def preset(name: str) -> list[Pass]:
    """The passes of a preset, ready to run: O0 does nothing, O1 simplifies, O2 fuses, O3 fuses for the compiler.

    Raises ``KeyError`` for an unknown name.
    """
    passes = PRESETS[name]
    return [Repeat(passes)] if passes else []
