"""The BERT tokenizer as TensorFlow ops, with the ids and offsets of the Hugging Face fast tokenizer, for every string.

tensorflow_text and TFBertTokenizer lower-case with NFKC case folding and replace control characters by spaces, so their ids are not those
the model was trained on ("…", "ß", "½", soft hyphens; tensorflow/text#817, #344). Here each code point is looked up in a table that was
asked of the training tokenizer (characters.py), words are cut with integer ops, and only the longest-match search inside a word is left to
tensorflow_text's FastWordpieceTokenizer.

An exported graph holds that one custom op. TF Serving has it; a Python program that loads an export must `import tensorflow_text` first.
"""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import numpy as np

from tfbert._compat import tf, tf_text
from tfbert.tokenization import characters
from tfbert.tokenization.characters import CharacterTable, character_table
from tfbert.tokenization.rows import Pieces
from tfbert.tokenization.template import template_of
from tfbert.tokenization.tokenizer_graph import TokenizerGraph
from tfbert.tokenization.vocabulary import Vocabulary


class _Words(NamedTuple):
    """All words of a batch, flat: N code points of the texts, M normalized characters, K of them in words, W words."""

    row_splits: tf.Tensor  # int32 [B + 1] where each text begins, in N
    origin: tf.Tensor  # int32 [M] the place in N that each normalized character was made from
    values: tf.Tensor  # int32 [K] the characters of the words
    kept: tf.Tensor  # int64 [K] their places in M
    splits: tf.Tensor  # int64 [W + 1] where each word begins, in K
    first: tf.Tensor  # int32 [W] the place in N of each word's first character
    last: tf.Tensor  # int32 [W] and of its last


@dataclasses.dataclass(frozen=True)
class WordPieceGraph(TokenizerGraph):
    """BERT's tokenizer: invalid bytes, read as U+FFFD, are removed by its normalizer."""

    characters: CharacterTable
    pieces: tf_text.FastWordpieceTokenizer = dataclasses.field(repr=False)
    ids: np.ndarray | None = dataclasses.field(repr=False)  # int32 [V], where the vocabulary's ids are not 0, 1, 2, ...
    outside: int  # a code point that no vocabulary entry holds
    longest_word: int  # in characters; a longer one is [UNK]

    def tokenize(self, text):
        words = self._words(tf.convert_to_tensor(text, tf.string))
        found, _, _ = self._search(words)
        splits = tf.gather(found.row_splits, tf.searchsorted(words.first, words.row_splits))
        return tf.RaggedTensor.from_row_splits(self._ids(found.values), splits, validate=False)

    def ids_and_offsets(self, text) -> Pieces:
        words = self._words(tf.convert_to_tensor(text, tf.string))
        found, start_byte, end_byte = self._search(words)
        word = tf.cast(found.value_rowids(), tf.int32)
        # The search counts bytes of its word; a character has 1 to 4 of them in UTF-8.
        width = tf.add_n(
            [tf.ones_like(words.values), *(tf.cast(words.values >= c, tf.int32) for c in (0x80, 0x800, 0x10000))]
        )
        byte = tf.concat([[0], tf.cumsum(width)], 0)
        word_byte = tf.gather(byte, words.splits)
        start_byte = tf.gather(word_byte, word) + tf.cast(start_byte.values, tf.int32)
        end_byte = tf.gather(word_byte, word) + tf.cast(end_byte.values, tf.int32)
        start = tf.gather(words.origin, tf.gather(words.kept, tf.searchsorted(byte, start_byte)))
        end = tf.gather(words.origin, tf.gather(words.kept, tf.searchsorted(byte, end_byte) - 1))
        end = 1 + tf.where(end_byte == tf.gather(word_byte, word + 1), tf.gather(words.last, word), end)

        first_words = tf.searchsorted(words.first, words.row_splits)
        splits = tf.gather(found.row_splits, first_words)
        row = tf.ragged.row_splits_to_segment_ids(splits, out_type=tf.int32)
        origin = tf.gather(words.row_splits, row)
        flat = (self._ids(found.values), start - origin, end - origin, word - tf.gather(first_words, row))
        return Pieces(*(tf.RaggedTensor.from_row_splits(values, splits, validate=False) for values in flat))

    def _words(self, text) -> _Words:
        """Decodes, normalizes and cuts into words."""
        # The space at each text's end keeps a word, and a run of combining marks, from going over into the next text.
        codes = tf.strings.unicode_decode(tf.strings.join([text, " "]), "UTF-8", errors="replace")
        row_splits, codes = tf.cast(codes.row_splits, tf.int32), codes.values
        page = tf.gather(self.characters.pages, tf.bitwise.right_shift(codes, 8))
        packed = tf.gather(self.characters.blocks, page + tf.bitwise.bitwise_and(codes, 255))
        value, kind, origin = tf.cond(
            tf.reduce_max(packed) < characters.PLAIN_LIMIT,
            lambda: (_value(codes, packed), _kind(packed), tf.range(tf.size(codes))),
            lambda: self._normalize(codes, packed),
        )
        ordinary, isolated = kind == characters.ORDINARY, kind == characters.ISOLATED
        begins = isolated | (ordinary & ~tf.concat([[False], ordinary[:-1]], 0))
        kept = tf.where(ordinary | isolated)[:, 0]
        values, begins = tf.gather(value, kept), tf.gather(begins, kept)
        splits = tf.concat([tf.where(begins)[:, 0], [tf.size(kept, tf.int64)]], 0)
        first = tf.gather(origin, tf.gather(kept, splits[:-1]))
        last = tf.gather(origin, tf.gather(kept, splits[1:] - 1))
        values, kept, splits = tf.cond(
            tf.reduce_any(splits[1:] - splits[:-1] > self.longest_word),
            lambda: self._cut_long(values, kept, splits, begins),
            lambda: (values, kept, splits),
        )
        return _Words(row_splits, origin, values, kept, splits, first, last)

    def _normalize(self, codes, packed) -> tuple:
        """What becomes of characters that are removed, become several, or are marks: (value, kind, origin), int32 [M]."""
        packed, value, origin, added = tf.cond(
            tf.reduce_any(_bit(packed, characters.EXPANDS)),
            lambda: self._expand(codes, packed),
            lambda: (packed, _value(codes, packed), tf.range(tf.size(codes)), tf.zeros_like(codes, tf.bool)),
        )
        packed, value, origin = tf.cond(
            tf.reduce_any((_rank(packed) > 0) & (_kind(packed) != characters.DROP)),
            lambda: _sort_marks(packed, value, origin, added),
            lambda: (packed, value, origin),
        )
        stay = tf.where(_kind(packed) != characters.DROP)[:, 0]
        return tf.gather(value, stay), tf.gather(_kind(packed), stay), tf.gather(origin, stay)

    def _expand(self, codes, packed) -> tuple:
        """Puts the several characters that some become (Hangul syllables, vowel signs) in their place.

        Returns (packed, value, origin, added) [M]; `added` marks all but the first of each, which have no place of their own in the text.
        """
        expands = _bit(packed, characters.EXPANDS)
        rows = tf.gather(self.characters.expansions, tf.where(expands, _value(0, packed), 0))  # [N, E]
        alone = tf.pad(packed[:, tf.newaxis], [[0, 0], [0, self.characters.expansions.shape[1] - 1]])
        grid = tf.where(expands[:, tf.newaxis], rows, alone)
        there = tf.where(grid != 0)
        origin = tf.cast(there[:, 0], tf.int32)
        packed = tf.gather_nd(grid, there)
        return packed, _value(tf.gather(codes, origin), packed), origin, there[:, 1] > 0

    def _cut_long(self, values, kept, splits, begins) -> tuple:
        """Leaves of each word that is too long one character, which no entry holds: (values, kept, splits); it becomes [UNK]."""
        lengths = splits[1:] - splits[:-1]
        long = lengths > self.longest_word
        # Not tf.repeat: it makes a mask of all words by the longest, gigabytes where a client sends a megabyte without a space.
        of_long = tf.gather(long, tf.cumsum(tf.cast(begins, tf.int32)) - 1)
        stay = tf.where(begins | ~of_long)[:, 0]
        values = tf.gather(tf.where(of_long, self.outside, values), stay)
        splits = tf.concat([[0], tf.cumsum(tf.where(long, tf.ones_like(lengths), lengths))], 0)
        return values, tf.gather(kept, stay), splits

    def _search(self, words: _Words) -> tuple:
        """The longest-match search in each word: ragged [W, (n)] pieces, and where they begin and end, in bytes of the word."""
        strings = tf.RaggedTensor.from_row_splits(words.values, words.splits, validate=False)
        return self.pieces.tokenize_with_offsets(tf.strings.unicode_encode(strings, "UTF-8"))

    def _ids(self, found):
        return found if self.ids is None else tf.gather(self.ids, found)


def _kind(packed):
    return tf.bitwise.bitwise_and(packed, 3)


def _bit(packed, bit: int):
    return tf.bitwise.bitwise_and(packed, bit) != 0


def _rank(packed):
    return tf.bitwise.bitwise_and(tf.bitwise.right_shift(packed, characters.RANK_SHIFT), characters.RANK_MASK)


def _value(codes, packed):
    """The output character: the packed value XORed with the input character."""
    value = tf.bitwise.bitwise_and(tf.bitwise.right_shift(packed, characters.VALUE_SHIFT), characters.VALUE_MASK)
    return tf.bitwise.bitwise_xor(value, tf.cast(codes, tf.int32))


def _sort_marks(packed, value, origin, added) -> tuple:
    """Puts the combining marks after each letter into canonical order (Unicode, section 3.11, D109).

    A mark that moves leaves its place in the text to the one that comes there, as in the Rust tokenizers: the k-th character has
    the place of the k-th one before. Example: classes [0, 224, 220] at places [5, 6, 7] become [0, 220, 224] at [5, 6, 7].
    """
    # Control characters are gone before Rust sorts, stripped accents go after: they are sorted too.
    stay = tf.where(packed != characters.CLEANED)[:, 0]
    packed, value, origin, added = (tf.gather(tensor, stay) for tensor in (packed, value, origin, added))
    rank = tf.cast(_rank(packed), tf.int64)
    letter = tf.cumsum(tf.cast(rank == 0, tf.int64))
    order = tf.argsort(letter * (characters.RANK_MASK + 1) + rank, stable=True)
    place = tf.cumsum(tf.cast(~tf.gather(added, order), tf.int32)) - 1
    return tf.gather(packed, order), tf.gather(value, order), tf.gather(tf.boolean_mask(origin, ~added), place)


def wordpiece_graph(tokenizer, settings: dict) -> WordPieceGraph:
    """Makes the graph of a tokenizer that `problem` finds nothing wrong with; `settings` are its tokenizer.json's."""
    model = settings["model"]
    entries = sorted(model["vocab"].items(), key=lambda entry: entry[1])
    ids = np.array([i for _, i in entries], np.int32)
    alphabet = {ch for token, _ in entries for ch in token}
    with tf.init_scope():  # the piece model is a constant of every function that uses it, whichever was traced first
        pieces = tf_text.FastWordpieceTokenizer(
            [token for token, _ in entries],
            suffix_indicator=model["continuing_subword_prefix"],
            max_bytes_per_word=4 * model["max_input_chars_per_word"],
            token_out_type=tf.int32,
            unknown_token=model["unk_token"],
            no_pretokenization=True,
        )
    return WordPieceGraph(
        template=template_of(tokenizer),
        vocabulary=Vocabulary(tokenizer),
        characters=character_table(settings["normalizer"]),
        pieces=pieces,
        ids=None if np.array_equal(ids, np.arange(len(ids))) else ids,
        outside=next(c for c in range(0x10FFFD, 0, -1) if chr(c) not in alphabet),
        longest_word=model["max_input_chars_per_word"],
    )


def problem(settings: dict) -> str | None:
    """What keeps a WordPiece tokenizer from being in the graph exactly; None for nothing."""
    parts = {name: (settings[name] or {}).get("type") for name in ("normalizer", "pre_tokenizer")}
    expected = {"normalizer": "BertNormalizer", "pre_tokenizer": "BertPreTokenizer"}
    if parts != expected:
        name = next(name for name in expected if parts[name] != expected[name])
        return f"its {name.replace('_', '-')} is {parts[name]}, not {expected[name]}"
    model = settings["model"]
    if model["unk_token"] not in model["vocab"] or not model["continuing_subword_prefix"]:
        return "its unknown token or the prefix of its inner pieces is missing"
    return None
