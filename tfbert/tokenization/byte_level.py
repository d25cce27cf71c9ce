"""Byte-level BPE (GPT-2, RoBERTa, Longformer, BART) as TensorFlow ops, with the ids and offsets of the Hugging Face fast tokenizer.

A text becomes words (gpt2_pattern.py), the bytes of its different words become symbols, and these are merged (merging.py). Every operation
is TensorFlow's own.
"""

from __future__ import annotations

import dataclasses
import json
from typing import NamedTuple

import numpy as np

from tfbert._compat import tf
from tfbert.tokenization import gpt2_pattern
from tfbert.tokenization.merging import Merges
from tfbert.tokenization.rows import Pieces
from tfbert.tokenization.spelling import BYTES
from tfbert.tokenization.template import template_of
from tfbert.tokenization.tokenizer_graph import TokenizerGraph
from tfbert.tokenization.vocabulary import Vocabulary

_NEVER = {0xC0, 0xC1, *range(0xF5, 0x100)}  # bytes that no UTF-8 has
_SPACE = "Ġ"


class _Words(NamedTuple):
    """The words of a batch: N code points of the texts, W words, U different ones, of P pieces together."""

    codes: tf.RaggedTensor  # int32 [B, (n)] the texts, with the space that may be put before them
    shift: tf.Tensor  # int32 [B] 1 where it was
    splits: tf.Tensor  # int32 [W + 1] where each word begins, in N
    row_splits: tf.Tensor  # int32 [B + 1] where each text begins, in W
    number: tf.Tensor  # int32 [W] which of the different words each is
    ids: tf.RaggedTensor  # int32 [U, (p)] the pieces of these
    place: tf.Tensor  # int32 [P] the byte of its word where each begins
    end: tf.Tensor  # int32 [P] and where it ends


class WholeWords:
    """The words that are one piece, found by a hash of theirs, so that they need no merges.

    Args:
        words: {word: id}.
    """

    def __init__(self, words: dict[bytes, int]):
        strings = np.array([b"", *words], object)  # of no entries one is left to find
        with tf.init_scope():
            keys = _hash(tf.constant(strings)).numpy()
        order = np.argsort(keys)
        self._keys, self._words = keys[order], strings[order]
        self._ids = np.array([0, *words.values()], np.int32)[order]

    def find(self, strings) -> tuple:
        """The ids of strings [W], int32, and for which of them there is one, bool."""
        at = tf.searchsorted(self._keys, _hash(strings))
        at = tf.minimum(at, len(self._keys) - 1)
        return tf.gather(self._ids, at), tf.gather(tf.constant(self._words), at) == strings


def _hash(strings):
    return tf.strings.to_hash_bucket_fast(strings, 2**63 - 1)


@dataclasses.dataclass(frozen=True)
class ByteLevelGraph(TokenizerGraph):
    """GPT-2's tokenizer and its kin: whatever the text, each of its bytes is in a piece."""

    whole: WholeWords = dataclasses.field(repr=False)
    symbols: np.ndarray = dataclasses.field(repr=False)  # int32 [256], the id of each byte
    merges: Merges = dataclasses.field(repr=False)
    prefix_space: bool  # a text that begins with none is given one
    trims: tuple[
        bool, ...
    ]  # for each time that spaces are taken off the offsets, whether a text's first piece keeps one
    spaces: np.ndarray = dataclasses.field(repr=False)  # int32 [V, 2], how many spaces each piece begins and ends with

    def tokenize(self, text):
        return self._pieces(self._words(text))[0]

    def ids_and_offsets(self, text) -> Pieces:
        words = self._words(text)
        ids, piece, word = self._pieces(words)
        width = tf.add_n(
            [
                tf.ones_like(words.codes.values),
                *(tf.cast(words.codes.values >= c, tf.int32) for c in (0x80, 0x800, 0x10000)),
            ]
        )
        byte = tf.concat([[0], tf.cumsum(width)], 0)
        word_byte = tf.gather(tf.gather(byte, words.splits), word)
        start = tf.searchsorted(byte, word_byte + tf.gather(words.place, piece), side="right") - 1
        end = tf.searchsorted(byte, word_byte + tf.gather(words.end, piece))

        row = tf.cast(ids.value_rowids(), tf.int32)
        origin = tf.gather(tf.cast(words.codes.row_splits[:-1], tf.int32) + words.shift, row)
        # A space that was put before a text stands on its first character, as the Rust tokenizers have it.
        start, end = self._trim(ids.values, tf.maximum(0, start - origin), tf.maximum(1, end - origin))
        number = word - tf.gather(words.row_splits, row)
        return Pieces(ids, *(ids.with_values(values) for values in (start, end, number)))

    def _words(self, text) -> _Words:
        """Cuts texts into words, and merges the bytes of each different one."""
        text = tf.convert_to_tensor(text, tf.string)
        shift = tf.zeros_like(tf.strings.length(text))
        if self.prefix_space:
            begin = tf.strings.substr(text, 0, 1)
            bare = (begin != " ") & (begin != "")
            text, shift = tf.where(bare, tf.strings.join([" ", text]), text), tf.cast(bare, tf.int32)
        codes = tf.strings.unicode_decode(text, "UTF-8", errors="replace")
        row_splits = tf.cast(codes.row_splits, tf.int32)
        first = tf.cast(tf.where(gpt2_pattern.begins(codes.values, row_splits))[:, 0], tf.int32)
        splits = tf.concat([first, [tf.size(codes.values)]], 0)
        strings = tf.strings.unicode_encode(
            tf.RaggedTensor.from_row_splits(codes.values, splits, validate=False), "UTF-8"
        )
        different, number = tf.unique(strings)
        # Most are in the vocabulary: those are one row of one piece each, and after them come the rows of what must be merged.
        whole, known = self.whole.find(different)
        others = tf.where(~known)
        ids, place, end, piece_splits = self._merged(tf.gather(different, others[:, 0]))
        count = tf.size(whole)
        row = tf.tensor_scatter_nd_update(tf.range(count), others, count + tf.range(tf.size(others)))
        ids = tf.RaggedTensor.from_row_splits(
            tf.concat([whole, ids], 0), tf.concat([tf.range(count), count + piece_splits], 0), validate=False
        )
        place = tf.concat([tf.zeros_like(whole), place], 0)
        end = tf.concat([tf.strings.length(different), end], 0)
        return _Words(codes, shift, splits, tf.searchsorted(first, row_splits), tf.gather(row, number), ids, place, end)

    def _merged(self, strings) -> tuple:
        """The pieces of words that are no pieces themselves: (ids, place, end, row splits), as in `_Words`."""
        splits = tf.concat([[0], tf.cumsum(tf.strings.length(strings))], 0)
        symbols = tf.io.decode_raw(tf.strings.reduce_join(strings), tf.uint8)
        ids, place, piece_splits = self.merges(tf.gather(self.symbols, tf.cast(symbols, tf.int32)), splits)
        end = tf.concat([place[1:], splits[-1:]], 0)[: tf.size(place)]
        origin = tf.gather(splits, tf.ragged.row_splits_to_segment_ids(piece_splits))
        return ids, place - origin, end - origin, piece_splits

    def _pieces(self, words: _Words) -> tuple:
        """The ids of all pieces, ragged [B, (n)], and, flat, which piece of the different words each is, and its word in W."""
        piece = tf.gather(words.ids.with_values(tf.range(tf.size(words.ids.values))), words.number)
        splits = tf.gather(piece.row_splits, words.row_splits)
        ids = tf.RaggedTensor.from_row_splits(tf.gather(words.ids.values, piece.values), splits, validate=False)
        return ids, piece.values, tf.cast(piece.value_rowids(), tf.int32)

    def _trim(self, ids, start, end) -> tuple:
        """Takes spaces off the offsets, as `process_offsets` of the Rust tokenizers does (pre_tokenizers/byte_level.rs)."""
        for keep_first in self.trims:
            leading, trailing = tf.unstack(tf.gather(self.spaces, ids), axis=1)
            if keep_first:
                leading = tf.where((start == 0) & (leading == 1), 0, leading)
            start = tf.minimum(start + leading, end)
            end = tf.where(end >= trailing, tf.maximum(start, end - trailing), end)
        return start, end


def byte_level_graph(tokenizer, settings: dict) -> ByteLevelGraph:
    """Makes the graph of a tokenizer that `problem` finds nothing wrong with; `settings` are its tokenizer.json's."""
    model, vocabulary = settings["model"], settings["model"]["vocab"]
    unknown = vocabulary.get(model["unk_token"], 0)
    tokens = {i: token for token, i in tokenizer.get_vocab().items()}
    pieces = [tokens.get(i, "") for i in range(max(tokens) + 1)]
    return ByteLevelGraph(
        template=template_of(tokenizer),
        vocabulary=Vocabulary(tokenizer),
        whole=WholeWords(_whole(tokenizer.backend_tokenizer.model, vocabulary)),
        symbols=np.array([vocabulary.get(name, unknown) for name in sorted(BYTES, key=BYTES.get)], np.int32),
        merges=Merges([(vocabulary[a], vocabulary[b], vocabulary[a + b]) for a, b in _merges(settings)]),
        prefix_space=settings["pre_tokenizer"]["add_prefix_space"],
        trims=_trims(settings["post_processor"]),
        spaces=np.array([_spaces(piece) for piece in pieces], np.int32),
    )


def _whole(model, vocabulary: dict[str, int]) -> dict[bytes, int]:
    """The entries that the model makes of their own bytes."""
    words = {}
    for entry, i in vocabulary.items():
        if BYTES.keys() >= set(entry) and [token.id for token in model.tokenize(entry)] == [i]:
            words[bytes(map(BYTES.get, entry))] = i
    return words


def _merges(settings: dict) -> list[tuple[str, str]]:
    """The merges by rank; of one that is there twice, the later rank counts. In older files each is one string."""
    pairs = (pair.split(" ") if isinstance(pair, str) else pair for pair in settings["model"]["merges"])
    ranks = {tuple(pair): rank for rank, pair in enumerate(pairs)}
    return sorted(ranks, key=ranks.get)


def _trims(post_processor: dict | None) -> tuple[bool, ...]:
    """`add_prefix_space` of each part of a post-processor that trims the offsets."""
    if post_processor is None:
        return ()
    parts = post_processor["processors"] if post_processor["type"] == "Sequence" else [post_processor]
    return tuple(part["add_prefix_space"] for part in parts if part.get("trim_offsets"))


def _spaces(piece: str) -> tuple[int, int]:
    return len(piece) - len(piece.lstrip(_SPACE)), len(piece) - len(piece.rstrip(_SPACE))


def problem(settings: dict) -> str | None:
    """What keeps a byte-level BPE tokenizer from being in the graph exactly; None for nothing."""
    if settings["normalizer"] is not None:
        return f"its normalizer is {settings['normalizer']['type']}; a byte-level BPE's may have none"
    pre_tokenizer = settings["pre_tokenizer"]
    if pre_tokenizer["type"] != "ByteLevel" or not pre_tokenizer["use_regex"]:
        return f"its pre-tokenizer is {json.dumps(pre_tokenizer)[:80]}, not ByteLevel with GPT-2's regular expression"
    model = settings["model"]
    for name in ("dropout", "continuing_subword_prefix", "end_of_word_suffix"):
        if model[name]:
            return f"its model has {name} = {model[name]!r}"
    return _problem_of_bytes(model) or _problem_of_merges(settings)


def _problem_of_bytes(model: dict) -> str | None:
    missing = [byte for name, byte in BYTES.items() if byte not in _NEVER and name not in model["vocab"]]
    unknown = model["unk_token"]
    if not missing or (unknown in model["vocab"] and not model["fuse_unk"] and not model["byte_fallback"]):
        return None
    return (
        f"its vocabulary lacks {len(missing)} bytes (0x{min(missing):02X}, ...) and has no plain unknown token for them"
    )


def _problem_of_merges(settings: dict) -> str | None:
    """The graph makes all merges of one rank at once: nothing that they make may have been merged before."""
    merges, unknown = _merges(settings), settings["model"]["unk_token"]
    made: dict[str, int] = {}
    for rank, (left, right) in enumerate(merges):
        made[left + right] = rank
    for rank, (left, right) in enumerate(merges):
        if max(made.get(left, -1), made.get(right, -1)) >= rank:
            return f"its merge {left!r} {right!r} comes before one that makes a part of it"
        if unknown in (left, right):
            return f"it merges its unknown token, {unknown!r}"
    return None
