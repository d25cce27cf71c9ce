"""Masked language modelling: trained on raw text, it tells the words that may stand where a text has a mask."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from tfbert import losses, metrics, models, tokenization
from tfbert._compat import tf
from tfbert.errors import InputError
from tfbert.features import Features, collect, cut_documents, cut_pairs, merged
from tfbert.masking import UNITS, Masking
from tfbert.pipeline import settled
from tfbert.sources import Examples
from tfbert.tasks import fields
from tfbert.tasks.base import Task
from tfbert.tokenization import Rows

SCORINGS = ("masked", "pseudo")
# What Unicode calls white space; RE2's \s is ASCII's alone.
_SPACE_AT_END = "[\\t-\\r \\x{85}\\x{a0}\\x{1680}\\x{2000}-\\x{200a}\\x{2028}\\x{2029}\\x{202f}\\x{205f}\\x{3000}]+$"


@dataclasses.dataclass(frozen=True, kw_only=True)
class MaskedLM(Task):
    """Masked language modelling from raw text (pretraining), and the likeliest tokens for the first mask of a text ("fill-mask").

    To learn and to be scored, an example is a document, a dict with `text`, and `weight` if need be: what `read_documents` gives. It is
    cut into rows of `max_length` tokens, the last of them shorter; no row holds two documents, so that attention never crosses from one to
    another. Of a row's tokens 15 % are to be guessed: drawn anew for each epoch in training (see `masking.Masking`), always the same in
    scoring. The loss of a batch is the mean over all tokens to be guessed. "[MASK]" in such a text is text.

    An example with `text_pair` beside it, its translation, is one row: the tokens to be guessed are of both, and each text helps to guess
    the other's (translation language modelling; Conneau and Lample 2019, "Cross-lingual Language Model Pretraining"). The longer text is
    cut first. The two are told apart as in any other pair, by their token types; unlike in XLM positions go on through the second text,
    and there is no embedding of the language. Documents and pairs may stand in one data set, as XLM learns from both in turn.

    To be answered, an example is a dict with `text`, in which the tokenizer's mask token, [MASK] for BERT, stands for one token. It is the
    only special token that a user's text can hold. Of a longer text the part around the first mask is read. A text without a mask is
    answered by empty tokens of score 0, for one such row must not fail the batch of others on a server.

    Args:
        masking: what is hidden as one: "token" (default; Devlin et al. 2019), "whole-word", or "span", whole words one after the other
            (SpanBERT; Joshi et al. 2020).
        scoring: "masked" (default), the perplexity of the masked tokens; or "pseudo", the pseudo-perplexity: each token is masked alone, in
            a row of its own, so that it takes as many rows as there are tokens (Salazar et al. 2020).
        top_k: how many tokens an answer has (default 5).
        max_length: tokens of a row, special tokens included (default 128).

    Example:
        >>> task = MaskedLM(masking="span", top_k=3)
        >>> task.inputs, task.name, task.monitor
        (('text',), 'masked-lm', 'perplexity')
    """

    name: ClassVar[str] = "masked-lm"
    head: ClassVar[str] = "masked-lm"
    documents: ClassVar[bool] = True
    not_in_rows: ClassVar[tuple[str, ...]] = ("masking", "scoring", "top_k")

    masking: str = dataclasses.field(
        default="token", metadata={"help": f"what is hidden as one: {', '.join(UNITS)}", "choices": UNITS}
    )
    scoring: str = dataclasses.field(
        default="masked",
        metadata={
            "help": "perplexity of masked tokens, or pseudo: of each token alone, far slower",
            "choices": SCORINGS,
        },
    )
    top_k: int = dataclasses.field(default=5, metadata={"help": "how many tokens an answer has"})

    def __post_init__(self):
        fields.one_of("masking", self.masking, UNITS)
        fields.one_of("scoring", self.scoring, SCORINGS)
        if self.top_k < 1:
            raise InputError(f"top_k is {self.top_k}; it must be at least 1")

    # 1. examples -> features

    def from_data(self, examples: Examples) -> MaskedLM:
        return self

    def check(self, examples: Examples) -> None:
        for i in range(len(examples)):
            fields.text(examples, i, "text")
            if examples[i].get("text_pair") is not None:
                fields.text(examples, i, "text_pair")
            fields.weight(examples, i)

    def check_coverage(self, examples: Examples) -> None:
        """Any text will do; one without a token is found by `features`."""

    @property
    def inputs(self) -> tuple[str, ...]:
        return ("text",)

    def features(self, tokenizer, examples: Examples, *, targets: bool = True) -> Features:
        pieces, padding = tokenization.RustPieces(tokenizer), tokenization.padding(tokenizer)
        texts = {"text": [fields.text(examples, i, "text") for i in range(len(examples))]}
        if not targets:
            return Features(**collect(lambda texts: self.rows(pieces, texts), texts, padding={**padding, "masked": 0}))
        mask_id = pieces.vocabulary.mask_id

        found = self._cut(pieces, texts["text"], examples, padding)
        weights = [fields.weight(examples, i) for i in range(len(examples))]
        others = np.setdiff1d(np.fromiter(tokenizer.get_vocab().values(), np.int32), tokenizer.all_special_ids)
        return Features(
            **found,
            weights=np.repeat(weights, np.diff(found["examples"])).astype(np.float32),
            alone=True,
            masking=Masking(self.masking, mask_id, others, longest=self.max_length, rows=int(found["examples"][-1])),
        )

    def _cut(self, pieces, texts: list[str], examples: Examples, padding: dict[str, int]) -> dict[str, Any]:
        """The rows of documents, and of pairs."""
        pairs = [row.get("text_pair") for row in examples]
        paired = np.array([pair is not None for pair in pairs])
        parts = []
        if not paired.all():
            alone = np.flatnonzero(~paired)
            options = {"padding": padding, "max_length": self.max_length}
            parts.append((alone, cut_documents(pieces, [texts[i] for i in alone], examples.source, **options)))
        if paired.any():
            both = np.flatnonzero(paired)
            two = ([texts[i] for i in both], [pairs[i] for i in both])
            parts.append((both, cut_pairs(pieces, *two, padding=padding, max_length=self.max_length)))
        return merged(parts)

    def scored(self, tokenizer, examples: Examples) -> Features:
        features = self.features(tokenizer, examples)
        if self.scoring == "pseudo":
            return _each_alone(features, features.masking.mask_id, examples)
        return settled(features)

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
        laid["masked"] = tf.cast(is_mask & (tf.cumsum(tf.cast(is_mask, tf.int32), axis=1) == 1), tf.int32)
        return Rows(ids=laid, example=row, count=tf.size(total))

    def _with_masks(self, pieces, texts) -> tuple:
        """The ids of texts [B] with the masks among them, and the place of the first mask, -1 where there is none.

        "a [MASK] b [MASK]" is the parts "a ", " b ", ""; each is tokenized by itself, as Hugging Face's tokenizers do, and a mask
        comes after each but the last. Where the mask token takes the white space before it, the parts are "a", " b", "".
        """
        parts = tf.strings.split(texts, pieces.vocabulary.mask_token)
        counts = tf.cast(parts.row_lengths(), tf.int32)
        last = tf.cast(parts.row_splits[1:], tf.int32) - 1
        follows = tf.ones_like(tf.strings.length(parts.values))
        follows = tf.tensor_scatter_nd_update(follows, last[:, tf.newaxis], tf.zeros_like(last))
        strings = parts.values
        if pieces.vocabulary.mask_takes_space:
            strings = tf.where(follows > 0, tf.strings.regex_replace(strings, _SPACE_AT_END, ""), strings)
        found = pieces.ids_and_offsets(strings).ids  # ragged [P, (m)]
        masks = tf.RaggedTensor.from_row_lengths(tf.fill([tf.reduce_sum(follows)], pieces.vocabulary.mask_id), follows)
        joined = tf.concat([found, tf.cast(masks.with_row_splits_dtype(found.row_splits.dtype), tf.int32)], 1)
        ids = tf.RaggedTensor.from_row_splits(joined.values, tf.gather(joined.row_splits, parts.row_splits))
        before = tf.gather(tf.cast(found.row_lengths(), tf.int32), tf.cast(parts.row_splits[:-1], tf.int32))
        return ids, tf.where(counts > 1, before, -1)

    # 2. features -> outputs

    def build(self, checkpoint, **options):
        tokenization.Vocabulary(tokenization.load_tokenizer(checkpoint)).mask_id  # noqa: B018 - told before the work
        model = models.load(checkpoint, self.head, **options)
        if model.load_report.missing:
            print(
                f"tfbert: {checkpoint} has no masked-LM head: a new one begins, and what it answers means nothing before it is trained",
                file=sys.stderr,
            )
        return models.at_masked(model)

    def loss(self):
        return losses.masked_crossentropy

    # 3. outputs -> answers

    def infer(self, outputs: Mapping[str, Any], rows: Rows) -> dict[str, Any]:
        logits = tf.cast(outputs["logits"], tf.float32)  # [R, P, V]
        there = tf.reduce_any(rows.ids["masked"] > 0, axis=1)
        if rows.target is None:
            return self._guesses(logits[:, 0], there)
        labels = losses.at_labels(rows.target, tf.shape(logits)[1])  # [R, P]
        known = tf.cast(labels != losses.IGNORED, tf.float32)
        right = tf.cast(tf.argmax(logits, -1, tf.int32) == labels, tf.float32)
        of_row = {
            "loss": losses.token_crossentropy(labels, logits) * tf.reduce_sum(known, 1),
            "right": tf.reduce_sum(right, 1),
            "count": tf.reduce_sum(known, 1),
        }
        first = tf.searchsorted(rows.example, tf.range(rows.count))  # the first row of each example
        return {
            **self._guesses(tf.gather(logits[:, 0], first), tf.gather(there, first)),
            **{name: tf.math.segment_sum(values, rows.example) for name, values in of_row.items()},
        }

    def _guesses(self, logits, there) -> dict[str, Any]:
        """The best tokens for logits [B, V], nothing where none is to be guessed."""
        best = tf.math.top_k(tf.nn.softmax(logits), self.top_k)
        there = there[:, tf.newaxis]
        return {"token_id": tf.where(there, best.indices, -1), "score": tf.where(there, best.values, 0.0)}

    def answer(self, inferred: Mapping[str, Any], texts: Mapping[str, Any], pieces) -> dict[str, Any]:
        return {"token": pieces.vocabulary.tokens(inferred["token_id"]), "score": inferred["score"]}

    def example_signatures(self, inferred: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
        return {}

    # 4. answers -> score

    @property
    def monitor(self) -> str:
        return "pseudo_perplexity" if self.scoring == "pseudo" else "perplexity"

    def score(self, examples: Examples, inferred: Mapping[str, np.ndarray]) -> dict[str, float]:
        found = metrics.language_model(inferred["loss"], inferred["count"], inferred["right"])
        return {self.monitor if name == "perplexity" else name: value for name, value in found.items()}

    def score_by_label(self, examples: Examples, inferred: Mapping[str, np.ndarray]) -> dict[str, dict[str, float]]:
        return {}

    def tuned(self, examples: Examples, inferred: Mapping[str, np.ndarray]) -> MaskedLM:
        return self


def _each_alone(features: Features, mask_id: int, examples: Examples) -> Features:
    """As many copies of each row as it has tokens of text, in each of which another one is masked."""
    word, splits = features.aligned["word"]
    place = np.flatnonzero(word >= 0)  # [R'] of all rows' tokens
    row = np.searchsorted(splits, place, side="right") - 1
    of_example = np.searchsorted(place, splits[features.examples])  # int64 [N + 1]
    empty = np.flatnonzero(np.diff(of_example) == 0)
    if len(empty):
        raise InputError(f"{examples.where(int(empty[0]))}: there is no token of text in it; leave the example out")
    copied = np.concatenate([[0], np.cumsum(np.diff(splits)[row])])
    source = np.arange(copied[-1]) + np.repeat(splits[row] - copied[:-1], np.diff(splits)[row])
    at = copied[:-1] + place - splits[row]  # of each copy the token to be guessed
    ragged = {name: (values[source], copied) for name, (values, _) in features.ragged.items()}
    masked, target = np.zeros(copied[-1], np.int32), np.full(copied[-1], losses.IGNORED, np.int32)
    masked[at], target[at] = 1, ragged["input_ids"][0][at]
    ragged["input_ids"][0][at] = mask_id
    return Features(
        ragged={**ragged, "masked": (masked, copied)},
        padding={**features.padding, "masked": 0},
        examples=of_example,
        aligned={"target": (target, copied)},
    )
