"""The order of prepared data in an epoch: shards, records within a shard, windows, batches; a function of the seed and the epoch's number.

An epoch reads the shards of a worker one after the other, each whole, in an order drawn from (seed, epoch); the records of a shard come in
an order drawn from (seed, epoch, shard). What comes is cut into windows of some batches, across shards; within a window the records are
sorted by length, cut into batches, and the batches put in random order, as in `tfbert.shuffling`.

With two shards of records 0 2 4 and 1 3 5, batches of 2 and one window:  shards 1, 0 -> 3 5 1 and 0 4 2 -> sorted by length, say,
5 0 4 2 3 1 -> (5 0) (4 2) (3 1) -> (4 2) (3 1) (5 0).
"""

from __future__ import annotations

import dataclasses

import numpy as np

from tfbert._compat import tf
from tfbert.errors import InputError
from tfbert.shuffling import WINDOW_BATCHES, permutation

# Added to the seed, for each purpose another one; the masks of rows have 2**32 to 2**34.
SHARDS, WITHIN, BATCHES = 2**35, 2**36, 2**37


@dataclasses.dataclass(frozen=True)
class Share:
    """What one of several workers reads in each epoch, and in how many steps.

    Worker i of W reads the shards i, i + W, i + 2 W, ... and makes batches of batch_size / W records. All workers have the same number of
    steps: that of the one with the most records. Where the others have none left, records of weight 0 fill up; so do they in each
    worker's last batch, so that all batches are of one size. A single worker fills nothing, and its last batch may be smaller.

    Args:
        records: of each shard there is.
        batch_size: records of a global batch.
        index: the worker's number, from 0.
        count: the workers, W.
    """

    records: tuple[int, ...]
    batch_size: int
    index: int = 0
    count: int = 1

    def __post_init__(self):
        if self.batch_size < 1:
            raise InputError(f"batch_size is {self.batch_size}; it must be at least 1")
        if not 0 <= self.index < self.count:
            raise InputError(
                f"worker is ({self.index}, {self.count}); its number must be at least 0 and less than the workers'"
            )
        if len(self.records) < self.count:
            raise InputError(
                f"there are {len(self.records)} shards for {self.count} workers, each of which reads its own; prepare the data with "
                f"shards={self.count} (--shards {self.count}) or more"
            )
        if self.batch_size % self.count:
            raise InputError(
                f"batch_size is {self.batch_size}, of which {self.count} workers cannot have equal parts; take "
                f"{-(-self.batch_size // self.count) * self.count}"
            )

    @property
    def shards(self) -> range:
        """The numbers of its shards."""
        return range(self.index, len(self.records), self.count)

    @property
    def batch(self) -> int:
        """Records of its own part of a batch."""
        return self.batch_size // self.count

    @property
    def of_workers(self) -> list[int]:
        """The records of each worker."""
        return [sum(self.records[i :: self.count]) for i in range(self.count)]

    @property
    def steps(self) -> int:
        """Batches of an epoch, the same for all workers."""
        return -(-max(self.of_workers) // self.batch)

    @property
    def window(self) -> int:
        """Batches of a window (see `shuffling.WINDOW_BATCHES`)."""
        return int(np.clip(self.steps // 2, 1, WINDOW_BATCHES))

    @property
    def windows(self) -> int:
        """Windows of an epoch."""
        return -(-self.steps // self.window)

    @property
    def fill(self) -> int:
        """Records of weight 0 that an epoch ends with."""
        return 0 if self.count == 1 else self.steps * self.batch - self.of_workers[self.index]

    def real(self, window, batch):
        """How many records of a batch each worker has, int64 [W]: `batch` is its number within the window before they are mixed."""
        left = tf.constant(self.of_workers, tf.int64) - window * self.window * self.batch - batch * self.batch
        return tf.clip_by_value(left, 0, self.batch)


def shard_order(share: Share, seed: int, epoch):
    """The order in which a worker reads its shards, int64 [own]: numbers within `share.shards`."""
    return permutation(tf.constant(len(share.shards), tf.int64), seed + SHARDS, epoch)


def within(records, shards: int, seed: int, epoch, shard):
    """The order of the records of a shard, int64 [records]; `shards` is how many there are in all."""
    return permutation(records, seed + WITHIN, epoch * shards + shard)


def by_length(lengths, real):
    """The places of a window's records, the shortest first, those of weight 0 at the end: int64."""
    widest = tf.reduce_max(tf.concat([lengths, [0]], 0)) + 1
    return tf.cast(tf.argsort(tf.where(real, lengths, widest), stable=True), tf.int64)


def batch_order(count, share: Share, seed: int, epoch, window):
    """The order of a window's batches, int64 [count]; the same for all workers, so that all have their smaller ones in one step."""
    return permutation(count, seed + BATCHES, epoch * share.windows + window)
