"""Whether a score of 0.9 is right nine times in ten, and the temperature that makes it so (Guo et al. 2017)."""

from __future__ import annotations

import numpy as np

from tfbert.errors import InputError

BINS = 15
# From 10 times sharper to 10 times flatter.
COLDEST, HOTTEST = 0.1, 10.0
_TINY = 1e-30


def reliability(right, confidence, bins: int = BINS) -> list[dict[str, float]]:
    """How often the answers of like confidence are right: the bars of a reliability diagram.

    Args:
        right: whether each answer is right, bool [N].
        confidence: its score, float [N], from 0 to 1.
        bins: how many equal parts of 0 to 1; part m holds the confidences in ((m-1)/bins, m/bins] (default 15).

    Returns:
        For each part that holds any: count, confidence (their mean) and accuracy, from the lowest to the highest.

    Example:
        >>> reliability([True, False, True], [0.95, 0.97, 0.5], bins=2)
        [{'count': 1, 'confidence': 0.5, 'accuracy': 1.0}, {'count': 2, 'confidence': 0.96, 'accuracy': 0.5}]
    """
    right, confidence = np.asarray(right, float), np.asarray(confidence, float)
    place = np.searchsorted(np.linspace(0, 1, bins + 1)[1:-1], confidence, side="left")
    counts = np.bincount(place, minlength=bins)
    rights, sums = np.bincount(place, right, minlength=bins), np.bincount(place, confidence, minlength=bins)
    return [
        {"count": int(counts[m]), "confidence": float(sums[m] / counts[m]), "accuracy": float(rights[m] / counts[m])}
        for m in range(bins)
        if counts[m]
    ]


def expected_calibration_error(right, confidence, bins: int = BINS) -> float:
    """The gap between confidence and accuracy of the parts of `reliability`, weighted by their counts.

    Example:
        >>> round(expected_calibration_error([True, False, True], [0.95, 0.97, 0.5], bins=2), 4)
        0.4733
    """
    parts = reliability(right, confidence, bins)
    gaps = sum(part["count"] * abs(part["accuracy"] - part["confidence"]) for part in parts)
    return float(gaps / sum(part["count"] for part in parts))


def temper(scores, temperature: float) -> np.ndarray:
    """The scores that the same logits give when they are divided by a temperature.

    Args:
        scores: float [N, L], each row a softmax; or the sigmoids of a further axis, [N, L, 2] with 1 - p beside p.
        temperature: above 1 makes scores more alike, below 1 less.

    Example:
        >>> temper([[0.9, 0.1]], 2.0).round(4).tolist()
        [[0.75, 0.25]]
    """
    logits = np.log(np.maximum(np.asarray(scores, np.float64), _TINY)) / temperature
    powers = np.exp(logits - logits.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)


def fit_temperature(labels, scores) -> float:
    """The temperature at which the right labels are likeliest: least log loss, between 0.1 and 10.

    Log loss is convex in the inverse of the temperature, which is searched by golden section. So that a few rows that are all answered
    right do not ask for certainty, 1 / (N + 2) of each target is spread over the labels, as Platt (1999, section 2.2) does.

    Args:
        labels: the right labels, integer [N] (or [N, L] for scores [N, L, 2]: 1 where the label holds).
        scores: what `temper` takes.

    Raises:
        InputError: no rows, or shapes that do not agree.

    Example:
        >>> round(fit_temperature([0, 0, 0, 1] * 100, [[0.99, 0.01]] * 400), 1)  # right three times in four: 0.75 would be honest
        4.2
    """
    labels, scores = np.asarray(labels), np.asarray(scores, np.float64)
    if not len(scores) or labels.shape != scores.shape[:-1]:
        raise InputError(
            f"labels are {list(labels.shape)} for scores {list(scores.shape)}; give one label for each row"
        )
    logits = np.log(np.maximum(scores, _TINY))
    right = np.take_along_axis(logits, labels[..., np.newaxis].astype(np.int64), -1)[..., 0]
    right += (logits.mean(-1) - right) / (labels.size + 2)

    def log_loss(inverse: float) -> float:
        peak = logits.max(-1) * inverse
        total = np.log(np.exp(logits * inverse - peak[..., np.newaxis]).sum(-1)) + peak
        return float((total - right * inverse).mean())

    low, high = 1 / HOTTEST, 1 / COLDEST
    golden = (np.sqrt(5) - 1) / 2
    for _ in range(60):
        left, middle = high - golden * (high - low), low + golden * (high - low)
        if log_loss(left) <= log_loss(middle):
            high = middle
        else:
            low = left
    return float(2 / (low + high))
