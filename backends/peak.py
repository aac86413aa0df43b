"""What this machine can do at most, measured: multiply-adds from registers, and bytes read from memory."""

from __future__ import annotations

import ctypes
import os
import subprocess
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from graphopt.errors import TargetError
from graphopt.layers import Peak

SOURCE = """
typedef float vector __attribute__((vector_size(BYTES)));

/* 12 chains of multiply-adds, enough to hide their latency; returns something of each. */
#define EACH(DO) DO(0) DO(1) DO(2) DO(3) DO(4) DO(5) DO(6) DO(7) DO(8) DO(9) DO(10) DO(11)
#define START(i) vector c##i = {i};
#define STEP(i) c##i = c##i * b + a;
#define TOTAL(i) a += c##i;
float multiply_add(long n, float first, float second) {
    vector a = first - (vector){0}, b = second - (vector){0};
    EACH(START)
    for (long k = 0; k < n; k++) { EACH(STEP) }
    EACH(TOTAL)
    return a[0];
}

float read_all(const float *data, long n) {
    vector sum[8] = {{0}};
    const vector *v = (const vector *)data;
    for (long k = 0; k < n * 4 / BYTES; k += 8)
        for (int i = 0; i < 8; i++) sum[i] += v[k + i];
    for (int i = 1; i < 8; i++) sum[0] += sum[i];
    return sum[0][0];
}
"""
CHAINS = 12
ROUNDS = 2_000_000
READ_BYTES = 1 << 27
REPEATS = 20


def measure_peak(threads: int, lanes: int, cc: str = "cc") -> Peak:
    """The best of a few runs with all threads at once; takes about a second. Raises TargetError without a C compiler."""
    with tempfile.TemporaryDirectory() as folder:
        library = _compiled(Path(folder), lanes, cc)
    data = [np.ones(READ_BYTES // 4, np.float32) for _ in range(threads)]
    with ThreadPoolExecutor(threads) as pool:
        compute = _best(
            pool,
            threads,
            lambda i: library.multiply_add(ctypes.c_long(ROUNDS), ctypes.c_float(0.5), ctypes.c_float(0.5)),
        )
        read = _best(
            pool,
            threads,
            lambda i: library.read_all(ctypes.c_void_p(data[i].ctypes.data), ctypes.c_long(data[i].size)),
        )
    flops = 2 * CHAINS * lanes * ROUNDS * threads
    return Peak(flops / compute / 1e9, READ_BYTES * threads / read / 1e9)


def _compiled(folder: Path, lanes: int, cc: str) -> ctypes.CDLL:
    (folder / "peak.c").write_text(SOURCE)
    command = [cc, "-O3", "-march=native", "-ffp-contract=fast", f"-DBYTES={4 * lanes}", "-shared", "-fPIC"]
    try:
        subprocess.run(
            [*command, "peak.c", "-o", "peak.so"],
            cwd=folder,
            check=True,
            capture_output=True,
            env={**os.environ, "TMPDIR": str(folder)},
        )
    except (OSError, subprocess.CalledProcessError) as error:
        raise TargetError(f"the peak of this machine cannot be measured: {error}") from error
    return ctypes.CDLL(str(folder / "peak.so"))


def _best(pool: ThreadPoolExecutor, threads: int, work: Callable[[int], object]) -> float:
    """Seconds of the fastest of a few rounds in which every thread works."""

    def once() -> float:
        started = time.perf_counter()
        list(pool.map(work, range(threads)))
        return time.perf_counter() - started

    return min(once() for _ in range(REPEATS))
