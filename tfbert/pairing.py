"""The pairs of segments that next sentence prediction and sentence order prediction learn from, drawn in the graph for each batch."""

from __future__ import annotations

import dataclasses

import numpy as np

from tfbert import losses
from tfbert._compat import tf
from tfbert.errors import InputError
from tfbert.masking import Masking, draws_by_row
from tfbert.tokenization import Pieces
from tfbert.tokenization.template import Template

ORDERS = ("next-sentence", "sentence-order")
SHORT = 0.1  # of the rows are of a random length, at least 2 tokens (Devlin et al. 2019, appendix A.2, and their code)
# A line longer than this share of a row's text is several sentences, so that a row that is full has places to be parted at.
LONGEST = 0.5


@dataclasses.dataclass(frozen=True, eq=False)
class Pairing:
    """Parts rows of text into two segments, the second of which is then the one that follows, or another; by (seed, epoch, row) alone.

    The text is one long array of tokens. A row is a stretch of one document; it is parted at the beginning of one of its sentences, each as
    likely (one without such, between two of its words). With even chances the pair stays as it is, label 0, or is changed, label 1: in
    "next-sentence" (Devlin et al. 2019) the second segment gives way to one of another document, each as likely, from one of its sentences
    on, each as likely, and no longer than what it replaces; in "sentence-order" (Lan et al. 2020) the two segments change places.

    Args:
        order: "next-sentence" or "sentence-order".
        template: the tokenizer's.
        ids: int32 [N], all tokens of text, document by document.
        words: int32 [N], the number of each token's word, ascending.
        begins: int64 [R], where each row begins among the tokens.
        lengths: int64 [R], how many it has.
        parts: int64 [P], the places where rows can be parted, row by row.
        part_splits: int64 [R + 1]: row i has the places parts[part_splits[i]:part_splits[i + 1]].
        own: int64 [R], the number of each row's document among those that have text.
        sentences: int64 [S], where each sentence begins.
        sentence_splits: int64 [D + 1]: document i has the sentences sentence_splits[i] up to sentence_splits[i + 1].
        ends: int64 [D], where each document ends.
    """

    order: str
    template: Template
    ids: tf.Tensor
    words: tf.Tensor
    begins: tf.Tensor
    lengths: tf.Tensor
    parts: tf.Tensor
    part_splits: tf.Tensor
    own: tf.Tensor
    sentences: tf.Tensor
    sentence_splits: tf.Tensor
    ends: tf.Tensor

    def __call__(self, rows, epoch, *, seed: int):
        """Draws the pairs of a batch.

        Args:
            rows: int64 [B], the rows' numbers.
            epoch: int64 scalar.
            seed: of the run.

        Returns:
            {"input_ids", "attention_mask", "token_type_ids"}, int32 [B, T]; the number of each token's word, int32 [B, T], -1 where there
            is no text; the label, int32 [B]; and whether there is one, bool [B]: a row of less than two words cannot be parted.
        """
        which, changed, document, sentence = tf.unstack(
            draws_by_row(rows, epoch, self.begins.shape[0], [4], seed + 2**33), axis=1
        )  # float32 [B] each
        begin, length = tf.gather(self.begins, rows), tf.gather(self.lengths, rows)
        first_part = tf.gather(self.part_splits, rows)
        count = tf.gather(self.part_splits, rows + 1) - first_part
        parted = count > 0
        place = tf.gather(self.parts, tf.where(parted, first_part + _drawn(which, count), 0))
        place = tf.where(parted, place, begin + length)
        first, second = (begin, place), (place, begin + length)
        changed = (changed < 0.5) & parted
        if self.order == "sentence-order":
            one, two = _where(changed, second, first), _where(changed, first, second)
        else:
            one, two = first, _where(changed, self._other(rows, document, sentence, begin + length - place), second)
        laid, words = self._lay(one, two)
        return laid, words, tf.cast(changed, tf.int32), parted

    def whole(self, rows):
        """The rows with all of their text in the first segment, as `__call__` gives them: as long as they can become."""
        begin, end = tf.gather(self.begins, rows), tf.gather(self.begins + self.lengths, rows)
        return self._lay((begin, end), (end, end))[0]

    def _other(self, rows, document, sentence, room):
        """A segment of another document for each row, at most as long as `room`."""
        number = _drawn(document, self.ends.shape[0] - 1)
        number += tf.cast(number >= tf.gather(self.own, rows), tf.int64)
        first, last = tf.gather(self.sentence_splits, number), tf.gather(self.sentence_splits, number + 1)
        begin = tf.gather(self.sentences, first + _drawn(sentence, last - first))
        return begin, tf.minimum(begin + room, tf.gather(self.ends, number))

    def _lay(self, one, two):
        """The rows of two segments each, and their tokens' words."""

        def places(begin, end):  # below 0, so that the template's own tokens are told from them
            ranges = tf.ragged.range(begin, end, row_splits_dtype=tf.int64)
            return ranges.with_values(-1 - tf.cast(ranges.values, tf.int32))

        laid, _ = self.template.lay(places(*one), places(*two))
        at = laid["input_ids"]
        text, place = at < 0, tf.maximum(-1 - at, 0)
        laid["input_ids"] = tf.where(text, tf.gather(self.ids, place), at)
        return laid, tf.where(text, tf.gather(self.words, place), -1)


@dataclasses.dataclass(frozen=True, eq=False)
class PairedMasking(Masking):
    """Draws the pairs of a batch, and in them the tokens that are to be guessed.

    Args:
        pairing: draws the pairs; the other fields are those of `Masking`.
    """

    pairing: Pairing

    def over(self, rows: int, longest: int) -> PairedMasking:
        """As of `Masking`: always an InputError, since a pair may be of any two documents of the whole text."""
        raise InputError(
            "pairs of segments are drawn anew for each epoch from all documents, which data in a stream do not hold; train from the "
            "text itself, which must fit into memory, or a masked-lm"
        )

    def batch(self, inputs, words, rows, epoch, weight, *, seed: int) -> tuple:
        """As of `Masking`, of which `words` is not read; targets and weights are dicts of "logits" and "order"."""
        laid, words, label, parted = self.pairing(rows, epoch, seed=seed)
        inputs = {name: laid[name] for name in inputs}
        inputs, targets, weights = super().batch(inputs, words, rows, epoch, weight, seed=seed)
        order = losses.normalize_weights(weight * tf.cast(parted, tf.float32))
        return inputs, {"logits": targets, "order": label}, {"logits": weights, "order": order}


def pair_up(order: str, template: Template, lines: Pieces, documents: np.ndarray, *, max_length: int):
    """Packs documents into rows.

    A row is full, or its document ends; a tenth are of a random length, 2 tokens or more, always the same ones. No row holds two
    documents. A document without a token is a row without text.

    Args:
        order: see `Pairing`.
        template: the tokenizer's.
        lines: `Pieces` of the L lines of all documents: a line is a sentence, or, where it is long, several.
        documents: int64 [D + 1], the lines' splits: document i has the lines documents[i]:documents[i + 1].
        max_length: tokens of the longest row, special tokens included.

    Returns:
        The `Pairing`, and the rows' splits, int64 [D + 1]: document i has the rows splits[i]:splits[i + 1].

    Raises:
        InputError: max_length has no room for two tokens of text, or "next-sentence" has less than two documents.

    Example:
        >>> from tfbert.tokenization import RustPieces, load_tokenizer
        >>> pieces = RustPieces(load_tokenizer("all-MiniLM-L6-v2"))
        >>> lines = pieces.ids_and_offsets(["One and two.", "Three.", "A document of one line"])
        >>> pairing, splits = pair_up("sentence-order", pieces.template, lines, np.array([0, 2, 3]), max_length=16)
        >>> splits.tolist(), pairing.begins.numpy().tolist(), pairing.lengths.numpy().tolist()
        ([0, 1, 2], [0, 6], [6, 5])
    """
    room = max_length - template.specials(pair=True)
    if room < 2:
        raise InputError(
            f"max_length is {max_length}; the special tokens and two segments need at least {max_length - room + 2}"
        )
    ids, splits = lines.ids.values.numpy(), lines.ids.row_splits.numpy()
    heads = _word_begins(lines.word.values.numpy(), splits)  # where each word begins
    bounds = splits[documents]  # int64 [D + 1], of the documents among the tokens
    sentences = _sentences(splits, heads, max(1, int(room * LONGEST)))
    text = np.flatnonzero(np.diff(bounds))  # the documents that have text
    if order == "next-sentence" and len(text) < 2:
        raise InputError(
            f"the second segment is of another document in half of the rows, but there are {len(text)} with text; part the text by blank "
            'lines, or take the order "sentence-order"'
        )
    begins, lengths, row_splits = _rows(bounds, room)
    own = np.searchsorted(bounds[text], begins, side="right") - 1
    parts, part_splits = _within(begins, lengths, sentences)
    without = np.diff(part_splits) == 0
    if without.any():  # parted between words, then
        others, other_splits = _within(begins, lengths * without, heads)
        parts = np.sort(np.concatenate([parts, others]))
        part_splits = part_splits + other_splits
    words = np.zeros(len(ids), np.int32)
    words[heads] = 1
    tables = {
        "begins": begins,
        "lengths": lengths,
        "parts": np.append(parts, 0),  # so that there is one in any case
        "part_splits": part_splits,
        "own": np.maximum(own, 0),
        "sentences": sentences,
        "sentence_splits": np.searchsorted(sentences, np.append(bounds[text], bounds[-1])),
        "ends": bounds[text + 1],
    }
    # Tensors now: within a graph they would be a part of it, which must be below 2 GB.
    tables = {name: tf.constant(values, tf.int64) for name, values in tables.items()}
    words = tf.constant(np.cumsum(words, dtype=np.int32) - 1)
    return Pairing(order=order, template=template, ids=tf.constant(ids), words=words, **tables), row_splits


def _rows(bounds: np.ndarray, room: int):
    """Where rows begin, how long they are, and the documents' splits among them."""
    random, begins, lengths, splits = np.random.default_rng(0), [], [], [0]
    for begin, end in zip(bounds[:-1].tolist(), bounds[1:].tolist()):
        while True:
            length = int(random.integers(2, room + 1)) if random.random() < SHORT else room
            length = min(length, end - begin)
            begins.append(begin)
            lengths.append(length)
            begin += length
            if begin >= end:
                break
        splits.append(len(begins))
    return np.array(begins, np.int64), np.array(lengths, np.int64), np.array(splits, np.int64)


def _word_begins(words: np.ndarray, splits: np.ndarray) -> np.ndarray:
    """The places of the first tokens of all words, ascending; words are numbered anew in each line."""
    first = np.ones(len(words), bool)
    first[1:] = words[1:] != words[:-1]
    first[splits[:-1][np.diff(splits) > 0]] = True
    return np.flatnonzero(first)


def _sentences(splits: np.ndarray, heads: np.ndarray, most: int) -> np.ndarray:
    """Where sentences begin: lines, and within a line longer than `most` tokens the last word that ends by `most`, again and again."""
    found = []
    for begin, end in zip(splits[:-1].tolist(), splits[1:].tolist()):
        while begin < end:
            found.append(begin)
            if end - begin <= most:
                break
            after = int(heads[np.searchsorted(heads, begin + most, side="right") - 1])
            if after <= begin:  # one word, longer than that
                later = np.searchsorted(heads, begin, side="right")
                after = int(heads[later]) if later < len(heads) else end
            begin = after
    return np.array(found, np.int64)


def _within(begins: np.ndarray, lengths: np.ndarray, places: np.ndarray):
    """The places inside of each stretch, its beginning left out, and their splits."""
    first = np.searchsorted(places, begins, side="right")
    last = np.searchsorted(places, begins + lengths, side="left")
    counts = np.maximum(last - first, 0)
    splits = np.concatenate([[0], np.cumsum(counts)])
    at = np.arange(splits[-1]) + np.repeat(first - splits[:-1], counts)
    return places[at], splits.astype(np.int64)


def _drawn(number, count):
    """A whole number below `count`, int64, from one from 0 to 1."""
    count = tf.cast(count, tf.int64)
    return tf.minimum(tf.cast(tf.cast(number, tf.float64) * tf.cast(count, tf.float64), tf.int64), count - 1)


def _where(condition, one: tuple, other: tuple) -> tuple:
    return tuple(tf.where(condition, *pair) for pair in zip(one, other, strict=True))
