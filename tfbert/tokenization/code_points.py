"""A value for every Unicode code point, as two small arrays: most of the 4,352 pages of 256 code points are equal and stored once."""

from __future__ import annotations

import dataclasses

import numpy as np

from tfbert._compat import tf
from tfbert.errors import InputError
from tfbert.tokenization.characters import CODE_POINTS, UNIFORM, asked

# Values that are no code points: what stands before a text, and what else a tokenizer has to mark among its characters.
MARKERS = 256
FIRST_MARKER = CODE_POINTS
_SEPARATOR = "\uf8ff"  # of the private use area, which no normalization touches


@dataclasses.dataclass(frozen=True)
class CodePointTable:
    """`blocks[pages[c >> 8] + (c & 255)]` is the value of code point c, or of marker c - FIRST_MARKER.

    Args:
        pages: int32 [0x1101], where the block of 256 code points begins in `blocks`.
        blocks: int32 [256 * n].
    """

    pages: np.ndarray
    blocks: np.ndarray

    def __call__(self, codes):
        """The values of code points or markers, int32 of any shape."""
        page = tf.gather(self.pages, tf.bitwise.right_shift(codes, 8))
        return tf.gather(self.blocks, page + tf.bitwise.bitwise_and(codes, 255))


def code_point_table(values: np.ndarray) -> CodePointTable:
    """Packs int32 [CODE_POINTS + MARKERS].

    Example:
        >>> values = np.zeros(CODE_POINTS + MARKERS, np.int32)
        >>> values[0x1F600] = 7
        >>> code_point_table(values)(tf.constant([0x41, 0x1F600])).numpy().tolist()
        [0, 7]
    """
    blocks: dict[bytes, int] = {}
    pages = [256 * blocks.setdefault(block.tobytes(), len(blocks)) for block in values.reshape(-1, 256)]
    return CodePointTable(np.array(pages, np.int32), np.frombuffer(b"".join(blocks), np.int32))


def normalized_code_points(normalizer) -> dict[int, str]:
    """What the Rust normalizer makes of each code point by itself, where that is not the code point.

    Args:
        normalizer: of `tokenizers.normalizers`; one that looks at one character after the other.

    Raises:
        InputError: it treats the ideographs or the private use area unevenly.

    Example:
        >>> import tokenizers
        >>> changed = normalized_code_points(tokenizers.normalizers.Lowercase())
        >>> changed[ord("A")], ord("a") in changed
        ('a', False)
    """
    for first, last in UNIFORM:
        for c in (first, (first + last) // 2, last):
            if normalizer.normalize_str(chr(c)) != chr(c):
                raise InputError(f"cannot be put in the graph exactly: its normalizer changes U+{c:04X}")
    points = [c for c in asked().tolist() if c != ord(_SEPARATOR)]
    outputs = normalizer.normalize_str(_SEPARATOR.join(map(chr, points))).split(_SEPARATOR)
    return {c: out for c, out in zip(points, outputs, strict=True) if out != chr(c)}
