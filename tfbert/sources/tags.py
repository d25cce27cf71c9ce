"""Tags of words: the schemes in which entities are written (BIO, IOB1, BIOES, BILOU), and spans of characters as tags."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence

from tfbert.errors import InputError

SCHEMES = ("plain", "BIO", "IOB1", "BIOES", "BILOU")
_WORD = re.compile(r"\w+|[^\w\s]")
# The last word of an entity of several, and an entity of one word, as the two long schemes write them.
_ENDS = {"BIOES": ("E", "S"), "BILOU": ("L", "U")}


def parted(tag: str) -> tuple[str, str]:
    """The prefix and the type of a tag; "" and the whole where it has none.

    Example:
        >>> parted("B-PER"), parted("I-creative-work"), parted("O"), parted("NOUN")
        (('B', 'PER'), ('I', 'creative-work'), ('O', ''), ('', 'NOUN'))
    """
    if tag == "O":
        return "O", ""
    return (tag[0], tag[2:]) if len(tag) > 2 and tag[1] == "-" and tag[0] in "BIESLU" else ("", tag)


def tags_to_spans(tags: Sequence[str]) -> list[tuple[int, int, str]]:
    """The entities of a sentence as (first word, last word exclusive, type), read as leniently as conlleval reads them.

    An entity begins at B, S or U, and at any other tag that has no entity of its type before it to go on with.

    Example:
        >>> tags_to_spans(["B-PER", "I-PER", "O", "I-LOC", "B-LOC"])
        [(0, 2, 'PER'), (3, 4, 'LOC'), (4, 5, 'LOC')]
    """
    spans, first, before = [], 0, ("O", "")
    for i, tag in enumerate([*tags, "O"]):
        prefix, kind = parted(tag)
        goes_on = (
            prefix not in ("O", "B", "S", "U") and before[0] not in ("O", "E", "S", "L", "U") and kind == before[1]
        )
        if before[0] != "O" and not goes_on:
            spans.append((first, i, before[1]))
        if prefix != "O" and not goes_on:
            first = i
        before = prefix, kind
    return spans


def detect_scheme(rows: Sequence[Sequence[str]], *, where: Callable[[int], str]) -> str:
    """The scheme in which a whole data set is tagged, one of SCHEMES.

    Args:
        rows: the tags of each sentence.
        where: the place of a sentence, by its number.

    Raises:
        InputError: tags of different schemes, with the place of the first that does not fit.

    Example:
        >>> detect_scheme([["I-PER", "I-PER", "O"], ["I-LOC", "B-LOC"]], where=str)
        'IOB1'
        >>> detect_scheme([["NOUN", "VERB"]], where=str)
        'plain'
    """
    first: dict[str, tuple[int, int, str]] = {}
    for i, row in enumerate(rows):
        for k, tag in enumerate(row):
            first.setdefault(parted(tag)[0], (i, k, tag))
    if not set(first) & set("BIESLU"):
        return "plain"
    if "" in first:
        i, k, tag = first[""]
        raise InputError(
            f"{where(i)}, word {k + 1}: tag {tag!r} has no prefix, others have (B-, I-); write all tags in one scheme"
        )
    for scheme, ends in _ENDS.items():
        if set(first) & set(ends):
            for other in set(first) - {"B", "I", "O", *ends}:
                i, k, tag = first[other]
                raise InputError(
                    f"{where(i)}, word {k + 1}: tag {tag!r} is not of the scheme {scheme}, others are; use one scheme"
                )
            return scheme
    starts_inside = any(begins and tag[0] == "I" for row in rows for tag, begins, _ in _steps(row))
    begins_needlessly = any(tag[0] == "B" and not same for row in rows for tag, _, same in _steps(row))
    return "IOB1" if starts_inside and not begins_needlessly else "BIO"


def _steps(row: Sequence[str]):
    """For each tag of an entity: the tag, whether no entity of its type stands right before it, and whether one does."""
    before = ("O", "")
    for tag in row:
        prefix, kind = parted(tag)
        same = before[0] != "O" and before[1] == kind
        if prefix != "O":
            yield tag, not same, same
        before = prefix, kind


def to_bio(tags: Sequence[str], *, scheme: str, where: str, repair: bool = False) -> list[str]:
    """Rewrites the tags of a sentence in BIO: every entity begins with B-, its other words are I-.

    Args:
        tags: the tags, in `scheme`; those of scheme "plain" stay as they are.
        scheme: what `detect_scheme` returned.
        where: the sentence's place, for errors.
        repair: read an illegal sequence as conlleval does instead of stopping.

    Raises:
        InputError: the sequence is illegal in its scheme: an I- with nothing to go on with, an E- without its B-.

    Example:
        >>> to_bio(["B-PER", "E-PER", "S-LOC", "O"], scheme="BIOES", where="a.conll:1")
        ['B-PER', 'I-PER', 'B-LOC', 'O']
        >>> to_bio(["O", "I-PER"], scheme="BIO", where="a.conll:1")
        Traceback (most recent call last):
        ...
        tfbert.errors.InputError: a.conll:1, word 2: 'I-PER' follows 'O'; in BIO an entity begins with 'B-PER' (or repair the tags)
    """
    if scheme == "plain":
        return list(tags)
    if not repair:
        _check(tags, scheme, where)
    made = ["O"] * len(tags)
    for first, last, kind in tags_to_spans(tags):
        made[first:last] = [f"B-{kind}"] + [f"I-{kind}"] * (last - first - 1)
    return made


def _check(tags: Sequence[str], scheme: str, where: str) -> None:
    end, single = _ENDS.get(scheme, ("", ""))
    before, word = ("O", ""), "the beginning"
    for k, tag in enumerate([*tags, "O"]):
        prefix, kind = parted(tag)
        place = f"{where}, word {k + 1}"
        opened = before[0] in ("B", "I") and before[1] == kind
        if scheme != "IOB1" and prefix in ("I", end) and prefix and not opened:
            raise InputError(
                f"{place}: {tag!r} follows {word}; in {scheme} an entity begins with 'B-{kind}' (or repair the tags)"
            )
        if end and before[0] in ("B", "I") and not (prefix in ("I", end) and opened):
            raise InputError(
                f"{where}, word {k}: {word} is the last of its entity; in {scheme} that is '{end}-{before[1]}', or '{single}-{before[1]}' "
                "for a single word (or repair the tags)"
            )
        before, word = (prefix, kind), repr(tag)


def word_places(text: str) -> list[tuple[int, int]]:
    """Where the words and the punctuation marks of a text stand, in code points.

    Example:
        >>> word_places("Don't, Zoë")
        [(0, 3), (3, 4), (4, 5), (5, 6), (7, 10)]
    """
    return [match.span() for match in _WORD.finditer(text)]


def spans_to_tags(text: str, spans: Sequence[Mapping], places: Sequence[tuple[int, int]], where: str) -> list[str]:
    """The BIO tags of words for entities given by places in the text.

    Args:
        text: the text.
        spans: dicts with start, end (exclusive; code points) and label.
        places: where each word stands.
        where: the row's place, for errors.

    Raises:
        InputError: a span that is empty, lies outside the text, overlaps another, or begins or ends inside a word.

    Example:
        >>> spans_to_tags("Zoë left", [{"start": 0, "end": 3, "label": "PER"}], [(0, 3), (4, 8)], "a.jsonl:1")
        ['B-PER', 'O']
    """
    if not isinstance(spans, list | tuple):
        raise InputError(f"{where}: spans is {spans!r}; expected a list of dicts with start, end and label")
    starts, ends = {start: k for k, (start, _) in enumerate(places)}, {end: k for k, (_, end) in enumerate(places)}
    tags = ["O"] * len(places)
    for number, span in enumerate(spans, 1):
        place = f"{where}: span {number}"
        if not isinstance(span, Mapping) or not {"start", "end", "label"} <= set(span):
            raise InputError(f"{place} is {span!r}; expected a dict with start, end and label")
        start, end, label = span["start"], span["end"], span["label"]
        if type(start) is not int or type(end) is not int or not 0 <= start < end <= len(text):
            raise InputError(
                f"{place} goes from {start!r} to {end!r} in a text of {len(text)} characters; expected 0 <= start < end"
            )
        if not isinstance(label, str) or not label.strip():
            raise InputError(f"{place}: label is {label!r}; expected a name")
        if start not in starts or end not in ends:
            raise InputError(
                f"{place}, {text[start:end]!r}, begins or ends inside a word or at a space; move it to whole words: "
                f"{_nearest(text, places, start, end)}"
            )
        first, last = starts[start], ends[end]
        if any(tag != "O" for tag in tags[first : last + 1]):
            raise InputError(f"{place}, {text[start:end]!r}, overlaps another span; every word has one label")
        tags[first : last + 1] = [f"B-{label}"] + [f"I-{label}"] * (last - first)
    return tags


def _nearest(text: str, places: Sequence[tuple[int, int]], start: int, end: int) -> str:
    inside = [place for place in places if place[0] < end and place[1] > start]
    if not inside:
        return "there is no word in it"
    return f"start {inside[0][0]}, end {inside[-1][1]} is {text[inside[0][0] : inside[-1][1]]!r}"
