"""What all tokenizers in the graph have in common, whichever way they cut a text."""

from __future__ import annotations

import abc
import dataclasses

from tfbert.errors import InputError
from tfbert.tokenization.rows import Pieces
from tfbert.tokenization.template import Template
from tfbert.tokenization.vocabulary import Vocabulary


@dataclasses.dataclass(frozen=True)
class TokenizerGraph(abc.ABC):
    """A tokenizer made of TensorFlow ops, to be called inside the function that is exported; `graph_tokenizer` makes it.

    Called with texts, it gives what the training tokenizer gives for `padding="longest", truncation="longest_first"`.

    Args (of the call):
        text: string [B], UTF-8. Bytes that are not UTF-8 are read as U+FFFD.
        text_pair: string [B], the second texts (default None: rows of one text).
        max_length: the most tokens of a row, special tokens included.

    Returns (of the call):
        {"input_ids", "attention_mask", "token_type_ids"}: int32 [B, T], T the longest row of the batch.

    Raises (on the call):
        InputError: max_length leaves no room beside the special tokens.
    """

    template: Template
    vocabulary: Vocabulary = dataclasses.field(repr=False)

    def __call__(self, text, text_pair=None, *, max_length: int) -> dict:
        least = self.template.specials(pair=text_pair is not None) + 1
        if max_length < least:
            raise InputError(
                f"max_length is {max_length}; the special tokens and one token of text need at least {least}"
            )
        second = None if text_pair is None else self.tokenize(text_pair)
        return self.template.assemble(self.tokenize(text), second, max_length=max_length)

    @abc.abstractmethod
    def tokenize(self, text):
        """The ids of the pieces, without special tokens and never truncated.

        Args:
            text: string [B].

        Returns:
            ragged int32 [B, (n)].
        """

    @abc.abstractmethod
    def ids_and_offsets(self, text) -> Pieces:
        """The pieces with their places in the text, equal to the fast tokenizer's `return_offsets_mapping`.

        Args:
            text: string [B].

        Returns:
            Pieces: ids, start, end and word, ragged int32 [B, (n)], without special tokens and never truncated.
        """

    def detokenize(self, ids):
        """The text of ids; see `Vocabulary.text`."""
        return self.vocabulary.text(ids)
