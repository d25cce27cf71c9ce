"""Entities from the scores of word pieces: pieces to words, words to entities, as TensorFlow operations.

The pieces of all examples of a batch stand in one row, example after example, without padding, so no example sees another:

    pieces  --units-->  words (or pieces), each with its scores
            --best, or viterbi.viterbi-->  a label and its score for each
            --group-->  entities, padded to [B, E]

Labels are names like "B-PER", "I-PER" and "O", or names without prefix ("NOUN"). The result is that of the Hugging Face
TokenClassificationPipeline with the aggregation strategy of the same name, but that words are those of the tokenizer; the pipeline
guesses them from the lengths of the pieces.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from tfbert._compat import tf
from tfbert.decoding.runs import changes, runs
from tfbert.errors import InputError, suggest

if TYPE_CHECKING:
    from collections.abc import Sequence

STRATEGIES = ("none", "simple", "first", "average", "max")


class Units(NamedTuple):
    """What gets one label each: the U words of a batch, or its word pieces.

    Args:
        scores: float32 [U, L], the probability of each label.
        example: int32 [U], ascending: the number of the example that each is of.
        start: int32 [U], where it begins in its text, in code points.
        end: int32 [U], where it ends (exclusive).
    """

    scores: tf.Tensor
    example: tf.Tensor
    start: tf.Tensor
    end: tf.Tensor


def units(pieces: Units, word, *, strategy: str) -> Units:
    """Joins the pieces of each word into one unit.

    With "none" and "simple" every piece stays its own unit. Otherwise a unit is a word, from the start of its first piece to the end of its
    last; its scores are those of its first piece ("first"), the mean over its pieces ("average"), or those of the piece with the greatest
    score of all ("max"; of equal ones the first).

    Args:
        pieces: the P word pieces, each once, in order.
        word: int32 [P], the number of each piece's word in its text.
        strategy: one of STRATEGIES.

    Raises:
        InputError: there is no such strategy.

    Example:
        >>> pieces = Units(
        ...     scores=tf.constant([[0.75, 0.25], [0.125, 0.875], [0.5, 0.5]]),
        ...     example=tf.constant([0, 0, 1]),
        ...     start=tf.constant([0, 4, 0]),
        ...     end=tf.constant([4, 6, 3]),
        ... )
        >>> words = units(pieces, tf.constant([0, 0, 0]), strategy="max")
        >>> words.scores.numpy().tolist(), words.end.numpy().tolist()
        ([[0.125, 0.875], [0.5, 0.5]], [6, 3])
    """
    _check(strategy)
    if strategy in ("none", "simple"):
        return pieces
    begins = changes(pieces.example) | changes(word)
    first, last, unit = runs(begins)
    if strategy == "first":
        scores = tf.gather(pieces.scores, first)
    elif strategy == "average":
        scores = tf.math.segment_mean(pieces.scores, unit)
    else:
        scores = tf.gather(pieces.scores, _peaks(tf.reduce_max(pieces.scores, axis=-1), unit))
    return Units(scores, tf.gather(pieces.example, first), tf.gather(pieces.start, first), tf.gather(pieces.end, last))


def best(scores) -> tuple:
    """The likeliest label of each unit by itself, and its score; of equal ones the first.

    Args:
        scores: float32 [U, L].

    Returns:
        label int32 [U], score float32 [U].

    Example:
        >>> label, score = best(tf.constant([[0.25, 0.75], [0.5, 0.5]]))
        >>> label.numpy().tolist(), score.numpy().tolist()
        ([1, 0], [0.75, 0.5])
    """
    return tf.argmax(scores, axis=-1, output_type=tf.int32), tf.reduce_max(scores, axis=-1)


def group(
    words: Units, label, score, count, *, labels: Sequence[str], strategy: str, ignore: Sequence[str] = ("O",)
) -> dict:
    """Joins neighbouring units of one kind into entities, and sets them out by example.

    A unit goes on with the entity before it if both are of one kind ("PER" in "B-PER", "I-PER" and "PER") and its own label does
    not begin with "B-". An entity's label is its kind, its score the mean of its units' scores. With the strategy "none" nothing is joined,
    and the label keeps its prefix. In a label without "B-" or "I-" the kind is the whole label, but the entity's label is what follows the
    first dash, as in the pipeline.

    Args:
        words: the U units.
        label: int32 [U], the label of each.
        score: float32 [U], the score of each.
        count: int32 scalar, the number of examples B.
        labels: the names of the L labels.
        strategy: one of STRATEGIES.
        ignore: labels of entities (without prefix, but for "none") that are left out.

    Returns:
        label string [B, E], score float32 [B, E], start and end int32 [B, E], padded with "" and 0, and count int32 [B]; E is the most
        entities that an example of the batch has.

    Raises:
        InputError: there is no such strategy.

    Example:
        >>> names = ("O", "B-PER", "I-PER")
        >>> words = Units(  # "Ada Lovelace wrote" and "Rome"
        ...     tf.one_hot([1, 2, 0, 0], 3), tf.constant([0, 0, 0, 1]), tf.constant([0, 4, 13, 0]), tf.constant([3, 12, 18, 4])
        ... )
        >>> found = group(words, *best(words.scores), 2, labels=names, strategy="first")
        >>> found["label"].numpy().tolist(), found["end"].numpy().tolist(), found["count"].numpy().tolist()
        ([[b'PER'], [b'']], [[12], [0]], [1, 0])
    """
    _check(strategy)
    if strategy == "none":
        names = tuple(labels)
        begins = tf.ones_like(label, tf.bool)
    else:
        # kind: decides what is joined; name: what the entity is called. They differ only in labels like "NOUN-X".
        kinds = [name[2:] if name.startswith(("B-", "I-")) else name for name in labels]
        names = tuple(name.split("-", 1)[-1] for name in labels)
        kind = tf.gather(tf.constant([kinds.index(kind) for kind in kinds], tf.int32), label)
        begun = tf.gather(tf.constant([name.startswith("B-") for name in labels], tf.bool), label)
        begins = begun | changes(kind) | changes(words.example)
    first, last, entity = runs(begins)
    label = tf.gather(label, first)
    found = {
        "label": tf.gather(tf.constant(names, tf.string), label),
        "score": tf.math.segment_mean(score, entity),
        "start": tf.gather(words.start, first),
        "end": tf.gather(words.end, last),
    }
    keep = tf.gather(tf.constant([name not in ignore for name in names], tf.bool), label)
    example = tf.boolean_mask(tf.gather(words.example, first), keep)
    counts = tf.math.unsorted_segment_sum(tf.ones_like(example), example, count)
    padded = {name: _pad(tf.boolean_mask(values, keep), counts) for name, values in found.items()}
    return {**padded, "count": counts}


def _check(strategy: str) -> None:
    if strategy not in STRATEGIES:
        raise InputError(
            f"strategy is {strategy!r}; expected one of {', '.join(STRATEGIES)}.{suggest(str(strategy), STRATEGIES)}"
        )


def _peaks(values, run):
    """The place of the greatest value of each run, int32 [N]; of equal ones the first."""
    highest = values == tf.gather(tf.math.segment_max(values, run), run)
    return tf.math.segment_min(tf.where(highest, tf.range(tf.size(values)), tf.size(values)), run)


def _pad(values, counts):
    """A row for each count, filled up with 0 or "" to the longest."""
    return tf.RaggedTensor.from_row_lengths(values, counts, validate=False).to_tensor()
