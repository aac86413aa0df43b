"""How near the rule for tiles on tensor cores comes to what a search on a GPU measured, and the constants of its model that fit best.

`python benchmarks/cuda_tiles.py model.tune [--fit]`, for which no GPU is needed: a database of `graphopt tune` tells the times. A product for which
the rule chooses what was not measured does not count, and clusters are not fitted.
"""

from __future__ import annotations

import argparse
import math
import statistics
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
from scipy.optimize import least_squares

from graphopt.backends.cuda.tensor_tiles import HOPPER, Chip, estimated_cycles
from graphopt.backends.schedules import tensor_convolution, tensor_product
from graphopt.backends.schedules.choice import FAMILIES
from graphopt.backends.schedules.workload import Config, Workload
from graphopt.backends.targets import TARGETS
from graphopt.backends.tune.database import Database

TARGET = "cuda:sm_90"
CYCLES = 1755
"""Of an H100 in a microsecond."""

CONSTANTS = (
    "start",
    "fill",
    "latency",
    "products",
    "traffic",
    "results",
    "result",
    "adding",
    "sums",
)

Times = Mapping[Workload, list[tuple[Config, float]]]


def measured(path: Path) -> Times:
    """Schedules and microseconds of every workload on tensor cores whose right operand lies along the depth, the fastest first."""
    database = Database(path)
    found = {}
    for workload in database.fastest(TARGET):
        if workload.family == tensor_convolution.FAMILY or dict(workload.facts).get("along_depth"):
            times = [(config, time) for config, time in database.times(TARGET, workload) if time is not None]
            found[workload] = times
    return found


def compare(times: Times) -> None:
    """Print a line for each workload, and the geometric mean."""
    core, ratios = TARGETS[TARGET].core, []
    for workload, trials in times.items():
        chosen = FAMILIES[workload.family].candidates(workload, core)[0][1]
        best, least = trials[0]
        spent = next((time for config, time in trials if dict(config) == dict(chosen)), None)
        if spent is not None:
            ratios.append(spent / least)
        print(f"{workload}: {short(chosen)} us {spent}; best {short(best)} us {least}", flush=True)
    print(f"the rule's choice was measured of {len(ratios)} of {len(times)} products")
    if ratios:
        print(f"geometric mean of time by the rule to best time {statistics.geometric_mean(ratios):.3f}")


def short(config: Config) -> str:
    tile, parts = tensor_product.tile_of(config)
    warps = "" if tile.by_groups else f" of {tile.warp_rows} x {tile.warp_columns}"
    return f"{tile.rows} x {tile.columns}{warps}, {tile.stages} stages, {parts} parts"


def fit(times: Times) -> None:
    """Print the constants that estimate best; trials count the less the slower they are next to the best of their workload."""
    trials = list(_trials(times))
    weights = np.array([math.exp(-2 * (time / least - 1)) for *_, time, least in trials])

    def errors(logarithms: np.ndarray) -> np.ndarray:
        values = dict(zip(CONSTANTS, np.exp(logarithms), strict=True))
        chips = {True: replace(HOPPER, **values)}
        chips[False] = replace(chips[True], products=values["products"] / 2)
        found = [_estimate(chips, workload, config) / time for workload, config, time, _ in trials]
        return weights * np.log(found)

    first = np.log([getattr(HOPPER, name) for name in CONSTANTS])
    last = least_squares(errors, first, loss="soft_l1", f_scale=0.1).x
    for name, old, new in zip(CONSTANTS, np.exp(first), np.exp(last), strict=True):
        print(f"{name}: {old:.4g}, fitted {new:.4g}")
    for name, values in (("now", first), ("fitted", last)):
        print(f"root mean square of logarithms {name}: {np.sqrt(np.mean(errors(values) ** 2)):.4f}")


def _trials(times: Times) -> Iterator[tuple[Workload, Config, float, float]]:
    for workload, trials in times.items():
        for config, time in trials:
            tile, parts = tensor_product.tile_of(config)
            if not tile.is_clustered(parts):
                yield workload, config, time, trials[0][1]


def _estimate(chips: Mapping[bool, Chip], workload: Workload, config: Config) -> float:
    """Microseconds."""
    tile, parts = tensor_product.tile_of(config)
    if workload.family == tensor_convolution.FAMILY:
        extents = tensor_convolution.extents_of(tensor_convolution.geometry_of(workload))
    else:
        extents = tensor_product.extents_of(workload)
    return estimated_cycles(chips[tile.by_groups], extents, workload["size"], tile, parts) / CYCLES


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("database", type=Path)
    parser.add_argument("--fit", action="store_true", help="the constants that fit best, too")
    chosen = parser.parse_args()
    times = measured(chosen.database)
    compare(times)
    if chosen.fit:
        fit(times)


if __name__ == "__main__":
    main()
