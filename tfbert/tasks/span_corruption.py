"""Pretraining as T5's: an encoder reads a text with gaps, and a decoder writes what was in them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from tfbert import corruption, tokenization
from tfbert._compat import tf
from tfbert.errors import InputError
from tfbert.features import Features, collect
from tfbert.pipeline import settled
from tfbert.sources import Examples
from tfbert.tasks import fields
from tfbert.tasks.encoder_decoder import EncoderDecoder, around
from tfbert.tokenization import Rows

# Around a sentinel in a text that is asked; no text has it.
_BETWEEN = "\0|\0"
_SENTINEL = "<extra_id_(0|[1-9][0-9]{0,5})>"


@dataclasses.dataclass(frozen=True, kw_only=True)
class SpanCorruption(EncoderDecoder):
    """Span corruption from raw text, T5's pretraining (Raffel et al. 2020, section 3.1.4), and the texts that fill gaps.

    To learn and to be scored, an example is a document, a dict with `text`, and `weight` if need be: what `read_documents` gives. It is cut
    into stretches that with their gaps make rows of `max_length` tokens for the encoder, the last of them shorter; no row holds two
    documents. Of a row's tokens 15 % are lost, in spans of 3 on average, and in the place of each stands a sentinel, `<extra_id_0>`,
    `<extra_id_1>`, ...: drawn anew for each epoch in training (see `corruption.Corruption`), always the same in scoring. The decoder
    learns to write each sentinel and what it stands for. The loss of a batch is the mean over all tokens to be written.

    To be answered, an example is a dict with `text`, in which sentinels stand for gaps: "The <extra_id_0> walks in <extra_id_1> park". They
    are the only special tokens that a user's text can hold. The answer has each sentinel with what was written behind it:
    "<extra_id_0> cute dog <extra_id_1> the".

    The checkpoint's tokenizer must have the sentinels, as T5's and what was continued from it; `create_checkpoint(model_type="t5")` makes
    them. What is saved is fine-tuned as any T5, with `Seq2Seq`.

    Args:
        share: of a row's tokens that are lost, between 0 and 1 (default 0.15).
        mean_span: tokens of a span, on average, at least 1 (default 3.0).
        max_length: tokens of what the encoder reads, special tokens included (default 128).

    The other arguments say how gaps are filled, and are described in `Generating`; `scores` are not for this task.

    Example:
        >>> task = SpanCorruption(mean_span=2.0)
        >>> task.inputs, task.name, task.monitor
        (('text',), 'span-corruption', 'perplexity')
    """

    name: ClassVar[str] = "span-corruption"
    documents: ClassVar[bool] = True

    share: float = dataclasses.field(default=0.15, metadata={"help": "share of a row's tokens that are lost"})
    mean_span: float = dataclasses.field(default=3.0, metadata={"help": "tokens of a span, on average"})

    def __post_init__(self):
        super().__post_init__()
        if not 0 < self.share < 1:
            raise InputError(f"share is {self.share}; it must be between 0 and 1")
        if not self.mean_span >= 1:
            raise InputError(f"mean_span is {self.mean_span}; it must be at least 1")
        if self.scores:
            raise InputError(
                f"scores has {', '.join(self.scores)}, but gaps are filled in many ways; leave it out: perplexity scores them"
            )

    # 1. examples -> features

    def from_data(self, examples: Examples) -> SpanCorruption:
        return self

    def check(self, examples: Examples) -> None:
        for i in range(len(examples)):
            fields.text(examples, i, "text")
            fields.weight(examples, i)

    def features(self, tokenizer, examples: Examples, *, targets: bool = True) -> Features:
        pieces = tokenization.RustPieces(tokenizer)
        padding = {"input_ids": tokenization.padding(tokenizer)["input_ids"], "is_target": 0}
        texts = [fields.text(examples, i, "text") for i in range(len(examples))]
        if not targets:
            return Features(**collect(lambda batch: self.rows(pieces, batch), {"text": texts}, padding=padding))
        lead, end = around(pieces)
        sentinels = pieces.vocabulary.sentinel_ids
        options = {"share": self.share, "mean": self.mean_span}
        room = corruption.room(self.max_length, len(lead) + 1, *options.values(), len(sentinels))
        if room < 2:
            raise InputError(f"max_length is {self.max_length}, which has no room for two tokens of text and a gap")
        ids = pieces.ids_and_offsets(texts).ids
        values, documents = ids.values.numpy(), ids.row_splits.numpy()
        if not len(values):
            raise InputError(f"{examples.source}: there is no token of text in it; give a text that has words")
        counts = np.maximum(1, -(-np.diff(documents) // room))  # a document without a token is a row without text
        of_document = np.cumsum([0, *counts])
        within = np.arange(of_document[-1]) - np.repeat(of_document[:-1], counts)
        splits = np.append(np.repeat(documents[:-1], counts) + room * within, len(values))
        weights = np.array([fields.weight(examples, i) for i in range(len(examples))], np.float32)
        longest, rows = int(np.diff(splits).max()), int(of_document[-1])
        return Features(
            ragged={"input_ids": (values, splits), "is_target": (np.zeros_like(values), splits)},
            padding=padding,
            weights=np.repeat(weights, counts),
            examples=of_document,
            alone=True,
            written=True,
            masking=corruption.Corruption(
                **options, sentinels=sentinels, lead=tuple(lead), end=end, longest=longest, rows=rows
            ),
        )

    def scored(self, tokenizer, examples: Examples) -> Features:
        return settled(self.features(tokenizer, examples))

    def rows(self, pieces, texts: Mapping[str, Any]) -> Rows:
        found = _with_sentinels(pieces, tf.convert_to_tensor(texts["text"]))
        laid = pieces.template.assemble(found, max_length=self.max_length)
        laid["is_target"] = tf.zeros_like(laid["input_ids"])
        count = tf.shape(laid["input_ids"])[0]
        return Rows(ids=laid, example=tf.range(count), count=count)

    # 3. outputs -> answers

    def infer(self, outputs: Mapping[str, Any], rows: Rows) -> dict[str, Any]:
        found = super().infer(outputs, rows)
        if rows.target is None:
            return found
        return {name: tf.math.segment_sum(values, rows.example) for name, values in found.items()}

    def answer(self, inferred: Mapping[str, Any], texts: Mapping[str, Any], pieces) -> dict[str, Any]:
        if "generated" not in inferred:
            return super().answer(inferred, texts, pieces)
        return {"generated_text": _with_names(pieces, inferred["generated"])}


def _with_sentinels(pieces, texts):
    """The ids of texts [B] with the sentinels among them, ragged int32 [B, (n)].

    "a <extra_id_0> b" is the parts "a ", "<extra_id_0>", " b"; what is between sentinels is tokenized by itself, as Hugging Face's
    tokenizers do.
    """
    sentinels = tf.constant(pieces.vocabulary.sentinel_ids)
    parts = tf.strings.split(tf.strings.regex_replace(texts, _SENTINEL, f"{_BETWEEN}\\0{_BETWEEN}"), _BETWEEN)
    strings = parts.values
    is_one = tf.strings.regex_full_match(strings, _SENTINEL)
    digits = tf.strings.regex_replace(tf.where(is_one, strings, "0"), "[^0-9]", "")
    number = tf.strings.to_number(digits, tf.int32)
    is_one &= number < tf.size(sentinels)
    found = pieces.ids_and_offsets(tf.where(is_one, "", strings)).ids
    own = tf.boolean_mask(tf.gather(sentinels, tf.minimum(number, tf.size(sentinels) - 1)), is_one)
    own = tf.RaggedTensor.from_row_lengths(own, tf.cast(is_one, found.row_splits.dtype), validate=False)
    joined = tf.concat([tf.cast(found, tf.int32), own.with_row_splits_dtype(found.row_splits.dtype)], 1)
    return tf.RaggedTensor.from_row_splits(
        joined.values, tf.gather(joined.row_splits, parts.row_splits), validate=False
    )


def _with_names(pieces, ids):
    """The text of ids, int32 [B, n], -1 where there is none, with the names of the sentinels and a space around each: string [B]."""
    is_one = tf.reduce_any(ids[:, :, tf.newaxis] == tf.constant(pieces.vocabulary.sentinel_ids), 2)
    rows, width = tf.shape(ids)[0], tf.shape(ids)[1] + 1
    part = (
        tf.cumsum(tf.cast(is_one, tf.int32), 1) + width * tf.range(rows)[:, tf.newaxis]
    )  # from one sentinel to the next
    flat = tf.RaggedTensor.from_value_rowids(
        tf.reshape(ids, [-1]), tf.reshape(part, [-1]), rows * width, validate=False
    )
    texts = tf.strings.strip(pieces.detokenize(flat))
    names = pieces.vocabulary.tokens(tf.boolean_mask(ids, is_one))
    before = tf.tensor_scatter_nd_update(
        tf.fill([rows * width], ""), tf.boolean_mask(part, is_one)[:, tf.newaxis], names
    )
    parts = tf.reshape(tf.strings.strip(tf.strings.join([before, texts], " ")), [rows, width])
    return tf.strings.strip(tf.strings.reduce_join(parts, 1, separator=" "))
