"""ELECTRA's pretraining: a small masked LM replaces tokens of a text, and the model that is wanted tells which."""

from __future__ import annotations

import dataclasses
import functools
import sys
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from tfbert import losses, metrics, models, tokenization
from tfbert._compat import tf
from tfbert.checkpoint_folder import find_checkpoint
from tfbert.features import Features, collect, cut_documents
from tfbert.masking import UNITS, ReplacedMasking
from tfbert.pipeline import settled
from tfbert.sources import Examples
from tfbert.tasks import fields
from tfbert.tasks.base import Task
from tfbert.tokenization import Rows

WEIGHT = 50.0  # of the discriminator's loss beside the generator's (Clark et al. 2020, section 3.2 and table 6)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ReplacedTokenDetection(Task):
    """Pretraining as ELECTRA's (Clark et al. 2020): a generator fills in hidden tokens, and a discriminator finds those that it got wrong.

    To learn and to be scored, an example is a document, as for `MaskedLM`, cut into rows as there. Of a row's tokens 15 % are taken, 85 %
    of these are hidden from the generator, and in the place of each it writes a token drawn from its own softmax, by a number that is a
    function of (seed, epoch, row) alone; one that happens to be right is not replaced. The loss is the mean of the generator's
    cross-entropy over the tokens taken, plus 50 times the discriminator's mean over all tokens. Both learn the same embeddings.

    The checkpoint is the discriminator, an `ElectraForPreTraining` that any other task fine-tunes; in the folder `generator` inside it lies
    the generator, an `ElectraForMaskedLM`, with which training goes on. Where there is none, a new one begins.

    To be answered, an example is a dict with `text`; the answer is each token with the chance that another stood in its place: token,
    score, start, end (code points) and count. It tells what the model finds odd, and is no more than a look at what it has learnt.

    Args:
        masking: what is taken as one: "token" (default), "whole-word" or "span" (see `MaskedLM`).
        generator_size: width of a new generator, relative to the discriminator's (default 0.25).
        max_length: tokens of a row, special tokens included (default 128).

    Example:
        >>> task = ReplacedTokenDetection()
        >>> task.inputs, task.name, task.monitor
        (('text',), 'replaced-token-detection', 'loss')
    """

    name: ClassVar[str] = "replaced-token-detection"
    head: ClassVar[str] = "replaced-token-detection"
    documents: ClassVar[bool] = True
    not_in_rows: ClassVar[tuple[str, ...]] = ("masking", "generator_size")

    masking: str = dataclasses.field(
        default="token", metadata={"help": f"what is taken as one: {', '.join(UNITS)}", "choices": UNITS}
    )
    generator_size: float = dataclasses.field(
        default=0.25, metadata={"help": "width of a new generator, relative to the discriminator's"}
    )

    def __post_init__(self):
        fields.one_of("masking", self.masking, UNITS)
        fields.positive("generator_size", self.generator_size)

    # 1. examples -> features

    def from_data(self, examples: Examples) -> ReplacedTokenDetection:
        return self

    def check(self, examples: Examples) -> None:
        for i in range(len(examples)):
            fields.text(examples, i, "text")
            fields.weight(examples, i)

    def check_coverage(self, examples: Examples) -> None:
        """Any text will do; one without a token is found by `features`."""

    @property
    def inputs(self) -> tuple[str, ...]:
        return ("text",)

    def features(self, tokenizer, examples: Examples, *, targets: bool = True) -> Features:
        pieces, padding = tokenization.RustPieces(tokenizer), tokenization.padding(tokenizer)
        texts = [fields.text(examples, i, "text") for i in range(len(examples))]
        if not targets:
            padding |= {"masked": 0, "draw": 0}
            return Features(**collect(lambda texts: self.rows(pieces, texts), {"text": texts}, padding=padding))
        found = cut_documents(pieces, texts, examples.source, padding=padding, max_length=self.max_length)
        weights = [fields.weight(examples, i) for i in range(len(examples))]
        others = np.setdiff1d(np.fromiter(tokenizer.get_vocab().values(), np.int32), tokenizer.all_special_ids)
        splits = found["examples"]
        return Features(
            **found,
            weights=np.repeat(weights, np.diff(splits)).astype(np.float32),
            alone=True,
            masking=ReplacedMasking(self.masking, pieces.vocabulary.mask_id, others, self.max_length, int(splits[-1])),
        )

    def scored(self, tokenizer, examples: Examples) -> Features:
        features = self.features(tokenizer, examples)
        return settled(features, lambda inputs, targets, weights: {"target": targets["logits"]})

    def rows(self, pieces, texts: Mapping[str, Any]) -> Rows:
        found = pieces.ids_and_offsets(tf.convert_to_tensor(texts["text"]))
        rows = tokenization.windows(pieces.template, found, max_length=self.max_length)
        nothing = tf.zeros_like(rows.ids["input_ids"])
        return rows._replace(ids={**rows.ids, "masked": nothing, "draw": nothing})

    # 2. features -> outputs

    def build(self, checkpoint, **options):
        tokenization.Vocabulary(tokenization.load_tokenizer(checkpoint)).mask_id  # noqa: B018 - told before the work
        discriminator = models.load(checkpoint, self.head, **options)
        own = {name: options[name] for name in ("seed", "encoder", "gradient_checkpointing") if name in options}
        folder = find_checkpoint(str(checkpoint))
        generator, new = models.load_generator(folder, discriminator, size=self.generator_size, **own)
        begun = ["head"] * bool(discriminator.load_report.missing) + ["generator"] * new
        if begun:
            print(
                f"tfbert: {checkpoint} has no {' and no '.join(begun)} for replaced token detection: new ones begin",
                file=sys.stderr,
            )
        return models.replaced_tokens(discriminator, generator)

    def loss(self):
        replaced = functools.partial(losses.replaced_crossentropy, weight=WEIGHT)
        return {"logits": losses.masked_crossentropy, "replaced": replaced}

    # 3. outputs -> answers

    def infer(self, outputs: Mapping[str, Any], rows: Rows) -> dict[str, Any]:
        judged, read = tf.unstack(tf.cast(outputs["replaced"], tf.float32), axis=-1)  # [R, T] each
        real = rows.ids["attention_mask"] > 0
        owned = real if rows.owned is None else rows.owned
        of_token = {"score": tf.sigmoid(judged), "token_id": tf.cast(read, tf.int32)}
        of_token |= {"start": rows.start, "end": rows.end} if rows.owned is not None else {}
        example = tf.boolean_mask(tf.broadcast_to(rows.example[:, tf.newaxis], tf.shape(owned)), owned)
        counts = tf.math.bincount(example, minlength=rows.count, maxlength=rows.count)
        answered = {
            name: tf.RaggedTensor.from_row_lengths(tf.boolean_mask(values, owned), counts, validate=False).to_tensor()
            for name, values in of_token.items()
        }
        if rows.target is None:
            return {**answered, "count": counts}
        logits = tf.cast(outputs["logits"], tf.float32)  # [R, P, V]
        tokens = losses.at_labels(rows.target, tf.shape(logits)[1])  # [R, P]
        taken = tf.reduce_sum(tf.cast(tokens != losses.IGNORED, tf.float32), 1)
        originals = tf.where(rows.target != losses.IGNORED, rows.target, rows.ids["input_ids"])
        originals = tf.where(real, originals, losses.IGNORED)
        replaced, found = (tf.cast(read, tf.int32) != originals) & real, (judged > 0) & real
        size = tf.reduce_sum(tf.cast(real, tf.float32), 1)
        of_row = {
            "loss": losses.token_crossentropy(tokens, logits) * taken,
            "taken": taken,
            "replaced_loss": losses.replaced_crossentropy(originals, outputs["replaced"]) * size,
            "tokens": size,
            **{
                name: tf.reduce_sum(tf.cast(both, tf.float32), 1)
                for name, both in (
                    ("true_positives", replaced & found),
                    ("false_positives", ~replaced & found),
                    ("false_negatives", replaced & ~found),
                )
            },
        }
        return {
            **answered,
            "count": counts,
            **{name: tf.math.segment_sum(values, rows.example) for name, values in of_row.items()},
        }

    def answer(self, inferred: Mapping[str, Any], texts: Mapping[str, Any], pieces) -> dict[str, Any]:
        there = tf.sequence_mask(inferred["count"], tf.shape(inferred["score"])[1])  # [B, E]
        places = {name: inferred[name] for name in ("start", "end") if name in inferred}
        return {
            "token": pieces.vocabulary.tokens(tf.where(there, inferred["token_id"], -1)),
            "score": inferred["score"],
            **places,
            "count": inferred["count"],
        }

    def example_signatures(self, inferred: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
        return {}

    # 4. answers -> score

    @property
    def monitor(self) -> str:
        return "loss"

    def score(self, examples: Examples, inferred: Mapping[str, np.ndarray]) -> dict[str, float]:
        generator = metrics.language_model(inferred["loss"], inferred["taken"], np.zeros_like(inferred["taken"]))
        counts = (inferred[name] for name in ("true_positives", "false_positives", "false_negatives", "tokens"))
        discriminator = float(inferred["replaced_loss"].sum(dtype=np.float64)) / max(
            float(inferred["tokens"].sum()), 1.0
        )
        return {
            "loss": generator["loss"] + WEIGHT * discriminator,
            "generator_loss": generator["loss"],
            "discriminator_loss": discriminator,
            "perplexity": generator["perplexity"],
            **metrics.replaced_tokens(*counts),
        }

    def score_by_label(self, examples: Examples, inferred: Mapping[str, np.ndarray]) -> dict[str, dict[str, float]]:
        return {}

    def tuned(self, examples: Examples, inferred: Mapping[str, np.ndarray]) -> ReplacedTokenDetection:
        return self
