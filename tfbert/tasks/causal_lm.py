"""Causal language modelling: trained on raw text, or on prompts with what follows them, it writes on from a text."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from tfbert import losses, models, tokenization
from tfbert._compat import tf
from tfbert.errors import InputError
from tfbert.features import Features, collect
from tfbert.sources import Examples
from tfbert.tasks import fields
from tfbert.tasks.generating import Generating
from tfbert.tokenization import Rows


@dataclasses.dataclass(frozen=True, kw_only=True)
class CausalLM(Generating):
    """Causal language modelling, each token from those before it, on raw text or on prompts with a target; and texts written on.

    To learn and to be scored, an example is a document, a dict with `text`: what `read_documents` gives. It begins after the token that
    ends a text, as GPT-2 was trained (Radford et al. 2019), ends with it, and is cut into rows of `max_length` tokens; each token is to be
    told once, also a row's first, from the last of the row before. No row holds two documents. Or an example has a `text` and a `target`:
    the target alone is learnt, as what follows the text. Both are tokenized by themselves and stand side by side: begin a target with a
    space where it begins with a word. Of the text the last max_length - max_new_tokens tokens are read, of the target the first
    max_new_tokens learnt, its end counted. The loss of a batch is the mean over all tokens that are learnt.

    To be answered, an example has a `text`, of which as many tokens are read as of one with a target. An empty one stands for the
    beginning of a document.

    Args:
        completion: whether texts have targets; None (default): the data say it.
        max_length: tokens of a row, new ones included (default 128).

    The other arguments say how texts are written, and are described in `Generating`.

    Example:
        >>> task = CausalLM(max_new_tokens=20, do_sample=True, top_p=0.9)
        >>> task.inputs, task.name, task.monitor
        (('text',), 'causal-lm', 'perplexity')
    """

    name: ClassVar[str] = "causal-lm"
    head: ClassVar[str] = "causal-lm"
    documents: ClassVar[bool] = True

    completion: bool | None = dataclasses.field(
        default=None, metadata={"help": "whether texts have targets, which alone are learnt (default: the data say it)"}
    )

    def __post_init__(self):
        super().__post_init__()
        if self.max_new_tokens >= self.max_length:
            raise InputError(
                f"max_new_tokens is {self.max_new_tokens}, but a row has max_length {self.max_length} tokens, prompt and answer; raise "
                "the latter, or lower the former"
            )

    # 1. examples -> features

    def from_data(self, examples: Examples) -> CausalLM:
        if self.completion is not None:
            return self
        return dataclasses.replace(self, completion=any("target" in row for row in examples))

    @property
    def is_open(self) -> bool:
        return self.completion is None

    def check(self, examples: Examples) -> None:
        if self.scores and not self.completion:
            raise InputError(
                f"scores has {', '.join(self.scores)}, which compare written texts with targets, but the examples have no target; leave "
                "scores out: raw text is scored by perplexity"
            )
        for i in range(len(examples)):
            for name in ("text", "target") if self.completion else ("text",):
                fields.text(examples, i, name)
            fields.weight(examples, i)
            if not self.completion and "target" in examples[i]:
                raise InputError(
                    f"{examples.where(i)}: has a target, but the task learns from raw text; give all or none"
                )

    def features(self, tokenizer, examples: Examples, *, targets: bool = True) -> Features:
        features = self._features(tokenizer, examples, targets)
        if not targets:
            return features
        target, splits = features.aligned["target"]
        of_row = np.repeat(np.arange(len(splits) - 1), np.diff(splits))
        counts = np.bincount(of_row[target != losses.IGNORED], minlength=len(splits) - 1)
        weights = np.repeat([fields.weight(examples, i) for i in range(len(examples))], np.diff(features.examples))
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
        """The rows that are answered; with `targets`, those that are learnt from, and at each token the one after it."""
        pieces, padding = tokenization.RustPieces(tokenizer), tokenization.padding(tokenizer)
        texts = [fields.text(examples, i, "text") for i in range(len(examples))]
        if not targets or self.completion:
            found = collect(lambda batch: self.rows(pieces, batch), {"text": texts}, padding=padding)
            if not targets:
                return Features(**found)
            prompts = np.split(*_cut(found["ragged"]["input_ids"]))
            answers = _ids(pieces, [fields.text(examples, i, "target") for i in range(len(examples))])
            end = pieces.vocabulary.end_id
            parts = [
                _shifted([*prompt, *[*answer, end][: self.max_new_tokens]], len(prompt), self.max_length)
                for prompt, answer in zip(prompts, answers, strict=True)
            ]
        else:
            first, end = _first(pieces), pieces.vocabulary.end_id
            parts = [_shifted([*first, *ids, end], 1, self.max_length) for ids in _ids(pieces, texts)]
        rows = [row for part in parts for row in part]
        splits = np.cumsum([0, *(len(ids) for ids, _ in rows)])
        ids, target = (np.concatenate([np.zeros(0, np.int32), *arrays]) for arrays in zip(*rows, strict=True))
        # Whatever else the model takes, GPT-2 does not.
        return Features(
            ragged={"input_ids": (ids, splits)},
            padding={"input_ids": padding["input_ids"]},
            examples=np.cumsum([0, *map(len, parts)]),
            aligned={"target": (target, splits)},
        )

    def rows(self, pieces, texts: Mapping[str, Any]) -> Rows:
        ids = pieces.ids_and_offsets(tf.convert_to_tensor(texts["text"])).ids
        lead = _lead(pieces)
        room = self.max_length - self.max_new_tokens - len(lead)
        lengths = tf.cast(ids.row_lengths(), tf.int32)
        kept = tokenization.keep(ids, tf.minimum(lengths, room), "tail")
        bare = tf.cast(lengths == 0, tf.int32) * (not lead)
        begin = tf.RaggedTensor.from_row_lengths(tf.fill([tf.reduce_sum(bare)], pieces.vocabulary.begin_id), bare)
        kept = tf.concat([begin.with_row_splits_dtype(kept.row_splits.dtype), kept], 1)
        template = dataclasses.replace(pieces.template, single=pieces.template.single[: 1 + bool(lead)])
        laid, _ = template.lay(kept)
        return Rows(ids=laid, example=tf.range(tf.size(lengths)), count=tf.size(lengths))

    # 2. features -> outputs

    def build(self, checkpoint, **options):
        model = models.load(checkpoint, self.head, **options)
        return models.next_tokens(model, self.ends(tokenization.load_tokenizer(checkpoint)))

    def loss(self):
        return losses.token_crossentropy

    # 3. outputs -> answers

    def outputs(self, model, rows: Rows) -> dict[str, Any]:
        ids, mask = rows.ids["input_ids"], rows.ids["attention_mask"]
        found = {}
        if rows.target is not None:
            found["logits"] = model(rows.ids, training=False)["logits"]
            # A prompt ends where the first token is to be told.
            prompt = 1 + tf.argmax(rows.target != losses.IGNORED, 1, tf.int32)
            mask = tf.sequence_mask(prompt, tf.shape(ids)[1], tf.int32)
        if rows.target is None or self.scores:
            found["generated"] = models.write(model, ids, mask, self.generation)
        return found

    def infer(self, outputs: Mapping[str, Any], rows: Rows) -> dict[str, Any]:
        found = {name: outputs[name] for name in ("generated",) if name in outputs}
        if rows.target is None:
            return found
        known = rows.target != losses.IGNORED
        count = tf.reduce_sum(tf.cast(known, tf.float32), 1)
        right = tf.argmax(outputs["logits"], -1, tf.int32) == rows.target
        of_row = {
            "loss": losses.token_crossentropy(rows.target, outputs["logits"]) * count,
            "right": tf.reduce_sum(tf.cast(right, tf.float32), 1),
            "count": count,
        }
        return found | {name: tf.math.segment_sum(values, rows.example) for name, values in of_row.items()}


def _lead(pieces) -> tuple[int, ...]:
    """The special tokens that the tokenizer puts before a text."""
    first = pieces.template.single[0]
    return first.ids if first.text is None else ()


def _first(pieces) -> tuple[int, ...]:
    """What a document begins after: those, or else the token between two documents."""
    return _lead(pieces) or (pieces.vocabulary.begin_id,)


def _ids(pieces, texts: list[str]) -> list[np.ndarray]:
    found = pieces.ids_and_offsets(texts).ids
    return np.split(found.values.numpy(), found.row_splits.numpy()[1:-1])


def _cut(ragged) -> tuple[np.ndarray, np.ndarray]:
    values, splits = ragged
    return values, splits[1:-1]


def _shifted(ids, begin: int, length: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """The rows of one text, of up to `length` tokens: the tokens, and at each the one after it, from the text's token `begin` on.

    _shifted([7, 8, 9, 5, 6], 2, 3) -> ([7, 8, 9], [IGNORED, 9, 5]), ([5], [6])
    """
    ids = np.asarray(ids, np.int32)
    target = np.where(np.arange(1, len(ids)) < begin, losses.IGNORED, ids[1:]).astype(np.int32)
    return [(ids[i : i + length][: len(ids) - 1 - i], target[i : i + length]) for i in range(0, len(ids) - 1, length)]
