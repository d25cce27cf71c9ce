"""What passes from texts to the model: the pieces of each text, and the rows of ids that they become."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from tfbert._compat import tf


class Pieces(NamedTuple):
    """The word pieces of a batch of texts, without special tokens: four ragged int32 tensors [B, (n)].

    Args:
        ids: vocabulary ids.
        start: where the piece begins in the text, in Unicode code points.
        end: where it ends (exclusive), so that `text[start:end]` is what the piece was made from.
        word: the number of the word in its text, from 0 (each punctuation mark and CJK ideograph is a word).
    """

    ids: tf.RaggedTensor
    start: tf.RaggedTensor
    end: tf.RaggedTensor
    word: tf.RaggedTensor


class Rows(NamedTuple):
    """A batch of B examples as R rows of T tokens; a long text has several rows (windows).

    The fields with a value for each token are None where a task does not ask for them; elsewhere than at the tokens of the text that is
    cut into windows they are 0 and False.

    Args:
        ids: the model's inputs by name, int32 [R, T].
        example: int32 [R], ascending: the number of the example that each row is of.
        count: int32 scalar, the number of examples B.
        piece: int32 [R, T], the number of the token within its whole text; -1 for special tokens, the other text and padding.
        owned: bool [R, T], True in one row for each piece: where it stands farthest from the window's ends. `tf.boolean_mask(x, owned)`
            gives the pieces of all examples in order, each once.
        start: int32 [R, T], where the piece begins in its text, in code points.
        end: int32 [R, T], where it ends (exclusive).
        word: int32 [R, T], the number of its word in the text.
        cls: bool [R, T], True at [CLS].
        target: int32 [R, T], the ids of the tokens that are to be guessed, losses.IGNORED elsewhere.
        label: int32 [R, T], the row's class, at each of its tokens; losses.IGNORED where it has none.
    """

    ids: dict[str, Any]
    example: tf.Tensor
    count: tf.Tensor
    piece: tf.Tensor | None = None
    owned: tf.Tensor | None = None
    start: tf.Tensor | None = None
    end: tf.Tensor | None = None
    word: tf.Tensor | None = None
    cls: tf.Tensor | None = None
    target: tf.Tensor | None = None
    label: tf.Tensor | None = None
