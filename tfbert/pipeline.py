"""Features -> batches: flat ids in memory, a seeded order for each epoch, and tf.data operations from there on."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tfbert import batch_parts, losses
from tfbert._compat import plain, tf
from tfbert.errors import InputError
from tfbert.features import FILL, Features, Ragged
from tfbert.masking import FIXED
from tfbert.shuffling import epoch_order
from tfbert.sources import from_iterable
from tfbert.static_shapes import boundaries
from tfbert.tokenization import Rows

ASSEMBLED_AT_ONCE = min(4, os.cpu_count() or 1)  # batches; a step of training takes many times as long as one of them


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
    pad_to: Sequence[int] | str = (),
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
            want them. "auto" chooses up to four from the data, each of which spares a hundredth of the positions (see `boundaries`).
        start: (epoch, batch) at which the first pass begins; a resumed run continues where it stopped. Within an epoch, give `fit` the
            data set's `repeat()` and steps_per_epoch: else Keras looks for one batch more, and AdamW decays the weights without one.

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


def batches(
    features: Features,
    *,
    batch_size: int,
    training=False,
    seed=0,
    pad_to=(),
    start=(0, 0),
    replicas: int = 1,
    own: range | None = None,
):
    """The data set of `make_dataset`, from features that are there already; without targets, of the inputs alone.

    With several replicas a batch comes in as many parts of equal size, filled up with rows of weight 0. Their weights have mean 1 over
    all of them, so that the mean of the parts' losses is the whole batch's loss. `own` are the parts that come; None: all of them.
    """
    lengths = features.draws
    pad_to = widths(lengths, pad_to, batch_size)
    check_shapes(features, batch_size, pad_to, int(lengths.max(initial=0)))
    count, steps = len(lengths), -(-len(lengths) // batch_size)
    with tf.device("/CPU:0"):  # where data sets are made, whatever learns from them
        epoch, skip = (
            tf.Variable(start[0], dtype=tf.int64, trainable=False),
            tf.Variable(start[1], dtype=tf.int64, trainable=False),
        )
    sizes = tf.constant(lengths, tf.int64)

    def next_epoch(_):
        # Runs once when a pass begins: the order of this epoch, as its number, numbers of batches, and what each holds.
        if not training:
            return in_order(
                tf.constant(FIXED, tf.int64), tf.range(count, dtype=tf.int64), tf.range(steps, dtype=tf.int64)
            )
        now, first = epoch.assign_add(1) - 1, skip.read_value()
        skip.assign(0)
        drawn, batch_numbers = epoch_order(sizes, batch_size, seed, now)
        return in_order(now, drawn, batch_numbers[first:])

    def in_order(now, drawn, batch_numbers):
        return tf.data.Dataset.from_tensor_slices(batch_numbers).map(
            plain(lambda number: (now, drawn[number * batch_size : tf.minimum((number + 1) * batch_size, count)]))
        )

    drawn = tf.data.Dataset.from_tensors(0).flat_map(plain(next_epoch))
    if not start[1]:
        drawn = drawn.apply(tf.data.experimental.assert_cardinality(steps))
    drawn.position = (epoch, skip)  # the graph holds only the handles of the two variables
    per_draw = 1 if features.examples is None or features.alone else _rows_each(features, bool(pad_to))
    whole = assembled(drawn, Tables.of(features).batch(batch_size, pad_to, seed, replicas, per_draw))
    return whole if replicas == 1 else batch_parts.for_replicas(whole, replicas, own)


def check_shapes(features: Features, batch_size: int, pad_to: tuple[int, ...], longest: int) -> None:
    """Raises InputError where batches of that size and padding cannot be made of rows of up to `longest` tokens."""
    if batch_size < 1:
        raise InputError(f"batch_size is {batch_size}; it must be at least 1")
    if pad_to and features.masking is not None:
        raise InputError(
            "pad_to (and xla) need batches of one shape, but the number of masked tokens differs; leave it out"
        )
    if pad_to and longest > pad_to[-1]:
        raise InputError(
            f"pad_to ends at {pad_to[-1]} tokens, but a row has {longest}; add a larger length or lower max_length"
        )


def widths(lengths: np.ndarray, pad_to: Sequence[int] | str, batch_size: int) -> tuple[int, ...]:
    """The lengths that batches are padded to, ascending; "auto" chooses them from the lengths of what is drawn.

    Raises:
        InputError: another word.
    """
    if isinstance(pad_to, str):
        if pad_to != "auto":
            raise InputError(f"pad_to is {pad_to!r}; give lengths in tokens, such as (32, 128), or 'auto'")
        return boundaries(lengths, batch_size=batch_size, overhead=0.01 * lengths.sum()) if len(lengths) else ()
    return tuple(sorted(pad_to))


def whole_examples(features: Features, *, batch_size: int, order=None):
    """Returns the examples as a tf.data.Dataset of `Rows`, each with all its rows in one batch, for `task.infer`.

    Args:
        features: those of N examples.
        batch_size: rows in a batch, at most; an example of more rows is a batch by itself.
        order: the numbers of the examples in the order wanted, int64 [N] (default: 0, 1, ..., N - 1).
    """
    splits = features.example_splits
    order = np.arange(len(splits) - 1) if order is None else np.asarray(order)
    cuts, rows = [0], 0
    for i, size in enumerate(np.diff(splits)[order].tolist()):
        if rows and rows + size > batch_size:
            cuts.append(i)
            rows = 0
        rows += size
    order = tf.constant(order, tf.int64)
    ends = tf.constant([*cuts[1:], len(order)], tf.int64)
    drawn = tf.data.Dataset.from_tensor_slices((tf.constant(cuts, tf.int64), ends)).map(plain(lambda a, b: order[a:b]))
    return assembled(drawn, Tables.of(features).rows)


def settled(
    features: Features, beside: Callable[..., dict] = lambda inputs, targets, weights: {"target": targets}
) -> Features:
    """The features of rows of which `masking` has drawn what it always draws where nothing is trained, to be scored.

    Args:
        features: those with `masking`.
        beside: from a batch's inputs, targets and weights to the fields of `Rows`, [b, T], that scoring needs (default: "target").
    """
    parts: dict[str, list[np.ndarray]] = {}
    lengths = [np.zeros(1, np.int64)]
    for inputs, targets, weights in batches(features, batch_size=256):
        there = inputs["attention_mask"].numpy() > 0
        lengths.append(there.sum(1))
        aligned = beside(inputs, targets, weights)
        for name, values in {**inputs, **aligned}.items():
            parts.setdefault(name, []).append(values.numpy()[there])
    del parts["attention_mask"]
    splits = np.cumsum(np.concatenate(lengths))
    tables = {name: (np.concatenate(values), splits) for name, values in parts.items()}
    inputs = [name for name in tables if name not in aligned]
    return Features(
        ragged={name: tables[name] for name in inputs},
        padding={**dict.fromkeys(inputs, 0), **features.padding},
        examples=features.examples,
        aligned={name: tables[name] for name in aligned},
    )


def rows_by_length(features: Features, *, batch_size: int):
    """Returns each row once, the longest first, as a tf.data.Dataset of (numbers of rows int64 [b], dict of int32 ids [b, T])."""
    order = np.argsort(-features.lengths, kind="stable")
    tables = Tables.of(features)
    drawn = tf.data.Dataset.from_tensor_slices(tf.constant(order, tf.int64)).batch(batch_size)
    return assembled(drawn, lambda rows: (rows, tables.inputs(rows)))


def assembled(drawn, assemble):
    """The data set of what `assemble` makes of each element of `drawn`, in their order, some at once, two of them ahead."""
    options = tf.data.Options()
    options.deterministic = True
    # tf.data's own choice of these two numbers runs in a thread for which the end of a data set waits: for seconds, where a processor is
    # busy with training.
    options.autotune.enabled = False
    return drawn.map(plain(assemble), num_parallel_calls=ASSEMBLED_AT_ONCE).prefetch(2).with_options(options)


@dataclasses.dataclass(frozen=True)
class Tables:
    """Rows as tensors, from which the batch of any of them, or of any examples, is put together.

    Args:
        features: what the rows are; of rows that come in a stream it holds none.
        ragged: name of an input -> ragged int32 [R, (n)].
        by_example: the numbers of each example's rows, ragged int64 [N, (r)].
        aligned: name of a field of `Rows` -> ragged [R, (n)].
        targets: as of `Features`, in tensors.
        weights: float32 [N] (with `alone` [R]), or None.
        numbers: int64 [R], the rows' numbers in the whole data set, by which masks are drawn; None: as they are here.
        one_each: whether every example is known to be one row.
    """

    features: Features
    ragged: dict[str, Any]
    by_example: Any
    aligned: dict[str, Any]
    targets: Any = None
    weights: Any = None
    numbers: Any = None
    one_each: bool = False

    @classmethod
    def of(cls, features: Features) -> Tables:
        """All rows of a data set in memory."""
        splits = tf.constant(features.example_splits, tf.int64)
        if isinstance(features.targets, tuple):
            targets = _ragged(features.targets)
        else:
            targets = None if features.targets is None else tf.nest.map_structure(tf.constant, features.targets)
        return cls(
            features,
            ragged={name: _ragged(table) for name, table in features.ragged.items()},
            by_example=tf.RaggedTensor.from_row_splits(tf.range(splits[-1]), splits, validate=False),
            aligned={name: _ragged(table) for name, table in features.aligned.items()},
            targets=targets,
            weights=None if features.weights is None else tf.constant(features.weights, tf.float32),
            one_each=bool((np.diff(features.example_splits) == 1).all()),
        )

    def batch(self, batch_size: int, pad_to: tuple[int, ...], seed: int, replicas: int, per_draw: int):
        """Returns the function from the epoch and what was drawn, int64 [b], to inputs, targets and weights.

        Of what was drawn the first `real` count, where that is given; the others weigh nothing. `per_draw` is the rows of what is drawn.
        """
        features = self.features
        # The shape of a batch, where pad_to is given.
        shape = [batch_size * per_draw, pad_to[0] if len(pad_to) == 1 else None] if pad_to else None

        def assemble(epoch, drawn, real=None):
            real = tf.size(drawn) if real is None else real
            # Fill repeats the first one and weighs nothing.
            if pad_to:
                drawn = tf.concat([drawn, tf.repeat(drawn[:1], batch_size - tf.size(drawn))], 0)
                drawn = tf.ensure_shape(drawn, [batch_size])
            elif replicas > 1:
                drawn = tf.concat([drawn, tf.repeat(drawn[:1], -tf.size(drawn) % replicas)], 0)
            rows, example = (drawn, tf.range(tf.size(drawn))) if features.alone else self._rows_of(drawn)
            inputs = self.inputs(rows, pad_to)
            if shape:
                inputs = {name: tf.ensure_shape(tensor, shape) for name, tensor in inputs.items()}
            inputs |= self._beside(rows, epoch, inputs)
            if features.numbered:
                inputs["example"] = example
            if self.targets is None and features.masking is None:
                return inputs
            weight = tf.ones_like(drawn, tf.float32) if self.weights is None else tf.gather(self.weights, drawn)
            weight *= tf.cast(tf.range(tf.size(drawn)) < real, tf.float32)
            if features.masking is not None:
                return self._masked(inputs, drawn, epoch, seed, weight)
            targets = tf.nest.map_structure(lambda table: tf.gather(table, drawn), self.targets)
            if isinstance(targets, tf.RaggedTensor):
                targets = _dense(targets, losses.IGNORED, tf.shape(inputs["attention_mask"], tf.int64)[1])
            return inputs, targets, losses.normalize_weights(weight)

        return assemble

    def _masked(self, inputs, rows, epoch, seed: int, weight):
        """Inputs, targets and weights of rows, of whose tokens some are to be guessed."""
        words, width = self.aligned.get("word"), tf.shape(inputs["attention_mask"], tf.int64)[1]
        words = None if words is None else _dense(tf.gather(words, rows), -1, width)
        numbers = rows if self.numbers is None else tf.gather(self.numbers, rows)
        return self.features.masking.batch(inputs, words, numbers, epoch, weight, seed=seed)

    def rows(self, examples) -> Rows:
        """All rows of some examples, int64 [b], as `task.infer` takes them."""
        rows, example = self._rows_of(examples)
        inputs = self.inputs(rows)
        inputs |= self._beside(rows, tf.constant(0, tf.int64), inputs)
        if self.features.numbered:
            inputs["example"] = example
        width = tf.shape(inputs["attention_mask"], tf.int64)[1]
        aligned = {
            name: _dense(tf.gather(table, rows), FILL.get(name, 0), width) for name, table in self.aligned.items()
        }
        return Rows(ids=inputs, example=example, count=tf.size(examples), **aligned)

    def _rows_of(self, examples):
        """The rows of some examples, int64 [r], and the number of each one's example in the batch, int32 [r]."""
        if self.one_each:
            return examples, tf.range(tf.size(examples))
        rows = tf.gather(self.by_example, examples)
        return rows.values, tf.cast(rows.value_rowids(), tf.int32)

    def inputs(self, rows, pad_to=()) -> dict:
        """The ids and the mask of some rows, int64 [r], padded to the longest of them, or to a length of `pad_to`."""
        picked = {name: tf.gather(table, rows) for name, table in self.ragged.items()}
        lengths = next(iter(picked.values())).row_lengths()
        width = tf.maximum(tf.reduce_max(lengths), 1)  # as in the graph: GPT-2 has no special tokens, and "" no token
        if pad_to:
            choices = tf.constant(pad_to, tf.int64)
            width = tf.reduce_min(tf.boolean_mask(choices, choices >= width))
        inputs = {name: _dense(table, self.features.padding[name], width) for name, table in picked.items()}
        inputs["attention_mask"] = tf.sequence_mask(lengths, width, tf.int32)
        return inputs

    def _beside(self, rows, epoch, inputs) -> dict:
        width = tf.shape(inputs["attention_mask"], tf.int64)[1]
        return {name: read(rows, epoch, width) for name, read in self.features.beside.items()}


def _ragged(table: Ragged):
    values, splits = table
    return tf.RaggedTensor.from_row_splits(tf.constant(values), tf.constant(splits, tf.int64), validate=False)


def _dense(ragged, fill: int, width):
    """The rows of a ragged tensor [b, (n)] or [b, (n), K] filled up to `width`."""
    return ragged.to_tensor(tf.cast(fill, ragged.dtype), shape=tf.stack([-1, width, *ragged.flat_values.shape[1:]]))


def _rows_each(features: Features, fixed: bool) -> int:
    """The rows of each example, where all have as many; where batches must be of one shape, others are an error."""
    sizes = np.unique(np.diff(features.example_splits))
    if fixed and len(sizes) > 1:
        raise InputError(
            f"pad_to needs examples of one number of rows, but they have {sizes[0]} to {sizes[-1]} windows; "
            "cut long texts by head or tail instead"
        )
    return int(sizes[0]) if len(sizes) == 1 else 1


def statistics(features: Features, *, batch_size: int, training=False, seed=0, pad_to=()) -> Statistics:
    """Returns what the first epoch of `batches` with the same arguments costs, without running it."""
    lengths, splits, draws = features.lengths, features.example_splits, features.draws
    pad_to = widths(draws, pad_to, batch_size)
    sizes = np.ones(len(draws), np.int64) if features.alone else np.diff(splits)
    steps = -(-len(draws) // batch_size)
    order = np.arange(len(draws))
    if training:
        order = epoch_order(tf.constant(draws, tf.int64), batch_size, seed, tf.constant(0, tf.int64))[0].numpy()
    positions = 0
    for b in range(steps):
        drawn = order[b * batch_size : (b + 1) * batch_size]
        widest = draws[drawn].max()
        width = min((w for w in pad_to if w >= widest), default=widest)
        rows = int(sizes[drawn].sum()) + (batch_size - len(drawn)) * int(sizes[drawn[0]]) * bool(pad_to)
        positions += int(width) * rows
    tokens = int(lengths.sum())
    return Statistics(steps, tokens, 1 - tokens / positions if positions else 0.0)
