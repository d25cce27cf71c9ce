"""Scores of labels and of numbers: classification, several labels a row, regression."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tfbert.errors import InputError
from tfbert.metrics.calibration import expected_calibration_error


def classification(labels, scores, label_names: Sequence[str]) -> dict[str, float]:
    """Scores answers that name one of L classes.

    Macro averages run over the classes that occur in the references or the answers, as in scikit-learn. A class without
    answers has precision 0, one without references recall 0. `roc_auc` takes class 1 as the positive one when L is 2,
    and is the mean of one class against the rest otherwise; it is left out where a class has no reference or has all of
    them.

    Args:
        labels: the right classes, integer [N].
        scores: probabilities, float [N, L], each row summing to 1.
        label_names: the L names; only their number is used.

    Returns:
        accuracy, f1_macro, f1_micro, precision_macro, recall_macro, matthews_correlation (0 where undefined; Gorodkin
        2004 for L > 2), log_loss (natural logarithm, probabilities kept 2.2e-16 away from 0 and 1),
        expected_calibration_error (15 equal bins of the top probability; Guo et al. 2017) and roc_auc.

    Raises:
        InputError: no examples, shapes that do not agree, a label outside 0..L-1, or scores that are not probabilities.

    Example:
        >>> scored = classification([0, 1, 1, 0], [[0.9, 0.1], [0.4, 0.6], [0.8, 0.2], [0.7, 0.3]], ["no", "yes"])
        >>> scored["accuracy"], round(scored["f1_macro"], 4), scored["roc_auc"]
        (0.75, 0.7333, 0.75)
    """
    scores = _scores(scores, len(label_names))
    labels = _classes(labels, scores.shape[1], "labels")
    _same_length(labels, scores)
    _check_probabilities(scores)
    predicted = scores.argmax(-1)
    matrix = confusion_matrix(labels, predicted, scores.shape[1])
    accuracy = float(np.trace(matrix) / len(labels))
    precision, recall, f1 = _precision_recall_f1(matrix.diagonal(), matrix.sum(0), matrix.sum(1))
    occurs = matrix.sum(0) + matrix.sum(1) > 0
    chance = np.clip(scores[np.arange(len(labels)), labels], np.finfo(float).eps, 1 - np.finfo(float).eps)
    result = {
        "accuracy": accuracy,
        "f1_macro": float(f1[occurs].mean()),
        "f1_micro": accuracy,
        "precision_macro": float(precision[occurs].mean()),
        "recall_macro": float(recall[occurs].mean()),
        "matthews_correlation": _matthews_correlation(matrix),
        "log_loss": float(-np.log(chance).mean()),
        "expected_calibration_error": expected_calibration_error(labels == predicted, scores.max(-1)),
    }
    classes = [1] if scores.shape[1] == 2 else range(scores.shape[1])
    areas = [_roc_auc(labels == index, scores[:, index]) for index in classes]
    if None not in areas:
        result["roc_auc"] = float(np.mean(areas))
    return result


def per_class(labels, predicted, names: Sequence[str]) -> dict[str, dict[str, float]]:
    """Precision, recall, F1 and number of references of each class.

    Args:
        labels: the right classes, integer [N]; or, where a row may have several labels, bool [N, L].
        predicted: the answered classes, in the same form.
        names: the L names, in the order of the indices.

    Returns:
        For each name: precision, recall, f1 (each 0 where undefined) and support.

    Raises:
        InputError: no examples, lengths that differ, or a class outside 0..L-1.

    Example:
        >>> per_class([0, 0, 1], [0, 1, 1], ["no", "yes"])["no"]
        {'precision': 1.0, 'recall': 0.5, 'f1': 0.6666666666666666, 'support': 2}
    """
    if np.ndim(labels) == 2:
        labels, predicted = np.asarray(labels, bool), np.asarray(predicted, bool)
        _same_length(labels, predicted)
        right, answered, wanted = (labels & predicted).sum(0), predicted.sum(0), labels.sum(0)
    else:
        matrix = confusion_matrix(labels, predicted, len(names))
        right, answered, wanted = matrix.diagonal(), matrix.sum(0), matrix.sum(1)
    return {
        name: {"precision": float(p), "recall": float(r), "f1": float(f), "support": int(n)}
        for name, p, r, f, n in zip(names, *_precision_recall_f1(right, answered, wanted), wanted)
    }


def confusion_matrix(labels, predicted, size: int) -> np.ndarray:
    """Counts [right class, answered class], int64 [L, L].

    Args:
        labels: the right classes, integer [N].
        predicted: the answered classes, integer [N].
        size: L.

    Raises:
        InputError: no examples, lengths that differ, or a class outside 0..L-1.

    Example:
        >>> confusion_matrix([0, 0, 1], [0, 1, 1], 2).tolist()
        [[1, 1], [0, 1]]
    """
    labels, predicted = _classes(labels, size, "labels"), _classes(predicted, size, "predicted")
    _same_length(labels, predicted)
    return np.bincount(labels * size + predicted, minlength=size * size).reshape(size, size)


def multilabel(labels, scores, thresholds) -> dict[str, float]:
    """Scores answers that hold any number of L labels.

    A label is answered where its score >= its threshold, in the precision of the scores, as the exported graph compares
    them.

    Args:
        labels: which labels apply, bool [N, L].
        scores: a probability for each label, float [N, L].
        thresholds: one for each label, float [L].

    Returns:
        accuracy (the whole set right), f1_macro, f1_micro, precision_macro, precision_micro, recall_macro, recall_micro
        (over all L labels; 0 where undefined), log_loss (mean over examples and labels) and roc_auc (mean over the
        labels that have both kinds of example; left out where none has).

    Raises:
        InputError: no examples, shapes that do not agree, or scores that are not probabilities.

    Example:
        >>> multilabel([[1, 0], [1, 1]], [[0.9, 0.2], [0.6, 0.4]], [0.5, 0.5])["f1_micro"]
        0.8
    """
    exact = np.asarray(scores, np.result_type(np.asarray(scores), np.float32))
    labels, scores = _several(labels, scores)
    thresholds = np.asarray(thresholds, exact.dtype)
    if thresholds.shape != scores.shape[1:]:
        raise InputError(f"thresholds has shape {thresholds.shape}; give one for each of the {scores.shape[1]} labels")
    outside = scores[(scores < 0) | (scores > 1)]
    if outside.size:
        raise InputError(f"a score is {outside[0]:g}; give probabilities, after the sigmoid")
    predicted = exact >= thresholds
    right, answered, wanted = (labels & predicted).sum(0), predicted.sum(0), labels.sum(0)
    macro = _precision_recall_f1(right, answered, wanted)
    micro = _precision_recall_f1(right.sum(keepdims=True), answered.sum(keepdims=True), wanted.sum(keepdims=True))
    chance = np.clip(np.where(labels, scores, 1 - scores), np.finfo(float).eps, 1 - np.finfo(float).eps)
    result = {"accuracy": float((labels == predicted).all(-1).mean()), "log_loss": float(-np.log(chance).mean())}
    for name, by_label, overall in zip(("precision", "recall", "f1"), macro, micro):
        result[f"{name}_macro"] = float(by_label.mean())
        result[f"{name}_micro"] = float(overall[0])
    areas = [_roc_auc(labels[:, index], scores[:, index]) for index in range(labels.shape[1])]
    defined = [area for area in areas if area is not None]
    if defined:
        result["roc_auc"] = float(np.mean(defined))
    return result


def tune_thresholds(labels, scores) -> np.ndarray:
    """For each label the threshold with the best F1, to be found on validation data and never on the test data.

    Candidates are the midpoints between adjacent distinct scores, and half the lowest score (every example answered).
    Of thresholds with the same F1 the one nearest 0.5 is taken; a label without positive examples keeps 0.5. Where
    float32 has a number between the two scores the threshold is one, so that the exported float32 graph decides alike.

    Args:
        labels: which labels apply, bool [N, L].
        scores: float [N, L].

    Returns:
        Thresholds, float64 [L], for `scores >= thresholds`.

    Raises:
        InputError: no examples, or shapes that do not agree.

    Example:
        >>> tune_thresholds([[1], [1], [0]], [[0.75], [0.25], [0.125]]).tolist()
        [0.1875]
    """
    labels, scores = _several(labels, scores)
    return np.array([_best_threshold(labels[:, index], scores[:, index]) for index in range(labels.shape[1])])


def regression(labels, predictions) -> dict[str, float]:
    """Scores answers that are numbers.

    Args:
        labels: the right numbers, float [N].
        predictions: the answered numbers, float [N].

    Returns:
        pearson and spearman (tied numbers share their mean rank; both 0.0, not NaN, where either side is constant),
        mean_squared_error, mean_absolute_error.

    Raises:
        InputError: no examples, lengths that differ, or a number that is not finite.

    Example:
        >>> scored = regression([1.0, 2.0, 3.0], [1.0, 2.0, 9.0])
        >>> scored["spearman"], scored["mean_squared_error"]
        (1.0, 12.0)
    """
    labels, predictions = np.asarray(labels, float), np.asarray(predictions, float)
    for name, values in (("labels", labels), ("predictions", predictions)):
        if values.ndim != 1:
            raise InputError(f"{name} has shape {values.shape}; give one number for each example")
        if not np.isfinite(values).all():
            raise InputError(f"{name} holds a number that is not finite, at row {int(np.argmin(np.isfinite(values)))}")
    _same_length(labels, predictions)
    return {
        "pearson": _correlation(labels, predictions),
        "spearman": _correlation(_ranks(labels), _ranks(predictions)),
        "mean_squared_error": float(((labels - predictions) ** 2).mean()),
        "mean_absolute_error": float(np.abs(labels - predictions).mean()),
    }


def _best_threshold(labels: np.ndarray, scores: np.ndarray) -> float:
    """Walks down the distinct scores: [0.9, 0.4, 0.4, 0.1] has the cuts 0.65 (1 answered), 0.25 (3) and 0.05 (4)."""
    if not labels.any():
        return 0.5
    order = np.argsort(-scores, kind="stable")
    ordered = scores[order]
    last = np.append(np.flatnonzero(ordered[:-1] > ordered[1:]), len(ordered) - 1)  # of each run of equal scores
    right = np.cumsum(labels[order])[last]
    f1 = 2 * right / (last + 1 + labels.sum())
    upper, lower = ordered[last], np.append(ordered[last[:-1] + 1], 0.0)
    middle = (upper + lower) / 2
    rounded = middle.astype(np.float32).astype(float)
    cuts = np.where((lower < rounded) & (rounded <= upper), rounded, upper)
    best = np.flatnonzero(f1 >= f1.max() - 1e-12)
    return float(cuts[best[np.argmin(np.abs(cuts[best] - 0.5))]])


def _precision_recall_f1(right: np.ndarray, answered: np.ndarray, wanted: np.ndarray) -> tuple[np.ndarray, ...]:
    return (
        right / np.maximum(answered, 1),
        right / np.maximum(wanted, 1),
        2 * right / np.maximum(answered + wanted, 1),
    )


def _matthews_correlation(matrix: np.ndarray) -> float:
    matrix = matrix.astype(float)
    total, right, answered, wanted = matrix.sum(), np.trace(matrix), matrix.sum(0), matrix.sum(1)
    spread = (total**2 - answered @ answered) * (total**2 - wanted @ wanted)
    return float((right * total - answered @ wanted) / np.sqrt(spread)) if spread > 0 else 0.0


def _roc_auc(positive: np.ndarray, scores: np.ndarray) -> float | None:
    """The share of (positive, negative) pairs in the right order, a tie counting one half (Mann and Whitney 1947)."""
    positives, negatives = int(positive.sum()), int((~positive).sum())
    if not positives or not negatives:
        return None
    return float((_ranks(scores)[positive].sum() - positives * (positives + 1) / 2) / (positives * negatives))


def _ranks(values: np.ndarray) -> np.ndarray:
    """Ranks from 1, ties sharing their mean rank: [5, 7, 7, 9] -> [1, 2.5, 2.5, 4]."""
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts - 1) / 2)[place.reshape(-1)]


def _correlation(left: np.ndarray, right: np.ndarray) -> float:
    # The mean of equal numbers may differ from them in the last bit, so the numbers themselves tell a constant side.
    if np.ptp(left) == 0 or np.ptp(right) == 0:
        return 0.0
    left, right = left - left.mean(), right - right.mean()
    left, right = left / np.linalg.norm(left), right / np.linalg.norm(right)
    return float(np.clip(left @ right, -1.0, 1.0))


def _classes(values, size: int, name: str) -> np.ndarray:
    values = np.asarray(values)
    if values.ndim != 1 or (values.size and not np.issubdtype(values.dtype, np.integer)):
        came = f"shape {values.shape} and dtype {values.dtype}"
        raise InputError(f"{name} has {came}; give one class index for each example")
    wrong = np.flatnonzero((values < 0) | (values >= size))
    if wrong.size:
        row = wrong[0]
        raise InputError(f"{name} holds {values[row]} at row {row}; {size} classes have the indices 0 to {size - 1}")
    return values.astype(np.int64)


def _scores(scores, size: int | None = None) -> np.ndarray:
    scores = np.asarray(scores, float)
    if scores.ndim != 2 or (size is not None and scores.shape[1] != size):
        raise InputError(f"scores has shape {scores.shape}; give [N, {size or 'L'}], one for each example and label")
    finite = np.isfinite(scores).all(-1)
    if not finite.all():
        raise InputError(f"a score of row {np.argmin(finite)} is not finite; look for NaN in the model's weights")
    return scores


def _several(labels, scores) -> tuple[np.ndarray, np.ndarray]:
    scores, labels = _scores(scores), np.asarray(labels)
    if labels.shape != scores.shape:
        raise InputError(f"labels has shape {labels.shape} and scores {scores.shape}; give both as [N, L]")
    _same_length(labels, scores)
    return labels.astype(bool), scores


def _check_probabilities(scores: np.ndarray) -> None:
    sums = scores.sum(-1)
    wrong = np.flatnonzero((scores.min(-1) < 0) | (np.abs(sums - 1) > 0.01))
    if wrong.size:
        raise InputError(
            f"the scores of row {wrong[0]} sum to {sums[wrong[0]]:g}, the least is {scores[wrong[0]].min():g}; "
            "give probabilities, after the softmax"
        )


def _same_length(left: np.ndarray, right: np.ndarray) -> None:
    if len(left) != len(right):
        raise InputError(f"there are {len(left)} references and {len(right)} answers; give one answer for each")
    if not len(left):
        raise InputError("there are no examples to score; check that the data set is not empty")
