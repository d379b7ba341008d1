"""The order of the training samples, and their random numbers, as functions of the seed.

What is drawn for a sample depends on the seed, the process and the place of the sample in the
order, not on the number of loader processes or on how often the run was stopped.
"""

import itertools
import random
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch.utils.data import BatchSampler, DataLoader, Dataset, Sampler

from fldet.errors import ConfigError, DataError

# The first of the numbers that a state is made of: two purposes never share one.
SAMPLE, ITERATION, SIZE = 1, 2, 3


MOST_OF_A_SEED = 2**32 - 1  # of NumPy's generators


def is_seed(value: Any) -> bool:
    """Returns whether the generators of Python, NumPy and torch all take a number as seed."""
    return type(value) is int and 0 <= value <= MOST_OF_A_SEED


def seed_everything(*numbers: int) -> None:
    """Sets the random states of Python, NumPy and torch to a function of ``numbers``."""
    python, legacy, tensors = np.random.SeedSequence(numbers).generate_state(3).tolist()
    random.seed(python)
    np.random.seed(legacy)
    # torch.manual_seed formats the stack for a CUDA that may never be used: half a millisecond
    torch.default_generator.manual_seed(tensors)
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        torch.cuda.manual_seed_all(tensors)


class Drawn(int):
    """The index of a sample in its data set, with its place in the order of this process."""

    position: int

    def __new__(cls, index: int, position: int) -> "Drawn":
        """Returns ``index`` with a place."""
        drawn = super().__new__(cls, index)
        drawn.position = position
        return drawn

    def __reduce__(self) -> tuple[type["Drawn"], tuple[int, int]]:
        return Drawn, (int(self), self.position)


class NumberedBatches(Sampler[list[int]]):
    """The batches of another sampler without end, each index with its place in the order.

    ``batches`` are the same in every run and start anew at their end. Those before number ``start``
    are drawn and passed over, which loads no image. MMEngine's hooks look for ``sampler``.
    """

    def __init__(self, batches: BatchSampler) -> None:
        self.batches = batches
        self.start = 0
        self.sampler = batches.sampler
        self.batch_size = batches.batch_size

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[list[int]]:
        for number, batch in enumerate(self._endless()):
            if number >= self.start:
                first = number * self.batch_size
                yield [Drawn(index, first + place) for place, index in enumerate(batch)]

    def _endless(self) -> Iterator[list[int]]:
        for epoch in itertools.count():
            if hasattr(self.sampler, "set_epoch"):
                self.sampler.set_epoch(epoch)
            batch = None
            for batch in self.batches:
                yield batch
            if batch is None:
                raise DataError("the training data have fewer images than a batch")


class SeededDataset(Dataset[Any]):
    """A data set, its attributes too, whose random numbers follow from the place of a sample."""

    def __init__(self, dataset: Any, seed: int, rank: int) -> None:
        self.dataset = dataset
        self.seed = seed
        self.rank = rank

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Any:
        if isinstance(index, Drawn):
            seed_everything(SAMPLE, self.seed, self.rank, index.position)
        return self.dataset[int(index)]

    def __getattr__(self, name: str) -> Any:
        if name == "dataset" or name.startswith("__"):  # not there yet while unpickling
            raise AttributeError(name)
        return getattr(self.dataset, name)


class BatchStream:
    """Iterates a loader of ``NumberedBatches``; its processes start with the first batch.

    For a GPU one batch is fetched ahead, and its images are on their way to the device, on a stream
    of their own, while the device computes on the batch before; better with ``pin_memory``. A CPU
    gets each batch when it is asked for.
    """

    def __init__(self, loader: DataLoader[Any], device: torch.device | None = None) -> None:
        self.loader = loader
        self._iterator: Iterator[Any] | None = None
        self._ahead: Any = None
        self._copies: Any = None
        if device is not None and device.type == "cuda":
            self._copies = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        if self._iterator is None:
            self._iterator = iter(self.loader)
        if self._copies is None:
            return next(self._iterator)
        batch = self._ahead or self._fetch(self._iterator, self._copies)
        current = torch.cuda.current_stream(self._copies.device)
        current.wait_stream(self._copies)
        for image in batch["inputs"]:
            image.record_stream(current)  # its memory is given to no other copy before
        self._ahead = self._fetch(self._iterator, self._copies)
        return batch

    @staticmethod
    def _fetch(batches: Iterator[Any], copies: Any) -> dict[str, Any]:
        """Returns the next batch, its images on their way to the device."""
        batch = next(batches)
        with torch.cuda.stream(copies):
            images = [image.to(copies.device, non_blocking=True) for image in batch["inputs"]]
        return {**batch, "inputs": images}

    def close(self) -> None:
        """Ends the loader's processes."""
        self._iterator = self.loader._iterator = None

    def skip_iter(self, count: int) -> None:
        """Goes on behind the first ``count`` batches of the order; before the first batch only."""
        batches = self.loader.batch_sampler
        assert isinstance(batches, NumberedBatches)
        batches.start = count


def exact_loader(loader: DataLoader[Any], seed: int, rank: int) -> DataLoader[Any]:
    """Returns a loader of the same samples whose order and random numbers follow from the seed.

    Raises:
        ConfigError: its batch sampler is of another kind than torch's.
    """
    if not isinstance(loader.batch_sampler, BatchSampler):
        raise ConfigError(
            f"train_dataloader.batch_sampler is a {type(loader.batch_sampler).__name__}",
            expected="a subclass of torch.utils.data.BatchSampler, or none",
        )
    workers = {}
    if loader.num_workers:
        workers = {
            "prefetch_factor": loader.prefetch_factor,
            "persistent_workers": loader.persistent_workers,
            "multiprocessing_context": loader.multiprocessing_context,
        }
    return DataLoader(
        SeededDataset(loader.dataset, seed, rank),
        batch_sampler=NumberedBatches(loader.batch_sampler),
        num_workers=loader.num_workers,
        collate_fn=loader.collate_fn,
        pin_memory=loader.pin_memory,
        timeout=loader.timeout,
        worker_init_fn=loader.worker_init_fn,
        **workers,
    )
