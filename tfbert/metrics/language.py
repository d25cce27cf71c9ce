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
