"""Distillation: what a fine-tuned teacher answers to each training row, computed once, as a further target of a smaller model."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from tfbert import losses
from tfbert._compat import tf, traced
from tfbert.errors import InputError
from tfbert.features import Features
from tfbert.files import sha256
from tfbert.pipeline import whole_examples
from tfbert.sources import Examples
from tfbert.tasks import Task

# The fields of a task that say what an output stands for: a teacher's must be those of its student.
MEANING = ("kind", "labels", "choices", "pair")
LEAST = -1e9  # the logit of padding


@dataclasses.dataclass(frozen=True)
class Lesson:
    """What a model learns from: the rows, and the loss of what it answers to them.

    Args:
        features: the rows with their targets.
        loss: (targets, outputs) -> float32 [B].
        divergence: as `Task.divergence`.
    """

    features: Features
    loss: Callable
    divergence: Callable | None


@dataclasses.dataclass(frozen=True)
class Teacher:
    """A fine-tuned model from whose answers another one learns (Hinton et al. 2015, "Distilling the Knowledge in a Neural Network").

    The loss of a row is (1 - share) * the task's own + share * that of the teacher's softened answer (`Task.soft_loss`). The teacher's
    outputs are computed once, without dropout, and are targets from then on, so that an epoch costs what the student's does.

    Args:
        task: the teacher's, as `load` returned it.
        model: its Keras model.
        tokenizer: its tokenizer. Where a target belongs to a whole text it may be another than the student's.
        directory: the folder that it was read from.
        temperature: what the logits of both are divided by; without meaning for numbers (regression).
        share: of the teacher's answers in the loss, above 0 to 1, which leaves the labels out.
    """

    task: Task
    model: Any
    tokenizer: Any
    directory: Path
    temperature: float
    share: float

    def identity(self) -> dict[str, str]:
        """The hashes of all that its answers depend on."""
        read = [self.directory / "task.json", *sorted((self.directory / "checkpoint").iterdir())]
        return {f"teacher/{path.name}": sha256(path) for path in read}

    def fill(self, task: Task) -> Task:
        """Returns the task with the labels of the teacher's where it leaves them open.

        Raises:
            InputError: the teacher's is another task, or its outputs stand for something else.
        """
        if type(task) is not type(self.task):
            raise InputError(
                f"teacher {self.directory} is fine-tuned for {self.task.name}, not for {task.name}; choose a teacher of the same task"
            )
        if task.soft_loss() is None:
            raise InputError(f"{task.name} has no loss for a teacher's answers; leave teacher out")
        own = {name: getattr(self.task, name) for name in MEANING if hasattr(self.task, name)}
        task = dataclasses.replace(
            task, **{name: value for name, value in own.items() if getattr(task, name) in ((), None)}
        )
        for name, value in own.items():
            if getattr(task, name) != value:
                raise InputError(
                    f"{name}: the task has {_shown(getattr(task, name))}, its teacher {self.directory} {_shown(value)}; give the task the "
                    "teacher's, in its order, or choose another teacher"
                )
        return task

    def lesson(self, task: Task, tokenizer, train: Examples, unlabelled: Examples | None) -> Lesson:
        """The rows of `train`, and those of `unlabelled` with the teacher's answers alone, beside what the teacher answers.

        Args:
            task: the student's, its fields complete.
            tokenizer: the student's.
            train: checked examples.
            unlabelled: examples with the task's texts, each of which weighs 1 in the loss; or None.
        """
        features = task.features(tokenizer, train)
        if unlabelled:
            texts = task.features(tokenizer, unlabelled, targets=False)
            features = _joined(features, dataclasses.replace(texts, **_nothing(texts, features.targets)))
        found = self._answers(Examples([*train, *(unlabelled or ())], source="train"), features)
        columns = None
        if isinstance(features.targets, tuple):
            (labels, splits), (answers,) = features.targets, found.values()
            labels = labels.astype(np.float32)[:, np.newaxis]
            targets = (np.concatenate([labels, np.concatenate(answers)], 1), splits)
        elif isinstance(features.targets, dict):
            targets = {name: _beside(features.targets[name], found[name], task.max_length) for name in found}
        else:
            (answers,) = found.values()
            targets = _beside(features.targets, answers, answers[0].size)
            columns = features.targets.shape[1] if features.targets.ndim > 1 else None
        loss = mixed(task.loss(), task.soft_loss(), columns=columns, temperature=self.temperature, share=self.share)
        divergence = task.divergence()
        apart = divergence and (lambda both, *outputs: divergence(_parted(both, columns)[0], *outputs))
        return Lesson(dataclasses.replace(features, targets=targets), loss, apart)

    def _answers(self, examples: Examples, features: Features) -> dict[str, list[np.ndarray]]:
        """The teacher's outputs by name: float32 [K] for each example, or [T, ...] for each row where rows have targets of their own."""
        print(f"tfbert: teacher {self.directory} answers {len(examples):,} rows, once", file=sys.stderr)
        own = self.task.features(self.tokenizer, examples, targets=False)
        if features.alone:
            self._check_rows(own, features)
        splits, count = own.example_splits, len(examples)
        # Longest first, as in evaluation.
        order = np.argsort(-np.maximum.reduceat(own.lengths, splits[:-1]), kind="stable")
        data = whole_examples(own, batch_size=64, order=order)
        step = traced(lambda rows: self.model(rows.ids, training=False), input_signature=[data.element_spec])
        found: dict[str, list[np.ndarray]] = {}
        for rows in data:
            lengths = tf.reduce_sum(rows.ids["attention_mask"], 1).numpy()
            for name, output in step(rows).items():
                values = output.numpy()
                if features.alone:
                    values = [row[:length] for row, length in zip(values, lengths, strict=True)]
                else:
                    values = values.reshape(int(rows.count), -1)
                found.setdefault(name, []).extend(values)
        if features.alone:  # the rows in the order in which they were computed
            order = np.concatenate([np.arange(splits[i], splits[i + 1]) for i in order])
            count = len(own.lengths)
        back = np.empty(count, np.int64)
        back[order] = np.arange(count)
        return {name: [values[place] for place in back] for name, values in found.items()}

    def _check_rows(self, own: Features, features: Features) -> None:
        """Raises InputError unless the teacher reads the very tokens of the student, each of which has a target."""
        pairs = zip(own.ragged["input_ids"], features.ragged["input_ids"], strict=True)
        if not all(np.array_equal(mine, theirs) for mine, theirs in pairs):
            raise InputError(
                f"teacher {self.directory} cuts texts into other tokens than the student; {self.task.name} has a target for each token, so "
                "that both need the same vocabulary, max_length and stride"
            )


def mixed(hard: Callable, soft: Callable, *, columns: int | None, temperature: float, share: float) -> Callable:
    """The loss of a student: (1 - share) * hard(labels, outputs) + share * soft(labels, teacher, outputs).

    Args:
        hard: `Task.loss()`.
        soft: `Task.soft_loss()`.
        columns: how many of the targets' last axis are the labels', None for one that has no axis of its own; NaN among them is a label
            that is missing, and its row has no hard loss. The others are the teacher's outputs.
        temperature: the teacher's.
        share: of the soft loss.

    Returns:
        The function (targets [B, ..., columns or 1 + K], outputs) -> float32 [B].

    Example:
        >>> loss = mixed(losses.sparse_categorical_crossentropy, losses.soft_crossentropy, columns=None, temperature=2.0, share=0.5)
        >>> targets = np.array([[1.0, 0.0, 4.0], [np.nan, 0.0, 4.0]])
        >>> loss(targets, np.array([[0.0, 0.0], [0.0, 0.0]])).numpy().tolist()  # ln 2 and 4 ln 2
        [1.7329, 1.3863]
    """

    def loss(targets, outputs):
        labels, teacher, missing = _parted(targets, columns)
        labelled = 1.0 - tf.cast(tf.reduce_any(missing, axis=list(range(1, missing.shape.rank))), tf.float32)
        own = hard(labels, outputs)
        return (1.0 - share) * labelled * own + share * soft(labels, teacher, outputs, temperature=temperature)

    return loss


def _parted(targets, columns: int | None):
    """Labels, 0 where there is none, the teacher's outputs, and whether a label is missing, bool."""
    targets = tf.cast(targets, tf.float32)
    labels, teacher = targets[..., : columns or 1], targets[..., columns or 1 :]
    labels = labels[..., 0] if columns is None else labels
    missing = tf.math.is_nan(labels)
    return tf.where(missing, 0.0, labels), teacher, missing[:, tf.newaxis]


def _beside(targets: np.ndarray, answers: list[np.ndarray], width: int) -> np.ndarray:
    """Targets [N, ...] with the teacher's numbers after each one's own: float32 [N, columns + width]."""
    found = np.full([len(targets), width], LEAST, np.float32)
    for row, values in zip(found, answers, strict=True):
        row[: values.size] = values
    return np.concatenate([targets.reshape(len(targets), -1).astype(np.float32), found], 1)


def _nothing(features: Features, like) -> dict[str, Any]:
    """Targets and weights of texts without labels: NaN wherever examples with labels have one, in the form of theirs."""
    if isinstance(like, dict):
        targets = {name: np.full(len(features.lengths), np.nan, np.float32) for name in like}
        return {"targets": targets, "weights": np.ones(len(features.lengths), np.float32)}
    if not isinstance(like, tuple):
        count = len(features.example_splits) - 1
        return {"targets": np.full([count, *like.shape[1:]], np.nan, np.float32), "weights": np.ones(count, np.float32)}
    (word, splits), (owned, _) = features.aligned["word"], features.aligned["owned"]
    piece, _ = features.aligned["piece"]
    begins = np.append(True, np.diff(word) != 0) | (piece == 0)  # as in training, the first piece of each word
    targets = np.where(owned & begins, np.nan, losses.IGNORED).astype(np.float32)
    counts = np.add.reduceat(np.isnan(targets), splits[:-1])
    return {"targets": (targets, splits), "weights": counts.astype(np.float32)}


def _joined(one: Features, other: Features) -> Features:
    """The examples of both, one after the other, without what only `Task.infer` needs."""

    def chained(first, second):
        if isinstance(first, dict):
            return {name: chained(first[name], second[name]) for name in first}
        if isinstance(first, tuple):
            (values, splits), (more, rest) = first, second
            return np.concatenate([values, more]), np.concatenate([splits, splits[-1] + rest[1:]])
        return np.concatenate([first, second])

    splits = None
    if one.examples is not None or other.examples is not None:
        splits = np.concatenate([one.example_splits, one.example_splits[-1] + other.example_splits[1:]])
    fields = {name: chained(getattr(one, name), getattr(other, name)) for name in ("ragged", "targets", "weights")}
    return dataclasses.replace(one, **fields, examples=splits, aligned={})


def _shown(value) -> str:
    if not isinstance(value, tuple):
        return repr(value)
    return ", ".join(map(str, value[:10])) + (f", ... ({len(value)})" if len(value) > 10 else "")
