"""Sentence embedding: a text as one vector, near those of texts that mean the same."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from tfbert import losses, metrics, models, tokenization
from tfbert._compat import tf
from tfbert.errors import InputError
from tfbert.features import Features
from tfbert.sources import Examples
from tfbert.tasks import fields
from tfbert.tasks.base import Task
from tfbert.tokenization import Rows

OBJECTIVES = ("cosine", "ranking", "triplet")
POOLINGS = ("mean", "cls", "max")


@dataclasses.dataclass(frozen=True, kw_only=True)
class SentenceEmbedding(Task):
    """A vector for each text, by one encoder for both sides of a comparison (Reimers and Gurevych 2019, "Sentence-BERT").

    What an example holds depends on the objective: "cosine" `text`, `text_pair` and `label`, the similarity wanted; "ranking" `text` and
    the `text_pair` that belongs to it, all other pairs of the batch being wrong ones, and optionally a `negative`, a wrong one of
    its own; "triplet" `text`, the near `text_pair` and the far `negative`. `weight` is optional. Scoring takes the same examples.

    Args:
        objective: "cosine" (squared error of the cosine similarity; default), "ranking" (multiple-negatives ranking, Henderson et al.
            2017, section 4.4: cross-entropy over the batch), or "triplet" (the far text must be farther by `margin`).
        pooling: how the tokens' vectors become one: "mean" over the tokens (default), "cls" the first (XLNet's last), or "max".
        normalize: whether vectors have length 1, so that their inner product is the cosine (default True).
        label_range: for "cosine", the labels that mean cosine 0 and cosine 1; empty means: the least and the greatest training label.
        scale: for "ranking", what cosines are multiplied by before the softmax (default 20).
        margin: for "triplet", the difference of the cosines wanted (default 0.3).
        max_length: tokens of a text, special tokens included; its head is read (default 128).

    Example:
        >>> task = SentenceEmbedding(objective="ranking")
        >>> task.inputs, task.monitor
        (('text',), 'recall_at_1')
    """

    name: ClassVar[str] = "sentence-embedding"
    head: ClassVar[None] = None
    not_in_rows: ClassVar[tuple[str, ...]] = ("pooling", "normalize", "scale", "margin")

    objective: str = dataclasses.field(
        default="cosine", metadata={"help": "cosine, ranking or triplet", "choices": OBJECTIVES}
    )
    pooling: str = dataclasses.field(default="mean", metadata={"help": "mean, cls or max", "choices": POOLINGS})
    normalize: bool = dataclasses.field(default=True, metadata={"help": "give vectors of length 1"})
    label_range: tuple[float, ...] = dataclasses.field(
        default=(), metadata={"help": "cosine: labels that mean cosine 0 and 1 (default: as in the data)"}
    )
    scale: float = dataclasses.field(default=20.0, metadata={"help": "ranking: factor of the cosines"})
    margin: float = dataclasses.field(default=0.3, metadata={"help": "triplet: difference of the cosines wanted"})

    def __post_init__(self):
        object.__setattr__(self, "label_range", tuple(map(float, self.label_range)))
        for name, choices in (("objective", OBJECTIVES), ("pooling", POOLINGS)):
            fields.one_of(name, getattr(self, name), choices)
        for name in ("scale", "margin"):
            if not getattr(self, name) > 0:
                raise InputError(f"{name} is {getattr(self, name)}; it must be positive")
        if self.label_range and (len(self.label_range) != 2 or not self.label_range[0] < self.label_range[1]):
            raise InputError(
                f"label_range is {self.label_range}; give the label that means cosine 0 and a greater one that means 1"
            )

    # 1. examples -> features

    def from_data(self, examples: Examples) -> SentenceEmbedding:
        if self.objective != "cosine" or self.label_range:
            return self
        labels = [fields.number(examples, i, "label") for i in range(len(examples))]
        if len(set(labels)) < 2:
            raise InputError(
                f"{examples.source}: every label is the same number; similarities must differ to be learnt"
            )
        return dataclasses.replace(self, label_range=(min(labels), max(labels)))

    @property
    def is_open(self) -> bool:
        return self.objective == "cosine" and not self.label_range

    def check(self, examples: Examples) -> None:
        if self.objective == "cosine" and not self.label_range:
            raise InputError(
                "the task has no label_range yet; take it from the data, task.from_data(train), or give it, (0, 5) say"
            )
        columns = self._columns(examples)
        for i in range(len(examples)):
            for name in columns:
                fields.text(examples, i, name)
            fields.weight(examples, i)
            if self.objective == "cosine":
                label, (least, most) = fields.number(examples, i, "label"), self.label_range
                if not least <= label <= most:
                    raise InputError(
                        f"{examples.where(i)}: label is {label:g}; it must lie in label_range, {least:g} to {most:g}"
                    )

    def check_coverage(self, examples: Examples) -> None:
        if self.objective == "cosine" and len({fields.number(examples, i, "label") for i in range(len(examples))}) < 2:
            raise InputError(f"{examples.source}: every label is the same number; a correlation needs at least two")

    def _columns(self, examples: Examples) -> tuple[str, ...]:
        """The texts of a training example, in the order of its rows."""
        needed = ("text", "text_pair", "negative") if self.objective == "triplet" else ("text", "text_pair")
        extra = self.objective == "ranking" and examples and "negative" in examples[0]
        return (*needed, "negative") if extra else needed

    @property
    def inputs(self) -> tuple[str, ...]:
        return ("text",)

    def features(self, tokenizer, examples: Examples, *, targets: bool = True) -> Features:
        # To be answered is each text alone; to be learnt from or scored, all texts of an example.
        columns = self._columns(examples) if targets or (examples and "text_pair" in examples[0]) else self.inputs
        texts = [fields.text(examples, i, name) for i in range(len(examples)) for name in columns]
        features = Features(
            ragged=tokenization.encode(tokenizer, texts, max_length=self.max_length),
            padding=tokenization.padding(tokenizer),
            examples=np.arange(len(examples) + 1) * len(columns),
        )
        if not targets:
            return features
        return dataclasses.replace(
            features,
            targets=self._similarities(examples) if self.objective == "cosine" else np.zeros(len(examples), np.float32),
            weights=np.asarray([fields.weight(examples, i) for i in range(len(examples))], np.float32),
        )

    def rows(self, pieces, texts: Mapping[str, Any]) -> Rows:
        count = tf.shape(texts["text"])[0]
        return Rows(ids=pieces(texts["text"], max_length=self.max_length), example=tf.range(count), count=count)

    def _similarities(self, examples: Examples) -> np.ndarray:
        """The cosines wanted, float32 [N]."""
        labels = np.asarray([fields.number(examples, i, "label") for i in range(len(examples))])
        least, most = self.label_range
        return ((labels - least) / (most - least)).astype(np.float32)

    # 2. features -> outputs

    def build(self, checkpoint, **options):
        encoder = models.load(checkpoint, self.head, **options)
        return models.sentence_encoder(encoder, self.pooling, normalize=self.normalize)

    @property
    def in_parts(self) -> bool:
        return self.objective != "ranking"  # whose negatives are the rest of the batch

    def loss(self):
        if self.objective == "cosine":
            return losses.cosine_similarity
        if self.objective == "ranking":
            return functools.partial(losses.multiple_negatives_ranking, scale=self.scale)
        return functools.partial(losses.triplet, margin=self.margin)

    # 3. outputs -> answers

    def infer(self, outputs: Mapping[str, Any], rows: Rows) -> dict[str, Any]:
        embedding = tf.cast(outputs["embedding"], tf.float32)  # [R, D]; G texts an example, one of them when served
        each = tf.shape(embedding)[0] // tf.maximum(1, rows.count)
        shape = tf.stack([rows.count, tf.maximum(1, each), embedding.shape[-1]])
        return {"embeddings": tf.reshape(embedding, shape)}  # [B, G, D]

    def answer(self, inferred: Mapping[str, Any], texts: Mapping[str, Any], pieces) -> dict[str, Any]:
        return {"embedding": inferred["embeddings"][:, 0]}

    def example_signatures(self, inferred: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
        return {}

    # 4. answers -> score

    @property
    def monitor(self) -> str:
        return {"cosine": "spearman", "ranking": "recall_at_1", "triplet": "accuracy"}[self.objective]

    def score(self, examples: Examples, inferred: Mapping[str, np.ndarray]) -> dict[str, float]:
        embeddings = inferred["embeddings"].astype(np.float64)  # [N, G, D]
        text, pair = (metrics.unit_vectors(embeddings[:, k]) for k in (0, 1))
        cosines = (text * pair).sum(-1)
        if self.objective == "cosine":
            return metrics.regression(self._similarities(examples), cosines)
        if self.objective == "triplet":
            far = (text * metrics.unit_vectors(embeddings[:, 2])).sum(-1)
            return {"accuracy": float(np.mean(cosines > far))}
        return metrics.retrieval(text, pair)

    def score_by_label(self, examples: Examples, inferred: Mapping[str, np.ndarray]) -> dict[str, dict[str, float]]:
        return {}

    def tuned(self, examples: Examples, inferred: Mapping[str, np.ndarray]) -> SentenceEmbedding:
        return self
