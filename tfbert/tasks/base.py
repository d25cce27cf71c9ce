"""What every task says about its kind of problem, in the order in which the data passes."""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple

import numpy as np

from tfbert import tokenization
from tfbert.errors import InputError, suggest
from tfbert.features import Features
from tfbert.sources import Examples
from tfbert.tasks import fields
from tfbert.tokenization import Rows

FORMAT_VERSION = 1
# The rows of validation data from which a temperature is fitted: of fewer, one wrong answer decides it.
CALIBRATED_FROM = 30


class Outcomes(NamedTuple):
    """What was decided, M decisions over all examples, and what was right: the ground of an analysis of errors.

    Args:
        labels: the names of what is decided between.
        example: int [M], the number of each decision's example.
        expected: int [M], the right label.
        predicted: int [M], the answer.
        confidence: float [M], its score.
        confidence_before: float [M], its score without the temperature.
    """

    labels: tuple[str, ...]
    example: np.ndarray
    expected: np.ndarray
    predicted: np.ndarray
    confidence: np.ndarray
    confidence_before: np.ndarray


@dataclasses.dataclass(frozen=True, kw_only=True)
class Task(abc.ABC):
    """One kind of problem: its fields are the settings, its methods the stages from examples to served answers.

    A task holds no weights and never changes; `from_data` and `tuned` return a new one. Each subclass is one file in this folder,
    its members in the order below. Shapes: B batch, T tokens, L labels.

    Args:
        max_length: tokens of an input, special tokens included; longer inputs are truncated (default 128).
    """

    name: ClassVar[str]  # on the command line and in task.json
    head: ClassVar[str | None]  # the head of `tfbert.models.load`
    together: ClassVar[str | None] = None  # the field whose equal values must not be parted when rows are held out
    documents: ClassVar[bool] = (
        False  # whether of a plain text the lines up to a blank one are an example (`read_documents`)
    )
    # The fields on which training rows do not depend: data that were prepared may be trained from with others.
    not_in_rows: ClassVar[tuple[str, ...]] = ()
    max_length: int = dataclasses.field(default=128, metadata={"help": "tokens of an input, special tokens included"})

    # 1. examples -> features

    @abc.abstractmethod
    def from_data(self, examples: Examples) -> Task:
        """Returns the task with every field filled that was left for the data to say (the labels, whether texts come in pairs)."""

    @property
    def is_open(self) -> bool:
        """Whether there is a field that `from_data` would fill (default: there is none)."""
        return False

    def told(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """What `from_data` needs of an example, so that those of a stream can be kept (default: its label, and which texts there are)."""
        return {name: value if name == "label" else fields.emptied(value) for name, value in row.items()}

    @abc.abstractmethod
    def check(self, examples: Examples) -> None:
        """Raises InputError at the first example that this task cannot learn from or score, naming its place."""

    @abc.abstractmethod
    def check_coverage(self, examples: Examples) -> None:
        """Raises InputError where these examples cannot measure every score: a label never occurs, say."""

    @property
    @abc.abstractmethod
    def inputs(self) -> tuple[str, ...]:
        """The text fields of an example, in order; also the names of the exported graph's string inputs."""

    @property
    def input_shapes(self) -> dict[str, list[int | None]]:
        """The shapes of the exported graph's string inputs: [B], or [B, C] where a row has several texts under one name."""
        return {name: [None] for name in self.inputs}

    def input(self, examples: Examples, i: int, name: str):
        """The value of an input of row i: a text, or a list of texts (default: the field of that name); without it, an InputError."""
        return fields.text(examples, i, name)

    @abc.abstractmethod
    def features(self, tokenizer, examples: Examples, *, targets: bool = True) -> Features:
        """Turns checked examples into token ids and, unless `targets` is False, targets and weights."""

    def scored(self, tokenizer, examples: Examples) -> Features:
        """The features whose answers are scored (default: those that are answered; a task that asks by itself has others)."""
        return self.features(tokenizer, examples, targets=False)

    @abc.abstractmethod
    def rows(self, pieces, texts: Mapping[str, Any]) -> Rows:
        """Turns texts {input: string [B]} into rows of ids, as TensorFlow operations: what `features` makes, without targets.

        `pieces` is what `tokenization.graph_tokenizer` returns, or its twin for Python, `tokenization.RustPieces`.
        """

    # 2. features -> outputs

    @abc.abstractmethod
    def build(self, checkpoint, **options):
        """Returns the Keras model: a dict of int32 ids [R, T] in, a dict of float32 outputs out.

        Args:
            checkpoint: a folder, the packaged "all-MiniLM-L6-v2", or a name on the Hugging Face hub.
            options: `seed`, `new_head`, `encoder`, `gradient_checkpointing` and `keep_layers`, as `models.load` takes them.
        """

    def check_export(self, tokenizer) -> None:
        """Raises InputError where a tokenizer cannot be had in the graph: better before a training than after it."""
        tokenization.check_graph(tokenizer)

    @abc.abstractmethod
    def loss(self):
        """Returns the function (targets, outputs) -> float32 [B] for `model.compile(loss=...)`, or a dict of them by output."""

    def divergence(self):
        """Returns the function (targets, output, output) -> float32 [B] for R-Drop; None where the task has none (default)."""
        return

    def soft_loss(self):
        """Returns the function (targets, teacher's output, output, temperature=...) -> float32 [B] for distillation, or None (default)."""
        return

    @property
    def in_parts(self) -> bool:
        """Whether a batch's loss is the mean of its examples' own, so that it can be computed in parts (default)."""
        return True

    # 3. outputs -> answers; the same functions in evaluation and in the exported graph

    def outputs(self, model, rows: Rows) -> dict[str, Any]:
        """The model's outputs for rows that are answered or scored; a task that writes text has the model do it here."""
        return model(rows.ids, training=False)

    @abc.abstractmethod
    def infer(self, outputs: Mapping[str, Any], rows: Rows) -> dict[str, Any]:
        """Turns the model's outputs for `rows` into numbers per example (probabilities, say), as TensorFlow operations."""

    @abc.abstractmethod
    def answer(self, inferred: Mapping[str, Any], texts: Mapping[str, Any], pieces) -> dict[str, Any]:
        """Turns the numbers of `infer` into what a user reads, as TensorFlow operations: tensors with first dimension B.

        `texts` are the inputs, {name: string [B]}; `pieces` is the tokenizer, as in `rows`, whose `vocabulary` names tokens.
        """

    def read(self, inferred: dict[str, np.ndarray], pieces) -> dict[str, np.ndarray]:
        """The numbers of `infer` with what is read off them in text before they are scored (default: nothing)."""
        return inferred

    @abc.abstractmethod
    def example_signatures(self, inferred: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
        """Returns the outputs of TF Serving's `classify` and `regress`, by signature name, where the task has them."""

    # 4. answers -> score

    @property
    @abc.abstractmethod
    def monitor(self) -> str:
        """The name of the score by which the best epoch is chosen; `tfbert.metrics.direction` says which way."""

    @abc.abstractmethod
    def score(self, examples: Examples, inferred: Mapping[str, np.ndarray]) -> dict[str, float]:
        """Scores the inferred numbers, one row per example, against the examples' labels."""

    @abc.abstractmethod
    def score_by_label(self, examples: Examples, inferred: Mapping[str, np.ndarray]) -> dict[str, dict[str, float]]:
        """Scores each label by itself; empty where the task has no labels."""

    def label_counts(self, examples: Examples) -> dict[str, int]:
        """How often each label occurs; empty where the task has none (default)."""
        return {}

    def outcomes(self, examples: Examples, inferred: Mapping[str, np.ndarray]) -> Outcomes | None:
        """Returns each decision between labels beside the right one; None where the task has no such decisions (default)."""
        return None

    @abc.abstractmethod
    def tuned(self, examples: Examples, inferred: Mapping[str, np.ndarray]) -> Task:
        """Returns the task with what is chosen on validation data after training (thresholds, a temperature)."""

    # 5. on disk

    def to_json(self) -> dict[str, Any]:
        """Returns the fields as plain JSON values, with the task's name and the format's version."""
        return {"format_version": FORMAT_VERSION, "task": self.name, **dataclasses.asdict(self)}

    @classmethod
    def from_json(cls, fields: Mapping[str, Any], where: str = "task.json") -> Task:
        """Makes the task from what `to_json` wrote; an unknown field or version is an InputError that names `where`."""
        fields = dict(fields)
        version = fields.pop("format_version", None)
        if version != FORMAT_VERSION:
            raise InputError(
                f"{where}: format_version is {version!r}, this tfbert reads {FORMAT_VERSION}; install the tfbert that wrote it"
            )
        fields.pop("task", None)
        return cls.with_fields(fields, where)

    @classmethod
    def with_fields(cls, fields: Mapping[str, Any], where: str) -> Task:
        """Makes the task from a dict; a field it does not have is an InputError that names the nearest right one."""
        known = [field.name for field in dataclasses.fields(cls)]
        for name in fields:
            if name not in known:
                raise InputError(
                    f"{where}: {cls.name} has no field {name!r}; it has {', '.join(known)}.{suggest(name, known)}"
                )
        return cls(**{name: tuple(value) if isinstance(value, list) else value for name, value in fields.items()})
