"""SentencePiece's precompiled_charsmap: the normalization rules of a model, as a trie over bytes, read into a dict."""

from __future__ import annotations

import numpy as np

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
