"""BERT's own pretraining: a masked language model that also learns whether two segments belong together, in this order."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from tfbert import losses, metrics, models, tokenization
from tfbert._compat import tf
from tfbert.errors import InputError
from tfbert.features import Features, collect
from tfbert.masking import UNITS
from tfbert.pairing import ORDERS, PairedMasking, pair_up
from tfbert.pipeline import settled
from tfbert.sources import Examples
from tfbert.tasks import fields
from tfbert.tasks.base import Task
from tfbert.tokenization import Rows

# As the papers call the two: of a pair as it is, and of a changed one.
LABELS = {"next-sentence": ("IsNext", "NotNext"), "sentence-order": ("InOrder", "Swapped")}


@dataclasses.dataclass(frozen=True, kw_only=True)
class BertPretraining(Task):
    """Pretraining as BERT's and ALBERT's: masked language modelling, and whether the second of two segments is in its place.

    To learn and to be scored, an example is a document, a dict with `text`, and `weight` if need be: what `read_documents` gives. Each of
    its lines is a sentence; one that is longer than half a row is cut into such halves, between words. Documents are packed into rows of
    `max_length` tokens, a tenth of which are of a random length, as published; no row holds two documents, but for the pairs. In each epoch
    each row is parted anew between two of its sentences, and half of the pairs are changed, in the way of `order`; what becomes of a row is
    a function of (seed, epoch, row) alone. Unlike in BERT's code, what a random second segment takes the place of is not read in that
    epoch. The loss is the sum of two means, over the tokens that are masked (see `MaskedLM`) and over the pairs.

    To be answered, an example is a dict with `text` and `text_pair`. What is saved answers fill-mask too, as a `MaskedLM`.

    Args:
        order: "next-sentence" (default): the changed pairs have a second segment of another document (Devlin et al. 2019, "BERT"); or
            "sentence-order": the two have changed places (Lan et al. 2020, "ALBERT").
        masking: what is hidden as one: "token" (default), "whole-word" or "span" (see `MaskedLM`).
        max_length: tokens of a row, special tokens included (default 128).

    Example:
        >>> task = BertPretraining(order="sentence-order")
        >>> task.inputs, task.name, task.monitor
        (('text', 'text_pair'), 'bert-pretraining', 'perplexity')
    """

    name: ClassVar[str] = "bert-pretraining"
    head: ClassVar[str] = "pretraining"
    documents: ClassVar[bool] = True

    order: str = dataclasses.field(
        default="next-sentence", metadata={"help": f"what is asked of pairs: {', '.join(ORDERS)}", "choices": ORDERS}
    )
    masking: str = dataclasses.field(
        default="token", metadata={"help": f"what is hidden as one: {', '.join(UNITS)}", "choices": UNITS}
    )

    def __post_init__(self):
        fields.one_of("order", self.order, ORDERS)
        fields.one_of("masking", self.masking, UNITS)

    # 1. examples -> features

    def from_data(self, examples: Examples) -> BertPretraining:
        return self

    def check(self, examples: Examples) -> None:
        for i in range(len(examples)):
            fields.text(examples, i, "text")
            fields.weight(examples, i)

    def check_coverage(self, examples: Examples) -> None:
        """Any text will do; where it does not, `features` tells."""

    @property
    def inputs(self) -> tuple[str, ...]:
        return ("text", "text_pair")

    def input(self, examples: Examples, i: int, name: str):
        # A document has no second text.
        return "" if name == "text_pair" and name not in examples[i] else fields.text(examples, i, name)

    def features(self, tokenizer, examples: Examples, *, targets: bool = True) -> Features:
        pieces, padding = tokenization.RustPieces(tokenizer), tokenization.padding(tokenizer)
        if not targets:
            texts = {name: [self.input(examples, i, name) for i in range(len(examples))] for name in self.inputs}
            return Features(**collect(lambda texts: self.rows(pieces, texts), texts, padding={**padding, "masked": 0}))
        texts = [fields.text(examples, i, "text").splitlines() or [""] for i in range(len(examples))]
        documents = np.cumsum([0, *map(len, texts)])
        lines = pieces.ids_and_offsets([line for text in texts for line in text])
        if not len(lines.ids.values):
            raise InputError(f"{examples.source}: there is no token of text in it; give a text that has words")
        pairing, splits = pair_up(self.order, pieces.template, lines, documents, max_length=self.max_length)

        def whole(columns):
            return Rows(ids=pairing.whole(columns["row"]), example=columns["row"], count=tf.constant(splits[-1]))

        weights = np.array([fields.weight(examples, i) for i in range(len(examples))], np.float32)
        others = np.setdiff1d(np.fromiter(tokenizer.get_vocab().values(), np.int32), tokenizer.all_special_ids)
        return Features(
            ragged=collect(whole, {"row": np.arange(splits[-1])}, padding=padding)["ragged"],
            padding=padding,
            weights=np.repeat(weights, np.diff(splits)),
            examples=splits,
            alone=True,
            masking=PairedMasking(
                self.masking, pieces.vocabulary.mask_id, others, self.max_length, int(splits[-1]), pairing
            ),
        )

    def scored(self, tokenizer, examples: Examples) -> Features:
        features = self.features(tokenizer, examples)

        def beside(inputs, targets, weights):
            label = tf.where(weights["order"] > 0, targets["order"], losses.IGNORED)
            return {
                "target": targets["logits"],
                "label": tf.repeat(label[:, tf.newaxis], tf.shape(targets["logits"])[1], 1),
            }

        return settled(features, beside)

    def rows(self, pieces, texts: Mapping[str, Any]) -> Rows:
        first, second = (pieces.ids_and_offsets(tf.convert_to_tensor(texts[name])).ids for name in self.inputs)
        laid = pieces.template.assemble(first, second, max_length=self.max_length)
        laid["masked"] = tf.zeros_like(laid["input_ids"])
        count = tf.shape(laid["input_ids"])[0]
        return Rows(ids=laid, example=tf.range(count), count=count)

    # 2. features -> outputs

    def build(self, checkpoint, **options):
        tokenization.Vocabulary(tokenization.load_tokenizer(checkpoint)).mask_id  # noqa: B018 - told before the work
        model = models.load(checkpoint, self.head, **options)
        if new := sorted({name.split(".")[1] for name in model.load_report.missing if name.startswith("cls.")}):
            print(
                f"tfbert: {checkpoint} has no {' and no '.join(new)}: new ones begin, which mean nothing before they are trained",
                file=sys.stderr,
            )
        return models.pretraining(model)

    def loss(self):
        return {"logits": losses.masked_crossentropy, "order": losses.sparse_categorical_crossentropy}

    # 3. outputs -> answers

    def infer(self, outputs: Mapping[str, Any], rows: Rows) -> dict[str, Any]:
        order = tf.cast(outputs["order"], tf.float32)  # [R, 2]
        if rows.target is None:
            return {"probabilities": tf.nn.softmax(order)}
        logits = tf.cast(outputs["logits"], tf.float32)  # [R, P, V]
        tokens = losses.at_labels(rows.target, tf.shape(logits)[1])  # [R, P]
        known = tf.reduce_sum(tf.cast(tokens != losses.IGNORED, tf.float32), 1)
        label = rows.label[:, 0]
        paired = tf.cast(label != losses.IGNORED, tf.float32)
        right = tf.cast(tf.argmax(logits, -1, tf.int32) == tokens, tf.float32)
        of_row = {
            "loss": losses.token_crossentropy(tokens, logits) * known,
            "right": tf.reduce_sum(right, 1),
            "count": known,
            "order_loss": losses.sparse_categorical_crossentropy(tf.maximum(label, 0), order) * paired,
            "order_right": tf.cast(tf.argmax(order, -1, tf.int32) == label, tf.float32),
            "order_count": paired,
        }
        first = tf.searchsorted(rows.example, tf.range(rows.count))  # the first row of each example
        return {
            "probabilities": tf.gather(tf.nn.softmax(order), first),
            **{name: tf.math.segment_sum(values, rows.example) for name, values in of_row.items()},
        }

    def answer(self, inferred: Mapping[str, Any], texts: Mapping[str, Any], pieces) -> dict[str, Any]:
        probabilities = inferred["probabilities"]
        best = tf.argmax(probabilities, -1, tf.int32)
        return {
            "label": tf.gather(tf.constant(LABELS[self.order]), best),
            "score": tf.gather(probabilities, best, batch_dims=1),
        }

    def example_signatures(self, inferred: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
        return {}

    # 4. answers -> score

    @property
    def monitor(self) -> str:
        return "perplexity"

    def score(self, examples: Examples, inferred: Mapping[str, np.ndarray]) -> dict[str, float]:
        found = metrics.language_model(inferred["loss"], inferred["count"], inferred["right"])
        order = metrics.language_model(inferred["order_loss"], inferred["order_count"], inferred["order_right"])
        name = self.order.replace("-", "_")
        return {
            **found,
            "loss": found["loss"] + order["loss"],
            f"{name}_loss": order["loss"],
            f"{name}_accuracy": order["accuracy"],
        }

    def score_by_label(self, examples: Examples, inferred: Mapping[str, np.ndarray]) -> dict[str, dict[str, float]]:
        return {}

    def tuned(self, examples: Examples, inferred: Mapping[str, np.ndarray]) -> BertPretraining:
        return self
