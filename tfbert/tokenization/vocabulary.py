"""The tokens of a vocabulary as strings, and the texts that they make: what a model that predicts tokens answers with."""

from __future__ import annotations

import functools
import itertools

from tfbert._compat import tf
from tfbert.errors import InputError
from tfbert.tokenization.spelling import spellings


class Vocabulary:
    """The tokens of one tokenizer by their ids, its mask token, and those that begin and end a text.

    Attributes:
        mask_takes_space: whether the mask token takes the white space before it, as RoBERTa's does: its own name has the space.

    Args:
        tokenizer: what `load_tokenizer` returns.

    Example:
        >>> from tfbert.tokenization import load_tokenizer
        >>> vocabulary = Vocabulary(load_tokenizer("all-MiniLM-L6-v2"))
        >>> vocabulary.tokens(tf.constant([[7592, 2088]])).numpy().tolist(), vocabulary.mask_id
        ([[b'hello', b'world']], 103)
    """

    def __init__(self, tokenizer):
        self._mask = tokenizer.mask_token, tokenizer.mask_token_id
        self._begin, self._end = tokenizer.bos_token_id, tokenizer.eos_token_id
        self._backend = tokenizer.backend_tokenizer
        added = tokenizer.added_tokens_decoder.get(tokenizer.mask_token_id)
        self.mask_takes_space = added is not None and added.lstrip

    @property
    def mask_token(self) -> str:
        """The token that stands for a word to be guessed, "[MASK]" for BERT; InputError where the tokenizer has none."""
        return self._checked()[0]

    @property
    def mask_id(self) -> int:
        """The id of the mask token."""
        return self._checked()[1]

    @property
    def end_id(self) -> int:
        """The id of the token that ends a text, GPT-2's "<|endoftext|>"; InputError where the tokenizer has none."""
        if self._end is None:
            raise InputError(
                "the tokenizer has no token that ends a text (eos_token); choose the checkpoint of a model that writes text"
            )
        return self._end

    @property
    def begin_id(self) -> int:
        """The id of the token that a text begins after: where the tokenizer has none, the one that ends the text before."""
        return self.end_id if self._begin is None else self._begin

    @functools.cached_property
    def sentinel_ids(self) -> tuple[int, ...]:
        """The ids of T5's sentinels, "<extra_id_0>", "<extra_id_1>", ...; InputError where the tokenizer has none."""
        entries = self._backend.get_vocab()
        names = itertools.takewhile(entries.__contains__, map("<extra_id_{}>".format, itertools.count()))
        found = tuple(entries[name] for name in names)
        if not found:
            raise InputError(
                "the tokenizer has no sentinels (<extra_id_0>, ...); choose a T5, or a checkpoint made from one"
            )
        return found

    def tokens(self, ids):
        """The tokens of ids, int32 of any shape, as strings, each decoded by itself: " Paris" for RoBERTa's "ĠParis".

        "" stands for an id that the model has and the tokenizer has not.
        """
        known = (ids >= 0) & (ids < len(self._tokens))
        return tf.where(known, tf.gather(tf.constant(self._tokens), tf.where(known, ids, 0)), "")

    @functools.cached_property
    def _tokens(self) -> list[str]:
        size = max(self._backend.get_vocab().values()) + 1
        return self._backend.decode_batch([[i] for i in range(size)], skip_special_tokens=False)

    def text(self, ids):
        """The text of ids, as `tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)` gives it.

        Bytes that are no UTF-8, as of a character that is cut, become U+FFFD.

        Args:
            ids: int32 [B, n], dense or ragged; special tokens and ids that the tokenizer has not, such as -1, are no text.

        Returns:
            string [B].

        Raises:
            InputError: the decoder of the tokenizer cannot be had in the graph (see `spellings`).

        Example:
            >>> from tfbert.tokenization import load_tokenizer
            >>> vocabulary = Vocabulary(load_tokenizer("all-MiniLM-L6-v2"))
            >>> vocabulary.text(tf.constant([[101, 2023, 19204, 2015, 1012, 102, 0]])).numpy().tolist()
            [b'this tokens.']
        """
        first, later, there = self._spellings
        ids = ids.to_tensor(-1) if isinstance(ids, tf.RaggedTensor) else tf.convert_to_tensor(ids)
        known = (ids >= 0) & (ids < len(there))
        ids = tf.where(known, ids, 0)
        known &= tf.gather(tf.constant(there), ids)
        pieces = tf.gather(tf.constant(later), ids)
        if (first != later).any():
            begins = tf.cumsum(tf.cast(known, tf.int32), axis=1) == 1
            pieces = tf.where(begins, tf.gather(tf.constant(first), ids), pieces)
        joined = tf.strings.reduce_join(tf.where(known, pieces, ""), axis=1)
        return tf.strings.unicode_transcode(joined, "UTF-8", "UTF-8", errors="replace")

    @functools.cached_property
    def _spellings(self) -> tuple:
        return spellings(self._backend)

    def _checked(self) -> tuple[str, int]:
        if self._mask[1] is None:
            raise InputError("the tokenizer has no mask token; choose the checkpoint of a masked language model")
        return self._mask
