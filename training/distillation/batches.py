"""Batches of samples with what a teacher makes of them. Each is a function of seed and step alone, whoever makes it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import count, islice
from multiprocessing import get_context

import numpy as np

from graphopt.arrays import Array
from graphopt.errors import DataError
from graphopt.feeds.data import Dataset
from graphopt.training.distillation.augmentation import Images, augment
from graphopt.training.distillation.teacher import Teacher, samples_of

HELD_OUT, MOST_HELD_OUT = 0.1, 256
"""Share of the samples that only judge, and how many at most."""

FEWEST = 8
"""Samples below which nothing can be learned."""

MOST_BYTES = 1 << 28
"""Of a teacher's values that are remembered, where each sample is the same in every epoch."""


@dataclass(frozen=True)
class Batch:
    """Inputs, the teacher's values, and labels if there are any; samples along the first axis of all."""

    feeds: Mapping[str, Array]
    targets: Mapping[str, Array]
    labels: Array | None

    def __len__(self) -> int:
        return samples_of(self.feeds)

    def parts(self, size: int | None) -> Iterator[Batch]:
        """Pieces of `size` samples; the whole where the size is free."""
        step = size or len(self)
        for start in range(0, len(self), step):
            rows = slice(start, start + step)
            labels = None if self.labels is None else self.labels[rows]
            yield Batch(_rows(self.feeds, rows), _rows(self.targets, rows), labels)


@dataclass(frozen=True)
class Source:
    """Makes the batch of any step. Samples come in an order of each epoch's own; what does not fill a batch is left out.

    `share` is the number of this process and that of all, among whom each batch is shared out. `known` are the teacher's values of
    all samples, None where it has to be asked each time.
    """

    data: Dataset
    teacher: Teacher
    size: int
    images: Images | None
    augmentation: Sequence[str]
    seed: int
    share: tuple[int, int] = (0, 1)
    known: Mapping[str, Array] | None = None

    @property
    def steps(self) -> int:
        """Of an epoch."""
        return len(self.data) // self.size

    def batch(self, step: int) -> Batch:
        """The one of a step, counted over all epochs."""
        epoch, number = divmod(step, self.steps)
        order = np.random.default_rng((self.seed, epoch)).permutation(len(self.data))
        part, parts = self.share
        chosen = order[number * self.size : (number + 1) * self.size][part::parts].tolist()
        plain = _stacked(self.data, chosen)
        if self.known is not None:
            return replace(plain, targets=_rows(self.known, chosen))
        rng = np.random.default_rng((self.seed, step, part))
        feeds = augment(plain.feeds, self.images, self.augmentation, rng)
        return replace(plain, feeds=feeds, targets=self.teacher.values(feeds))

    def remembering(self) -> Source:
        """One that has asked the teacher for everything, if samples never change and there is room."""
        if self.augmentation and self.images is not None:
            return self
        parts: list[Mapping[str, Array]] = []
        for batch in in_order(self.data, self.teacher, self.size):
            parts.append(batch.targets)
            if _bytes(batch.targets) * len(self.data) > MOST_BYTES * len(batch):
                return self
        known = {name: np.concatenate([part[name] for part in parts]) for name in self.teacher.names}
        return replace(self, known=known)


def split(data: Dataset, multiple: int, seed: int) -> tuple[Dataset, Dataset]:
    """Samples to learn on and samples that only judge, each a multiple of what a run takes (`run_size`). Raises DataError for too
    few."""
    needed = max(FEWEST, 2 * multiple)
    if len(data) < needed:
        raise DataError(f"{needed} or more samples are needed to learn from, there are {len(data)}")
    order = np.random.default_rng(seed).permutation(len(data)).tolist()
    wanted = min(int(len(data) * HELD_OUT), MOST_HELD_OUT)
    held_out = max(wanted - wanted % multiple, multiple)
    last = len(data) - (len(data) - held_out) % multiple
    return data.select(order[held_out:last]), data.select(order[:held_out])


def in_order(data: Dataset, teacher: Teacher, size: int) -> Iterator[Batch]:
    """All samples as they are, the last batch perhaps smaller."""
    for start in range(0, len(data), size):
        plain = _stacked(data, range(start, min(start + size, len(data))))
        yield replace(plain, targets=teacher.values(plain.feeds))


@contextmanager
def stream(source: Source, first: int, workers: int) -> Iterator[Iterator[Batch]]:
    """The batches from a step on, made by `workers` processes, or here by the only one."""
    if workers == 1:
        yield map(source.batch, count(first))
        return
    there = replace(source, teacher=replace(source.teacher, threads=1))
    pool = ProcessPoolExecutor(workers, get_context("spawn"), _open, (there,))
    try:
        yield _ahead(pool, first, 2 * workers)
    finally:
        pool.shutdown(cancel_futures=True)


_opened: list[Source] = []
"""The source of a worker process."""


def _open(source: Source) -> None:
    _opened.append(source)


def _batch_there(step: int) -> Batch:
    return _opened[0].batch(step)


def _ahead(pool: ProcessPoolExecutor, first: int, ahead: int) -> Iterator[Batch]:
    """Batches in order, of which some are made while nobody waits for them yet."""
    steps = count(first)
    waiting = [pool.submit(_batch_there, step) for step in islice(steps, ahead)]
    for step in steps:
        yield waiting.pop(0).result()
        waiting.append(pool.submit(_batch_there, step))


def _stacked(data: Dataset, indices: Sequence[int]) -> Batch:
    """Samples without a teacher's values."""
    feeds = {name: np.stack([column[index] for index in indices]) for name, column in data.columns.items()}
    return Batch(feeds, {}, None if data.labels is None else data.labels[list(indices)])


def _rows(arrays: Mapping[str, Array], rows: slice | Sequence[int]) -> dict[str, Array]:
    return {name: array[rows] for name, array in arrays.items()}


def _bytes(arrays: Mapping[str, Array]) -> int:
    return sum(array.nbytes for array in arrays.values())
