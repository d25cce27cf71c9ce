"""Shards -> batches: tf.data operations that hold a shard and a window of records at a time, from any place of any epoch on."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np

from tfbert import batch_parts, pipeline
from tfbert._compat import plain, tf
from tfbert.errors import InputError
from tfbert.features import Features
from tfbert.prepared.manifest import Manifest
from tfbert.prepared.order import Share, batch_order, by_length, shard_order, within
from tfbert.prepared.records import parse, tables

SAMPLED = 200_000  # records by which the share of padding is told


@dataclasses.dataclass(frozen=True)
class Streamed:
    """What stands in the place of `Features` where the rows come from prepared data.

    Args:
        folder: where the shards are.
        manifest: what is known of them.
        kind: features of no row: what the rows are.
    """

    folder: str
    manifest: Manifest
    kind: Features

    @property
    def even(self) -> bool:
        """As of `Features`."""
        return self.kind.masking is None and (self.kind.alone or self.manifest.layout.rows_each is not None)

    @property
    def masking(self):
        """As of `Features`."""
        return self.kind.masking

    @property
    def alike(self) -> bool:
        """Whether all records weigh the same, so that each worker can take its own shards for its part of a batch."""
        least, most = self.manifest.counts.weights
        return self.masking is None and least == most

    @property
    def beside(self) -> dict[str, Callable]:
        """As of `Features`: nothing."""
        return {}

    @property
    def draws(self) -> np.ndarray:
        """The tokens of the longest row of each record, ascending, int64."""
        lengths = self.manifest.counts.lengths
        return np.repeat(np.arange(len(lengths)), lengths)

    @property
    def records(self) -> tuple[int, ...]:
        """Records of each shard."""
        return tuple(shard.records for shard in self.manifest.shards)

    @property
    def paths(self) -> list[str]:
        """Where each shard is."""
        return [f"{self.folder}/{shard.file}" for shard in self.manifest.shards]


def pieces_in_use(streamed: Streamed) -> np.ndarray | None:
    """As `features.pieces_in_use`."""
    if streamed.masking is not None or streamed.kind.written:
        return None
    return np.union1d(streamed.manifest.counts.pieces, streamed.kind.padding["input_ids"]).astype(np.int64)


def batches(
    streamed: Streamed,
    *,
    batch_size: int,
    training: bool = True,
    seed: int = 0,
    pad_to=(),
    start: tuple[int, int] = (0, 0),
    replicas: int = 1,
    own: range | None = None,
    worker: tuple[int, int] = (0, 1),
):
    """The data set of `pipeline.batches` for training, from prepared data: each pass is an epoch, the first from `start` on.

    Args:
        streamed: the data.
        batch_size: records of a batch, of all workers together.
        training: must be True; prepared data have no other order.
        seed: of the order of the records.
        pad_to: as of `make_dataset`.
        start: (epoch, batch) at which the first pass begins. Shards that are wholly before it are not read.
        replicas: as of `pipeline.batches`.
        own: as of `pipeline.batches`.
        worker: (index, count): see `Share`. The weights of a worker's batch have the mean W * n / N, n of its own records and N of all that
            the workers have in this step: so the mean over the workers' batches is 1, and where the records weigh the same it is the
            global batch's mean to the last bit but rounding. Where they do not, each worker's part is by its records, not their weights.
    """
    if not training:
        raise InputError("prepared data are read in the order of training alone; score the file they were made of")
    pad_to = pipeline.widths(streamed.draws, pad_to, batch_size)
    pipeline.check_shapes(streamed.kind, batch_size, pad_to, len(streamed.manifest.counts.lengths) - 1)
    if pad_to and not streamed.even:
        raise InputError(
            "pad_to needs examples of one number of rows, but they have several windows; cut long texts by head or tail instead"
        )
    share = Share(streamed.records, batch_size, *worker)
    with tf.device("/CPU:0"):
        epoch, skip = (tf.Variable(value, dtype=tf.int64, trainable=False) for value in start)

    def next_epoch(_):
        now, first = epoch.assign_add(1) - 1, skip.read_value()
        skip.assign(0)
        return _epoch(streamed, share, seed, now, first)

    drawn = tf.data.Dataset.from_tensors(0).flat_map(plain(next_epoch))
    if not start[1]:
        drawn = drawn.apply(tf.data.experimental.assert_cardinality(share.steps))
    drawn.position = (epoch, skip)  # the graph holds only the handles of the two variables
    whole = pipeline.assembled(drawn, _assemble(streamed, share, pad_to, seed, replicas))
    return whole if replicas == 1 else batch_parts.for_replicas(whole, replicas, own)


def served(streamed: Streamed, *, batch_size: int, seed: int = 0, epoch: int = 0, pad_to=()):
    """One epoch as a data set that a tf.data service can part among its workers by shards: `ShardingPolicy.DYNAMIC`.

    It has no state, so it begins at the epoch's beginning and nowhere else. Each worker of the service makes windows and batches of the
    shards that it is given; every record comes once, and the last batch of each worker may be smaller.

    Example:
        >>> service = tf.data.experimental.service                                                            # doctest: +SKIP
        >>> policy = service.ShardingPolicy.DYNAMIC                                                           # doctest: +SKIP
        >>> data = served(features, batch_size=32).apply(service.distribute(policy, "grpc://10.0.0.1:5050"))  # doctest: +SKIP
    """
    pad_to = pipeline.widths(streamed.draws, pad_to, batch_size)
    pipeline.check_shapes(streamed.kind, batch_size, pad_to, len(streamed.manifest.counts.lengths) - 1)
    share, now = Share(streamed.records, batch_size), tf.constant(epoch, tf.int64)
    order = shard_order(share, seed, now)
    read = _reader(streamed, seed, now)
    shards = tf.data.Dataset.from_tensor_slices(order).map(plain(lambda shard: read(shard, tf.constant(0, tf.int64))))
    zero = tf.constant(0, tf.int64)
    drawn = _windows(streamed, share, seed, now, shards, zero, zero)
    return pipeline.assembled(drawn, _assemble(streamed, share, pad_to, seed, 1))


def _epoch(streamed: Streamed, share: Share, seed: int, now, first):
    """What is drawn in an epoch from batch `first` on: for each batch the epoch, its records in the window, and the window."""
    own = np.array(share.shards)
    order = tf.gather(tf.constant(own, tf.int64), shard_order(share, seed, now))
    counts = tf.gather(tf.constant(streamed.records, tf.int64), order)
    ends = tf.cumsum(counts)
    window = first // share.window
    skipped = window * share.window * share.batch  # records of whole windows
    begin = tf.cast(tf.searchsorted(ends, skipped[tf.newaxis], side="right")[0], tf.int64)
    before = tf.concat([ends - counts, ends[-1:]], 0)[begin]
    skips = tf.concat([(skipped - before)[tf.newaxis], tf.zeros_like(order)], 0)[: tf.size(order[begin:])]
    shards = tf.data.Dataset.from_tensor_slices((order[begin:], skips)).map(plain(_reader(streamed, seed, now)))
    if share.fill:
        left = tf.maximum(skipped - sum(streamed.records[i] for i in own), 0)
        shards = shards.concatenate(_fill(streamed, share, left))
    return _windows(streamed, share, seed, now, shards, window, first % share.window)


def _reader(streamed: Streamed, seed: int, now):
    """The function from a shard's number and how many records to skip to the others: their numbers, themselves, and that they count."""
    paths, records = tf.constant(streamed.paths), tf.constant(streamed.records, tf.int64)
    total = len(streamed.records)

    def read(shard, skip):
        count = records[shard]
        # A batch of one more, so that a file that holds more or less is found out.
        found = tf.data.TFRecordDataset(paths[shard], buffer_size=2**20).batch(count + 1).get_single_element()
        told = tf.Assert(
            tf.equal(tf.size(found, tf.int64), count), [paths[shard], "holds another number of records than", count]
        )
        with tf.control_dependencies([told]):
            place = within(count, total, seed, now, shard)[skip:]
        return place * total + shard, tf.gather(found, place), tf.fill([count - skip], True)

    return read


def _fill(streamed: Streamed, share: Share, left):
    """The records that weigh nothing, less those that were left behind: the first of a shard, again and again."""
    shard = next(i for i, count in enumerate(streamed.records) if count)

    def made(record):
        count = share.fill - left
        return tf.zeros([count], tf.int64), tf.repeat(record, count), tf.fill([count], False)

    return tf.data.TFRecordDataset(streamed.paths[shard]).take(1).map(plain(made))


def _windows(streamed: Streamed, share: Share, seed: int, now, shards, window, first):
    """Cuts what comes of shards into windows, and these into what the batches hold; the first window from its batch `first` on."""
    layout, span, zero = streamed.manifest.layout, share.window * share.batch, tf.constant(0, tf.int64)

    def numbered(number, found):
        return number + 1, (number, *found)

    def sort(number, numbers, serialized, real):
        found = parse(layout, serialized)
        lengths = tf.RaggedTensor.from_row_lengths(found["lengths"], found["sizes"], validate=False)
        return number, numbers, real, by_length(tf.reduce_max(lengths, 1), real), found

    def drawn(number, numbers, real, order, found):
        count = -(-tf.size(order, tf.int64) // share.batch)
        mixed = batch_order(count, share, seed, now, number)
        mixed = tf.cond(tf.equal(number, window), lambda: mixed[first:], lambda: mixed)

        def one(batch):
            places = order[batch * share.batch : tf.minimum((batch + 1) * share.batch, tf.size(order, tf.int64))]
            return now, places, number, batch, real, numbers, found

        return tf.data.Dataset.from_tensor_slices(mixed).map(plain(one))

    rows = shards.prefetch(1).rebatch(span)
    # Not `enumerate`, whose numbers a tf.data service would part as well.
    counted = rows.scan(window + zero, plain(numbered))
    return counted.map(plain(sort)).prefetch(1).flat_map(plain(drawn))


def _assemble(streamed: Streamed, share: Share, pad_to: tuple[int, ...], seed: int, replicas: int):
    """The function from what `_windows` draws to a batch."""
    layout = streamed.manifest.layout
    per_draw = 1 if layout.alone else layout.rows_each or 1

    def assemble(now, places, number, batch, real, numbers, found):
        window = tables(streamed.kind, layout, found, numbers)
        own = tf.reduce_sum(tf.cast(tf.gather(real, places), tf.int32))
        made = window.batch(share.batch, pad_to, seed, replicas, per_draw)(now, places, own)
        if share.count == 1 or not isinstance(made, tuple):
            return made
        everyone = share.real(number, batch)
        part = tf.cast(share.count * everyone[share.index], tf.float32) / tf.cast(tf.reduce_sum(everyone), tf.float32)
        return *made[:2], tf.nest.map_structure(lambda weights: weights * part, made[2])

    return assemble


def statistics(
    streamed: Streamed, *, batch_size: int, training: bool = True, seed: int = 0, pad_to=(), workers: int = 1
) -> pipeline.Statistics:
    """As `pipeline.statistics`, from the manifest: steps and tokens are exact, the share of padding is told from random lengths."""
    counts, share = streamed.manifest.counts, Share(streamed.records, batch_size, 0, workers)
    chosen = pipeline.widths(streamed.draws, pad_to, batch_size)
    generator = np.random.default_rng(seed)
    lengths = np.arange(len(counts.lengths))
    if counts.records <= SAMPLED:
        drawn = generator.permutation(streamed.draws)
    else:
        drawn = generator.choice(lengths, SAMPLED, p=counts.lengths / counts.lengths.sum())
    positions, size = 0, share.batch
    for begin in range(0, len(drawn), share.window * size):
        ordered = np.sort(drawn[begin : begin + share.window * size])
        for first in range(0, len(ordered), size):
            widest = ordered[min(first + size, len(ordered)) - 1]
            width = min((each for each in chosen if each >= widest), default=widest)
            positions += int(width) * (size if chosen else len(ordered[first : first + size]))
    # Of the rows of a record only the longest one's tokens are known here; each has as many positions.
    positions *= counts.rows / len(drawn)
    return pipeline.Statistics(share.steps, counts.tokens, 1 - counts.tokens / positions if positions else 0.0)
