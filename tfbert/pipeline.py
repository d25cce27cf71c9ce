"""Features -> batches: flat ids in memory, a seeded order for each epoch, and tf.data operations from there on."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from tfbert import losses
from tfbert._compat import tf
from tfbert.errors import InputError
from tfbert.masking import FIXED
from tfbert.shuffling import epoch_order
from tfbert.sources import from_iterable
from tfbert.static_shapes import boundaries
from tfbert.tokenization import Rows

# Examples that are tokenized and cut at a time.
COLLECTED = 512
# The fields of Rows with a value for each token.
ALIGNED = ("piece", "owned", "start", "end", "word", "target")
FILL = {"target": losses.IGNORED}  # what stands in padding, where it is not 0


Ragged = tuple[
    np.ndarray, np.ndarray
]  # values [total], row_splits int64 [rows + 1]: row i is values[row_splits[i]:row_splits[i + 1]]


@dataclasses.dataclass(frozen=True)
class Features:
    """The tokenized data set as NumPy arrays: N examples in R rows, a row being what the model reads at once.

    Most examples are one row. A long text that is cut into windows has several, and so has a text with its choices or its paraphrase;
    the rows of an example stand side by side.

    Args:
        ragged: name of a model's input -> its int32 values and the rows' splits, the same for all.
        padding: name -> the int32 that fills rows up to their batch's length.
        targets: array [N, ...], a dict of such by the name of the output, or a Ragged of int32, whose rows are filled up with
            losses.IGNORED; with `alone` of R, not N, rows. None where there is nothing to learn.
        weights: float32 [N] (with `alone` [R]), or None.
        examples: int64 [N + 1], the rows' splits: example i has the rows examples[i]:examples[i + 1]. None: a row each.
        alone: whether training draws rows, each with a target of its own; else it draws examples with all their rows (default).
        numbered: whether the model takes the input "example", int32 [rows]: the number of each row's example in the batch.
        aligned: name of a field of `Rows` -> values beside the tokens, which `task.infer` needs and the model does not.
        masking: draws the targets of rows, which are `alone`, anew for each epoch (see `masking.Masking`); `aligned` then has "word", with
            -1 for what is no text. A row weighs as many times its weight as it has targets.
    """

    ragged: dict[str, Ragged]
    padding: dict[str, int]
    targets: Any = None
    weights: np.ndarray | None = None
    examples: np.ndarray | None = None
    alone: bool = False
    numbered: bool = False
    aligned: dict[str, Ragged] = dataclasses.field(default_factory=dict)
    masking: Callable | None = None

    @property
    def lengths(self) -> np.ndarray:
        """The tokens of each row, int64 [R]."""
        return np.diff(next(iter(self.ragged.values()))[1])

    @property
    def draws(self) -> np.ndarray:
        """The tokens of the longest row of each thing that training draws, a row or an example: int64."""
        if self.examples is None or self.alone or len(self.examples) < 2:
            return self.lengths
        return np.maximum.reduceat(self.lengths, self.examples[:-1])

    @property
    def even(self) -> bool:
        """Whether all that training draws has as many rows and targets, so that batches can have one shape."""
        return self.masking is None and (self.alone or len(np.unique(np.diff(self.example_splits))) <= 1)

    @property
    def example_splits(self) -> np.ndarray:
        """int64 [N + 1], where there is a row each too."""
        return np.arange(len(self.lengths) + 1) if self.examples is None else self.examples


@dataclasses.dataclass(frozen=True)
class Statistics:
    """What an epoch costs: `steps`, `tokens` (real ones) and `padding_share`, the fraction of all positions that is padding."""

    steps: int
    tokens: int
    padding_share: float


def pieces_in_use(features: Features) -> np.ndarray | None:
    """The ids that rows and their padding hold, ascending, int64: the rows of the word embeddings that training can change.

    None where tokens are to be guessed: every row is then among those that are chosen from.
    """
    if features.masking is not None:
        return None
    return np.union1d(features.ragged["input_ids"][0], features.padding["input_ids"]).astype(np.int64)


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


def batches(features: Features, *, batch_size: int, training=False, seed=0, pad_to=(), start=(0, 0)):
    """The data set of `make_dataset`, from features that are there already; without targets, of the inputs alone."""
    lengths, pad_to = features.draws, _pad_to(features, pad_to, batch_size)
    if batch_size < 1:
        raise InputError(f"batch_size is {batch_size}; it must be at least 1")
    if pad_to and features.masking is not None:
        raise InputError(
            "pad_to (and xla) need batches of one shape, but the number of masked tokens differs; leave it out"
        )
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
            lambda number: (now, drawn[number * batch_size : tf.minimum((number + 1) * batch_size, count)])
        )

    drawn = tf.data.Dataset.from_tensors(0).flat_map(next_epoch)
    if not start[1]:
        drawn = drawn.apply(tf.data.experimental.assert_cardinality(steps))
    drawn.position = (epoch, skip)  # the graph holds only the handles of the two variables
    return _run(drawn, _Tables(features).batch(batch_size, pad_to, seed))


def _pad_to(features: Features, pad_to, batch_size: int) -> tuple[int, ...]:
    if isinstance(pad_to, str):
        if pad_to != "auto":
            raise InputError(f"pad_to is {pad_to!r}; give lengths in tokens, such as (32, 128), or 'auto'")
        draws = features.draws
        return boundaries(draws, batch_size=batch_size, overhead=0.01 * draws.sum()) if len(draws) else ()
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
    drawn = tf.data.Dataset.from_tensor_slices((tf.constant(cuts, tf.int64), ends)).map(lambda a, b: order[a:b])
    return _run(drawn, _Tables(features).rows)


def _run(drawn, assemble):
    options = tf.data.Options()
    options.deterministic = True
    return drawn.map(assemble, num_parallel_calls=tf.data.AUTOTUNE).prefetch(tf.data.AUTOTUNE).with_options(options)


class _Tables:
    """A data set's features as tensors, from which the batch of any of its rows or examples is put together."""

    def __init__(self, features: Features):
        self.features = features
        self.ragged = {name: _ragged(table) for name, table in features.ragged.items()}
        self.aligned = {name: _ragged(table) for name, table in features.aligned.items()}
        splits = tf.constant(features.example_splits, tf.int64)
        self.by_example = tf.RaggedTensor.from_row_splits(tf.range(splits[-1]), splits, validate=False)
        self.weights = None if features.weights is None else tf.constant(features.weights, tf.float32)
        if isinstance(features.targets, tuple):
            self.targets = _ragged(features.targets)
        else:
            self.targets = None if features.targets is None else tf.nest.map_structure(tf.constant, features.targets)

    def batch(self, batch_size: int, pad_to: tuple[int, ...], seed: int):
        """Returns the function from the epoch and what was drawn, int64 [b], to inputs, targets and weights."""
        features = self.features
        per_draw = 1 if features.examples is None or features.alone else _rows_each(features, bool(pad_to))
        # The shape of a batch, where pad_to is given.
        shape = [batch_size * per_draw, pad_to[0] if len(pad_to) == 1 else None] if pad_to else None

        def assemble(epoch, drawn):
            real = tf.size(drawn)
            if pad_to:
                # Fill repeats the first one and weighs nothing.
                drawn = tf.concat([drawn, tf.repeat(drawn[:1], batch_size - real)], 0)
                drawn = tf.ensure_shape(drawn, [batch_size])
            rows, example = (drawn, tf.range(tf.size(drawn))) if features.alone else self._rows_of(drawn)
            inputs = self._inputs(rows, pad_to)
            if shape:
                inputs = {name: tf.ensure_shape(tensor, shape) for name, tensor in inputs.items()}
            if features.numbered:
                inputs["example"] = example
            if self.targets is None and features.masking is None:
                return inputs
            weight = tf.ones_like(drawn, tf.float32) if self.weights is None else tf.gather(self.weights, drawn)
            if features.masking is not None:
                return self._masked(inputs, drawn, epoch, seed, weight)
            weight *= tf.cast(tf.range(tf.size(drawn)) < real, tf.float32)
            targets = tf.nest.map_structure(lambda table: tf.gather(table, drawn), self.targets)
            if isinstance(targets, tf.RaggedTensor):
                targets = _dense(targets, losses.IGNORED, tf.shape(inputs["attention_mask"], tf.int64)[1])
            return inputs, targets, losses.normalize_weights(weight)

        return assemble

    def _masked(self, inputs, rows, epoch, seed: int, weight):
        """Inputs, targets and weights of rows, of whose tokens some are to be guessed."""
        words = _dense(tf.gather(self.aligned["word"], rows), -1, tf.shape(inputs["attention_mask"], tf.int64)[1])
        changed, targets = self.features.masking(inputs["input_ids"], words, rows, epoch, seed=seed)
        weight *= tf.cast(tf.reduce_sum(changed["masked"], 1), tf.float32)
        return {**inputs, **changed}, targets, losses.normalize_weights(weight)

    def rows(self, examples) -> Rows:
        """All rows of some examples, int64 [b], as `task.infer` takes them."""
        rows, example = self._rows_of(examples)
        inputs = self._inputs(rows, ())
        if self.features.numbered:
            inputs["example"] = example
        width = tf.shape(inputs["attention_mask"], tf.int64)[1]
        aligned = {
            name: _dense(tf.gather(table, rows), FILL.get(name, 0), width) for name, table in self.aligned.items()
        }
        return Rows(ids=inputs, example=example, count=tf.size(examples), **aligned)

    def _rows_of(self, examples):
        """The rows of some examples, int64 [r], and the number of each one's example in the batch, int32 [r]."""
        rows = tf.gather(self.by_example, examples)
        return rows.values, tf.cast(rows.value_rowids(), tf.int32)

    def _inputs(self, rows, pad_to) -> dict:
        picked = {name: tf.gather(table, rows) for name, table in self.ragged.items()}
        lengths = next(iter(picked.values())).row_lengths()
        width = tf.reduce_max(lengths)
        if pad_to:
            choices = tf.constant(pad_to, tf.int64)
            width = tf.reduce_min(tf.boolean_mask(choices, choices >= width))
        inputs = {name: _dense(table, self.features.padding[name], width) for name, table in picked.items()}
        inputs["attention_mask"] = tf.sequence_mask(lengths, width, tf.int32)
        return inputs


def _ragged(table: Ragged):
    values, splits = table
    return tf.RaggedTensor.from_row_splits(tf.constant(values), tf.constant(splits, tf.int64), validate=False)


def _dense(ragged, fill: int, width):
    """The rows of a ragged tensor [b, (n)] filled up to `width`."""
    return ragged.to_tensor(tf.cast(fill, ragged.dtype), shape=tf.stack([-1, width]))


def _rows_each(features: Features, fixed: bool) -> int:
    """The rows of each example, where all have as many; where batches must be of one shape, others are an error."""
    sizes = np.unique(np.diff(features.example_splits))
    if fixed and len(sizes) > 1:
        raise InputError(
            f"pad_to needs examples of one number of rows, but they have {sizes[0]} to {sizes[-1]} windows; "
            "cut long texts by head or tail instead"
        )
    return int(sizes[0]) if len(sizes) == 1 else 1


def collect(rows_of, columns: Mapping[str, Sequence], *, padding: Mapping[str, int]) -> dict[str, Any]:
    """Runs a function from texts to `Rows` over a data set and returns what it gave as the fields of `Features`.

    Args:
        rows_of: ({name: string [b, ...]}) -> Rows; called with some hundred examples at a time.
        columns: name -> the N texts (or lists of texts) of the data set.
        padding: the names of the model's inputs that are wanted, with what fills them up.

    Returns:
        {"ragged", "padding", "examples", "aligned"}, for `Features(**collect(...))`.
    """
    parts: dict[str, list[np.ndarray]] = {}
    lengths, sizes = [np.zeros(1, np.int64)], [np.zeros(1, np.int64)]
    count = len(next(iter(columns.values())))
    for first in range(0, count, COLLECTED):
        rows = rows_of({name: tf.constant(column[first : first + COLLECTED]) for name, column in columns.items()})
        mask = rows.ids["attention_mask"].numpy() > 0
        lengths.append(mask.sum(1))
        sizes.append(np.bincount(rows.example.numpy(), minlength=int(rows.count)))
        found = {name: rows.ids[name] for name in padding}
        found |= {name: getattr(rows, name) for name in ALIGNED if getattr(rows, name) is not None}
        for name, tensor in found.items():
            parts.setdefault(name, []).append(tensor.numpy()[mask])
    splits = np.cumsum(np.concatenate(lengths))
    tables = {name: (np.concatenate(chunks), splits) for name, chunks in parts.items()}
    empty = (np.zeros(0, np.int32), splits)
    return {
        "ragged": {name: tables.get(name, empty) for name in padding},
        "padding": dict(padding),
        "examples": np.cumsum(np.concatenate(sizes)),
        "aligned": {name: table for name, table in tables.items() if name in ALIGNED},
    }


def statistics(features: Features, *, batch_size: int, training=False, seed=0, pad_to=()) -> Statistics:
    """Returns what the first epoch of `batches` with the same arguments costs, without running it."""
    lengths, splits, draws = features.lengths, features.example_splits, features.draws
    pad_to = _pad_to(features, pad_to, batch_size)
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
