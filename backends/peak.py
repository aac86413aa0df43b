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

from graphopt.backends.kernels.core import Core
from graphopt.backends.kernels.quads import QUAD
from graphopt.errors import TargetError
from graphopt.timing.layers import Peak

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

#ifdef DOT
typedef int integers __attribute__((vector_size(BYTES)));
#define SET(i) integers d##i = {i};
#define DOTS(i) __asm__ volatile(DOT : "+" REGISTER(d##i) : REGISTER(b), REGISTER(a));
#define SUM(i) a += d##i;
int dot(long n) {
    integers a = {1}, b = {1};
    EACH(SET)
    for (long k = 0; k < n; k++) { EACH(DOTS) }
    EACH(SUM)
    return a[0];
}
#endif

float read_all(const float *data, long n) {
    vector sum[8] = {{0}};
    const vector *v = (const vector *)data;
    for (long k = 0; k < n * 4 / BYTES; k += 8)
        for (int i = 0; i < 8; i++) sum[i] += v[k + i];
    for (int i = 1; i < 8; i++) sum[0] += sum[i];
    return sum[0][0];
}
"""
DOTS = {
    "vpdpbusd zmm": ("vpdpbusd %2, %1, %0", "v"),
    "vpdpbusd ymm": ("%{vex%} vpdpbusd %2, %1, %0", "x"),
    "sdot v": ("sdot %0.4s, %1.16b, %2.16b", "w"),
}
"""How C compilers write instructions that multiply four bytes a lane, and their name for its registers."""

CHAINS = 12
ROUNDS = 2_000_000
READ_BYTES = 1 << 27
REPEATS = 20


def measure_peak(threads: int, core: Core, cc: str = "cc") -> Peak:
    """The best of a few runs with all threads at once; takes about a second. Raises TargetError without a C compiler."""
    lanes, dot = core.lanes, DOTS.get(core.dot.instruction if core.dot is not None else "")
    with tempfile.TemporaryDirectory() as folder:
        library = _compiled(Path(folder), lanes, dot, cc)
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
        integers = None if dot is None else _best(pool, threads, lambda i: library.dot(ctypes.c_long(ROUNDS)))
    operations = 2 * CHAINS * lanes * ROUNDS * threads / 1e9
    return Peak(
        operations / compute,
        READ_BYTES * threads / read / 1e9,
        None if integers is None else QUAD * operations / integers,
    )


def _compiled(folder: Path, lanes: int, dot: tuple[str, str] | None, cc: str) -> ctypes.CDLL:
    (folder / "peak.c").write_text(SOURCE)
    command = [cc, "-O3", "-march=native", "-ffp-contract=fast", f"-DBYTES={4 * lanes}", "-shared", "-fPIC"]
    if dot is not None:
        command += [f'-DDOT="{dot[0]}"', f'-DREGISTER="{dot[1]}"']
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
