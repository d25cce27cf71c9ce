"""SentencePiece's precompiled_charsmap: the normalization rules of a model, read into a dict, and applied by TensorFlow ops."""

from __future__ import annotations

import base64
import dataclasses
import functools

import numpy as np

from tfbert._compat import tf
from tfbert.tokenization import graphemes
from tfbert.tokenization.code_points import FIRST_MARKER
from tfbert.tokenization.rules import ITSELF, SHORT, Rules, Step, rules_of

_WORD_BITS = 21  # of a code point
_LONGEST = 5  # in bytes: longer graphemes are normalized character by character


def read_charsmap(content: bytes) -> dict[str, str]:
    """Reads the rules that can ever match: of those that begin alike, the shortest (`spm_precompiled` looks no further).

    The format is that of the crate spm_precompiled: the byte length of the trie (uint32), the trie (a Darts double array, uint32), and
    the replacements, each ended by a NUL.

    Args:
        content: the bytes of `precompiled_charsmap`.

    Returns:
        {characters: what they become}, for keys of at most five bytes.

    Raises:
        ValueError: the content is damaged, or a rule is for half a character.

    Example:
        >>> units = np.zeros(512, np.uint32)  # one rule, "A" -> "b"
        >>> units[0] = 256 << 10
        >>> units[256 ^ 65] = 65 | 1 << 8 | 64 << 10  # has a leaf, 64 places on
        >>> units[256 ^ 65 ^ 64] = 1 << 31  # the leaf: the replacement is at byte 0
        >>> read_charsmap(np.uint32(2048).tobytes() + units.tobytes() + b"b" + bytes(1))
        {'A': 'b'}
    """
    size = int(np.frombuffer(content[:4], "<u4")[0])
    units = np.frombuffer(content[4 : 4 + size], "<u4").astype(np.int64)
    replacements = content[4 + size :]
    replacements.decode("utf-8")
    labels = np.arange(1, 256)
    nodes, keys = np.array([_offset(units[0])]), np.zeros((1, 0), np.uint8)
    found: dict[str, str] = {}
    for _ in range(_LONGEST):
        children = nodes[:, np.newaxis] ^ labels
        inside = children < len(units)
        there = units[np.where(inside, children, 0)] & (1 << 31 | 0xFF) == labels
        parent, label = np.nonzero(inside & there)
        child = children[parent, label]
        keys = np.concatenate([keys[parent], labels[label][:, np.newaxis].astype(np.uint8)], 1)
        nodes, leaf = child ^ _offset(units[child]), units[child] >> 8 & 1 == 1
        for key, node in zip(keys[leaf], nodes[leaf], strict=True):
            begin = int(units[node] & (1 << 31) - 1)
            end = replacements.find(b"\0", begin)
            text = replacements[begin : end if end >= 0 else None]
            found[key.tobytes().decode("utf-8")] = text.decode("utf-8")
        nodes, keys = nodes[~leaf], keys[~leaf]
    return found


def _offset(unit):
    return unit >> 10 << ((unit & 1 << 9) >> 6)


@dataclasses.dataclass(frozen=True)
class Charsmap(Step):
    """SentencePiece's own rules: for graphemes of less than six bytes, then for characters."""

    rules: Rules
    keys: np.ndarray  # int64, ascending: two or three code points each
    rows: np.ndarray  # int32, the row of `rules` for each

    def __call__(self, value, origin):
        count = tf.size(value)
        begins = graphemes.grapheme_begins(graphemes.property_table()(value))
        grapheme = tf.cumsum(tf.cast(begins, tf.int32)) - 1
        first = tf.cast(tf.where(begins)[:, 0], tf.int32)
        length = tf.concat([first[1:], [count]], 0) - first
        size = tf.math.segment_sum(utf8_length(value), grapheme)
        row = self._rows_of(value, first, tf.where(size < 6, length, 1))
        # Units: graphemes that are replaced as a whole, and the characters of all others.
        whole = tf.gather(row, grapheme) > 0
        units = tf.where(begins | ~whole)[:, 0]
        of = tf.gather(grapheme, units)
        whole = tf.gather(whole, units)
        alone = tf.gather(value, units)
        row = tf.where(whole, tf.gather(row, of), self.rules.table(alone))
        old = tf.where(whole, tf.gather(length, of), 1)
        new, unit, splits = self.rules.apply(alone, row)
        return new, tf.gather(origin, _places(value, new, unit, splits, old))

    def _rows_of(self, value, first, length):
        """The row of `rules` for each grapheme of several characters, int32 [G]: that of its shortest beginning which has one; or 0."""

        def character(i):
            return tf.cast(tf.gather(value, tf.minimum(first + i, tf.size(value) - 1)), tf.int64)

        def search(key):
            place = tf.minimum(tf.searchsorted(self.keys, key), len(self.keys) - 1)
            return tf.where(tf.gather(self.keys, place) == key, tf.gather(self.rows, place), 0)

        two = tf.bitwise.left_shift(character(0), _WORD_BITS) + character(1)
        three = tf.bitwise.left_shift(two, _WORD_BITS) + character(2)
        row = self.rules.table(tf.gather(value, first))
        row = tf.where((row == 0), search(two), row)
        row = tf.where((row == 0) & (length > 2), search(three), row)
        return tf.where(length > 1, row, 0)

    def alone(self, values):
        properties = graphemes.grapheme_properties()[values]
        short = (values < 0x800) & (values >= 0)
        extends = properties & graphemes.EXTENDS != 0
        new = self.rules.singles[values]
        hard = properties & (graphemes.PREPENDS | graphemes.CARRIAGE_RETURN) != 0
        hard |= (new == ITSELF) | extends & short
        # A grapheme of several characters is shorter than six bytes only with two neighbours like these.
        left, right = np.where(short, SHORT, 0), np.where(extends, SHORT, 0)
        return np.where(new == ITSELF, values, new), hard, left, right


def _places(value, new, unit, splits, old):
    """Which of the old characters each new one counts as, int32 [O], where units of `old` characters became `splits` new ones.

    The Rust tokenizers count on: a new character takes the place of the next old one, or stays at the last one's if it is additional;
    places that a shorter replacement leaves are skipped after it. An empty replacement is counted with the character before it; at
    the beginning of a text there is none, and all that follow take places too far to the front.
    """
    lengths = splits[1:] - splits[:-1]
    within = tf.range(tf.size(new)) - tf.gather(splits, unit)
    here, there = tf.gather(lengths, unit), tf.gather(old, unit)
    change = tf.where(within >= there, 1, 0)
    change += tf.where((within == here - 1) & (here < there), here - there, 0)
    skipped = tf.where(lengths == 0, old, 0)
    before = tf.math.unsorted_segment_sum(skipped, tf.maximum(splits[:-1] - 1, 0), tf.size(new))
    marker = new >= FIRST_MARKER
    change -= tf.where(marker, 0, before)
    used = tf.cumsum(tf.where(change > 0, 0, 1 - change), exclusive=True)
    text = tf.cumsum(tf.cast(marker, tf.int32)) - 1
    begin = tf.cast(tf.where(value >= FIRST_MARKER)[:, 0], tf.int32) - tf.gather(used, tf.where(marker)[:, 0])
    return tf.gather(begin, text) + used - tf.cast(change > 0, tf.int32)


def utf8_length(value):
    """How many bytes each character has in UTF-8, int32."""
    return tf.add_n([tf.ones_like(value), *(tf.cast(value >= c, tf.int32) for c in (0x80, 0x800, 0x10000))])


@functools.cache
def charsmap(content: str) -> Charsmap:
    try:
        found = read_charsmap(base64.b64decode(content))
    except ValueError as error:
        raise ValueError(f"has a precompiled_charsmap with rules for bytes ({error})") from error
    single = {key: text for key, text in found.items() if len(key) == 1}
    several = {key: text for key, text in found.items() if len(key) in (2, 3)}
    keys = np.array([_key(key) for key in several] or [0], np.int64)
    order = np.argsort(keys)
    return Charsmap(
        rules_of(single, tuple(several.values()) or ("",)), keys[order], (1 + len(single) + order).astype(np.int32)
    )


def _key(characters: str) -> int:
    key = 0
    for ch in characters:
        key = key << _WORD_BITS | ord(ch)
    return key
