"""Predict and score a whole data set: rows of like length together, answers in the order of the examples."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from tfbert import analysis, models
from tfbert._compat import tf, traced
from tfbert.errors import InputError
from tfbert.pipeline import batches, whole_examples
from tfbert.serving.rows import rows
from tfbert.sources import Examples, Stream, from_iterable, windows
from tfbert.sources.examples import Cleaning
from tfbert.tokenization import RustPieces

KEPT = 4  # traced functions that a model keeps


def evaluate(task, model, tokenizer, examples, *, batch_size: int = 64, details: bool = False) -> dict[str, Any]:
    """Scores a model on labelled examples; every example counts once.

    Args:
        task: the model's task.
        model: what `task.build` returned, or any Keras model with its inputs and outputs.
        tokenizer: the model's tokenizer.
        examples: dicts with the task's fields; a reader's result, a list, any iterable of dicts.
        batch_size: rows computed at once (default 64); it changes the speed, not the scores.
        details: return everything that helps to see where the model is wrong (default False).

    Returns:
        The task's scores by their standard names, fractions from 0 to 1. With `details` a dict of plain values: `metrics` (those
        scores); `by_label`; `by_length` (fifths of the examples by their tokens); `confusion` and `calibration` (before and after
        the temperature) where the task decides between labels; `examples`, one dict each: where, input, expected, answer, right, loss,
        tokens, windows; and `top_losses`, the numbers of the worst of them.

    Raises:
        InputError: an example without text or with an unknown label, with its place.
    """
    examples = from_iterable(examples)
    task.check(examples)
    inference = Inference(task, tokenizer, examples, batch_size=batch_size)
    inferred = inference(model)
    if not details:
        return task.score(examples, inferred)
    answers = _answers(task, tokenizer, examples, inferred)
    losses = example_losses(task, model, tokenizer, examples, batch_size=batch_size)
    return analysis.details(task, examples, inferred, answers, inference.features, losses)


def predict(task, model, tokenizer, data, *, batch_size: int = 64) -> list[dict[str, Any]]:
    """Answers texts with the Keras model, in the very form in which the exported model answers.

    Args:
        task: the model's task.
        model: what `task.build` returned.
        tokenizer: the model's tokenizer.
        data: texts (str), tuples of texts for a task of pairs, or dicts with the task's text fields; other fields are ignored.
        batch_size: rows computed at once (default 64).

    Returns:
        One dict per row: the outputs of the `serving_default` signature as plain Python values.

    Raises:
        InputError: a row without the task's text fields, with its place.
    """
    examples = as_examples(task, data)
    return Inference(task, tokenizer, examples, batch_size=batch_size, scored=False).answers(model)


def predict_stream(
    task, model, tokenizer, rows, *, window: int = 4096, batch_size: int = 64
) -> Iterator[dict[str, Any]]:
    """Answers rows as they come, each as `predict` does, in their order, and holds few of them at a time.

    Rows of like length within a window are computed together. The windows grow from one batch to `window`, so the first answers come
    soon. A row is read when its window begins, not before.

    Args:
        task: the model's task.
        model: what `task.build` returned.
        tokenizer: the model's tokenizer.
        rows: any iterable of what `predict` takes, such as `sources.stream("reviews.csv")`, a file of any size. None among the rows has
            those answered that have come so far: for a source that is slow at times.
        window: the rows that are read before they are answered, at most (default 4096).
        batch_size: rows computed at once (default 64).

    Yields:
        One dict per row, as in `predict`.

    Raises:
        InputError: a row without the task's text fields, with its place; once the rows before it are answered.

    Example:
        >>> rows = sources.stream("reviews.jsonl", columns={"text": "review"})  # doctest: +SKIP
        >>> for answer in predict_stream(task, model, tokenizer, rows):         # doctest: +SKIP
        ...     print(answer["label"])
    """
    inference = None
    for part in windows(_checked(task, rows), first=batch_size, most=window):
        examples = Examples(part, source="data")
        if inference is None:
            inference = Inference(task, tokenizer, examples, batch_size=batch_size, scored=False)
        else:
            inference.take(examples)
        yield from inference.answers(model)


def _checked(task, rows: Iterable) -> Iterator[dict | None]:
    """Each row as an example that has the task's texts."""
    number, cleaning = 0, Cleaning(keep_nuls=True)
    for row in rows:
        if row is not None:
            number += 1
            if isinstance(rows, Stream):
                example = rows.last
            else:
                row = cleaning.row(_as_dict(task, row, number), f"row {number} of data")
                example = Examples([row], source="data", rows_at=[number])
            for name in task.inputs:
                task.input(example, 0, name)
        yield row


def _answers(task, tokenizer, examples: Examples, inferred: dict[str, np.ndarray]) -> list[dict[str, Any]]:
    texts = {name: tf.constant([task.input(examples, i, name) for i in range(len(examples))]) for name in task.inputs}
    inferred = {name: tf.constant(values) for name, values in inferred.items()}
    answer = task.answer(inferred, texts, RustPieces(tokenizer))
    return rows({name: tensor.numpy() for name, tensor in answer.items()})


def example_losses(task, model, tokenizer, examples: Examples, *, batch_size: int = 64) -> np.ndarray:
    """The training loss of each example without dropout, float32 [N]; of one in several windows, their mean by number of targets.

    With in-batch negatives ("ranking") it depends on the examples that stand beside.
    """
    features, loss = task.features(tokenizer, examples), task.loss()
    data = batches(features, batch_size=batch_size)

    @traced(input_signature=data.element_spec[:2])
    def step(inputs, targets):
        outputs = model(inputs, training=False)
        named, own = (x if isinstance(x, dict) else dict.fromkeys(outputs, x) for x in (targets, loss))
        return tf.add_n([tf.cast(own[name](named[name], output), tf.float32) for name, output in outputs.items()])

    found = np.concatenate([step(inputs, targets).numpy() for inputs, targets, _ in data])
    if not features.alone:
        return found
    splits = features.example_splits[:-1]
    weights = np.maximum(features.weights, 1e-9)
    return np.add.reduceat(found * weights, splits) / np.add.reduceat(weights, splits)


def as_examples(task, data: Iterable) -> Examples:
    """Turns texts, tuples of texts or dicts into examples of the task."""
    if isinstance(data, str):
        raise InputError("data is one string; pass a list of texts, [text]")
    if isinstance(data, Examples):
        return data
    return from_iterable([_as_dict(task, row, i) for i, row in enumerate(data, 1)], "data", keep_nuls=True)


def _as_dict(task, row, number: int):
    values = (row,) if isinstance(row, str) else row
    if not isinstance(values, tuple | list):
        return values
    if len(values) != len(task.inputs):
        raise InputError(f"row {number} of data has {len(values)} texts; the task takes {', '.join(task.inputs)}")
    return dict(zip(task.inputs, values))


class Inference:
    """A data set, tokenized once, that any model of its task can be run over: in each epoch of a training, say.

    Calling it with a model returns the numbers of `task.infer` for every example, in their order: name -> array [N, ...]; to be scored,
    or without `scored` to be read by a user.
    """

    def __init__(self, task, tokenizer, examples: Examples, *, batch_size: int = 64, scored: bool = True):
        self.task, self.tokenizer, self.batch_size, self.scored = task, tokenizer, batch_size, scored
        self._checked = None  # the model that fits
        self.frozen = None  # the FrozenStates of these rows, while the model is a FromStates one
        self.take(examples)

    def take(self, examples: Examples) -> None:
        """Goes on with other examples; what was traced for a model stays."""
        self._batches = None
        self.examples, task, tokenizer = examples, self.task, self.tokenizer
        self.features = (
            task.scored(tokenizer, examples) if self.scored else task.features(tokenizer, examples, targets=False)
        )
        # Longest first: if memory does not suffice, that shows in the first batch.
        splits = self.features.example_splits
        self.order = np.argsort(-np.maximum.reduceat(self.features.lengths, splits[:-1]), kind="stable")

    def __call__(self, model) -> dict[str, np.ndarray]:
        if len(self.order) == 0:
            raise InputError("there is no row to compute; the data is empty")
        rung = models.frozen_rung(model) if self.frozen else None
        batches = self._in_batches(rung)
        if self._checked is not model:
            models.check_task(self.task, model, self.tokenizer)
            self._checked = model
        step = inference_step(self.task, model, batches.element_spec, rung)
        parts = [step(rows) for rows in batches]
        back = np.argsort(self.order)
        inferred = {name: _joined([part[name].numpy() for part in parts])[back] for name in parts[0]}
        return self.task.read(inferred, RustPieces(self.tokenizer)) if self.scored else inferred

    def _in_batches(self, rung: int | None):
        """The data set, which is the same in each epoch, except where frozen states take the place of ids."""
        if rung is not None:
            features = dataclasses.replace(self.features, beside=self.frozen.beside([rung]))
            return whole_examples(features, batch_size=self.batch_size, order=self.order)
        if self._batches is None:
            self._batches = whole_examples(self.features, batch_size=self.batch_size, order=self.order)
        return self._batches

    def answers(self, model) -> list[dict[str, Any]]:
        """What a user reads: one dict of plain values per example."""
        return _answers(self.task, self.tokenizer, self.examples, self(model))


def _joined(parts: list[np.ndarray]) -> np.ndarray:
    """Puts batches [b, ...] together; where one is wider than another, as the entities of a text are, 0 fills up."""
    shape = np.max([part.shape[1:] for part in parts], axis=0).astype(int)
    return np.concatenate(
        [np.pad(part, [(0, 0), *((0, most - own) for most, own in zip(shape, part.shape[1:]))]) for part in parts]
    )


def inference_step(task, model, spec, rung: int | None):
    """Returns the function from `Rows` of that `spec` to `task.infer` of the model's outputs, traced once for all shapes.

    It stays with the model, so that `predict` after `predict` traces it once, until the model has another encoder or other variables.
    """
    variables = [variable.ref() for variable in getattr(model, "weights", ())]  # an export's function has none
    wanted = (task, spec, rung, models.lean_encoder(model), variables)
    kept = getattr(model, "__dict__", {}).setdefault("_tfbert_steps", [])  # past Keras' tracking
    for own, step in kept:
        if own == wanted:
            return step

    @traced(input_signature=[spec])
    def step(rows):
        return task.infer(task.outputs(model, rows), rows)

    kept[:] = [*kept[1 - KEPT :], (wanted, step)]
    return step
