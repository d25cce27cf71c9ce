"""The normalizers of SentencePiece tokenizers as TensorFlow ops, step by step as the Rust tokenizers do them, with each character's place.

A step takes and gives flat characters: `value` int32 [M], code points and markers (code_points.py; one stands before each text), and
`origin` int32 [M], the place in the flat texts that each character counts as (for the Rust tokenizers as well it is always one character).
"""

from __future__ import annotations

import abc
import base64
import dataclasses
import functools

import numpy as np
import tokenizers

from tfbert._compat import tf
from tfbert.tokenization import graphemes
from tfbert.tokenization.characters import CODE_POINTS, mark_ranks
from tfbert.tokenization.charsmap import read_charsmap
from tfbert.tokenization.code_points import (
    FIRST_MARKER,
    MARKERS,
    CodePointTable,
    code_point_table,
    normalized_code_points,
)

ITSELF = -1
_ALL = np.arange(CODE_POINTS + MARKERS, dtype=np.int32)
SPACE = ord(" ")


class Step(abc.ABC):
    """One normalizer."""

    @abc.abstractmethod
    def __call__(self, value, origin) -> tuple:
        """The characters after it."""

    @abc.abstractmethod
    def alone(self, values: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """What becomes of single characters among others that do not concern them.

        Args:
            values: int32 [C].

        Returns:
            The characters after the step, int32 [C]; bool [C], whether that is not all that can be said of them; and two bit masks, int32
            [C]: it is not either where a bit of the first, of one character, is in the second, of the next.
        """


@dataclasses.dataclass(frozen=True)
class Rules:
    """What some characters become: `rows[table[c]]`, ITSELF for the character as it is; row 0 is that of all others."""

    table: CodePointTable
    values: np.ndarray  # int32, all rows one after the other
    splits: np.ndarray  # int64 [rows + 1]
    singles: (
        np.ndarray
    )  # int32 [CODE_POINTS + MARKERS], the one character that each becomes; ITSELF where it is none or several

    def apply(self, value, rows=None) -> tuple:
        """The new characters, int32 [O], and which of [M] each comes from, int32 [O], and the row splits, int32 [M + 1]."""
        rules = tf.RaggedTensor.from_row_splits(self.values, self.splits, validate=False)
        found = tf.gather(rules, self.table(value) if rows is None else rows)
        splits = tf.cast(found.row_splits, tf.int32)
        size = tf.size(found.values)
        owner = tf.cumsum(tf.math.unsorted_segment_sum(tf.ones_like(splits[1:-1]), splits[1:-1], size + 1))[:-1]
        return tf.where(found.values == ITSELF, tf.gather(value, owner), found.values), owner, splits


def rules_of(changed: dict[str, str], more: tuple[str, ...] = ()) -> Rules:
    """Packs what single characters become; `more` are the replacements of the rows after theirs."""
    table, singles = np.zeros_like(_ALL), _ALL.copy()
    rows = [(ITSELF,), *(tuple(map(ord, text)) for text in (*changed.values(), *more))]
    for row, (ch, text) in enumerate(changed.items(), 1):
        table[ord(ch)] = row
        singles[ord(ch)] = ord(text) if len(text) == 1 else ITSELF
    splits = np.cumsum([0, *map(len, rows)])
    return Rules(code_point_table(table), np.array([c for row in rows for c in row], np.int32), splits, singles)


@dataclasses.dataclass(frozen=True)
class Mapped(Step):
    """Characters that become none, one or several, each for itself: lower case, stripped accents, removed control characters."""

    rules: Rules

    def __call__(self, value, origin):
        value, owner, _ = self.rules.apply(value)
        return value, tf.gather(origin, owner)

    def alone(self, values):
        new = self.rules.singles[values]
        return np.where(new == ITSELF, values, new), new == ITSELF, np.zeros_like(values), np.zeros_like(values)


@dataclasses.dataclass(frozen=True)
class Decomposed(Mapped):
    """NFD or NFKD: after the letters fell apart, the marks after each are put into canonical order (Unicode, section 3.11, D109).

    A mark that moves leaves its place in the text to the one that comes there, as in the Rust tokenizers.
    """

    ranks: CodePointTable  # the order of a mark's combining class, 0 for a starter
    most: int  # the highest rank

    def __call__(self, value, origin):
        value, owner, splits = self.rules.apply(value)
        rank = self.ranks(value)
        added = tf.range(tf.size(value)) > tf.gather(splits, owner)
        place = tf.gather(origin, owner)
        return tf.cond(tf.reduce_any(rank > 0), lambda: self._sort(value, place, rank, added), lambda: (value, place))

    def _sort(self, value, place, rank, added):
        letter = tf.cumsum(tf.cast(rank == 0, tf.int64))
        order = tf.argsort(letter * (self.most + 1) + tf.cast(rank, tf.int64), stable=True)
        taken = tf.cumsum(tf.cast(~tf.gather(added, order), tf.int32)) - 1
        return tf.gather(value, order), tf.gather(tf.boolean_mask(place, ~added), taken)

    def alone(self, values):
        new, hard, left, right = super().alone(values)
        ranks = self.ranks.blocks[self.ranks.pages[values >> 8] + (values & 255)]
        after = self.ranks.blocks[self.ranks.pages[new >> 8] + (new & 255)]
        return new, hard | (ranks > 0) | (after > 0), left, right


_WORD_BITS = 21  # of a code point


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
        left, right = np.where(short, _SHORT, 0), np.where(extends, _SHORT, 0)
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
    begin = tf.cast(tf.where(value >= FIRST_MARKER)[:, 0], tf.int32) - tf.boolean_mask(used, marker)
    return tf.gather(begin, text) + used - tf.cast(change > 0, tf.int32)


def utf8_length(value):
    """How many bytes each character has in UTF-8, int32."""
    return tf.add_n([tf.ones_like(value), *(tf.cast(value >= c, tf.int32) for c in (0x80, 0x800, 0x10000))])


@dataclasses.dataclass(frozen=True)
class Runs(Step):
    """Runs of one character: each group of `length` (0: the whole run, if it is longer than one) becomes another character."""

    character: int
    length: int
    content: int

    def __call__(self, value, origin):
        run = value == self.character
        before, after = tf.concat([[False], run[:-1]], 0), tf.concat([run[1:], [False]], 0)
        if not self.length:
            value = tf.where(run & before & ~after, self.content, value)
            stay = ~run | ~after
        else:
            place = tf.range(tf.size(value))
            number = tf.cumsum(tf.cast(run & ~before, tf.int32)) - 1  # of the run
            first = tf.where(run & ~before)[:, 0]
            total = tf.cast(tf.where(run & ~after)[:, 0] - first, tf.int32) + 1
            first = tf.concat([tf.cast(first, tf.int32), [0]], 0)
            number = tf.where(run, number, tf.size(total))
            within = place - tf.gather(first, number)
            grouped = run & (within < tf.gather(tf.concat([total // self.length * self.length, [0]], 0), number))
            last = within % self.length == self.length - 1
            value = tf.where(grouped, self.content, value)
            stay = ~grouped | last
        return tf.boolean_mask(value, stay), tf.boolean_mask(origin, stay)

    def alone(self, values):
        bit = np.where(values == self.character, _BLANK if self.character == SPACE else _QUOTE, 0)
        return values, np.zeros(len(values), bool), bit, bit


@dataclasses.dataclass(frozen=True)
class Stripped(Step):
    """Without the white space at a text's beginning or end."""

    left: bool
    right: bool

    def __call__(self, value, origin):
        white = white_space()(value) > 0
        marker = value >= FIRST_MARKER
        text = tf.cumsum(tf.cast(marker, tf.int32)) - 1
        solid = tf.cast(~white & ~marker, tf.int32)
        count = tf.cumsum(solid)
        begin = tf.boolean_mask(count, marker)
        total = tf.math.segment_sum(solid, text)
        count -= tf.gather(begin, text)
        stay = tf.ones_like(marker)
        if self.left:
            stay &= count > 0
        if self.right:
            stay &= (count < tf.gather(total, text)) | ~white
        stay |= marker
        return tf.boolean_mask(value, stay), tf.boolean_mask(origin, stay)

    def alone(self, values):
        white = white_space()
        white = white.blocks[white.pages[values >> 8] + (values & 255)] > 0
        marker = values >= FIRST_MARKER
        left = np.where(marker & self.left, _BEGIN, 0) | np.where(white & self.right, _END, 0)
        right = np.where(white & self.left, _BEGIN, 0) | np.where(marker & self.right, _END, 0)
        return values, np.zeros(len(values), bool), left, right


@functools.cache
def white_space() -> CodePointTable:
    """1 for what the Rust tokenizers take for white space."""
    strip = tokenizers.normalizers.Strip()
    table = np.zeros_like(_ALL)
    table[[c for c, text in normalized_code_points(_Surrounded(strip)).items() if text == ""]] = 1
    return code_point_table(table)


class _Surrounded:
    """Strip, asked about one character at a time: of a text it strips the ends only."""

    def __init__(self, normalizer):
        self._normalizer = normalizer

    def normalize_str(self, text: str) -> str:
        return "\uf8ff".join(map(self._normalizer.normalize_str, text.split("\uf8ff")))


# What makes neighbours a matter for the steps themselves, in `Normalization`: five bits for the left one, five for the right one.
_QUOTE, _BLANK, _SHORT, _BEGIN, _END = (1 << i for i in range(5))
_BITS, _MASK = 5, 31
_HARD = np.int32(-(1 << 31))


@dataclasses.dataclass(frozen=True)
class Normalization:
    """All steps of a normalizer. Texts in which every character becomes one, whatever stands around it, need one look at a table."""

    steps: tuple[Step, ...]
    plain: CodePointTable  # bits 0-4 and 5-9: those of the character and its left neighbour (see above); 10-30: its value, XORed; 31: hard

    def __call__(self, codes) -> tuple:
        """(value, origin), int32 [M], of code points and markers, int32 [N]."""
        origin = tf.range(tf.size(codes))
        if not self.steps:
            return codes, origin
        packed = self.plain(codes)
        shifted = tf.bitwise.right_shift(packed, _BITS)
        pairs = tf.bitwise.bitwise_and(tf.bitwise.bitwise_and(packed[:-1], shifted[1:]), _MASK)
        plain = (tf.reduce_min(packed) >= 0) & tf.reduce_all(pairs == 0)

        def all_steps():
            characters = codes, origin
            for step in self.steps:
                characters = step(*characters)
            return characters

        return tf.cond(
            plain,
            lambda: (tf.bitwise.bitwise_xor(tf.bitwise.right_shift(shifted, _BITS), codes), origin),
            all_steps,
        )


def normalization(settings: dict | None) -> Normalization:
    """Makes the steps of the "normalizer" part of a tokenizer.json.

    Raises:
        ValueError: they cannot be had as operations; the message is the end of a sentence that begins with "it".

    Example:
        >>> steps = normalization({"type": "Sequence", "normalizers": [{"type": "Lowercase"}]})
        >>> value, origin = steps(tf.constant([FIRST_MARKER, ord("A"), 0x130]))
        >>> value[1:].numpy().tolist(), origin.numpy().tolist()
        ([97, 105, 775], [0, 1, 2, 2])
    """
    steps = tuple(_step(part) for part in _parts(settings))
    value, left, right = _ALL, np.zeros_like(_ALL), np.zeros_like(_ALL)
    hard = np.zeros(len(_ALL), bool)
    for step in steps:
        value, more, before, after = step.alone(value)
        hard, left, right = hard | more, left | before, right | after
    packed = left | right << _BITS | (value ^ _ALL) << 2 * _BITS
    return Normalization(steps, code_point_table(np.where(hard, _HARD, packed).astype(np.int32)))


def _parts(settings: dict | None) -> list[dict]:
    if settings is None:
        return []
    if settings["type"] == "Sequence":
        return [part for inner in settings["normalizers"] for part in _parts(inner)]
    return [settings]


def _step(part: dict) -> Step:
    kind = part["type"]
    if kind in ("Lowercase", "StripAccents", "Nmt"):
        return _mapped(kind)
    if kind in ("NFD", "NFKD"):
        return _decomposed(kind)
    if kind == "Strip":
        return Stripped(part["strip_left"], part["strip_right"])
    if kind == "Precompiled":
        return _charsmap(part["precompiled_charsmap"])
    if kind == "Replace":
        return _replace(part["pattern"], part["content"])
    raise ValueError(f"normalizes with {kind}")


def _replace(pattern: dict, content: str) -> Step:
    text = pattern.get("String")
    if text and len(text) == 1:
        return Mapped(rules_of({text: content}))
    if len(content) == 1 and pattern == {"Regex": " {2,}"}:
        return Runs(SPACE, 0, ord(content))
    if len(content) == 1 and text and len(set(text)) == 1:
        return Runs(ord(text[0]), len(text), ord(content))
    raise ValueError(f"replaces {text or pattern['Regex']!r} by {content!r}")


@functools.cache
def _mapped(kind: str) -> Mapped:
    changed = normalized_code_points(getattr(tokenizers.normalizers, kind)())
    return Mapped(rules_of({chr(c): text for c, text in changed.items()}))


@functools.cache
def _decomposed(kind: str) -> Decomposed:
    changed = normalized_code_points(getattr(tokenizers.normalizers, kind)())
    ranks = np.zeros_like(_ALL)
    for c, rank in mark_ranks().items():
        ranks[c] = rank
    rules = rules_of({chr(c): text for c, text in changed.items()})
    return Decomposed(rules, code_point_table(ranks), int(ranks.max()))


@functools.cache
def _charsmap(content: str) -> Charsmap:
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
