"""Multiple choice: which of C continuations, answers or options fits a text."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from tfbert import losses, metrics, models, tokenization
from tfbert._compat import tf
from tfbert.errors import InputError
from tfbert.features import Features
from tfbert.sources import Examples
from tfbert.tasks import fields
from tfbert.tasks.base import CALIBRATED_FROM, Outcomes, Task
from tfbert.tokenization import Rows


@dataclasses.dataclass(frozen=True, kw_only=True)
class MultipleChoice(Task):
    """The one of C choices that fits a text: the way a story goes on (SWAG), the answer to a question.

    An example is a dict with `text`, `choices` (a list of C texts, or the fields choice0, choice1, ... of a table), `label` (the number
    of the right choice, from 0), and optionally `start`, which begins every choice (SWAG's sent2), and `weight`. Each choice is a row of
    the model, beside the text; every example has as many.

    Args:
        choices: how many choices an example has; None means: as the training data has it.
        temperature: what the logits are divided by before they become scores (see `SequenceClassification`; default: fitted on
            validation data of at least 30 rows).
        max_length: tokens of the text and one choice together, special tokens included; the longer of both is cut first (default 128).

    Example:
        >>> examples = Examples([{"text": "It rained.", "choices": ["She got wet.", "She got a car."], "label": 0}])
        >>> task = MultipleChoice().from_data(examples)
        >>> task.choices, task.inputs, task.monitor
        (2, ('text', 'choices'), 'accuracy')
    """

    name: ClassVar[str] = "multiple-choice"
    head: ClassVar[str] = "multiple-choice"
    not_in_rows: ClassVar[tuple[str, ...]] = ("temperature",)

    choices: int | None = dataclasses.field(
        default=None, metadata={"help": "how many choices an example has (default: as in the data)"}
    )

    temperature: float | None = dataclasses.field(
        default=None, metadata={"help": "what logits are divided by before they become scores (default: fitted)"}
    )

    def __post_init__(self):
        fields.positive("temperature", self.temperature)
        if self.choices is not None and self.choices < 2:
            raise InputError(f"choices is {self.choices}; a choice needs at least two")

    # 1. examples -> features

    def from_data(self, examples: Examples) -> MultipleChoice:
        if self.choices is not None or not examples:
            return self
        return dataclasses.replace(self, choices=len(_choices(examples, 0)))

    @property
    def is_open(self) -> bool:
        return self.choices is None

    def check(self, examples: Examples) -> None:
        if self.choices is None:
            raise InputError(
                "the task has no number of choices yet; take it from the data, task.from_data(train), or say choices=4"
            )
        for i in range(len(examples)):
            self._texts(examples, i)
            self._target(examples, i)
            fields.weight(examples, i)

    def check_coverage(self, examples: Examples) -> None:
        """Nothing is asked: which place the right choice has says nothing about it."""

    @property
    def inputs(self) -> tuple[str, ...]:
        return ("text", "choices")

    @property
    def input_shapes(self) -> dict[str, list[int | None]]:
        return {"text": [None], "choices": [None, self.choices]}

    def input(self, examples: Examples, i: int, name: str) -> str | list[str]:
        return dict(zip(self.inputs, self._texts(examples, i)))[name]

    def features(self, tokenizer, examples: Examples, *, targets: bool = True) -> Features:
        texts = [self._texts(examples, i) for i in range(len(examples))]
        padding = tokenization.padding(tokenizer)
        first = [text for text, choices in texts for _ in choices]
        second = [choice for _, choices in texts for choice in choices]
        features = Features(
            ragged=tokenization.encode(tokenizer, first, second, max_length=self.max_length),
            padding=padding,
            examples=np.arange(len(examples) + 1) * self.choices,
        )
        if not targets:
            return features
        return dataclasses.replace(
            features,
            targets=self._targets(examples),
            weights=np.asarray([fields.weight(examples, i) for i in range(len(examples))], np.float32),
        )

    def rows(self, pieces, texts: Mapping[str, Any]) -> Rows:
        count = tf.shape(texts["text"])[0]
        first = tf.repeat(texts["text"], self.choices)
        ids = pieces(first, tf.reshape(texts["choices"], [-1]), max_length=self.max_length)
        return Rows(ids=ids, example=tf.repeat(tf.range(count), self.choices), count=count)

    def _texts(self, examples: Examples, i: int) -> tuple[str, list[str]]:
        choices = _choices(examples, i)
        if len(choices) != self.choices:
            raise InputError(
                f"{examples.where(i)}: the row has {len(choices)} choices, others have {self.choices}; every row needs as many"
            )
        return fields.text(examples, i, "text"), choices

    def _target(self, examples: Examples, i: int) -> int:
        label = fields.value(examples, i, "label")
        if isinstance(label, bool) or not str(label).strip().isdecimal() or int(label) >= self.choices:
            raise InputError(
                f"{examples.where(i)}: label is {label!r}; expected the number of the right choice, 0 to {self.choices - 1}"
            )
        return int(label)

    def _targets(self, examples: Examples) -> np.ndarray:
        return np.asarray([self._target(examples, i) for i in range(len(examples))], np.int32)

    # 2. features -> outputs

    def build(self, checkpoint, **options):
        return models.by_choice(models.load(checkpoint, self.head, **options))

    def loss(self):
        return self._loss

    def _loss(self, labels, logits):
        """Cross-entropy over the choices of each example: labels int32 [B], logits [B * C, 1]."""
        return losses.sparse_categorical_crossentropy(labels, tf.reshape(logits, [-1, self.choices]))

    def divergence(self):
        return lambda labels, *both: losses.softmax_divergence(
            labels, *(tf.reshape(x, [-1, self.choices]) for x in both)
        )

    def soft_loss(self):
        return lambda labels, teacher, logits, temperature: losses.soft_crossentropy(
            labels, teacher, tf.reshape(logits, [-1, self.choices]), temperature=temperature
        )

    # 3. outputs -> answers

    def infer(self, outputs: Mapping[str, Any], rows: Rows) -> dict[str, Any]:
        logits = tf.reshape(tf.cast(outputs["logits"], tf.float32), [-1, self.choices])
        return {"scores": tf.nn.softmax(logits / (self.temperature or 1.0))}

    def answer(self, inferred: Mapping[str, Any], texts: Mapping[str, Any], pieces) -> dict[str, Any]:
        scores = inferred["scores"]  # [B, C]
        return {
            # Of choices that say the same the first, though their scores may differ in the last digit.
            "choice": tf.argmax(tf.round(scores * 1e5), axis=-1, output_type=tf.int32),
            "score": tf.reduce_max(scores, axis=-1),
            "scores": scores,
        }

    def example_signatures(self, inferred: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
        return {}

    # 4. answers -> score

    @property
    def monitor(self) -> str:
        return "accuracy"

    def score(self, examples: Examples, inferred: Mapping[str, np.ndarray]) -> dict[str, float]:
        names = [str(k) for k in range(self.choices)]
        scores = metrics.classification(self._targets(examples), inferred["scores"], names)
        # The numbers of the choices are no classes: averages over them would mean nothing.
        return {name: scores[name] for name in ("accuracy", "log_loss", "expected_calibration_error")}

    def score_by_label(self, examples: Examples, inferred: Mapping[str, np.ndarray]) -> dict[str, dict[str, float]]:
        return {}

    def outcomes(self, examples: Examples, inferred: Mapping[str, np.ndarray]) -> Outcomes:
        scores, names = inferred["scores"], tuple(f"choice {k}" for k in range(self.choices))
        before = metrics.temper(scores, 1 / (self.temperature or 1.0)).max(-1)
        example, expected = np.arange(len(examples)), self._targets(examples)
        return Outcomes(names, example, expected, scores.argmax(-1), scores.max(-1), before)

    def tuned(self, examples: Examples, inferred: Mapping[str, np.ndarray]) -> MultipleChoice:
        if self.temperature is not None or len(examples) < CALIBRATED_FROM:
            return self
        temperature = metrics.fit_temperature(self._targets(examples), inferred["scores"])
        return dataclasses.replace(self, temperature=round(temperature, 4))


def _choices(examples: Examples, i: int) -> list[str]:
    """The choices of row i: its list, or its columns choice0, choice1, ...; each after `start` where the row has one."""
    row = examples[i]
    found = row.get("choices")
    if found is None:
        found = [row[f"choice{k}"] for k in range(len(row)) if row.get(f"choice{k}") is not None]
    if not isinstance(found, list | tuple) or not all(isinstance(choice, str) for choice in found) or len(found) < 2:
        have = ", ".join(map(repr, row))
        raise InputError(
            f"{examples.where(i)}: choices is {found!r}; expected a list of at least two texts in 'choices', or the fields 'choice0', "
            f"'choice1', ...; the row has {have}"
        )
    start = row.get("start")
    return [f"{start} {choice}" for choice in found] if start else list(found)
