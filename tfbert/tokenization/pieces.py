"""The pieces of texts and their places, with the Rust tokenizer: the twin of the graph's, for training and evaluation."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import numpy as np
import tokenizers

from tfbert._compat import tf
from tfbert.tokenization.characters import WHITE_SPACE
from tfbert.tokenization.encoding import clean, no_panic
from tfbert.tokenization.rows import Pieces
from tfbert.tokenization.template import Template, template_of
from tfbert.tokenization.vocabulary import Vocabulary

# The Rust encodings weigh far more than what is taken from them: a few at a time, also where a caller has all texts of a data set.
_CHUNK = 1024


class RustPieces:
    """A training tokenizer in the form of the graph's: `template`, `vocabulary`, `ids_and_offsets` and `detokenize`, which give what those
    of `TokenizerGraph` give.

    Args:
        tokenizer: what `load_tokenizer` returns.

    Example:
        >>> from tfbert.tokenization import load_tokenizer
        >>> pieces = RustPieces(load_tokenizer("all-MiniLM-L6-v2")).ids_and_offsets(["Zürich!"])
        >>> pieces.start.to_list(), pieces.end.to_list(), pieces.word.to_list()
        ([[0, 6]], [[6, 7]], [[0, 1]])
    """

    def __init__(self, tokenizer):
        # A copy of its own, for what others set on a tokenizer (truncation, padding) stays set.
        self._backend = tokenizers.Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
        self._backend.no_truncation()
        self._backend.no_padding()
        self._tokenizer = tokenizer
        self._spaced = isinstance(self._backend.model, tokenizers.models.Unigram)

    @functools.cached_property
    def template(self) -> Template:
        """Where this tokenizer puts its special tokens."""
        return template_of(self._tokenizer)

    @functools.cached_property
    def vocabulary(self) -> Vocabulary:
        """Its tokens by their ids."""
        return Vocabulary(self._tokenizer)

    def ids_and_offsets(self, texts: Sequence[str]) -> Pieces:
        """The pieces of each text, without special tokens and never cut.

        Args:
            texts: B strings, or a string tensor [B] (bytes that are not UTF-8 are read as U+FFFD, as the graph reads them).

        Returns:
            Pieces: ids, start, end and word, ragged int32 [B, (n)]. A piece does not begin with the white space before a word, which
            SentencePiece's pieces hold: "▁Paris" of "in Paris" is at [3, 8).

        Raises:
            InputError: the Rust code breaks on a text; names the rows.
        """
        if isinstance(texts, tf.Tensor):
            texts = [text.decode("utf-8", "replace") for text in texts.numpy()]
        self._backend.encode_special_tokens = True  # "[SEP]" in a text is text
        lengths, parts = [np.zeros(0, np.int64)], [np.zeros((4, 0), np.int32)]
        for first in range(0, len(texts), _CHUNK):
            chunk = [clean(text) for text in texts[first : first + _CHUNK]]
            with no_panic(f"rows {first} to {first + len(chunk) - 1}"):
                encodings = self._backend.encode_batch(chunk, add_special_tokens=False)
            lengths.append(np.fromiter(map(len, encodings), np.int64, len(encodings)))
            parts.append(_flat(encodings, lengths[-1]))
            if self._spaced:
                _trim(parts[-1], lengths[-1], chunk)
        splits = np.concatenate([[0], np.cumsum(np.concatenate(lengths))])
        flat = np.concatenate(parts, 1)
        return Pieces(*(tf.RaggedTensor.from_row_splits(values, splits, validate=False) for values in flat))

    def detokenize(self, ids):
        """The text of ids, string [B], as the decoder of the Rust tokenizer gives it; see `Vocabulary.text`.

        Args:
            ids: int32 [B, n], dense or ragged.
        """
        rows = ids.to_list() if isinstance(ids, tf.RaggedTensor) else np.asarray(ids).tolist()
        texts = [self._backend.decode([i for i in row if i >= 0], skip_special_tokens=True) for row in rows]
        return tf.constant(texts, tf.string, [len(texts)])


def _flat(encodings, lengths: np.ndarray) -> np.ndarray:
    """The fields of Pieces of all encodings, one after the other: int32 [4, N]."""
    splits = np.concatenate([[0], np.cumsum(lengths)])
    flat = np.empty((4, splits[-1]), np.int32)
    for encoding, first, last in zip(encodings, splits[:-1], splits[1:], strict=True):
        if first < last:
            flat[0, first:last] = encoding.ids
            flat[1:3, first:last] = np.asarray(encoding.offsets, np.int32).T
            flat[3, first:last] = encoding.word_ids
    return flat


def _trim(flat: np.ndarray, lengths: np.ndarray, texts: Sequence[str]) -> None:
    """Moves the starts of pieces past the white space that they begin with, at most to their ends."""
    splits = np.concatenate([[0], np.cumsum(lengths)])
    for text, first, last in zip(texts, splits[:-1], splits[1:], strict=True):
        white = np.isin(np.frombuffer(text.encode("utf-32-le"), np.uint32), WHITE_SPACE)
        places = np.where(white, len(text), np.arange(len(text)))
        solid = np.append(
            np.minimum.accumulate(places[::-1])[::-1], len(text)
        )  # the next that is none, from each place on
        start, end = flat[1, first:last], flat[2, first:last]
        flat[1, first:last] = np.minimum(solid[start], end)
