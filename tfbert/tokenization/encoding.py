"""Texts to flat arrays of ids, with the Rust tokenizer on all cores."""

from __future__ import annotations

import contextlib
import itertools
import re
import sys
from collections.abc import Iterator, Sequence

import numpy as np

from tfbert.errors import InputError

_SURROGATE = re.compile("[\ud800-\udfff]")
# The Rust encodings of a text weigh a hundred times its ids: they are turned into arrays before the next texts are encoded.
_CHUNK = 4096


def clean(text: str) -> str:
    """Replaces lone surrogates, which are no text (the Rust tokenizer and UTF-8 refuse them), by U+FFFD; lengths do not change.

    They come from JSON such as "\\\\ud83d" that was cut in the middle of an emoji (transformers#43459).

    Args:
        text: any Python string.

    Returns:
        A string that can be written as UTF-8; the same object where nothing is to do.

    Example:
        >>> clean("caf\\ud83d")
        'caf�'
    """
    if text.isascii() or not _SURROGATE.search(text):
        return text
    return _SURROGATE.sub("\ufffd", text)


def encode(tokenizer, texts: Sequence[str], pairs: Sequence[str] | None = None, *, max_length: int) -> dict:
    """Encodes texts, or pairs of texts, into flat arrays: special tokens added, the longest text cut first, no padding.

    Args:
        tokenizer: what `load_tokenizer` returns.
        texts: B strings.
        pairs: the B second texts, or None.
        max_length: the most tokens of a row, special tokens included.

    Returns:
        {name: (values, row_splits)} for "input_ids" and, where the model takes them, "token_type_ids": values int32 [N], row_splits
        int64 [B + 1]; row i is `values[row_splits[i] : row_splits[i + 1]]`.

    Raises:
        InputError: a text is not a string, both lists differ in length, or max_length leaves no room beside the special tokens.

    Example:
        >>> from tfbert.tokenization import load_tokenizer
        >>> values, row_splits = encode(load_tokenizer("all-MiniLM-L6-v2"), ["Hello world", "[SEP]"], max_length=8)["input_ids"]
        >>> values.tolist(), row_splits.tolist()
        ([101, 7592, 2088, 102, 101, 1031, 19802, 1033, 102], [0, 4, 9])
    """
    backend = tokenizer.backend_tokenizer
    least = backend.num_special_tokens_to_add(pairs is not None) + 1
    if max_length < least:
        raise InputError(f"max_length is {max_length}; the special tokens and one token of text need at least {least}")
    if pairs is not None and len(pairs) != len(texts):
        raise InputError(f"texts has {len(texts)} rows and pairs has {len(pairs)}; every text needs its second text")
    rows = _checked("texts", texts)
    if pairs is not None:
        rows = list(zip(rows, _checked("pairs", pairs), strict=True))
    names = {"input_ids": "ids"}
    if "token_type_ids" in tokenizer.model_input_names:
        names["token_type_ids"] = "type_ids"
    found: dict[str, list[np.ndarray]] = {name: [] for name in names}
    lengths = [np.zeros(1, np.int64)]
    with _truncating(backend, max_length, tokenizer.truncation_side):
        for first in range(0, len(rows), _CHUNK):
            with no_panic(f"rows {first} to {min(first + _CHUNK, len(rows)) - 1}"):
                encodings = backend.encode_batch_fast(rows[first : first + _CHUNK])
            _show(first + len(encodings), len(rows))
            lengths.append(np.fromiter(map(len, encodings), np.int64, len(encodings)))
            for name, attribute in names.items():
                tokens = itertools.chain.from_iterable(getattr(encoding, attribute) for encoding in encodings)
                found[name].append(np.fromiter(tokens, np.int32, int(lengths[-1].sum())))
    row_splits = np.cumsum(np.concatenate(lengths))
    empty = np.zeros(0, np.int32)
    return {name: (np.concatenate([empty, *parts]), row_splits) for name, parts in found.items()}


def _show(done: int, total: int) -> None:
    """Where a person watches and must wait a while: how far it is."""
    if total >= 8 * _CHUNK and sys.stderr.isatty():
        end = "\n" if done == total else ""
        sys.stderr.write(f"\rtokenizing {done:,}/{total:,}  {100 * done // total}%{end}")
        sys.stderr.flush()


def padding(tokenizer) -> dict[str, int]:
    """What fills rows up to their batch's length, by the names that `encode` gives.

    Args:
        tokenizer: what `load_tokenizer` returns.

    Returns:
        {name: the int that stands for padding}.

    Example:
        >>> from tfbert.tokenization import load_tokenizer
        >>> padding(load_tokenizer("all-MiniLM-L6-v2"))
        {'input_ids': 0, 'token_type_ids': 0}
    """
    filled = {"input_ids": tokenizer.pad_token_id or 0}  # GPT-2 has no padding token; the attention mask hides it
    if "token_type_ids" in tokenizer.model_input_names:
        filled["token_type_ids"] = tokenizer.pad_token_type_id
    return filled


@contextlib.contextmanager
def no_panic(where: str) -> Iterator[None]:
    """Turns a panic of the Rust code, which is no Exception and would kill a worker thread unseen, into an InputError."""
    try:
        yield
    except BaseException as error:
        if type(error).__name__ != "PanicException":
            raise
        raise InputError(
            f"the tokenizer broke on {where}: {error}; find the text by encoding fewer at a time"
        ) from error


def _checked(name: str, texts: Sequence[str]) -> list[str]:
    if isinstance(texts, str):
        raise InputError(f"{name} is one string; pass a list of strings")
    texts = list(texts)
    for i, text in enumerate(texts):
        if not isinstance(text, str):
            raise InputError(f"{name}[{i}] is {text!r} ({type(text).__name__}); expected a string")
        if not text.isascii():
            texts[i] = clean(text)
    return texts


@contextlib.contextmanager
def _truncating(backend, max_length: int, side: str) -> Iterator[None]:
    """Sets the Rust tokenizer up for one call and takes it back, so that no later call is cut or padded unasked.

    User text stays text: `encode_special_tokens` is Rust's name for reading "[SEP]" as characters.
    """
    before = backend.encode_special_tokens
    backend.enable_truncation(max_length, strategy="longest_first", direction=side)
    backend.no_padding()
    backend.encode_special_tokens = True
    try:
        yield
    finally:
        backend.no_truncation()
        backend.encode_special_tokens = before
