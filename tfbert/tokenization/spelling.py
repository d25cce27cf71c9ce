"""What each token of a vocabulary puts into a text, asked of the tokenizer's decoder."""

from __future__ import annotations

import json

import numpy as np

from tfbert.errors import InputError

# GPT-2's name for each byte in its vocabulary: printable ones are themselves, the others, in order, U+0100 and on ("Ġ" is the space).
_PRINTABLE = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
_OTHERS = [byte for byte in range(256) if byte not in _PRINTABLE]
BYTES = {chr(byte): byte for byte in _PRINTABLE} | {chr(0x100 + i): byte for i, byte in enumerate(_OTHERS)}


def spellings(backend) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The bytes that each token puts into a text, as its first one and as a later one.

    Args:
        backend: a `tokenizers.Tokenizer` whose decoder takes each token by itself: that of byte-level BPE, WordPiece or Metaspace, or none.

    Returns:
        object [V], object [V], and bool [V]: False for special tokens and for ids that no token has.

    Raises:
        InputError: the decoder is another one.

    Example:
        >>> from tfbert.tokenization import load_tokenizer
        >>> first, later, there = spellings(load_tokenizer("all-MiniLM-L6-v2").backend_tokenizer)
        >>> first[2015], later[2015], later[2158]  # "##s", "man"
        (b'##s', b's', b' man')
        >>> there[[101, 102, 2158]].tolist()  # "[CLS]", "[SEP]", "man"
        [False, False, True]
    """
    settings = json.loads(backend.to_str())
    kind = (settings["decoder"] or {"type": None})["type"]
    if kind not in ("ByteLevel", "WordPiece", "Metaspace", None):
        raise InputError(
            f"ids cannot be made text in the graph: the tokenizer's decoder is {kind}, not ByteLevel, WordPiece or Metaspace; make it of "
            "the ids outside of the graph, with tokenizer.decode"
        )
    entries = backend.get_vocab()
    special = {token["content"] for token in settings["added_tokens"] if token["special"]}
    size = max(entries.values()) + 1
    firsts, laters, there = np.full(size, b"", object), np.full(size, b"", object), np.zeros(size, bool)
    for token in entries.keys() - special:
        if kind == "ByteLevel":
            first = later = _bytes(token)
        elif kind is None:
            first, later = token.encode(), b" " + token.encode()
        else:
            first = backend.decoder.decode([token]).encode()
            later = backend.decoder.decode(["a", token]).encode()[1:]
        i = entries[token]
        firsts[i], laters[i], there[i] = first, later, True
    return firsts, laters, there


def _bytes(token: str) -> bytes:
    """A token whose characters are not all names of bytes stands for itself, as in the Rust decoder."""
    return bytes(map(BYTES.get, token)) if BYTES.keys() >= set(token) else token.encode()
