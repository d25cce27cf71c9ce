"""Predict and score a whole data set: rows of like length together, answers in the order of the examples."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from tfbert._compat import tf
from tfbert.errors import InputError
from tfbert.pipeline import batches
from tfbert.serving.rows import rows
from tfbert.sources import Examples, from_iterable


def evaluate(task, model, tokenizer, examples, *, batch_size: int = 64) -> dict[str, float]:
    """Scores a model on labelled examples; every example counts once.

    Args:
        task: the model's task.
        model: what `task.build` returned, or any Keras model with its inputs and outputs.
        tokenizer: the model's tokenizer.
        examples: dicts with the task's fields; a reader's result, a list, any iterable of dicts.
        batch_size: rows computed at once (default 64); it changes the speed, not the scores.

    Returns:
        The task's scores by their standard names, fractions from 0 to 1.

    Raises:
        InputError: an example without text or with an unknown label, with its place.
    """
    examples = from_iterable(examples)
    task.check(examples)
    return task.score(examples, Inference(task, tokenizer, examples, batch_size=batch_size)(model))


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
    inferred = Inference(task, tokenizer, examples, batch_size=batch_size)(model)
    answer = task.answer({name: tf.constant(values) for name, values in inferred.items()})
    return rows({name: tensor.numpy() for name, tensor in answer.items()})


def as_examples(task, data: Iterable) -> Examples:
    """Turns texts, tuples of texts or dicts into examples of the task."""
    if isinstance(data, str):
        raise InputError("data is one string; pass a list of texts, [text]")
    if isinstance(data, Examples):
        return data
    made = []
    for i, row in enumerate(data):
        values = (row,) if isinstance(row, str) else row
        if isinstance(values, tuple | list):
            if len(values) != len(task.inputs):
                raise InputError(
                    f"row {i + 1} of data has {len(values)} texts; the task takes {', '.join(task.inputs)}"
                )
            values = dict(zip(task.inputs, values))
        made.append(values)
    return from_iterable(made, "data")


class Inference:
    """A data set, tokenized once, that any model of its task can be run over: in each epoch of a training, say.

    Calling it with a model returns the numbers of `task.infer` for every example, in their order: name -> array [N, ...].
    """

    def __init__(self, task, tokenizer, examples: Examples, *, batch_size: int = 64):
        self.task, self.batch_size = task, batch_size
        self.features = task.features(tokenizer, examples, targets=False)
        # Longest first: if memory does not suffice, that shows in the first batch.
        self.order = np.argsort(-self.features.lengths, kind="stable")
        self._step, self._model = None, None

    def __call__(self, model) -> dict[str, np.ndarray]:
        if len(self.order) == 0:
            raise InputError("there is no row to compute; the data is empty")
        if self._model is not model:
            self._step, self._model = inference_step(self.task, model), model
        parts = [self._step(inputs) for inputs in batches(self.features, batch_size=self.batch_size, order=self.order)]
        back = np.argsort(self.order)
        return {name: np.concatenate([part[name].numpy() for part in parts])[back] for name in parts[0]}


def inference_step(task, model):
    """Returns the function from a batch's ids {name: int32 [B, T]} to `task.infer` of the model's outputs, traced once for all shapes."""

    @tf.function(input_signature=[{tensor.name: tf.TensorSpec([None, None], tf.int32) for tensor in model.inputs}])
    def step(inputs):
        return task.infer(model(inputs, training=False))

    return step
