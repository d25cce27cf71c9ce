"""Where the extended grapheme clusters of a text begin (Unicode Standard Annex 29), as the Rust tokenizers see them.

SentencePiece's rules are applied by `tokenizers` to whole graphemes where these are shorter than six bytes. Its Unicode tables are those
of the crate unicode-segmentation, so the properties are asked of it: a normalizer that turns every grapheme into one "X", if it is
shorter than six bytes, and every character into an "X" otherwise, tells where graphemes end.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable

import numpy as np
import tokenizers

from tfbert._compat import tf
from tfbert.tokenization.characters import CODE_POINTS, UNIFORM, asked
from tfbert.tokenization.code_points import FIRST_MARKER, MARKERS, CodePointTable, code_point_table

# The properties of a character, as bits: what rules GB3 to GB11 of the annex ask for.
CONTROL, EXTENDS, PREPENDS, EXTEND, PICTURE, CONSONANT, LINKER, INNER = (1 << i for i in range(8))
_L, _V, _T, _LV, _LVT = (1 << i for i in range(8, 13))  # Hangul
CARRIAGE_RETURN, _LINE_FEED, _ZWJ = 1 << 13, 1 << 14, 1 << 15
_MARK = "\u0300"  # two bytes, extends whatever is not a control character
_KA, _VIRAMA, _COPYRIGHT, _JOINER = "\u0915", "\u094d", "\u00a9", "\u200d"


def grapheme_begins(properties):
    """Whether a grapheme begins at each character.

    Args:
        properties: int32 [M], bits of `grapheme_properties`; texts are kept apart by markers, which are control characters.

    Returns:
        bool [M].
    """

    def has(bits, of=properties):
        return tf.bitwise.bitwise_and(of, bits) != 0

    before = tf.concat([[CONTROL], properties[:-1]], 0)
    joined = has(EXTENDS) | has(PREPENDS, before)  # GB9, 9a, 9b
    joined |= has(_L, before) & has(_L | _V | _LV | _LVT)  # GB6 to 8
    joined |= has(_V | _LV, before) & has(_V | _T) | has(_T | _LVT, before) & has(_T)
    place = tf.range(tf.size(properties))

    def last(of):
        """The place of the last character with the property before each place; 0, a marker, where there is none."""
        places = tf.concat([[0], tf.cast(tf.where(of)[:, 0], tf.int32)], 0)
        return tf.gather(places, tf.cumsum(tf.cast(of, tf.int32), exclusive=True))

    def pictures():  # GB11: picture, marks, joiner, picture
        outer = last(~has(EXTEND))
        return (
            has(PICTURE)
            & has(_ZWJ, before)
            & has(PICTURE, tf.gather(properties, tf.gather(outer, tf.maximum(place - 1, 0))))
        )

    def conjuncts():  # GB9c: consonant, marks with a linker among them, consonant
        outer = last(~has(INNER))
        linkers = tf.cumsum(tf.cast(has(LINKER), tf.int32), exclusive=True)
        return has(CONSONANT) & has(CONSONANT, tf.gather(properties, outer)) & (linkers > tf.gather(linkers, outer))

    nothing = lambda: tf.zeros_like(joined)  # noqa: E731
    joined |= tf.cond(tf.reduce_any(has(_ZWJ)), pictures, nothing)
    joined |= tf.cond(tf.reduce_any(has(LINKER)), conjuncts, nothing)
    control = has(CONTROL) | has(CONTROL, before)
    return ~(joined & ~control | has(CARRIAGE_RETURN, before) & has(_LINE_FEED))


@functools.cache
def grapheme_properties() -> np.ndarray:
    """The properties of every code point and marker, int32 [CODE_POINTS + MARKERS]; takes a second or two, once in a process."""
    found = np.zeros(CODE_POINTS + MARKERS, np.int32)
    points = np.setdiff1d(asked(), [0, 10, 13])
    points = np.concatenate([points, [first for first, _ in UNIFORM]])

    def mark(bit: int, candidates: np.ndarray, probe: str, count: int) -> np.ndarray:
        """Sets the bit of those for which the probe, "c" standing for the character, has `count` X's; returns them."""
        counts = _counts(probe.replace("c", chr(c)) for c in candidates.tolist())
        chosen = candidates[counts == count]
        found[chosen] |= bit
        return chosen

    extends = mark(EXTENDS, points, "ac", 1)
    mark(PREPENDS, points, "ca", 1)
    mark(CONTROL, np.setdiff1d(points, extends), f"c{_MARK}\u0301", 2)
    found[[0, 10, 13]] = CONTROL, CONTROL | _LINE_FEED, CONTROL | CARRIAGE_RETURN
    found[FIRST_MARKER:] = CONTROL
    found[ord(_JOINER)] |= _ZWJ
    mark(EXTEND, extends, f"{_COPYRIGHT}c{_JOINER}{_COPYRIGHT}{_MARK}", 5)
    mark(LINKER, extends, f"{_KA}c{_KA}{_MARK}", 4)
    mark(INNER, extends, f"{_KA}{_VIRAMA}c{_KA}{_MARK}", 5)
    others = np.setdiff1d(points, extends)
    mark(PICTURE, others[others > 127], f"{_COPYRIGHT}{_JOINER}c{_MARK}", 4)
    mark(CONSONANT, others[others > 127], f"c{_VIRAMA}{_KA}{_MARK}", 4)
    _mark_hangul(found, others)
    for first, last in UNIFORM:
        found[first : last + 1] = found[first]
    return found


def _mark_hangul(found: np.ndarray, points: np.ndarray) -> None:
    """The five kinds of Hangul by what they join with: a leading consonant, a vowel and a final consonant, before or after."""
    points = points[(points >= 0x1000) & (points < 0xFF00) & (found[points] & (CONTROL | PREPENDS) == 0)]
    joins = []
    for probe in ("c\u1100", "c\u1161", "c\u11a8", "\u1100c", "\u1161c", "\u11a8c"):
        counts = _counts(probe.replace("c", chr(c)) + _MARK for c in points.tolist())
        joins.append(counts == 3)
    patterns = {(1, 1, 0, 1, 0, 0): _L, (0, 1, 1, 1, 1, 0): _V, (0, 0, 1, 0, 1, 1): _T}
    patterns |= {(0, 1, 1, 1, 0, 0): _LV, (0, 0, 1, 1, 0, 0): _LVT}
    for i, pattern in enumerate(np.array(joins, int).T.tolist()):
        found[points[i]] |= patterns.get(tuple(pattern), 0)


def _counts(probes: Iterable[str]) -> np.ndarray:
    """How many X's each probe becomes. A line feed is a grapheme of its own wherever it stands, and has no rule here."""
    lines = _probe().normalize_str("\n".join(probes)).split("\n")
    return np.fromiter((line.count("X") for line in lines), np.int32, len(lines))


@functools.cache
def _probe():
    """A charsmap with a rule for every byte but NUL and line feed: it matches the beginning of any character."""
    units = np.zeros(1024, np.uint32)
    labels = np.setdiff1d(np.arange(1, 256), [10])
    units[0] = 256 << 10
    units[256 + labels] = labels | 1 << 8 | 512 << 10  # a leaf, 512 places on
    units[768 + labels] = 1 << 31  # the replacement at byte 0
    content = np.uint32(4 * len(units)).tobytes() + units.tobytes() + b"X\0"
    return tokenizers.normalizers.Precompiled(content)


@functools.cache
def property_table() -> CodePointTable:
    """`grapheme_properties` for use in a graph."""
    return code_point_table(grapheme_properties())
