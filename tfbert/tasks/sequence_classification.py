"""Sequence classification: one label, several labels, or a number for a text or a pair of texts."""

from __future__ import annotations

import collections
import dataclasses
import functools
import math
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from tfbert import losses, metrics, models, tokenization
from tfbert._compat import tf
from tfbert.errors import InputError
from tfbert.features import Features, collect
from tfbert.sources import Examples
from tfbert.tasks import fields
from tfbert.tasks.base import CALIBRATED_FROM, Outcomes, Task
from tfbert.tokenization import Rows

KINDS = ("single", "multi", "regression")
LONG_TEXT = ("head", "tail", "head+tail", "windows")


@dataclasses.dataclass(frozen=True, kw_only=True)
class SequenceClassification(Task):
    """Labels for a text (sentiment, intent, topic) or for a pair of texts (entailment, similarity).

    An example is a dict with `text`, `text_pair` for pairs, `label`, and optionally `weight` (a positive number; 2 counts as the row
    twice). `label` is a name for kind "single", a list of names (or one string of names joined by `label_separator`) for "multi", a
    number for "regression".

    Args:
        labels: the label names, in the order of the model's outputs; left empty, the sorted names found in the training data.
        kind: "single" (one label a row, softmax), "multi" (any number of labels, a sigmoid each) or "regression" (a number).
        pair: whether rows have a `text_pair`; None means: as the training data has it.
        label_separator: what parts the names in a multi-label string (default ",").
        class_weights: a positive factor per label for its rows' loss, in the order of `labels` (kind "single"; empty means 1 each).
        label_smoothing: share of the target that is spread evenly over all labels (0 to 1, default 0; Szegedy et al. 2016).
        focal_gamma: how fast the loss of easy rows falls (2 as published; default 0, the cross-entropy; Lin et al. 2017).
        dropout: dropout rate of the whole model while it trains; None means the checkpoint's own, 0.1 for most (default). 0 is cheaper.
        head_bias: what the biases of a new head begin at; left empty, the mean of the training labels for "regression" and each label's
            log-odds for "multi" (Lin et al. 2017, section 4.1): with many rare labels the first steps else push one way. 0 for "single".
        thresholds: for "multi", the score from which each label is predicted; left empty, tuned on the validation data (0.5 before).
        temperature: what the logits of classes are divided by before they become scores, so that a score of 0.9 is right nine times in
            ten (Guo et al. 2017); None: fitted on validation data of at least 30 rows, 1 before. The label chosen stays the same.
        max_length: tokens of a row, special tokens included (default 128).
        long_text: what becomes of a longer text, in training, evaluation and the export alike. "head" keeps its beginning (default),
            "tail" its end, "head+tail" a quarter from the beginning and the rest from the end (128 + 382 of 512; Sun et al. 2019, "How
            to Fine-Tune BERT for Text Classification?", section 5.3.1). "windows" cuts it into as many rows as it needs, computes each,
            and pools their logits; of a pair `text_pair` is cut into windows, each beside the head of `text`.
        symmetric: for pairs whose order means nothing (similarity, paraphrase): after training both orders are computed and their
            logits pooled, in evaluation and the export alike. Training reads each pair in the order written (default False).
        stride: "windows": tokens that a window shares with the one before (default 0).
        pooling: "mean" or "max" of the logits over the rows of an example, windows or orders (default "mean").

    Example:
        >>> task = SequenceClassification(labels=("ham", "spam"))
        >>> task.kind, task.inputs, task.monitor
        ('single', ('text',), 'accuracy')
        >>> SequenceClassification(kind="binary")
        Traceback (most recent call last):
        ...
        tfbert.errors.InputError: kind is 'binary'; it must be one of single, multi, regression.
    """

    name: ClassVar[str] = "sequence-classification"
    head: ClassVar[str] = "sequence-classification"
    not_in_rows = tuple("label_smoothing focal_gamma dropout head_bias thresholds temperature pooling".split())

    labels: tuple[str, ...] = dataclasses.field(default=(), metadata={"help": "names in order (default: the data's)"})
    kind: str = dataclasses.field(default="single", metadata={"help": "single, multi or regression", "choices": KINDS})
    pair: bool | None = dataclasses.field(default=None, metadata={"help": "texts come in pairs (default: as the data)"})
    label_separator: str = dataclasses.field(default=",", metadata={"help": "parts the names of a multi-label string"})
    class_weights: tuple[float, ...] = dataclasses.field(default=(), metadata={"help": "a factor per label's loss"})
    label_smoothing: float = dataclasses.field(default=0.0, metadata={"help": "share of the target spread evenly"})
    focal_gamma: float = dataclasses.field(default=0.0, metadata={"help": "focal loss: 2 as published; 0 is none"})
    dropout: float | None = dataclasses.field(
        default=None, metadata={"help": "dropout rate while training (default: the checkpoint's)"}
    )
    head_bias: tuple[float, ...] = dataclasses.field(
        default=(), metadata={"help": "what a new head's biases begin at (default: the labels' mean or log-odds)"}
    )
    thresholds: tuple[float, ...] = dataclasses.field(
        default=(), metadata={"help": "multi: a threshold per label (default: tuned)"}
    )
    temperature: float | None = dataclasses.field(default=None, metadata={"help": "divides logits (default: fitted)"})
    long_text: str = dataclasses.field(
        default="head",
        metadata={"help": "of a text over max_length: head, tail, head+tail, windows", "choices": LONG_TEXT},
    )
    symmetric: bool = dataclasses.field(default=False, metadata={"help": "pairs whose order means nothing"})
    stride: int = dataclasses.field(default=0, metadata={"help": "windows: tokens shared with the one before"})
    pooling: str = dataclasses.field(
        default="mean", metadata={"help": "mean or max of the logits of an example's rows", "choices": models.POOLINGS}
    )

    def __post_init__(self):
        for name in ("labels", "class_weights", "head_bias", "thresholds"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        object.__setattr__(self, "labels", tuple(str(label) for label in self.labels))
        for name, choices in (("kind", KINDS), ("long_text", LONG_TEXT), ("pooling", models.POOLINGS)):
            fields.one_of(name, getattr(self, name), choices)
        fields.positive("temperature", self.temperature)
        if self.kind == "regression" and self.labels:
            raise InputError(
                f"labels are {', '.join(self.labels)}, but a regression has none; leave them out or choose kind 'single'"
            )
        if len(set(self.labels)) < len(self.labels):
            raise InputError(f"labels has a name twice: {', '.join(self.labels)}")
        if self.labels and self.kind == "single" and len(self.labels) < 2:
            raise InputError(f"labels has the one name {self.labels[0]!r}; classification needs at least two")
        if self.symmetric and self.long_text == "windows":
            raise InputError("symmetric computes both orders of a pair; windows do not: choose another long_text")
        if not 0 <= self.stride < max(1, self.max_length - 3):
            raise InputError(
                f"stride is {self.stride}; it must be at least 0 and less than the {self.max_length} tokens of a row"
            )
        fields.fraction("label_smoothing", self.label_smoothing)
        fields.fraction("dropout", self.dropout)
        if not self.focal_gamma >= 0 or (self.focal_gamma and self.kind == "regression"):
            raise InputError(f"focal_gamma is {self.focal_gamma}; it is a number of at least 0, for labels only")
        if self.class_weights and self.kind != "single":
            raise InputError(
                f"class_weights are for kind 'single', not {self.kind!r}; weight rows through the field 'weight' instead"
            )
        outputs = 1 if self.kind == "regression" else len(self.labels)
        for name in ("class_weights", "thresholds", "head_bias"):
            fields.numbers(name, getattr(self, name), outputs, positive=name != "head_bias")

    # 1. examples -> features

    def from_data(self, examples: Examples) -> SequenceClassification:
        task = self
        if task.pair is None:
            task = dataclasses.replace(task, pair="text_pair" in examples[0])
        if task.kind == "regression" and not task.head_bias:
            numbers = [fields.number(examples, i, "label") for i in range(len(examples))]
            task = dataclasses.replace(task, head_bias=(round(math.fsum(numbers) / len(numbers), 6),))
        if task.kind != "regression" and not task.labels:
            found = task.label_counts(examples)
            if len(found) < 2:
                only = f"only {next(iter(found))!r}" if found else "no label at all"
                raise InputError(f"{examples.source}: the rows have {only}; classification needs at least two labels")
            numeric = all(name.isascii() and name.isdigit() for name in found)
            task = dataclasses.replace(task, labels=tuple(sorted(found, key=int if numeric else str)))
        if task.kind == "multi" and not task.head_bias:
            counts = task.label_counts(examples)
            task = dataclasses.replace(
                task, head_bias=tuple(losses.log_odds(counts[n], len(examples)) for n in task.labels)
            )
        return task

    @property
    def is_open(self) -> bool:
        biased = self.kind == "single" or self.head_bias
        return self.pair is None or not biased or (self.kind != "regression" and not self.labels)

    def check(self, examples: Examples) -> None:
        self._check_complete()
        for i in range(len(examples)):
            self._texts(examples, i)
            self._target(examples, i)
            self._weight(examples, i)

    def _check_complete(self) -> None:
        if self.kind != "regression" and not self.labels:
            raise InputError(
                "the task has no labels yet; take them from the data, task.from_data(train), or name them, labels=(...)"
            )
        if self.symmetric and not self.pair:
            raise InputError("symmetric is for pairs, but the examples have no text_pair; leave it out")

    def check_coverage(self, examples: Examples) -> None:
        if self.kind == "regression":
            if len({self._target(examples, i) for i in range(len(examples))}) < 2:
                raise InputError(f"{examples.source}: every label is the same number; a correlation needs at least two")
            return
        seen = {name for i in range(len(examples)) for name in self._names(examples, i)}
        absent = [name for name in self.labels if name not in seen]
        if absent:
            names = ", ".join(map(repr, absent[:5])) + (f" and {len(absent) - 5} more" if len(absent) > 5 else "")
            raise InputError(
                f"{examples.source}: no row has the label {names}, so its score cannot be measured; add rows, hold out more, or accept "
                "it with allow_missing_labels (--allow-missing-labels)"
            )

    @property
    def inputs(self) -> tuple[str, ...]:
        return ("text", "text_pair") if self.pair else ("text",)

    def features(self, tokenizer, examples: Examples, *, targets: bool = True) -> Features:
        rows = range(len(examples))
        texts = [self._texts(examples, i) for i in rows]
        columns = [[text[k] for text in texts] for k in range(len(self.inputs))]
        both = self.symmetric and not targets
        if both and self.long_text == "head":
            columns = [
                [text for pair in zip(*order, strict=True) for text in pair] for order in (columns, columns[::-1])
            ]
        found = self._encoded(tokenizer, columns, both)
        if not targets:
            return Features(**found)
        kind = np.int32 if self.kind == "single" else np.float32
        return Features(
            **found,
            targets=np.asarray([self._target(examples, i) for i in rows], dtype=kind),
            weights=np.asarray([self._weight(examples, i) for i in rows], dtype=np.float32),
        )

    def _encoded(self, tokenizer, columns: list[list[str]], both: bool) -> dict[str, Any]:
        padding = tokenization.padding(tokenizer)
        if self.long_text == "head":
            ragged = tokenization.encode(tokenizer, *columns, max_length=self.max_length)
            examples = np.arange(0, len(columns[0]) + 1, 2) if both else None
            return {"ragged": ragged, "padding": padding, "examples": examples, "numbered": self._pooled}
        pieces, task = tokenization.RustPieces(tokenizer), dataclasses.replace(self, symmetric=both)
        found = collect(
            lambda texts: task.rows(pieces, texts), dict(zip(self.inputs, columns, strict=True)), padding=padding
        )
        return found | {"numbered": self._pooled}

    def rows(self, pieces, texts: Mapping[str, Any]) -> Rows:
        columns = [texts[name] for name in self.inputs]
        count = tf.shape(columns[0])[0]
        example = tf.range(count)
        if self.symmetric:
            columns = [tf.reshape(tf.stack(order, 1), [-1]) for order in (columns, columns[::-1])]
            example = tf.repeat(example, 2)
        if self.long_text == "windows":
            fixed, sliding = [None, *columns][-2:]
            if fixed is not None:
                room = self.max_length - pieces.template.specials(pair=True)
                fixed = tokenization.keep(pieces.ids_and_offsets(fixed).ids, room // 2, "head")
            sliding = pieces.ids_and_offsets(sliding)
            rows = tokenization.windows(pieces.template, sliding, fixed, max_length=self.max_length, stride=self.stride)
            return rows._replace(ids={**rows.ids, "example": rows.example})
        if self.long_text == "head":
            ids = pieces(*columns, max_length=self.max_length)
        else:
            ragged = [pieces.ids_and_offsets(column).ids for column in columns]
            ids = pieces.template.assemble(*ragged, max_length=self.max_length, way=self.long_text)
        return Rows(ids={**ids, "example": example} if self._pooled else ids, example=example, count=count)

    @property
    def _pooled(self) -> bool:
        """Whether an example may be several rows, whose logits the model pools."""
        return self.symmetric or self.long_text == "windows"

    def _texts(self, examples: Examples, i: int) -> tuple[str, ...]:
        return tuple(fields.text(examples, i, field) for field in self.inputs)

    def _names(self, examples: Examples, i: int) -> list[str]:
        """The label names of row i: one for kind "single", any number for "multi"."""
        several = self.kind == "multi"
        return fields.labels(examples, i, self.label_separator) if several else [fields.label(examples, i)]

    def _target(self, examples: Examples, i: int):
        if self.kind == "regression":
            return fields.number(examples, i, "label")
        found = [fields.among("label", name, self._index, examples.where(i)) for name in self._names(examples, i)]
        if self.kind == "single":
            return found[0]
        row = np.zeros(len(self.labels), np.float32)
        row[found] = 1
        return row

    @functools.cached_property
    def _index(self) -> dict[str, int]:
        return {name: i for i, name in enumerate(self.labels)}

    def _weight(self, examples: Examples, i: int) -> float:
        weight = fields.weight(examples, i)
        return weight * self.class_weights[self._target(examples, i)] if self.class_weights else weight

    # 2. features -> outputs

    def build(self, checkpoint, **options):
        self._check_complete()
        names = dict(enumerate(self.labels or ("score",)))
        kind = self.kind if self.kind == "regression" else f"{self.kind}_label_classification"
        options |= models.dropout(self.dropout)
        model = models.load(checkpoint, self.head, id2label=names, problem_type=kind, **options)
        if self.head_bias:
            models.begin_bias(model, self.head_bias)
        model = models.as_keras(model)
        return models.pooled(model, self.pooling) if self._pooled else model

    def loss(self):
        if self.kind == "regression":
            return losses.mean_squared_error
        single = self.kind == "single"
        options = {"label_smoothing": self.label_smoothing} if self.label_smoothing else {}
        function = losses.sparse_categorical_crossentropy if single else losses.binary_crossentropy
        if self.focal_gamma:
            function = losses.sparse_categorical_focal if single else losses.binary_focal
            options["gamma"] = self.focal_gamma
        return functools.partial(function, **options) if options else function

    def divergence(self):
        return {"single": losses.softmax_divergence, "multi": losses.sigmoid_divergence}.get(self.kind)

    def soft_loss(self):
        kinds = {"single": losses.soft_crossentropy, "multi": losses.soft_binary_crossentropy}
        return kinds.get(self.kind, lambda _, teacher, output, temperature: losses.mean_squared_error(teacher, output))

    # 3. outputs -> answers

    def infer(self, outputs: Mapping[str, Any], rows: Rows) -> dict[str, Any]:
        logits = tf.cast(outputs["logits"], tf.float32)  # [B, L]
        if self.kind == "regression":
            return {"score": logits[:, 0]}
        scores = tf.nn.softmax if self.kind == "single" else tf.sigmoid
        return {"scores": scores(logits / (self.temperature or 1.0))}

    def answer(self, inferred: Mapping[str, Any], texts: Mapping[str, Any], pieces) -> dict[str, Any]:
        if self.kind == "regression":
            return {"score": inferred["score"]}
        scores = inferred["scores"]  # [B, L]
        names = tf.constant(self.labels)
        labels = tf.tile(names[tf.newaxis], [tf.shape(scores)[0], 1])
        if self.kind == "multi":
            return {"labels": labels, "scores": scores, "predicted": scores >= self._thresholds}
        label, score = tf.gather(names, tf.argmax(scores, axis=-1)), tf.reduce_max(scores, axis=-1)
        return {"label": label, "score": score, "labels": labels, "scores": scores}

    def example_signatures(self, inferred: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
        if self.kind == "regression":
            return {"regress": {"outputs": inferred["score"]}}
        answer = self.answer(inferred, {}, None)
        return {"classify": {"classes": answer["labels"], "scores": answer["scores"]}}

    # 4. answers -> score

    @property
    def monitor(self) -> str:
        return {"single": "accuracy", "multi": "f1_macro", "regression": "spearman"}[self.kind]

    def score(self, examples: Examples, inferred: Mapping[str, np.ndarray]) -> dict[str, float]:
        targets = self._targets(examples)
        if self.kind == "regression":
            return metrics.regression(targets, inferred["score"])
        if self.kind == "single":
            return metrics.classification(targets, inferred["scores"], self.labels)
        return metrics.multilabel(targets > 0, inferred["scores"], self._thresholds)

    def score_by_label(self, examples: Examples, inferred: Mapping[str, np.ndarray]) -> dict[str, dict[str, float]]:
        if self.kind == "regression":
            return {}
        targets, scores = self._targets(examples), inferred["scores"]
        if self.kind == "single":
            return metrics.per_class(targets, scores.argmax(-1), self.labels)
        return metrics.per_class(targets > 0, scores >= self._thresholds, self.labels)

    def _targets(self, examples: Examples) -> np.ndarray:
        return np.asarray([self._target(examples, i) for i in range(len(examples))])

    @property
    def _thresholds(self) -> np.ndarray:
        """float32 [L], as the exported graph compares."""
        return np.asarray(self.thresholds or (0.5,) * len(self.labels), np.float32)

    def label_counts(self, examples: Examples) -> dict[str, int]:
        rows = [] if self.kind == "regression" else range(len(examples))
        return collections.Counter(name for i in rows for name in set(self._names(examples, i)))

    def outcomes(self, examples: Examples, inferred: Mapping[str, np.ndarray]) -> Outcomes | None:
        if self.kind == "regression":
            return None
        targets, scores = self._targets(examples), inferred["scores"]
        before = metrics.temper(self._alternatives(scores), 1 / (self.temperature or 1.0))
        example = np.arange(len(examples))
        if self.kind == "single":
            predicted = scores.argmax(-1)
            return Outcomes(self.labels, example, targets, predicted, scores.max(-1), before.max(-1))
        predicted = (scores >= self._thresholds).astype(int)  # [N, L]
        both = [np.take_along_axis(x, predicted[..., None], -1) for x in (self._alternatives(scores), before)]
        columns = (np.repeat(example, len(self.labels)), targets.astype(int), predicted, *both)
        return Outcomes(("without the label", "with the label"), *(column.ravel() for column in columns))

    def _alternatives(self, scores: np.ndarray) -> np.ndarray:
        """The scores of what excludes each other: [N, L], or for "multi" [N, L, 2], without and with the label."""
        return scores if self.kind == "single" else np.stack([1 - scores, scores], -1)

    def tuned(self, examples: Examples, inferred: Mapping[str, np.ndarray]) -> SequenceClassification:
        if self.kind == "regression":
            return self
        task, scores, targets = self, inferred["scores"], self._targets(examples)
        if task.temperature is None and len(examples) >= CALIBRATED_FROM:
            temperature = round(metrics.fit_temperature(targets, self._alternatives(scores)), 4)
            scores = metrics.temper(self._alternatives(scores), temperature)
            scores = scores[..., 1] if self.kind == "multi" else scores
            task = dataclasses.replace(task, temperature=temperature)
        if task.kind == "multi" and not task.thresholds:
            thresholds = metrics.tune_thresholds(targets > 0, scores.astype(np.float32))
            task = dataclasses.replace(task, thresholds=tuple(map(float, thresholds)))
        return task
