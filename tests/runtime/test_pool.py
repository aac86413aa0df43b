"""The thread pool in csrc: launches, barriers, errors, spinning and sleeping, forks."""

import os
import resource
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

KERNEL_FAILED = 3
ASLEEP_S = 0.05
"""Seconds after which an idle worker has stopped spinning."""

MakeProbes = Callable[[int], Any]


def threads_in_process() -> int:
    return len(os.listdir("/proc/self/task"))


@pytest.mark.parametrize("threads", [1, 2, 3, 8])
def test_a_launch_without_a_count_has_one_task_per_thread(probes: MakeProbes, threads: int) -> None:
    status, out = probes(threads).run("count", 0)
    assert status == 0
    assert out == [threads] * threads + [0] * (64 - threads)


@pytest.mark.parametrize(("threads", "tasks"), [(1, 5), (2, 5), (3, 2), (4, 4), (4, 64)])
def test_every_task_of_a_counted_launch_runs(probes: MakeProbes, threads: int, tasks: int) -> None:
    status, out = probes(threads).run("count", tasks)
    assert status == 0
    assert out == [tasks] * tasks + [0] * (64 - tasks)


@pytest.mark.parametrize("threads", [1, 2, 3, 8])
@pytest.mark.parametrize("units", [1, 2, 7, 64, 65, 100, 1000, 4096, 99_991])
def test_every_announced_unit_is_computed_once(probes: MakeProbes, threads: int, units: int) -> None:
    pool = probes(threads)
    expected = [len(range(first, units, 64)) for first in range(64)]
    for _ in range(5):
        assert pool.run("units", units) == (0, expected)


@pytest.mark.parametrize("threads", [2, 3])
def test_threads_take_over_the_units_of_one_that_is_held_up(probes: MakeProbes, threads: int) -> None:
    status, out = probes(threads).run("hold_first", 16)
    assert status == 0
    assert out[:3] == [15, 1, 15]


def test_an_announcement_holds_for_one_launch(probes: MakeProbes) -> None:
    pool = probes(3)
    assert pool.run("units", 50)[0] == 0
    assert pool.run("count", 0)[1][:4] == [3, 3, 3, 0]


@pytest.mark.parametrize("threads", [2, 5])
def test_tasks_meet_at_barriers_on_threads_of_their_own(probes: MakeProbes, threads: int) -> None:
    status, out = probes(threads).run("meet")
    assert status == 0
    assert len(set(out[:threads])) == threads
    assert out[32 : 32 + threads] == [threads] * threads


def test_a_barrier_among_more_tasks_than_threads_fails_instead_of_hanging(probes: MakeProbes) -> None:
    assert probes(2).run("meet_some", 3)[0] == KERNEL_FAILED
    assert probes(1).run("meet_some", 2)[0] == KERNEL_FAILED


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="needs two CPUs")
def test_a_worker_is_not_woken_on_the_cpu_of_its_leader(probes: MakeProbes) -> None:
    before = set(os.listdir("/proc/self/task"))
    pool, allowed = probes(2), os.sched_getaffinity(0)
    pool.run("meet")
    [worker] = {int(task) for task in os.listdir("/proc/self/task")} - {int(task) for task in before}
    try:
        for _ in range(3):
            time.sleep(ASLEEP_S)
            cpu = last_cpu(worker)
            os.sched_setaffinity(0, {cpu})
            assert pool.run("meet")[0] == 0
            assert os.sched_getaffinity(worker) == allowed - {cpu}
    finally:
        os.sched_setaffinity(0, allowed)


def last_cpu(thread: int) -> int:
    """The CPU that a thread runs on, or last did."""
    return int(Path(f"/proc/self/task/{thread}/stat").read_text().rpartition(")")[2].split()[36])


def test_nested_launches_run_serially(probes: MakeProbes) -> None:
    pool = probes(3)
    assert pool.run("nested", 0) == (0, [0] * 8 + [1] + [0] * 55)
    assert pool.run("nested", 4) == (0, [0] * 8 + [4] * 4 + [0] * 52)
    assert pool.run("count", 0)[1][:4] == [3, 3, 3, 0]


@pytest.mark.parametrize("task", range(3))
def test_a_failing_task_fails_the_run_and_not_the_next(probes: MakeProbes, task: int) -> None:
    pool = probes(3)
    assert pool.run("fail", task)[0] == KERNEL_FAILED
    assert pool.run("fail", 99)[0] == 0


def test_a_serial_failure_is_reported_too(probes: MakeProbes) -> None:
    assert probes(1).run("fail", 0)[0] == KERNEL_FAILED


def test_a_task_that_fails_before_a_barrier_releases_those_that_wait(probes: MakeProbes) -> None:
    pool = probes(3)
    for _ in range(20):
        assert pool.run("fail_before_barrier", 1)[0] == KERNEL_FAILED
        assert pool.run("meet")[0] == 0


def test_kernels_get_aligned_workspaces(probes: MakeProbes) -> None:
    assert probes(2).run("workspace") == (0, [1, 1] + [0] * 62)


@pytest.mark.parametrize("threads", [1, 2])
def test_a_kernel_without_memory_fails_the_run(probes: MakeProbes, threads: int) -> None:
    pool = probes(threads)
    assert pool.run("too_much")[0] == KERNEL_FAILED
    assert pool.run("count")[0] == 0


def test_workers_start_with_the_first_launch_and_end_with_the_handle(probes: MakeProbes) -> None:
    before = threads_in_process()
    pool = probes(4)
    assert threads_in_process() == before
    pool.run("count")
    assert threads_in_process() == before + 3
    del pool
    assert threads_in_process() == before


def test_a_system_that_grants_fewer_threads_gets_fewer(probes: MakeProbes) -> None:
    pool = probes(60)
    child = os.fork()
    if child == 0:
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        limit = pages * resource.getpagesize() + (64 << 20)
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
        status, out = pool.run("count")
        tasks = out[0]
        os._exit(0 if status == 0 and 1 <= tasks < 60 and out[:tasks] == [tasks] * tasks else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_the_number_of_threads_changes_while_idle(probes: MakeProbes) -> None:
    pool = probes(2)
    before = threads_in_process()
    for threads in (4, 1, 3, 2):
        pool.library.set_threads(pool.handle.address, threads)
        assert pool.run("meet")[1][32 : 32 + threads] == ([threads] * threads if threads > 1 else [1])
        assert threads_in_process() == before + threads - 1


def test_the_number_of_threads_changes_while_others_run(probes: MakeProbes) -> None:
    pool = probes(2)
    failures: list[int] = []
    stop = threading.Event()

    def hammer() -> None:
        while not stop.is_set():
            status = pool.run("workspace")[0]
            failures.extend([status] if status else [])

    threads = [threading.Thread(target=hammer) for _ in range(3)]
    for thread in threads:
        thread.start()
    for count in [1, 3, 2, 4] * 5:
        pool.library.set_threads(pool.handle.address, count)
    stop.set()
    for thread in threads:
        thread.join()
    assert failures == []


def test_passive_workers_sleep_at_once_and_still_work(probes: MakeProbes) -> None:
    pool = probes(2)
    pool.library.set_passive(pool.handle.address, 1)
    for _ in range(20):
        assert pool.run("meet")[0] == 0
        assert pool.run("nap")[0] == 0
    pool.library.set_passive(pool.handle.address, 0)
    assert pool.run("meet")[0] == 0


def test_workers_that_fell_asleep_wake_up(probes: MakeProbes) -> None:
    pool = probes(2)
    for _ in range(5):
        assert pool.run("meet")[0] == 0
        threading.Event().wait(0.01)


def threads_that_block(number: signal.Signals) -> int:
    masks = []
    for task in Path("/proc/self/task").iterdir():
        lines = (task / "status").read_text().splitlines()
        masks.append(next(int(line.split()[1], 16) for line in lines if line.startswith("SigBlk")))
    return sum(mask >> (number - 1) & 1 for mask in masks)


def test_workers_leave_signals_to_the_program(probes: MakeProbes) -> None:
    before = threads_that_block(signal.SIGINT)
    pool = probes(3)
    pool.run("meet")
    assert threads_that_block(signal.SIGINT) == before + 2


@pytest.mark.parametrize("started", [False, True], ids=["before", "after"])
def test_a_forked_child_gets_workers_of_its_own(probes: MakeProbes, started: bool) -> None:
    pool = probes(3)
    if started:
        pool.run("meet")
    child = os.fork()
    if child == 0:
        signal.alarm(20)
        works = all(pool.run("meet")[0] == 0 for _ in range(10))
        os._exit(0 if works and threads_in_process() == 3 else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert pool.run("meet")[0] == 0


def test_a_fork_in_the_middle_of_launches_leaves_both_sides_working(probes: MakeProbes) -> None:
    pool = probes(2)
    stop = threading.Event()

    def hammer() -> None:
        while not stop.is_set():
            pool.run("nap")

    other = threading.Thread(target=hammer)
    other.start()
    codes = []
    for _ in range(5):
        child = os.fork()
        if child == 0:
            signal.alarm(20)
            os._exit(0 if pool.run("meet")[0] == 0 else 1)
        codes.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    stop.set()
    other.join()
    assert codes == [0] * 5
    assert pool.run("meet")[0] == 0
