"""Scores of language models."""

from __future__ import annotations

import math

import numpy as np

_HIGHEST = 700.0  # of a greater loss the perplexity is beyond float64


def language_model(losses, counts, right) -> dict[str, float]:
    """How surely, and how often rightly, tokens are guessed: over all tokens alike, whatever text they are of.

    Args:
        losses: of each text the sum of its tokens' cross-entropies, in nats, float [N].
        counts: how many tokens were guessed, [N].
        right: how many of them the likeliest token was right for, [N].

    Returns:
        loss (the mean), perplexity (e to the mean; Devlin et al. 2019 report it of masked tokens) and accuracy.

    Example:
        >>> language_model([2.0, 4.0], [1, 2], [1, 0])
        {'loss': 2.0, 'perplexity': 7.389056, 'accuracy': 0.333333}
    """
    count = max(float(np.sum(np.asarray(counts, np.float64))), 1.0)
    loss = float(np.sum(np.asarray(losses, np.float64))) / count
    return {
        "loss": loss,
        "perplexity": math.exp(min(loss, _HIGHEST)),
        "accuracy": float(np.sum(np.asarray(right, np.float64))) / count,
    }


def replaced_tokens(true_positives, false_positives, false_negatives, counts) -> dict[str, float]:
    """How well replaced tokens are told from the text's own, over all tokens alike.

    Args:
        true_positives: of each text, how many replaced tokens were found, [N].
        false_positives: how many of its own were taken for replaced, [N].
        false_negatives: how many replaced ones were missed, [N].
        counts: how many tokens there are, [N].

    Returns:
        accuracy, and precision, recall and f1 of the replaced ones, each 0 where it has no ground.

    Example:
        >>> replaced_tokens([2, 1], [1, 0], [0, 1], [10, 10])
        {'accuracy': 0.9, 'precision': 0.75, 'recall': 0.75, 'f1': 0.75}
    """
    found, wrong, missed, count = (
        float(np.sum(np.asarray(values, np.float64)))
        for values in (true_positives, false_positives, false_negatives, counts)
    )
    return {
        "accuracy": (count - wrong - missed) / max(count, 1.0),
        "precision": found / max(found + wrong, 1.0),
        "recall": found / max(found + missed, 1.0),
        "f1": 2 * found / max(2 * found + wrong + missed, 1.0),
    }
