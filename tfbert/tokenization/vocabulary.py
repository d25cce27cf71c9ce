"""The tokens of a vocabulary as strings: what a model that predicts tokens answers with."""

from __future__ import annotations

import numpy as np

from tfbert._compat import tf
from tfbert.errors import InputError


class Vocabulary:
    """The tokens of one tokenizer by their ids, its mask token, and those that begin and end a text.

    Args:
        tokenizer: what `load_tokenizer` returns.

    Example:
        >>> from tfbert.tokenization import load_tokenizer
        >>> vocabulary = Vocabulary(load_tokenizer("all-MiniLM-L6-v2"))
        >>> vocabulary.tokens(tf.constant([[7592, 2088]])).numpy().tolist(), vocabulary.mask_id
        ([[b'hello', b'world']], 103)
    """

    def __init__(self, tokenizer):
        entries = tokenizer.get_vocab()
        self._tokens = np.full(max(entries.values()) + 1, "", object)
        for token, i in entries.items():
            self._tokens[i] = token
        self._mask = tokenizer.mask_token, tokenizer.mask_token_id
        self._begin, self._end = tokenizer.bos_token_id, tokenizer.eos_token_id

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

    def tokens(self, ids):
        """The tokens of ids, int32 of any shape, as strings; "" for an id that the model has and the tokenizer has not."""
        known = (ids >= 0) & (ids < len(self._tokens))
        return tf.where(known, tf.gather(tf.constant(self._tokens), tf.where(known, ids, 0)), "")

    def _checked(self) -> tuple[str, int]:
        if self._mask[1] is None:
            raise InputError("the tokenizer has no mask token; choose the checkpoint of a masked language model")
        return self._mask
