import pytest

from graphopt.backends.codegen.builder import const
from graphopt.backends.codegen.program import Buffer, Launch, Program, Role
from graphopt.backends.cuda.builder import DeviceBuilder
from graphopt.backends.cuda.compiler import compile_for_device
from graphopt.backends.cuda.functions import FEW, MOST_ARGUMENTS, SMALL, THREADS, device_functions
from graphopt.backends.lower.operator import Refused
from graphopt.errors import TargetError

OUT = Buffer("out", 1 << 20, "float32")


def fill(k: DeviceBuilder, extent: int, kind: str = "parallel") -> None:
    with k.loop(extent, kind) as i:
        k.store(OUT, i, const(1.0, "float32"))


def launches(k: DeviceBuilder) -> list[Launch | None]:
    return [function.launch for function in device_functions(k)]


def test_every_outermost_independent_loop_is_a_launch() -> None:
    k = DeviceBuilder({})
    fill(k, 100)
    fill(k, FEW + 1, "independent")
    fill(k, 0)
    assert launches(k) == [Launch(4, SMALL), Launch(FEW // THREADS + 1, THREADS)]


def test_other_statements_run_in_order_on_one_thread() -> None:
    k = DeviceBuilder({})
    fill(k, 100)
    k.store(OUT, 0, const(2.0, "float32"))
    assert launches(k) == [Launch(1, 1)]


def test_a_team_has_a_block_for_every_iteration() -> None:
    k = DeviceBuilder({})
    with k.loop(7, "independent") as i:
        k.store(OUT, i * 64 + k.team(64), const(1.0, "float32"))
    assert launches(k) == [Launch(7, 64)]


def test_too_many_buffers_are_refused() -> None:
    k = DeviceBuilder({})
    with k.loop(7, "independent") as i:
        for number in range(MOST_ARGUMENTS + 1):
            k.store(Buffer(f"out{number}", 7, "float32"), i, const(1.0, "float32"))
    with pytest.raises(Refused, match="more than 256"):
        device_functions(k)


def test_models_of_too_many_tensors_are_refused() -> None:
    tensors = [Buffer(f"x{number}", 1, "float32", Role.INPUT) for number in range(MOST_ARGUMENTS + 1)]
    with pytest.raises(TargetError, match="at most 256"):
        compile_for_device([Program(tensors, [], [])], [], "sm_80", "cc", lambda stage: None)


def test_teams_among_other_statements_are_refused() -> None:
    k = DeviceBuilder({})
    with k.loop(7, "independent") as i:
        k.store(OUT, i * 64 + k.team(64), const(1.0, "float32"))
    k.store(OUT, 0, const(2.0, "float32"))
    with pytest.raises(Refused, match="teams"):
        device_functions(k)
