"""The normalizers of SentencePiece tokenizers as TensorFlow ops, step by step as the Rust tokenizers do them, with each character's place.

A step takes and gives flat characters: `value` int32 [M], code points and markers (code_points.py; one stands before each text), and
`origin` int32 [M], the place in the flat texts that each character counts as (for the Rust tokenizers as well it is always one character).
"""

from __future__ import annotations

import dataclasses
import functools

import numpy as np
import tokenizers

from tfbert._compat import tf
from tfbert.tokenization.characters import mark_ranks
from tfbert.tokenization.charsmap import charsmap
from tfbert.tokenization.code_points import FIRST_MARKER, CodePointTable, code_point_table, normalized_code_points
from tfbert.tokenization.rules import ALL, BEGIN, BLANK, END, ITSELF, MASK_BITS, QUOTE, Rules, Step, rules_of

SPACE = ord(" ")


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
        return tf.gather(value, order), tf.gather(tf.gather(place, tf.where(~added)[:, 0]), taken)

    def alone(self, values):
        new, hard, left, right = super().alone(values)
        ranks = self.ranks.blocks[self.ranks.pages[values >> 8] + (values & 255)]
        after = self.ranks.blocks[self.ranks.pages[new >> 8] + (new & 255)]
        return new, hard | (ranks > 0) | (after > 0), left, right


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
        stay = tf.where(stay)[:, 0]
        return tf.gather(value, stay), tf.gather(origin, stay)

    def alone(self, values):
        bit = np.where(values == self.character, BLANK if self.character == SPACE else QUOTE, 0)
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
        begin = tf.gather(count, tf.where(marker)[:, 0])
        total = tf.math.segment_sum(solid, text)
        count -= tf.gather(begin, text)
        stay = tf.ones_like(marker)
        if self.left:
            stay &= count > 0
        if self.right:
            stay &= (count < tf.gather(total, text)) | ~white
        stay |= marker
        stay = tf.where(stay)[:, 0]
        return tf.gather(value, stay), tf.gather(origin, stay)

    def alone(self, values):
        white = white_space()
        white = white.blocks[white.pages[values >> 8] + (values & 255)] > 0
        marker = values >= FIRST_MARKER
        left = np.where(marker & self.left, BEGIN, 0) | np.where(white & self.right, END, 0)
        right = np.where(white & self.left, BEGIN, 0) | np.where(marker & self.right, END, 0)
        return values, np.zeros(len(values), bool), left, right


@functools.cache
def white_space() -> CodePointTable:
    """1 for what the Rust tokenizers take for white space."""
    strip = tokenizers.normalizers.Strip()
    table = np.zeros_like(ALL)
    table[[c for c, text in normalized_code_points(_Surrounded(strip)).items() if text == ""]] = 1
    return code_point_table(table)


class _Surrounded:
    """Strip, asked about one character at a time: of a text it strips the ends only."""

    def __init__(self, normalizer):
        self._normalizer = normalizer

    def normalize_str(self, text: str) -> str:
        return "\uf8ff".join(map(self._normalizer.normalize_str, text.split("\uf8ff")))


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
        shifted = tf.bitwise.right_shift(packed, MASK_BITS)
        pairs = tf.bitwise.bitwise_and(tf.bitwise.bitwise_and(packed[:-1], shifted[1:]), (1 << MASK_BITS) - 1)
        plain = (tf.reduce_min(packed) >= 0) & tf.reduce_all(pairs == 0)

        def all_steps():
            characters = codes, origin
            for step in self.steps:
                characters = step(*characters)
            return characters

        return tf.cond(
            plain,
            lambda: (tf.bitwise.bitwise_xor(tf.bitwise.right_shift(shifted, MASK_BITS), codes), origin),
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
    value, left, right = ALL, np.zeros_like(ALL), np.zeros_like(ALL)
    hard = np.zeros(len(ALL), bool)
    for step in steps:
        value, more, before, after = step.alone(value)
        hard, left, right = hard | more, left | before, right | after
    packed = left | right << MASK_BITS | (value ^ ALL) << 2 * MASK_BITS
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
        return charsmap(part["precompiled_charsmap"])
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
    ranks = np.zeros_like(ALL)
    for c, rank in mark_ranks().items():
        ranks[c] = rank
    rules = rules_of({chr(c): text for c, text in changed.items()})
    return Decomposed(rules, code_point_table(ranks), int(ranks.max()))
