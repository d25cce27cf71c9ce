"""Token classification: entities, slots, parts of speech: a label for each word, and what stands between two places of a text."""

from __future__ import annotations

import dataclasses
import functools
from collections import Counter
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from tfbert import losses, metrics, models, tokenization
from tfbert._compat import tf
from tfbert.decoding import entities
from tfbert.decoding.substrings import substrings
from tfbert.decoding.viterbi import viterbi
from tfbert.errors import InputError
from tfbert.features import Features, collect
from tfbert.sources import Examples, tags
from tfbert.tasks import fields
from tfbert.tasks.base import Outcomes, Task
from tfbert.tokenization import Rows


@dataclasses.dataclass(frozen=True, kw_only=True)
class TokenClassification(Task):
    """Entities in texts (NER, slots, chunks), or a label for each word (parts of speech).

    An example is a dict with `words` and `tags`, lists of the same length (what `read_conll` gives), or with `text` and `spans`, a list of
    {"start", "end", "label"} in code points; `weight` is optional. Tags are BIO, IOB1 or BIOES; they are turned into BIO. Words are joined
    by a space to the text that the model reads. A text that is longer than a row is cut into windows, and no word is lost.

    Args:
        labels: the tags in the order of the model's outputs; left empty, "O" and the sorted "B-", "I-" tags of the types in the
            training data, or its sorted tags where they have no such prefixes.
        aggregation: how pieces become what gets a label: "none" and "simple" take each piece, "first" a word by its first piece
            (default: training does the same), "average" and "max" a word by all its pieces. All but "none" join neighbours to entities.
        constrained: whether the labels are the best sequence in which "I-X" follows only "B-X" or "I-X" (Viterbi), rather than the
            best one for each word (default False).
        repair: read an illegal sequence of tags as evaluations do, "I-X" after "O" as a beginning, instead of stopping (default False).
        stride: pieces that a window shares with the one before; each is judged in the window where it stands farthest from the ends
            (default 32, or half of a row where rows are short).
        dropout: dropout rate of the whole model while it trains; None means the checkpoint's own (default).
        max_length: tokens of a row, special tokens included (default 128).

    Example:
        >>> task = TokenClassification(labels=("O", "B-PER", "I-PER"))
        >>> task.inputs, task.monitor
        (('text',), 'f1')
    """

    name: ClassVar[str] = "token-classification"
    head: ClassVar[str] = "token-classification"
    not_in_rows: ClassVar[tuple[str, ...]] = ("aggregation", "constrained", "dropout")

    labels: tuple[str, ...] = dataclasses.field(
        default=(), metadata={"help": "tags in order (default: as in the data)"}
    )
    aggregation: str = dataclasses.field(
        default="first", metadata={"help": ", ".join(entities.STRATEGIES), "choices": entities.STRATEGIES}
    )
    constrained: bool = dataclasses.field(default=False, metadata={"help": "only legal sequences of tags (Viterbi)"})
    repair: bool = dataclasses.field(default=False, metadata={"help": "mend illegal sequences of tags in the data"})
    stride: int = dataclasses.field(default=32, metadata={"help": "pieces that a window shares with the one before"})
    dropout: float | None = dataclasses.field(
        default=None, metadata={"help": "dropout rate while training (default: the checkpoint's)"}
    )

    def __post_init__(self):
        object.__setattr__(self, "labels", tuple(map(str, self.labels)))
        fields.one_of("aggregation", self.aggregation, entities.STRATEGIES)
        if len(set(self.labels)) < len(self.labels):
            raise InputError(f"labels has a name twice: {', '.join(self.labels)}")
        if self.stride < 0:
            raise InputError(f"stride is {self.stride}; it must be at least 0")

    # 1. examples -> features

    def from_data(self, examples: Examples) -> TokenClassification:
        if self.labels:
            return self
        found = {tag for _, _, row in self._sentences(examples) for tag in row}
        kinds = sorted({tag[2:] for tag in found if tag[:2] in ("B-", "I-")})
        if kinds:
            return dataclasses.replace(
                self, labels=("O", *(prefix + kind for kind in kinds for prefix in ("B-", "I-")))
            )
        if len(found) < 2:
            only = f"only {next(iter(found))!r}" if found else "no tag at all"
            raise InputError(f"{examples.source}: the rows have {only}; token classification needs at least two tags")
        return dataclasses.replace(self, labels=tuple(sorted(found)))

    @property
    def is_open(self) -> bool:
        return not self.labels

    def told(self, row: Mapping[str, Any]) -> dict[str, Any]:
        # Each type once, as a word that begins an entity of it.
        if isinstance(row.get("spans"), list) and "words" not in row:
            parts = [("B", span.get("label")) for span in row["spans"] if isinstance(span, Mapping)]
        else:
            parts = [tags.parted(str(tag)) for tag in row.get("tags") or ()]
        told = sorted({"O" if prefix == "O" else f"B-{kind}" if prefix else kind for prefix, kind in parts})
        return {"words": told, "tags": told}

    def check(self, examples: Examples) -> None:
        if not self.labels:
            raise InputError(
                "the task has no labels yet; take them from the data, task.from_data(train), or name them, labels=(...)"
            )
        for i, (_, _, row) in enumerate(self._sentences(examples)):
            fields.weight(examples, i)
            for tag in row:
                fields.among("tag", tag, self._index, examples.where(i))

    def check_coverage(self, examples: Examples) -> None:
        if not any(tag != "O" for _, _, row in self._sentences(examples) for tag in row):
            raise InputError(
                f"{examples.source}: no word has another tag than 'O', so nothing can be scored; add rows with entities"
            )

    @property
    def inputs(self) -> tuple[str, ...]:
        return ("text",)

    def input(self, examples: Examples, i: int, name: str) -> str:
        return _text(examples, i)

    def features(self, tokenizer, examples: Examples, *, targets: bool = True) -> Features:
        sentences = self._sentences(examples) if targets else None
        texts = [text for text, _, _ in sentences] if targets else [_text(examples, i) for i in range(len(examples))]
        pieces = tokenization.RustPieces(tokenizer)
        found = collect(
            lambda batch: self.rows(pieces, batch), {"text": texts}, padding=tokenization.padding(tokenizer)
        )
        features = Features(**found, alone=True)
        if not targets:
            return features
        return self._with_targets(features, sentences, [fields.weight(examples, i) for i in range(len(examples))])

    def _with_targets(self, features: Features, sentences, weights: list[float]) -> Features:
        """Gives the first piece of each word the word's label, in the one row that owns the piece."""
        start, splits = features.aligned["start"]
        owned = np.flatnonzero(features.aligned["owned"][0])  # places of the owned pieces of all examples, in order
        labels = np.full(len(start), losses.IGNORED, np.int32)
        edges = splits[features.examples]  # where each example's tokens begin
        bounds = np.searchsorted(owned, edges)
        for k, (_, words, row) in enumerate(sentences):
            places = owned[bounds[k] : bounds[k + 1]]
            first = np.searchsorted(start[places], words[:, 0])
            # A word of characters that the tokenizer removes has no piece; it keeps its place among the words, and gets no target.
            there = first < len(places)
            there[there] = start[places[first[there]]] < words[there, 1]
            labels[places[first[there]]] = [self._index[tag] for tag, has in zip(row, there, strict=True) if has]
        of_row = np.repeat(np.arange(len(splits) - 1), np.diff(splits))
        counts = np.bincount(of_row[labels != losses.IGNORED], minlength=len(splits) - 1)
        factor = np.repeat(weights, np.diff(features.examples))
        # With the number of its targets as the weight of a row, the loss of a batch is the mean over all its words.
        return dataclasses.replace(features, targets=(labels, splits), weights=(counts * factor).astype(np.float32))

    def rows(self, pieces, texts: Mapping[str, Any]) -> Rows:
        room = self.max_length - pieces.template.specials(pair=False)
        found = pieces.ids_and_offsets(texts["text"])
        return tokenization.windows(
            pieces.template, found, max_length=self.max_length, stride=min(self.stride, max(0, room // 2))
        )

    def _sentences(self, examples: Examples) -> list[tuple[str, np.ndarray, list[str]]]:
        """The text, the places of its words, int32 [n, 2] in code points, and their tags, for each example."""
        read = [_words(examples, i) for i in range(len(examples))]
        scheme = tags.detect_scheme([row for _, _, row in read], where=examples.where)
        made = []
        for i, (text, words, row) in enumerate(read):
            made.append((text, words, tags.to_bio(row, scheme=scheme, where=examples.where(i), repair=self.repair)))
        return made

    @functools.cached_property
    def _index(self) -> dict[str, int]:
        return {name: i for i, name in enumerate(self.labels)}

    # 2. features -> outputs

    def build(self, checkpoint, **options):
        changes = models.dropout(self.dropout)
        names = dict(enumerate(self.labels))
        return models.as_keras(models.load(checkpoint, self.head, id2label=names, **options, **changes))

    def loss(self):
        return losses.token_crossentropy

    def divergence(self):
        return losses.softmax_divergence

    def soft_loss(self):
        return losses.soft_crossentropy

    # 3. outputs -> answers

    def infer(self, outputs: Mapping[str, Any], rows: Rows) -> dict[str, Any]:
        scores = tf.nn.softmax(tf.cast(outputs["logits"], tf.float32))  # [R, T, L]
        example = tf.boolean_mask(tf.broadcast_to(rows.example[:, tf.newaxis], tf.shape(rows.owned)), rows.owned)
        scores, word, start, end = (tf.boolean_mask(x, rows.owned) for x in (scores, rows.word, rows.start, rows.end))
        units = entities.units(entities.Units(scores, example, start, end), word, strategy=self.aggregation)
        if self.constrained:
            label, score = viterbi(units.scores, units.example, rows.count, labels=self.labels)
        else:
            label, score = entities.best(units.scores)
        counts = tf.math.bincount(units.example, minlength=rows.count, maxlength=rows.count)

        def padded(values):
            return tf.RaggedTensor.from_row_lengths(values, counts, validate=False).to_tensor()  # [B, U]

        return {
            "label": padded(label),
            "score": padded(score),
            "start": padded(units.start),
            "end": padded(units.end),
            "count": counts,
        }

    def answer(self, inferred: Mapping[str, Any], texts: Mapping[str, Any], pieces) -> dict[str, Any]:
        there = tf.sequence_mask(inferred["count"], tf.shape(inferred["label"])[1])  # [B, U]
        example = tf.cast(tf.where(there)[:, 0], tf.int32)
        label, score, start, end = (
            tf.boolean_mask(inferred[name], there) for name in ("label", "score", "start", "end")
        )
        words = entities.Units(tf.zeros([tf.size(label), 0]), example, start, end)
        count = tf.shape(there)[0]
        found = entities.group(words, label, score, count, labels=self.labels, strategy=self.aggregation)
        return {"entity": substrings(texts["text"], found["start"], found["end"]), **found}

    def example_signatures(self, inferred: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
        return {}

    # 4. answers -> score

    @property
    def monitor(self) -> str:
        return "f1" if self._typed else "accuracy"

    @property
    def _typed(self) -> bool:
        """Whether the labels are entities."""
        return any(name.startswith("B-") for name in self.labels)

    def score(self, examples: Examples, inferred: Mapping[str, np.ndarray]) -> dict[str, float]:
        return metrics.entities(*self._by_word(examples, inferred)[:2], typed=self._typed)

    def score_by_label(self, examples: Examples, inferred: Mapping[str, np.ndarray]) -> dict[str, dict[str, float]]:
        return metrics.entities_by_type(*self._by_word(examples, inferred)[:2])

    def _by_word(self, examples: Examples, inferred: Mapping[str, np.ndarray]) -> tuple[list, list, list]:
        """The right tag of every word, the inferred one and its score: those of the word's first unit; without any, "O" and 1."""
        references, predictions, confidences = [], [], []
        for k, (_, words, row) in enumerate(self._sentences(examples)):
            count = int(inferred["count"][k])
            start, label, score = (inferred[name][k, :count] for name in ("start", "label", "score"))
            first = np.searchsorted(start, words[:, 0])
            there = [i < count and start[i] < end for i, end in zip(first.tolist(), words[:, 1].tolist(), strict=True)]
            predictions.append([self.labels[label[i]] if has else "O" for i, has in zip(first, there, strict=True)])
            confidences.append([float(score[i]) if has else 1.0 for i, has in zip(first, there, strict=True)])
            references.append(row)
        return references, predictions, confidences

    def label_counts(self, examples: Examples) -> dict[str, int]:
        found = [tag for _, _, row in self._sentences(examples) for tag in row]
        begun = [tag[2:] for tag in found if tag.startswith("B-")]  # entities, where there are such
        return Counter(begun or found)

    def outcomes(self, examples: Examples, inferred: Mapping[str, np.ndarray]) -> Outcomes:
        references, predictions, confidences = self._by_word(examples, inferred)
        example = np.repeat(np.arange(len(references)), [len(row) for row in references])
        # A tag that only occurs where it was inferred for want of a piece, "O", may not be among the labels.
        names = self.labels if "O" in self.labels else (*self.labels, "O")
        index = {name: i for i, name in enumerate(names)}
        expected, predicted = (
            np.asarray([index[tag] for row in rows for tag in row], int) for rows in (references, predictions)
        )
        confidence = np.asarray([score for row in confidences for score in row], float)
        return Outcomes(names, example, expected, predicted, confidence, confidence)

    def tuned(self, examples: Examples, inferred: Mapping[str, np.ndarray]) -> TokenClassification:
        return self


def _text(examples: Examples, i: int) -> str:
    """The text of row i, which may come as words."""
    words = examples[i].get("words")
    return " ".join(map(str, words)) if isinstance(words, list | tuple) else fields.text(examples, i, "text")


def _words(examples: Examples, i: int) -> tuple[str, np.ndarray, list[str]]:
    """The text of row i, the places of its words, int32 [n, 2], and their tags as the row has them."""
    row, where = examples[i], examples.where(i)
    if "words" not in row:
        text = fields.text(examples, i, "text")
        places = tags.word_places(text)
        return (
            text,
            np.asarray(places, np.int32).reshape(-1, 2),
            tags.spans_to_tags(text, fields.value(examples, i, "spans"), places, where),
        )
    words, row_tags = fields.value(examples, i, "words"), fields.value(examples, i, "tags")
    for name, values in (("words", words), ("tags", row_tags)):
        if not isinstance(values, list | tuple) or not all(isinstance(value, str) for value in values):
            raise InputError(f"{where}: {name} is {values!r}; expected a list of texts")
    if len(words) != len(row_tags):
        raise InputError(f"{where}: {len(words)} words and {len(row_tags)} tags; every word needs one tag")
    ends = np.cumsum([len(word) + 1 for word in words]) - 1
    starts = ends - [len(word) for word in words]
    return " ".join(words), np.stack([starts, ends], 1).astype(np.int32).reshape(-1, 2), list(row_tags)
