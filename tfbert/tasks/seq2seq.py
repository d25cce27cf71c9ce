"""Text to text: translation, summaries, answers; an encoder reads a text, and a decoder writes another."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from tfbert import losses, tokenization
from tfbert._compat import tf
from tfbert.features import Features, collect
from tfbert.sources import Examples
from tfbert.tasks import fields
from tfbert.tasks.encoder_decoder import EncoderDecoder, around
from tfbert.tokenization import Rows


@dataclasses.dataclass(frozen=True, kw_only=True)
class Seq2Seq(EncoderDecoder):
    """Text to text with an encoder and a decoder, as T5 (Raffel et al. 2020) and BART (Lewis et al. 2020).

    To learn and to be scored, an example has a `text` and the `target` that is to be written, and `weight` if need be. The decoder reads
    the target shifted by one token, behind the token that it begins with, and learns each token from those before and from the text
    (teacher forcing). Of the text the first max_length tokens are read, of the target the first max_new_tokens learnt, its end counted. The
    loss of a batch is the mean over all tokens of targets.

    To be answered, an example has a `text`.

    Args:
        prefix: what is put before each text, such as "translate English to German: " (default: nothing).
        max_length: tokens of a text with its prefix, special tokens included (default 128).

    The other arguments say how texts are written, and are described in `Generating`.

    Example:
        >>> task = Seq2Seq(prefix="summarize: ", num_beams=4)
        >>> task.inputs, task.name, task.monitor
        (('text',), 'seq2seq', 'perplexity')
    """

    name: ClassVar[str] = "seq2seq"

    prefix: str = dataclasses.field(default="", metadata={"help": "what is put before each text"})

    # 1. examples -> features

    def from_data(self, examples: Examples) -> Seq2Seq:
        return self

    def check(self, examples: Examples) -> None:
        for i in range(len(examples)):
            for name in ("text", "target"):
                fields.text(examples, i, name)
            fields.weight(examples, i)

    def features(self, tokenizer, examples: Examples, *, targets: bool = True) -> Features:
        features = self._features(tokenizer, examples, targets)
        if not targets:
            return features
        target, splits = features.aligned["target"]
        of_row = np.repeat(np.arange(len(splits) - 1), np.diff(splits))
        counts = np.bincount(of_row[target != losses.IGNORED], minlength=len(splits) - 1)
        weights = np.array([fields.weight(examples, i) for i in range(len(examples))])
        return dataclasses.replace(
            features,
            aligned={},
            targets=(target, splits),
            weights=(counts * weights).astype(np.float32),
            alone=True,
            written=True,
        )

    def scored(self, tokenizer, examples: Examples) -> Features:
        return self._features(tokenizer, examples, True)

    def _features(self, tokenizer, examples: Examples, targets: bool) -> Features:
        """The texts; with `targets`, what the decoder reads behind them, and at each token of it the one to be written."""
        pieces = tokenization.RustPieces(tokenizer)
        padding = {"input_ids": tokenization.padding(tokenizer)["input_ids"], "is_target": 0}
        texts = [fields.text(examples, i, "text") for i in range(len(examples))]
        found = collect(lambda batch: self.rows(pieces, batch), {"text": texts}, padding=padding)
        if not targets:
            return Features(**found)
        values, splits = found["ragged"]["input_ids"]
        written = pieces.ids_and_offsets([fields.text(examples, i, "target") for i in range(len(examples))]).ids
        lead, end = around(pieces)
        rows = []
        for source, ids in zip(
            np.split(values, splits[1:-1]),
            np.split(written.values.numpy(), written.row_splits.numpy()[1:-1]),
            strict=True,
        ):
            target = np.array([*lead, *ids, end][: self.max_new_tokens], np.int32)
            # The first that the decoder reads is the model's to choose, and is put there in the graph.
            read = np.concatenate([[end], target[:-1]]).astype(np.int32)
            none = np.full(len(source), losses.IGNORED, np.int32)
            rows.append(
                (
                    np.concatenate([source, read]),
                    np.repeat(np.array([0, 1], np.int32), [len(source), len(read)]),
                    np.concatenate([none, target]),
                )
            )
        ids, is_target, target = (np.concatenate(arrays) for arrays in zip(*rows, strict=True))
        splits = np.cumsum([0, *(len(row[0]) for row in rows)])
        return Features(
            ragged={"input_ids": (ids, splits), "is_target": (is_target, splits)},
            padding=padding,
            examples=np.arange(len(rows) + 1),
            aligned={"target": (target, splits)},
        )

    def rows(self, pieces, texts: Mapping[str, Any]) -> Rows:
        found = pieces.ids_and_offsets(tf.strings.join([self.prefix, tf.convert_to_tensor(texts["text"])])).ids
        laid = pieces.template.assemble(found, max_length=self.max_length)
        laid["is_target"] = tf.zeros_like(laid["input_ids"])
        count = tf.shape(laid["input_ids"])[0]
        return Rows(ids=laid, example=tf.range(count), count=count)
