"""What the builder of kernels knows of lanes."""

import pytest
from tvm import ir, tirx

from graphopt.backends.codegen.builder import Expr, const
from graphopt.backends.codegen.program import Buffer
from graphopt.backends.cuda.builder import DeviceBuilder

SIZE = 1024


@pytest.fixture
def k() -> DeviceBuilder:
    return DeviceBuilder({})


@pytest.fixture
def x() -> Buffer:
    return Buffer("x", SIZE, "float32")


@pytest.fixture
def y() -> Buffer:
    return Buffer("y", SIZE, "float32")


def test_offsets_are_seen_through_names_and_divisions(k: DeviceBuilder, x: Buffer, y: Buffer) -> None:
    run = k.variable("run", SIZE // 4)

    def body(lane: Expr) -> None:
        flat = k.bind(run * 4 + lane)
        row, column = k.bind(tirx.op.truncdiv(flat, 32)), k.bind(tirx.op.truncmod(flat, 32))
        k.store(y, row * 32 + column, k.load(x, column) + k.load(x, row))

    lanes = k.rehearse(4, body)
    assert lanes is not None
    assert lanes.whole == [x, y]
    assert not lanes.scattered
    assert not lanes.scattered_writes


@pytest.mark.parametrize(("start", "step"), [(1, 1), (0, 2), (0, -1)])
def test_other_offsets_are_scattered(k: DeviceBuilder, x: Buffer, start: int, step: int) -> None:
    run = k.variable("run", 8)
    lanes = k.rehearse(4, lambda lane: k.bind(k.load(x, 8 + run * 4 + start + lane * step)))
    assert lanes is not None
    assert not lanes.whole
    assert len(lanes.scattered) == 1


def test_a_start_that_is_not_known_to_be_a_multiple_is_scattered(k: DeviceBuilder, x: Buffer) -> None:
    start = k.variable("start", 8)
    known = k.bind(start * 4)
    for offset, whole in (
        (start, False),
        (known, True),
        (k.bind(known + start * 8), True),
        (known + 2, False),
    ):
        lanes = k.rehearse(4, lambda lane, offset=offset: k.bind(k.load(x, offset + lane)))
        assert lanes is not None
        assert bool(lanes.whole) is whole


def test_a_condition_that_is_the_same_for_all_lanes_is_one_of_the_access(k: DeviceBuilder, x: Buffer) -> None:
    run = k.variable("run", 8)
    for limit, whole in ((16, True), (18, False)):

        def body(lane: Expr, limit: int = limit) -> None:
            position = run * 4 + lane
            k.bind(k.guard(position < limit, lambda: k.load(x, position), const(0.0, "float32")))

        lanes = k.rehearse(4, body)
        assert lanes is not None
        assert bool(lanes.whole) is whole


@pytest.mark.parametrize(("otherwise", "is_plain"), [(0.0, True), (1.0, False)])
def test_what_is_read_as_zero_elsewhere_needs_no_choice(
    k: DeviceBuilder, x: Buffer, otherwise: float, is_plain: bool
) -> None:
    run = k.variable("run", 8)
    found = []

    def body(lane: Expr) -> None:
        position = run * 4 + lane
        found.append(k.guard(position < 16, lambda: k.load(x, position), const(otherwise, "float32")))

    assert k.rehearse(4, body) is not None
    assert isinstance(found[0], ir.Call) is not is_plain


def test_reads_of_lanes_that_differ_are_chosen_from(k: DeviceBuilder, x: Buffer) -> None:
    run = k.variable("run", 8)
    found = []

    def body(lane: Expr) -> None:
        position = run * 4 + lane
        found.append(k.guard(position < 18, lambda: k.load(x, position), const(0.0, "float32")))

    assert k.rehearse(4, body) is not None
    assert isinstance(found[0], ir.Call)


@pytest.mark.parametrize("is_certain", [True, False])
def test_scattered_writes_under_conditions_are_uncertain(
    k: DeviceBuilder, x: Buffer, is_certain: bool
) -> None:
    place = k.variable("place", 8)

    def body(lane: Expr) -> None:
        with k.when(True if is_certain else place < 4):
            k.store(x, lane * 8 + place, const(0.0, "float32"))

    lanes = k.rehearse(4, body)
    assert lanes is not None
    (write,) = lanes.scattered_writes
    assert write.is_certain is is_certain
    assert lanes.linear(write.offset, [lanes.lane, place])[0] == (8, 1)


def test_what_is_stored_can_be_taken(k: DeviceBuilder, x: Buffer, y: Buffer) -> None:
    taken: list[Expr] = []
    with k.loop(4, "independent") as i, k.diverted(x, taken.append):
        k.store(x, i, const(1.0, "float32"))
        k.store(y, i, const(2.0, "float32"))
    assert [float(value) for value in taken] == [1.0]
    assert k.written == {y}


def test_loops_that_differ_between_lanes_are_refused(k: DeviceBuilder, x: Buffer) -> None:
    def body(lane: Expr) -> None:
        with k.loop(lane + 1) as i:
            k.bind(k.load(x, i))

    assert k.rehearse(4, body) is None


def test_loops_under_conditions_that_differ_between_lanes_are_refused(k: DeviceBuilder, x: Buffer) -> None:
    def body(lane: Expr) -> None:
        with k.when(lane < 2), k.loop(3) as i:
            k.store(x, i, const(0.0, "float32"))

    assert k.rehearse(4, body) is None


def test_a_rehearsal_leaves_nothing_behind(k: DeviceBuilder, x: Buffer) -> None:
    k.rehearse(4, lambda lane: k.store(x, lane, const(0.0, "float32")))
    assert not k.steps
    assert not k.written
    assert not k.functions


def test_runs_are_as_long_as_16_bytes_hold_of_the_smallest_elements(k: DeviceBuilder, x: Buffer) -> None:
    narrow = Buffer("narrow", SIZE, "float16")

    def widest(extent: int, *buffers: Buffer) -> int:
        return k.widest(extent, lambda p: [k.bind(k.load(buffer, p)) for buffer in buffers])

    assert widest(64, x) == 4
    assert widest(64, x, narrow) == 8
    assert widest(12, narrow) == 4
    assert widest(13, narrow) == 1
