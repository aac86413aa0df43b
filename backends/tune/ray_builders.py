"""Builds candidates on the hosts of a Ray cluster, one library a CPU. Needs the extra `graphopt[ray]`."""

from __future__ import annotations

import os
import pickle
import sys
import tempfile
import warnings
from collections.abc import Callable, Sequence
from contextlib import ExitStack, redirect_stdout
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

from graphopt.backends.codegen.toolchain import runtime_objects
from graphopt.backends.tune.builders import Builders, Job
from graphopt.backends.tune.database import versions
from graphopt.backends.tune.protocol import Built
from graphopt.errors import TuningError

LOCAL = "local"

SILENCE_S = 600.0
"""How long a library may stay away, however busy the cluster is. What builds it gives up long before."""

Answer = tuple[bytes, Built] | None
"""The bytes of a library and what is in it, or None where it could not be built."""


class RayBuilders:
    """A context manager over a cluster: `auto` for the one this machine is part of, `ray://HOST:PORT`, or `local`, which
    starts workers on this machine alone."""

    def __init__(self, address: str) -> None:
        """Raises TuningError without Ray, or without a cluster that can build."""
        self._address, self._ray = address, _import_ray()
        with ExitStack() as stack:
            # Ray tells of workers that it lost on standard output, which belongs to `--json -`.
            stack.enter_context(redirect_stdout(sys.stderr))
            self._connect()
            stack.callback(self._ray.shutdown)
            self.count = int(self._ray.cluster_resources().get("CPU", 0))
            if not self.count:
                raise TuningError(f"the Ray cluster at {address} has no CPUs")
            self._build = self._ray.remote(num_cpus=1, max_retries=0)(portable())
            self._stack = stack.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def build(self, jobs: Sequence[Job]) -> list[Built | None]:
        """A library for each job, or None where it could not be built. Raises TuningError for a host that can build none."""
        answers = [self._build.remote(pickle.dumps(job), versions()) for job in jobs]
        return [self._receive(answer, job.path) for answer, job in zip(answers, jobs, strict=True)]

    def _receive(self, answer: Any, path: Path) -> Built | None:
        failures = self._ray.exceptions
        try:
            library: Answer = self._ray.get(answer, timeout=SILENCE_S)
        except failures.GetTimeoutError as error:
            raise TuningError(
                f"the Ray cluster at {self._address} built nothing for {SILENCE_S:g} s"
            ) from error
        except failures.RayTaskError as error:
            raise TuningError(f"a host of the Ray cluster cannot build: {error.cause}") from error
        except ConnectionError as error:
            raise TuningError(f"the Ray cluster at {self._address} is gone") from error
        except failures.RayError:  # a host or a worker is lost, not the others
            return None
        if library is None:
            return None
        content, built = library
        path.write_bytes(content)
        return replace(built, path=path)

    def _connect(self) -> None:
        if self._address not in ("auto", LOCAL) and not self._address.startswith("ray://"):
            raise TuningError(
                f"{self._address!r} is no address of Ray: give auto, {LOCAL} or ray://HOST:PORT"
            )
        own: dict[str, Any] = {}
        if self._address == LOCAL:
            os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
            own = {"num_cpus": len(os.sched_getaffinity(0)), "include_dashboard": False}
        try:
            with warnings.catch_warnings(action="ignore"):
                self._ray.init(self._address, log_to_driver=False, logging_level="ERROR", **own)
        except (OSError, RuntimeError, ValueError, self._ray.exceptions.RayError) as error:
            raise TuningError(f"no Ray cluster can be used at {self._address}: {error}") from error


def _import_ray() -> Any:
    try:
        import ray
    except ImportError as error:
        raise TuningError("Ray is not installed: pip install graphopt[ray]") from error
    return ray


def portable() -> Callable[[bytes, str], Answer]:
    """What is sent to hosts. As a nested function it travels whole, and so says what a host lacks even where that is graphopt."""

    def build_if_same(job: bytes, wanted: str) -> Answer:
        import platform

        try:
            from graphopt.backends.tune.database import versions

            if (found := versions()) != wanted:
                raise RuntimeError(f"it has {found}, the machine that measures has {wanted}")

            from graphopt.backends.tune.ray_builders import build_here

            return build_here(job)
        except Exception as error:
            raise RuntimeError(f"{platform.node()}: {error}") from error

    return build_if_same


def build_here(packed: bytes) -> Answer:
    """Build a pickled job on this host. Raises TargetError without a C compiler for the target.

    A forked process builds, so that candidates that end or hang it cost no worker of Ray, which has imported TVM.
    """
    job: Job = pickle.loads(packed)
    runtime_objects(job.target.compiler)  # once for all processes to be forked, and a test of the C compiler
    with tempfile.TemporaryDirectory(prefix="graphopt-tune-") as folder, Builders(1) as builders:
        (built,) = builders.build([replace(job, path=Path(folder) / "candidates.so")])
        return None if built is None else (built.path.read_bytes(), built)
