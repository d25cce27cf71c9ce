"""What a BERT normalizer and pre-tokenizer do to every Unicode code point, asked of the tokenizer itself and packed in a table.

Unicode changes each year and every library carries its own version of it. So nothing here is taken from Python's
`unicodedata` or from TensorFlow's ICU: each code point is sent through the Rust normalizer and pre-tokenizer that
training uses, and what comes back is the table.
"""

from __future__ import annotations

import dataclasses
import functools
import unicodedata

import numpy as np
import tokenizers

from tfbert.errors import InputError

# A packed code point, int32: bits 0-1 kind, bits 2-22 value, bits 23-28 rank, bit 29 EXPANDS, bit 30 DROPPED.
#   value  what the output character is, XORed with the input character: 0 where it stays itself, so that most pages are equal and shared;
#          with EXPANDS, the row of `expansions` instead; with DROPPED, 0.
#   rank   the order of its combining class, 1 for the lowest, 0 for a starter: marks after one letter are sorted by it.
DROP, SPACE, ORDINARY, ISOLATED = range(4)
VALUE_SHIFT, VALUE_MASK, RANK_SHIFT, RANK_MASK = 2, 0x1FFFFF, 23, 0x3F
EXPANDS, DROPPED = 1 << 29, 1 << 30
PLAIN_LIMIT = 1 << RANK_SHIFT  # every packed code point below this is one character, kept, and a starter
CLEANED = DROPPED  # removed before marks are sorted (control characters), unlike a stripped accent, which has a rank
CODE_POINTS = 0x110000
# Unicode's White_Space and the four separators that Python's str.isspace has beside it.
WHITE_SPACE = (
    *range(0x9, 0xE), *range(0x1C, 0x21), 0x85, 0xA0, 0x1680, *range(0x2000, 0x200B), 0x2028, 0x2029, 0x202F, 0x205F, 0x3000,
)  # fmt: skip

# Long runs of code points of one kind (CJK ideographs, private use, unassigned planes): asked at both ends and in the middle only.
UNIFORM = (
    (0x3400, 0x4DBF), (0x4E00, 0x9FFF), (0xE000, 0xF8FF), (0x20000, 0x2A6DF), (0x30000, 0xDFFFF), (0xE1000, 0xEFFFF),
    (0xF0000, 0xFFFFD), (0x100000, 0x10FFFD),
)  # fmt: skip
_SURROGATES = (0xD800, 0xDFFF)


@dataclasses.dataclass(frozen=True)
class CharacterTable:
    """Every code point's packed treatment: `blocks[pages[c >> 8] + (c & 255)]`.

    Args:
        pages: int32 [0x1100], where the block of 256 code points begins in `blocks`.
        blocks: int32 [256 * n], packed code points (see the top of this file).
        expansions: int32 [E, K], the packed characters of a code point that becomes several; padded with 0.
    """

    pages: np.ndarray
    blocks: np.ndarray
    expansions: np.ndarray

    def __getitem__(self, code_point: int) -> int:
        return int(self.blocks[self.pages[code_point >> 8] + (code_point & 255)])


def character_table(normalizer: dict) -> CharacterTable:
    """Builds the table for one set of BertNormalizer settings; the second call in a process is free.

    Args:
        normalizer: the "normalizer" part of tokenizer.json: clean_text, handle_chinese_chars, strip_accents, lowercase.

    Returns:
        The table, about 200 kB.

    Raises:
        InputError: the normalizer does something that a table of characters cannot say.

    Example:
        >>> table = character_table({"clean_text": True, "handle_chinese_chars": True, "strip_accents": None, "lowercase": True})
        >>> packed = table[ord("É")]
        >>> chr(ord("É") ^ (packed >> 2)), packed & 3 == ORDINARY
        ('e', True)
        >>> table[ord("!")] & 3 == ISOLATED, table[0] == CLEANED
        (True, True)
    """
    settings = [normalizer.get(key) for key in ("clean_text", "handle_chinese_chars", "strip_accents", "lowercase")]
    clean, chinese, strip, lower = settings
    return _table(bool(clean), bool(chinese), bool(lower if strip is None else strip), bool(lower))


@functools.cache
def _table(clean: bool, chinese: bool, strip: bool, lower: bool) -> CharacterTable:
    points = asked()
    probe = _Probe(clean, chinese, strip, lower)
    outputs = [probe.whole.normalize_str(chr(c)) for c in points.tolist()]
    changed = {c: out for c, out in zip(points.tolist(), outputs, strict=True) if out != chr(c)}
    decomposed = {c: _NFD.normalize_str(chr(c)) if strip else chr(c) for c in changed}
    ranks = mark_ranks() if strip else {}
    kinds = _kinds(np.union1d(points, [ord(ch) for text in (*changed.values(), *decomposed.values()) for ch in text]))

    full = np.zeros(CODE_POINTS, np.int32)
    full[points] = kinds[points]
    for c in ranks.keys() - changed.keys():
        full[c] |= ranks[c] << RANK_SHIFT
    rows: list[list[int]] = [[0]]
    parts: dict[str, list[int]] = {}
    for c, out in changed.items():
        packed = [CLEANED]
        if probe.clean.normalize_str(chr(c)):
            for part in decomposed[c]:
                parts[part] = parts.get(part) or _pack(probe.whole, part, kinds, ranks)
            packed = [item for part in decomposed[c] for item in parts[part]]
        _check(c, out, packed)
        if chinese and len(out) > 1 and out[0] == " ":  # spaces stand around it, whatever it decomposes into
            packed = [item | ISOLATED if item & 3 else item for item in packed]
        packed = [item if item & DROPPED else item ^ c << VALUE_SHIFT for item in packed]
        while len(packed) > 1 and packed[-1] & DROPPED:
            packed.pop()  # the stripped accent of a composed letter has no place of its own in the text
        full[c] = packed[0] if len(packed) == 1 else EXPANDS | len(rows) << VALUE_SHIFT
        rows += [packed] if len(packed) > 1 else []
    _fill_uniform(full, probe.whole)
    return _compact(full, rows)


class _Probe:
    """The Rust normalizer with one set of settings, and its first step (cleaning) alone."""

    def __init__(self, clean: bool, chinese: bool, strip: bool, lower: bool):
        self.whole = tokenizers.normalizers.BertNormalizer(
            clean_text=clean, handle_chinese_chars=chinese, strip_accents=strip, lowercase=lower
        )
        self.clean = tokenizers.normalizers.BertNormalizer(
            clean_text=clean, handle_chinese_chars=False, strip_accents=False, lowercase=False
        )


def _pack(whole, part: str, kinds: np.ndarray, ranks: dict[int, int]) -> list[int]:
    """The packed characters that one character of a decomposition becomes, their values not yet XORed."""
    out = whole.normalize_str(part)
    rank = ranks.get(ord(part), 0) << RANK_SHIFT
    if not out:
        return [DROPPED | rank | 1 << VALUE_SHIFT]
    return [int(kinds[ord(ch)]) | ord(ch) << VALUE_SHIFT | rank for ch in out.strip(" ") or " "]


_NFD = tokenizers.normalizers.NFD()


def asked() -> np.ndarray:
    """The code points that a tokenizer is asked about one by one: all but surrogates and what lies in the UNIFORM ranges."""
    single = np.ones(CODE_POINTS, bool)
    for first, last in (*UNIFORM, _SURROGATES):
        single[first : last + 1] = False
    return np.flatnonzero(single)


def _fill_uniform(full: np.ndarray, whole) -> None:
    for first, last in UNIFORM:
        outputs = {whole.normalize_str(chr(c)).replace(chr(c), "c") for c in (first, (first + last) // 2, last)}
        if len(outputs) != 1 or not outputs <= {"", "c", " c "}:
            raise InputError(
                f"cannot be put in the graph exactly: the normalizer treats U+{first:04X} to U+{last:04X} unevenly"
            )
        full[first : last + 1] = {"": CLEANED, "c": ORDINARY, " c ": ISOLATED}[outputs.pop()]


def _check(c: int, output: str, packed: list[int]) -> None:
    """The packed characters must spell what the whole normalizer gave; anything else is a normalizer that we do not know."""
    spelled = "".join(chr(item >> VALUE_SHIFT & VALUE_MASK) for item in packed if not item & DROPPED)
    if spelled.strip(" ") != output.strip(" "):
        raise InputError(f"cannot be put in the graph exactly: U+{c:04X} is normalized to {output!r}, not {spelled!r}")


def _kinds(code_points: np.ndarray) -> np.ndarray:
    """SPACE, ORDINARY or ISOLATED for each character, by the Rust BertPreTokenizer, with an "a" on both sides of each."""
    places = np.full(2 * len(code_points) + 1, SPACE)
    text = "a" + "a".join(map(chr, code_points.tolist())) + "a"
    for _, (start, end) in tokenizers.pre_tokenizers.BertPreTokenizer().pre_tokenize_str(text):
        places[start:end] = ISOLATED if end - start == 1 else ORDINARY
    kinds = np.zeros(CODE_POINTS, np.int32)
    kinds[code_points] = places[1::2]
    return kinds


@functools.cache
def mark_ranks() -> dict[int, int]:
    """The order of each combining mark's class, by seeing what it changes places with in the Rust NFD.

    Python's `unicodedata` only proposes candidates: what it calls a mark and Rust does not is left out, and what it does not know
    (unassigned in Python's version of Unicode) is asked too.
    """
    letters = [chr(c) for c in asked().tolist() if c < 0x20000]
    marks = [
        ch for ch in letters if unicodedata.category(ch) in ("Mn", "Mc", "Me", "Cn") and _NFD.normalize_str(ch) == ch
    ]
    # After U+0300 (class 230) and before U+0334 (class 1) a mark lets the two change places; a starter keeps them apart.
    groups = _NFD.normalize_str("".join(f"a\u0300{ch}\u0334" for ch in marks))
    marks = [ch for i, ch in enumerate(marks) if groups[4 * i : 4 * i + 4] != f"a\u0300{ch}\u0334"]
    ladder = {unicodedata.combining(ch): ch for ch in marks if unicodedata.combining(ch)}.values()
    return {ord(ch): 1 + sum(_NFD.normalize_str(ch + step) != ch + step for step in ladder) for ch in marks}


def _compact(full: np.ndarray, rows: list[list[int]]) -> CharacterTable:
    expansions = np.zeros((len(rows), max(map(len, rows))), np.int32)
    for i, row in enumerate(rows):
        expansions[i, : len(row)] = row
    blocks: dict[bytes, int] = {}
    pages = [256 * blocks.setdefault(block.tobytes(), len(blocks)) for block in full.reshape(-1, 256)]
    return CharacterTable(np.array(pages, np.int32), np.frombuffer(b"".join(blocks), np.int32), expansions)
