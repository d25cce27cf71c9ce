"""What a model must do to be written with, and what the ways of choosing share."""

from __future__ import annotations

from typing import Any, Protocol

from tfbert._compat import tf

NOTHING = -1  # where no token stands, before a text and after its end


class Steps(Protocol):
    """A model that gives the scores of the next token, and keeps what it computed for those before."""

    def begin(self, ids, mask) -> tuple[Any, Any, Any]:
        """Reads the prompts.

        Args:
            ids: int32 [B, T], padded on the right.
            mask: int32 [B, T], 0 in padding.

        Returns:
            The logits of the first new token, [B, V]; the state, a nest of tensors; and int32 [B, P], the tokens that new ones follow,
            NOTHING before them where others have more.
        """

    def step(self, token, state) -> tuple[Any, Any]:
        """Takes the newest token, int32 [B], and gives the logits of the one after it, [B, V], and the new state."""

    def take(self, state, rows):
        """The state of some rows, int32 [B'], which may come several times."""


def is_end(token, ends: tuple[int, ...]):
    """Whether tokens, int32 of any shape, end a text."""
    return tf.reduce_any(token[..., tf.newaxis] == tf.constant(ends, tf.int32), -1)


def loose(tensor):
    """The shape of a tensor that is longer after a step, and may have any number of rows: its rank, and its last dimension if it has 3."""
    rank = tensor.shape.rank
    return tf.TensorShape([None] * rank if rank < 3 else [*[None] * (rank - 1), tensor.shape[-1]])
