"""Scores of tagged sentences: entities found whole, and words tagged right."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np

from tfbert.errors import InputError

Tags = Sequence[Sequence[str]]


def entities(
    references: Tags, predictions: Tags, *, strict: bool = False, typed: bool | None = None
) -> dict[str, float]:
    """Precision, recall and F1 of entities, over all types together, and the share of words with the right tag.

    An entity counts as found if its first word, last word and type are right. The numbers are seqeval's (Nakayama 2018), which are
    conlleval's: in the default reading an I- without a beginning begins an entity; `strict` reads BIO by the letter, as seqeval's
    mode="strict", scheme=IOB2: only B- begins an entity.

    Args:
        references: the right tags, a list of str for each sentence.
        predictions: the tags found, of the same lengths.
        strict: read tags by the letter (default False).
        typed: whether the tags are entities (B-PER); None (default): where any tag has a prefix.

    Returns:
        accuracy; and of entities precision, recall, f1, and f1_macro, the mean over the types that occur on either
        side. A share of nothing is 0.

    Raises:
        InputError: different numbers of sentences or words.

    Example:
        >>> entities([["B-PER", "I-PER", "O"]], [["B-PER", "O", "B-LOC"]])
        {'precision': 0.0, 'recall': 0.0, 'f1': 0.0, 'f1_macro': 0.0, 'accuracy': 0.3333333333333333}
        >>> entities([["NOUN", "VERB"]], [["NOUN", "NOUN"]])
        {'accuracy': 0.5}
    """
    _check_lengths(references, predictions)
    words = [pair for row, other in zip(references, predictions, strict=True) for pair in zip(row, other, strict=True)]
    accuracy = sum(one == other for one, other in words) / len(words) if words else 0.0
    if typed is None:
        typed = any(_has_prefix(tag) for pair in words for tag in pair)
    if not typed:
        return {"accuracy": accuracy}
    by_type = _counted(references, predictions, strict)
    total = [sum(counts[k] for counts in by_type.values()) for k in range(3)]
    precision, recall, f1 = _shares(*total)
    macro = float(np.mean([_shares(*counts)[2] for counts in by_type.values()])) if by_type else 0.0
    return {"precision": precision, "recall": recall, "f1": f1, "f1_macro": macro, "accuracy": accuracy}


def entities_by_type(references: Tags, predictions: Tags, *, strict: bool = False) -> dict[str, dict[str, float]]:
    """Precision, recall, F1 and the number of right entities (`support`) of each type; of each tag where tags have no prefixes.

    Example:
        >>> entities_by_type([["B-PER", "O"]], [["B-PER", "B-LOC"]])["LOC"]
        {'precision': 0.0, 'recall': 0.0, 'f1': 0.0, 'support': 0}
    """
    _check_lengths(references, predictions)
    if any(_has_prefix(tag) for rows in (references, predictions) for row in rows for tag in row):
        counted = _counted(references, predictions, strict)
    else:
        right, found, wanted = Counter(), Counter(), Counter()
        for row, other in zip(references, predictions, strict=True):
            wanted.update(row)
            found.update(other)
            right.update(one for one, two in zip(row, other, strict=True) if one == two)
        counted = {tag: (right[tag], found[tag], wanted[tag]) for tag in sorted(wanted | found)}
    names = ("precision", "recall", "f1")
    return {kind: dict(zip(names, _shares(*counts))) | {"support": counts[2]} for kind, counts in counted.items()}


def _counted(references: Tags, predictions: Tags, strict: bool) -> dict[str, tuple[int, int, int]]:
    """The right, the found and the wanted entities of each type that occurs on either side."""
    read: Callable = _strict_spans if strict else _lenient_spans
    wanted = {(i, *span) for i, row in enumerate(references) for span in read(row)}
    found = {(i, *span) for i, row in enumerate(predictions) for span in read(row)}
    kinds = sorted({span[-1] for span in wanted | found})
    counts = [Counter(span[-1] for span in spans) for spans in (wanted & found, found, wanted)]
    return {kind: tuple(count[kind] for count in counts) for kind in kinds}


def _shares(right: int, found: int, wanted: int) -> tuple[float, float, float]:
    precision, recall = right / found if found else 0.0, right / wanted if wanted else 0.0
    return precision, recall, 2 * precision * recall / (precision + recall) if right else 0.0


def _has_prefix(tag: str) -> bool:
    return len(tag) > 2 and tag[1] == "-" and tag[0] in "BIES"


def _lenient_spans(tags: Sequence[str]) -> list[tuple[int, int, str]]:
    """conlleval's reading: a type that changes, an O, a B or an S ends an entity, and so do E and S themselves."""
    spans, first, before = [], 0, "O"
    for i, tag in enumerate([*tags, "O"]):
        broken = tag == "O" or tag[0] in "BS" or before == "O" or before[0] in "ES" or tag[2:] != before[2:]
        if before != "O" and broken:
            spans.append((first, i, before[2:]))
        if broken:
            first = i
        before = tag
    return spans


def _strict_spans(tags: Sequence[str]) -> list[tuple[int, int, str]]:
    """BIO by the letter: B-X and the I-X right after it; an I- of another type is no entity's."""
    spans, first = [], None
    for i, tag in enumerate([*tags, "O"]):
        if first is not None and tag != "I-" + tags[first][2:]:
            spans.append((first, i, tags[first][2:]))
            first = None
        if tag[0] == "B":
            first = i
    return spans


def _check_lengths(references: Tags, predictions: Tags) -> None:
    if len(references) != len(predictions):
        raise InputError(f"there are {len(references)} sentences to compare with {len(predictions)}; give one for each")
    for i, (row, other) in enumerate(zip(references, predictions, strict=True), 1):
        if len(row) != len(other):
            raise InputError(
                f"sentence {i} has {len(row)} right tags and {len(other)} predicted ones; give one for each word"
            )
