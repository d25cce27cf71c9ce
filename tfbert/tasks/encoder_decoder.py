"""What the tasks share whose models read a text with an encoder and write another with a decoder."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

from tfbert import losses, models, tokenization
from tfbert._compat import tf
from tfbert.errors import InputError
from tfbert.tasks.generating import Generating
from tfbert.tokenization import Rows


@dataclasses.dataclass(frozen=True, kw_only=True)
class EncoderDecoder(Generating):
    """A task of an encoder and a decoder; a row holds what the one reads, and behind it what the other does (see `models.text_to_text`)."""

    head: ClassVar[str] = "seq2seq"

    # 2. features -> outputs

    def build(self, checkpoint, **options):
        model = models.load(checkpoint, self.head, **options)
        positions = getattr(model.config, "max_position_embeddings", None)
        if positions is not None and self.max_new_tokens > positions:
            raise InputError(
                f"max_new_tokens is {self.max_new_tokens}, but {checkpoint} has {positions} positions; lower it to {positions} or less"
            )
        return models.text_to_text(model, self.ends(tokenization.load_tokenizer(checkpoint)))

    def loss(self):
        return losses.masked_crossentropy

    # 3. outputs -> answers

    def outputs(self, model, rows: Rows) -> dict[str, Any]:
        found = {} if rows.target is None else dict(model(rows.ids, training=False))
        if rows.target is None or self.scores:
            mask = rows.ids["attention_mask"] * (1 - rows.ids["is_target"])
            found["generated"] = models.write(model, rows.ids["input_ids"], mask, self.generation)
        return found

    def infer(self, outputs: Mapping[str, Any], rows: Rows) -> dict[str, Any]:
        found = {name: outputs[name] for name in ("generated",) if name in outputs}
        if rows.target is None:
            return found
        labels = losses.at_labels(rows.target, tf.shape(outputs["logits"])[1])
        known = labels != losses.IGNORED
        count = tf.reduce_sum(tf.cast(known, tf.float32), 1)
        right = tf.argmax(outputs["logits"], -1, tf.int32) == labels
        return found | {
            "loss": losses.token_crossentropy(labels, outputs["logits"]) * count,
            "right": tf.reduce_sum(tf.cast(right, tf.float32), 1),
            "count": count,
        }


def around(pieces) -> tuple[tuple[int, ...], int]:
    """The special tokens before a target, as the tokenizer puts them before a text, and the one that ends it."""
    first = pieces.template.single[0]
    return first.ids if first.text is None else (), pieces.vocabulary.end_id
