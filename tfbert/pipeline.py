"""Features -> batches: flat ids in memory, a seeded order for each epoch, and tf.data operations from there on."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from tfbert import losses
from tfbert._compat import tf
from tfbert.errors import InputError
from tfbert.sources import from_iterable

# Rows are sorted by length within windows of this many batches, or of half the data set where that is smaller: larger windows save
# little padding, and a single one would put the same rows together in every epoch. Hugging Face's group_by_length has 50 as well.
WINDOW_BATCHES = 50


@dataclasses.dataclass(frozen=True)
class Features:
    """The tokenized rows of a data set, N of them, as NumPy arrays.

    Args:
        ragged: name -> (values int32 [total], row_splits int64 [N + 1]): row i is values[row_splits[i]:row_splits[i + 1]]. All
            entries have the same row_splits.
        padding: name -> the int32 that fills rows up to their batch's length.
        targets: array [N, ...], a dict of such by output name, or None where there is nothing to learn.
        weights: float32 [N], or None.
    """

    ragged: dict[str, tuple[np.ndarray, np.ndarray]]
    padding: dict[str, int]
    targets: Any = None
    weights: np.ndarray | None = None

    @property
    def lengths(self) -> np.ndarray:
        """The tokens of each row, int64 [N]."""
        return np.diff(next(iter(self.ragged.values()))[1])


@dataclasses.dataclass(frozen=True)
class Statistics:
    """What an epoch costs: `steps`, `tokens` (real ones) and `padding_share`, the fraction of all positions that is padding."""

    steps: int
    tokens: int
    padding_share: float


def make_dataset(
    task,
    tokenizer,
    examples,
    *,
    batch_size: int = 32,
    training: bool = False,
    seed: int = 0,
    pad_to: Sequence[int] = (),
    start: tuple[int, int] = (0, 0),
):
    """Returns the examples as a tf.data.Dataset of batches for Keras' `fit`, `evaluate` and `predict`.

    The texts are tokenized once, here. With `training`, each pass over the data set is one epoch in a new order, a function of
    `seed` and the epoch's number alone, with rows of like length in one batch; without, the order is that of the examples, so the
    rows of `model.predict(dataset)` are theirs. No row is dropped: the last batch may be smaller.

    Args:
        task: a task whose fields are complete (see `Task.from_data`).
        tokenizer: what `load_tokenizer` returned.
        examples: dicts with the task's fields; a list, a reader's result, any iterable of dicts.
        batch_size: rows in a batch (default 32).
        training: shuffle and group by length (default False).
        seed: of the order of the rows (default 0).
        pad_to: the lengths, in tokens, that a batch may be padded to; empty (default) means its longest row. With lengths given, every
            batch has exactly `batch_size` rows, filled up with rows of weight 0: shapes are then few and static, as XLA and TPUs
            want them.
        start: (epoch, batch) at which the first pass begins; a resumed run continues where it stopped.

    Returns:
        A tf.data.Dataset of (dict of int32 ids [B, T], targets [B, ...], weights float32 [B]). The weights of a batch have mean 1 over
        its rows, so that Keras' mean over rows is the weighted mean.

    Raises:
        InputError: an example that the task cannot learn from, with its place.
    """
    examples = from_iterable(examples)
    task.check(examples)
    return batches(
        task.features(tokenizer, examples),
        batch_size=batch_size,
        training=training,
        seed=seed,
        pad_to=pad_to,
        start=start,
    )


def batches(features: Features, *, batch_size: int, training=False, seed=0, pad_to=(), start=(0, 0), order=None):
    """The data set of `make_dataset`, from features that are there already.

    The arguments are those of `make_dataset`, and `order`: the row numbers of a pass, int64 [N], where `training` is False (default:
    0, 1, ..., N - 1).
    """
    lengths, pad_to = features.lengths, tuple(sorted(pad_to))
    if batch_size < 1:
        raise InputError(f"batch_size is {batch_size}; it must be at least 1")
    if pad_to and lengths.max(initial=0) > pad_to[-1]:
        raise InputError(
            f"pad_to ends at {pad_to[-1]} tokens, but a row has {lengths.max()}; add a larger length or lower max_length"
        )
    count, steps = len(lengths), -(-len(lengths) // batch_size)
    epoch, skip = (
        tf.Variable(start[0], dtype=tf.int64, trainable=False),
        tf.Variable(start[1], dtype=tf.int64, trainable=False),
    )
    sizes = tf.constant(lengths, tf.int64)

    def next_epoch(_):
        # Runs once when a pass begins: the order of this epoch, as numbers of batches and the rows that each holds.
        if not training:
            rows = tf.range(count, dtype=tf.int64) if order is None else tf.constant(order, tf.int64)
            return in_order(rows, tf.range(steps, dtype=tf.int64))
        now, first = epoch.assign_add(1) - 1, skip.read_value()
        skip.assign(0)
        rows, batch_numbers = epoch_order(sizes, batch_size, seed, now)
        return in_order(rows, batch_numbers[first:])

    def in_order(rows, batch_numbers):
        return tf.data.Dataset.from_tensor_slices(batch_numbers).map(
            lambda number: rows[number * batch_size : tf.minimum((number + 1) * batch_size, count)]
        )

    rows = tf.data.Dataset.from_tensors(0).flat_map(next_epoch)
    if not start[1]:
        rows = rows.apply(tf.data.experimental.assert_cardinality(steps))
    rows.position = (epoch, skip)  # the graph holds only the handles of the two variables
    assemble = _assembler(features, batch_size, pad_to)
    options = tf.data.Options()
    options.deterministic = True
    return rows.map(assemble, num_parallel_calls=tf.data.AUTOTUNE).prefetch(tf.data.AUTOTUNE).with_options(options)


def epoch_order(lengths, batch_size: int, seed: int, epoch):
    """The order of one epoch: a permutation of the rows, grouped by length, and a permutation of the batches.

    A permutation drawn from (seed, epoch) is cut into windows (see WINDOW_BATCHES); within a window the rows are sorted by length
    and cut into batches, so the rows of a batch are alike in length; at last the batches are put in random order.

    With batch size 2 and one window, rows of lengths 5 9 4 8 may come as:  permuted 9 4 8 5 -> sorted 4 5 8 9 -> batches (4 5) (8 9)
    -> (8 9) (4 5).

    Args:
        lengths: int64 [N].
        batch_size: rows in a batch.
        seed: a Python int.
        epoch: int64 scalar.

    Returns:
        order int64 [N] (batch b holds the rows order[b * batch_size : (b + 1) * batch_size]) and batch_numbers int64 [steps].
    """
    count = tf.size(lengths, tf.int64)
    steps = -(-count // batch_size)
    order = _permutation(count, seed, 2 * epoch)
    window = tf.range(count, dtype=tf.int64) // (batch_size * tf.clip_by_value(steps // 2, 1, WINDOW_BATCHES))
    widest = tf.reduce_max(tf.concat([lengths, [0]], 0)) + 1
    by_length = tf.argsort(window * widest + tf.gather(lengths, order), stable=True)
    return tf.gather(order, by_length), _permutation(steps, seed, 2 * epoch + 1)


def _permutation(count, seed: int, draw):
    """A permutation of 0..count-1, int64, that depends on (seed, draw) alone."""
    bits = tf.random.stateless_uniform(
        [count], tf.stack([tf.constant(seed, tf.int64), draw]), None, None, tf.int64, alg="philox"
    )
    return tf.cast(tf.argsort(bits, stable=True), tf.int64)


def _assembler(features: Features, batch_size: int, pad_to: tuple[int, ...]):
    """Returns the function from row numbers int64 [b] to the padded batch."""
    ragged = {
        name: tf.RaggedTensor.from_row_splits(
            tf.constant(values, tf.int32), tf.constant(splits, tf.int64), validate=False
        )
        for name, (values, splits) in features.ragged.items()
    }
    targets = None if features.targets is None else tf.nest.map_structure(tf.constant, features.targets)
    weights = None if features.weights is None else tf.constant(features.weights, tf.float32)
    shape = [batch_size, pad_to[0] if len(pad_to) == 1 else None]  # of a batch, where pad_to is given

    def assemble(rows):
        real = tf.size(rows)
        if pad_to:
            # Fill rows repeat the first row and weigh nothing.
            rows = tf.concat([rows, tf.repeat(rows[:1], batch_size - real)], 0)
            rows = tf.ensure_shape(rows, [batch_size])
        picked = {name: tf.gather(tensor, rows) for name, tensor in ragged.items()}
        lengths = next(iter(picked.values())).row_lengths()
        width = tf.reduce_max(lengths)
        if pad_to:
            choices = tf.constant(pad_to, tf.int64)
            width = tf.reduce_min(tf.boolean_mask(choices, choices >= width))

        def padded(name, tensor):
            dense = tensor.to_tensor(features.padding[name])
            if not pad_to:
                return dense
            dense = tf.pad(
                dense, [[0, 0], [0, width - tf.shape(dense, tf.int64)[1]]], constant_values=features.padding[name]
            )
            return tf.ensure_shape(dense, shape)

        inputs = {name: padded(name, tensor) for name, tensor in picked.items()}
        inputs["attention_mask"] = tf.sequence_mask(lengths, width, tf.int32)
        if pad_to:
            inputs["attention_mask"] = tf.ensure_shape(inputs["attention_mask"], shape)
        if targets is None:
            return inputs
        weight = tf.ones_like(rows, tf.float32) if weights is None else tf.gather(weights, rows)
        weight *= tf.cast(tf.range(tf.size(rows)) < real, tf.float32)
        return inputs, tf.nest.map_structure(lambda t: tf.gather(t, rows), targets), losses.normalize_weights(weight)

    return assemble


def statistics(features: Features, *, batch_size: int, training=False, seed=0, pad_to=()) -> Statistics:
    """Returns what the first epoch of `batches` with the same arguments costs, without running it."""
    lengths = features.lengths
    steps = -(-len(lengths) // batch_size)
    order = np.arange(len(lengths))
    if training:
        order = epoch_order(tf.constant(lengths, tf.int64), batch_size, seed, tf.constant(0, tf.int64))[0].numpy()
    positions = 0
    for b in range(steps):
        rows = lengths[order[b * batch_size : (b + 1) * batch_size]]
        width = min((w for w in pad_to if w >= rows.max()), default=rows.max())
        positions += int(width) * (batch_size if pad_to else len(rows))
    tokens = int(lengths.sum())
    return Statistics(steps, tokens, 1 - tokens / positions if positions else 0.0)
