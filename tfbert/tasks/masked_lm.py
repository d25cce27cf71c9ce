"""Masked language modelling: the words that may stand where a text has a mask."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar, NoReturn

import numpy as np

from tfbert import models, tokenization
from tfbert._compat import tf
from tfbert.errors import InputError
from tfbert.features import Features, collect
from tfbert.sources import Examples
from tfbert.tasks import fields
from tfbert.tasks.base import Task
from tfbert.tokenization import Rows


@dataclasses.dataclass(frozen=True, kw_only=True)
class MaskedLM(Task):
    """The likeliest tokens for the first mask of a text ("fill-mask"), by a checkpoint with its masked-LM head.

    An example is a dict with `text`, in which the tokenizer's mask token, [MASK] for BERT, stands for one token. It is the only special
    token that a user's text can hold. Of a longer text the part around the first mask is read. A text without a mask is answered by
    empty tokens of score 0, for one such row must not fail the batch of others on a server.

    This task answers; it is not trained or scored, which takes raw text (pretraining).

    Args:
        top_k: how many tokens an answer has (default 5).
        max_length: tokens of a row, special tokens included (default 128).

    Example:
        >>> task = MaskedLM(top_k=3)
        >>> task.inputs, task.name
        (('text',), 'masked-lm')
    """

    name: ClassVar[str] = "masked-lm"
    head: ClassVar[str] = "masked-lm"

    top_k: int = dataclasses.field(default=5, metadata={"help": "how many tokens an answer has"})

    def __post_init__(self):
        if self.top_k < 1:
            raise InputError(f"top_k is {self.top_k}; it must be at least 1")

    # 1. examples -> features

    def from_data(self, examples: Examples) -> MaskedLM:
        _only_answers()

    def check(self, examples: Examples) -> None:
        for i in range(len(examples)):
            fields.text(examples, i, "text")

    def check_coverage(self, examples: Examples) -> None:
        _only_answers()

    @property
    def inputs(self) -> tuple[str, ...]:
        return ("text",)

    def features(self, tokenizer, examples: Examples, *, targets: bool = True) -> Features:
        if targets:
            _only_answers()
        pieces = tokenization.RustPieces(tokenizer)
        texts = {"text": [fields.text(examples, i, "text") for i in range(len(examples))]}
        return Features(
            **collect(lambda texts: self.rows(pieces, texts), texts, padding=tokenization.padding(tokenizer))
        )

    def rows(self, pieces, texts: Mapping[str, Any]) -> Rows:
        ids, mask = self._with_masks(pieces, tf.convert_to_tensor(texts["text"]))  # ragged [B, (n)], int32 [B] or -1
        room = self.max_length - pieces.template.specials(pair=False)
        total = tf.cast(ids.row_lengths(), tf.int32)
        first = tf.where(mask < room, 0, tf.minimum(mask - room // 2, total - room))
        size = tf.minimum(total, room)
        begin = tf.cast(ids.row_splits[:-1], tf.int32) + first
        kept = tf.gather(ids.values, tf.ragged.range(begin, begin + size).values)
        laid, _ = pieces.template.lay(tf.RaggedTensor.from_row_lengths(kept, size, validate=False))
        row = tf.range(tf.size(total))
        is_mask = laid["input_ids"] == pieces.vocabulary.mask_id
        owned = is_mask & (tf.cumsum(tf.cast(is_mask, tf.int32), axis=1) == 1)
        return Rows(ids=laid, example=row, count=tf.size(total), owned=owned)

    def _with_masks(self, pieces, texts) -> tuple:
        """The ids of texts [B] with the masks among them, and the place of the first mask, -1 where there is none.

        "a [MASK] b [MASK]" is the parts "a ", " b ", ""; each is tokenized by itself, as Hugging Face's tokenizers do, and a mask
        comes after each but the last.
        """
        parts = tf.strings.split(texts, pieces.vocabulary.mask_token)
        found = pieces.ids_and_offsets(parts.values).ids  # ragged [P, (m)]
        counts = tf.cast(parts.row_lengths(), tf.int32)
        last = tf.cast(parts.row_splits[1:], tf.int32) - 1
        follows = tf.ones_like(found.row_lengths(), tf.int32)
        follows = tf.tensor_scatter_nd_update(follows, last[:, tf.newaxis], tf.zeros_like(last))
        masks = tf.RaggedTensor.from_row_lengths(tf.fill([tf.reduce_sum(follows)], pieces.vocabulary.mask_id), follows)
        joined = tf.concat([found, tf.cast(masks.with_row_splits_dtype(found.row_splits.dtype), tf.int32)], 1)
        ids = tf.RaggedTensor.from_row_splits(joined.values, tf.gather(joined.row_splits, parts.row_splits))
        before = tf.gather(tf.cast(found.row_lengths(), tf.int32), tf.cast(parts.row_splits[:-1], tf.int32))
        return ids, tf.where(counts > 1, before, -1)

    # 2. features -> outputs

    def build(self, checkpoint, **options):
        vocabulary = tokenization.Vocabulary(tokenization.load_tokenizer(checkpoint))
        model = models.load(checkpoint, self.head, **options)
        return models.at_token(model, vocabulary.mask_id)

    def loss(self):
        _only_answers()

    # 3. outputs -> answers

    def infer(self, outputs: Mapping[str, Any], rows: Rows) -> dict[str, Any]:
        scores = tf.nn.softmax(tf.cast(outputs["logits"], tf.float32))  # [B, V]
        best = tf.math.top_k(scores, self.top_k)
        there = tf.reduce_any(rows.owned, axis=1)[:, tf.newaxis]
        return {"token_id": tf.where(there, best.indices, -1), "score": tf.where(there, best.values, 0.0)}

    def answer(self, inferred: Mapping[str, Any], texts: Mapping[str, Any], pieces) -> dict[str, Any]:
        return {"token": pieces.vocabulary.tokens(inferred["token_id"]), "score": inferred["score"]}

    def example_signatures(self, inferred: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
        return {}

    # 4. answers -> score

    @property
    def monitor(self) -> str:
        _only_answers()

    def score(self, examples: Examples, inferred: Mapping[str, np.ndarray]) -> dict[str, float]:
        _only_answers()

    def score_by_label(self, examples: Examples, inferred: Mapping[str, np.ndarray]) -> dict[str, dict[str, float]]:
        _only_answers()

    def tuned(self, examples: Examples, inferred: Mapping[str, np.ndarray]) -> MaskedLM:
        return self


def _only_answers() -> NoReturn:
    raise InputError(
        "masked-lm answers texts with a mask (tfbert.predict, tfbert.export); training and scoring it take raw text, which this version "
        "does not do yet"
    )
