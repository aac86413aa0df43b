"""Temporaries that live at the same time lie apart; equal constants lie together."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from graphopt.backends.codegen.memory import plan_memory, weights_blob
from graphopt.backends.codegen.program import ALIGNMENT, Buffer, Kernel, Program, Role


def kernel(*buffers: Buffer) -> Kernel:
    return Kernel("kernel", None, buffers, frozenset(buffers[:1]), "")


def constant(values: list[float]) -> Buffer:
    data = np.array(values, np.float32)
    return Buffer("constant", data.size, "float32", Role.CONSTANT, data)


@given(
    st.lists(st.tuples(st.integers(1, 500), st.integers(0, 9), st.integers(0, 9)), min_size=1, max_size=20)
)
def test_temporaries_that_live_together_do_not_overlap(lives: list[tuple[int, int, int]]) -> None:
    buffers = [Buffer(f"t{i}", size, "float32") for i, (size, _, _) in enumerate(lives)]
    spans = [sorted(life[1:]) for life in lives]
    steps = [
        kernel(*(b for b, (first, last) in zip(buffers, spans, strict=True) if clock in (first, last)))
        for clock in range(10)
    ]
    [plan] = plan_memory([Program([], [], steps)])
    for i, one in enumerate(buffers):
        assert plan.arena[one] % ALIGNMENT == 0
        assert plan.arena[one] + one.nbytes <= plan.arena_bytes
        for j, other in enumerate(buffers[:i]):
            if spans[i][0] <= spans[j][1] and spans[j][0] <= spans[i][1]:
                first, second = sorted((one, other), key=plan.arena.__getitem__)
                assert plan.arena[first] + first.nbytes <= plan.arena[second]


def test_variants_share_equal_constants() -> None:
    first, second = ([constant([1, 2, 3]), constant([]), constant([own])] for own in (4, 5))
    plans = plan_memory([Program([], [], [kernel(*constants)]) for constants in (first, second)])
    assert plans[0].weights[first[0]] == plans[1].weights[second[0]]
    assert plans[0].weights[first[2]] != plans[1].weights[second[2]]
    blob = weights_blob(plans[0])
    assert len(blob) == 3 * ALIGNMENT
    for buffer in (*first, *second):
        at = plans[0].weights[buffer]
        assert blob[at : at + buffer.nbytes] == buffer.data.tobytes()
