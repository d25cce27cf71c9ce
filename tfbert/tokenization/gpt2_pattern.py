"""Where GPT-2's regular expression cuts a text into words, as TensorFlow operations.

    's|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+

Runs of letters, of numbers and of what is neither, each with one space before it; English endings after an apostrophe; white space.
"""

from __future__ import annotations

import dataclasses
import functools

import numpy as np
import tokenizers

from tfbert._compat import tf
from tfbert.errors import InputError

# The kinds of code points. What stands before a text is _START.
_OTHER, _LETTER, _NUMBER, _START, _WHITE, _SPACE = range(6)
_CODE_POINTS = 0x110000
# Long runs of code points of one kind (ideographs, syllables, private use, unassigned planes): asked at both ends and in the middle only.
_UNIFORM = (
    (0x3400, 0x4DB5), (0x4E00, 0x9FA5), (0xAC00, 0xD7A3), (0xE000, 0xF8FF), (0x20000, 0x2A6D6), (0x40000, 0xDFFFF), (0xE1000, 0xEFFFF),
    (0xF0000, 0xFFFFD), (0x100000, 0x10FFFD),
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Kinds:
    """Every code point's kind: `blocks[pages[c >> 8] + (c & 255)]`.

    Args:
        pages: int32 [0x1100], where the block of 256 code points begins in `blocks`.
        blocks: int32 [256 * n], the kinds.
    """

    pages: np.ndarray
    blocks: np.ndarray


@functools.cache
def kinds() -> Kinds:
    """Asks the Rust pre-tokenizer what it takes each code point for: Unicode changes each year, and every library has its own version."""
    asked = np.ones(_CODE_POINTS, bool)
    asked[0xD800:0xE000] = False
    for first, last in _UNIFORM:
        asked[first + 1 : last] = False
        asked[(first + last) // 2] = True
    code_points = np.flatnonzero(asked)
    found = np.full(len(code_points), _WHITE, np.int32)
    for kind, example in ((_OTHER, "!"), (_LETTER, "a"), (_NUMBER, "1")):
        left = np.flatnonzero(found == _WHITE)
        found[left[_joined(code_points[left], example)]] = kind
    full = np.zeros(_CODE_POINTS, np.int32)
    full[code_points] = found
    full[ord(" ")] = _SPACE
    for first, last in _UNIFORM:
        if len({full[first], full[(first + last) // 2], full[last]}) > 1:
            raise InputError(
                f"cannot be put in the graph exactly: the pre-tokenizer treats U+{first:04X} to U+{last:04X} unevenly"
            )
        full[first:last] = full[first]
    blocks: dict[bytes, int] = {}
    pages = [256 * blocks.setdefault(block.tobytes(), len(blocks)) for block in full.reshape(-1, 256)]
    return Kinds(np.array(pages, np.int32), np.frombuffer(b"".join(blocks), np.int32))


def _joined(code_points: np.ndarray, example: str) -> np.ndarray:
    """Which code points, between two of the example's characters, go on with the word of the first one."""
    text = example + example.join(map(chr, code_points.tolist())) + example
    rust = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    begins = np.zeros(len(text), bool)
    begins[[start for _, (start, _) in rust.pre_tokenize_str(text)]] = True
    return ~begins[1::2]


def begins(codes, row_splits):
    """Which code points begin a word.

    Args:
        codes: int32 [N], the code points of all texts, one after the other.
        row_splits: int32 [B + 1], where each text begins.

    Returns:
        bool [N].

    Example:
        >>> text = "I don't 'know'  it\\n"
        >>> flags = begins(tf.constant([ord(c) for c in text]), tf.constant([0, len(text)])).numpy()
        >>> "".join("|" + c if flag else c for c, flag in zip(text, flags))
        "|I| don|'t| '|know|'| | it|\\n"
    """
    table = kinds()
    page = tf.gather(table.pages, tf.bitwise.right_shift(codes, 8))
    kind = tf.gather(table.blocks, page + tf.bitwise.bitwise_and(codes, 255))
    # An empty text begins where the next one does, or, at the very end, nowhere.
    texts = tf.scatter_nd(row_splits[:-1, tf.newaxis], tf.ones_like(row_splits[1:]), [tf.size(codes) + 1])
    first, last = texts[:-1] > 0, tf.concat([texts[1:-1] > 0, tf.ones_like(codes[:1], tf.bool)], 0)
    before = tf.where(first, _START, _earlier(kind, 1))
    white = kind >= _WHITE
    # White space gives its last character to what follows, if there is a text that follows: " b" of "a  b".
    alone = (before < _WHITE) | ~(last | _later(white, 1))
    found = tf.where(white, alone, (before != kind) & (before != _SPACE))

    apostrophe = found & (codes == ord("'"))
    one, two = (tf.where(last, 0, _later(codes, 1)), tf.where(last | _later(last, 1), 0, _later(codes, 2)))
    short = apostrophe & _any(one == ord(c) for c in "stmd")
    long = apostrophe & _any((one == ord(c)) & (two == ord(d)) for c, d in ("re", "ve", "ll"))
    return (found & ~_earlier(short | long, 1)) | _earlier(short, 2) | _earlier(long, 3)


def _any(flags):
    return functools.reduce(tf.logical_or, flags)


def _earlier(values, by: int):
    """What stood `by` places before; 0 or False at the beginning."""
    return tf.concat([tf.zeros_like(values[:by]), values[:-by]], 0)


def _later(values, by: int):
    """What stands `by` places after; 0 or False at the end."""
    return tf.concat([values[by:], tf.zeros_like(values[:by])], 0)
