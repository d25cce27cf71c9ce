"""Rows of like length computed together, within one request, and not too many at once.

Attention over padding is the one thing that the lean encoder pays for; and a request of many windows must leave the server its memory.
Which outputs can be computed so, `can_be_grouped` says.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from tfbert._compat import tf

SHORTEST = 64  # tokens; attention over fewer costs next to nothing beside the matrix products
LEAST = 2**16  # pairs of tokens in a batch, R T^2; of fewer, a second call of the model costs more than it saves
# What is computed at once: tokens, padding included, and pairs of tokens, R T^2. A long text has as many windows as it needs: of MiniLM and
# 384 tokens, 60,000 words took a process of 0.9 GB to 3.9 GB where all windows were computed together, and to 1.8 GB so.
MOST_TOKENS, MOST_PAIRS = 2**15, 2**23
NOWHERE = -1e9  # an answer does not begin or end in padding: what models.without_padding says
WIDEST = 4096  # numbers for each token or row; to put more of them back in their places costs more than is saved


def by_length(function: Callable, features: Mapping[str, Any], outputs: Mapping[str, Any]) -> dict[str, Any]:
    """A model's outputs for rows of mixed lengths, computed in groups, each as wide as its own longest row.

    In a batch of T tokens the groups are the rows of more than T / 2 tokens, of more than T / 4, and so on down to `SHORTEST`. A batch
    of up to 127 tokens is one group, and so are a small one and one whose rows are all longer than half of the longest. A group of more
    than MOST_TOKENS tokens or MOST_PAIRS pairs is several, one after the other.

        T = 256, rows of 200, 20, 130, 90 tokens -> groups (200, 130) of 200 columns, (20) of 20 columns, (90) of 90 columns

    Args:
        function: the model, from ids by name to outputs.
        features: its inputs, int32 [R, T], padded on the right, with "attention_mask".
        outputs: name -> tf.TensorSpec of an output, [R, ...] or [R, T, ...].

    Returns:
        The outputs, [R, ...] or [R, T, ...]. Where a row's group is narrower than T, they are those of padding: 0, and NOWHERE where a
        place has one number, over which a softmax may be taken.
    """
    mask = features["attention_mask"]
    lengths, rows, width = tf.reduce_sum(mask, 1), tf.shape(mask)[0], tf.shape(mask)[1]
    # How often a row fits into the batch's width, 1, 2 to 3, 4 to 7, ...: its group.
    powers = tf.constant([2**k for k in range(1, 31)])
    group = tf.searchsorted(powers, width // tf.maximum(lengths, SHORTEST), side="right")
    pairs = tf.cast(rows, tf.int64) * tf.cast(width, tf.int64) ** 2
    group = tf.where(pairs < LEAST, 0, group)
    columns = tf.bitwise.right_shift(width, group)  # [R], which no row of the group is longer than
    at_once = tf.maximum(1, tf.minimum(MOST_TOKENS // columns, MOST_PAIRS // columns**2))
    group += 32 * (tf.range(rows) // at_once)
    groups, _ = tf.unique(group)
    found = {
        name: tf.zeros([rows, *([width] if by_token(spec) else []), *spec.shape[1 + by_token(spec) :]], spec.dtype)
        for name, spec in outputs.items()
    }

    def add(i, found):
        own = tf.where(group == groups[i])  # int64 [r, 1]
        columns = tf.maximum(1, tf.reduce_max(tf.gather_nd(lengths, own)))
        part = function(**{name: tf.gather_nd(ids, own)[:, :columns] for name, ids in features.items()})
        return i + 1, {
            name: tf.tensor_scatter_nd_update(array, own, _widened(part[name], width, outputs[name]))
            for name, array in found.items()
        }

    return tf.while_loop(lambda i, _: i < tf.size(groups), add, (0, found), parallel_iterations=1)[1]


def can_be_grouped(inputs: Mapping[str, Any], outputs: Mapping[str, Any]) -> bool:
    """Whether `by_length` may compute a model: its rows must not depend on each other, as pooled windows and choices do.

    Args:
        inputs: name -> tf.TensorSpec of an input.
        outputs: name -> tf.TensorSpec of an output.

    Example:
        >>> ids, logits = tf.TensorSpec([None, None], tf.int32), tf.TensorSpec([None, 3])
        >>> can_be_grouped({"input_ids": ids, "attention_mask": ids}, {"logits": logits})
        True
        >>> can_be_grouped({"attention_mask": ids, "example": tf.TensorSpec([None], tf.int32)}, {"logits": logits})
        False
    """
    alone = "attention_mask" in inputs and all(spec.shape.rank == 2 for spec in inputs.values())
    return (
        alone
        and all(
            # Ids are written step by step, which costs by the step and not by the row.
            spec.dtype.is_floating
            and spec.shape.rank
            and spec.shape[1 + by_token(spec) :].is_fully_defined()
            # The vocabulary of a masked LM is more.
            and spec.shape[1 + by_token(spec) :].num_elements() <= WIDEST
            for spec in outputs.values()
        )
    )


def by_token(spec) -> bool:
    """Whether an output has a number for each token: [R, T, ...] with T unknown."""
    return spec.shape.rank > 1 and spec.shape[1] is None


def _widened(array, width, spec):
    if not by_token(spec):
        return array
    padding = [[0, 0], [0, width - tf.shape(array)[1]], *[[0, 0]] * (spec.shape.rank - 2)]
    return tf.pad(array, padding, constant_values=NOWHERE if spec.shape.rank == 2 else 0)
