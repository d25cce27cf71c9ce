"""Where a model is wrong: the scores by label and by length, each example with its answer and loss, calibration, and what the data are."""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tfbert import metrics
from tfbert.features import Features
from tfbert.sources import Examples

TOP = 20  # losses and confusions that are named
LENGTHS = 5  # groups of examples by length
LABELS = ("label", "tags", "spans", "answers", "target", "negative")  # the fields that say what a text is


def details(
    task,
    examples: Examples,
    inferred: Mapping[str, np.ndarray],
    answers: Sequence[dict],
    features: Features,
    losses: np.ndarray,
) -> dict[str, Any]:
    """Puts together what `evaluate(..., details=True)` returns, as plain values.

    Args:
        task: the model's task.
        examples: the N examples.
        inferred: what `task.infer` gave for them, name -> array [N, ...].
        answers: what a user reads, one dict each.
        features: those that were inferred, with their rows (windows) and places.
        losses: float [N].
    """
    outcomes = task.outcomes(examples, inferred)
    tokens = np.add.reduceat(features.lengths, features.example_splits[:-1])
    right = [None] * len(examples)
    if outcomes is not None:
        wrong = np.bincount(outcomes.example, outcomes.expected != outcomes.predicted, minlength=len(examples))
        right = (wrong == 0).tolist()
    windows = _windows(features)
    made = []
    for i, row in enumerate(examples):
        given = {name: row[name] for name in (*task.inputs, "words") if name in row}
        made.append(
            {
                "where": examples.where(i),
                "input": given,
                "expected": {name: value for name, value in row.items() if name not in given},
                "answer": answers[i],
                "right": right[i],
                "loss": float(losses[i]),
                "tokens": int(tokens[i]),
                "windows": windows[i],
            }
        )
    return {
        "metrics": task.score(examples, inferred),
        "by_label": task.score_by_label(examples, inferred),
        "by_length": by_length(task, examples, inferred, tokens),
        "confusion": {} if outcomes is None else _confusion(outcomes),
        "calibration": {} if outcomes is None else _calibration(outcomes),
        "top_losses": np.argsort(-losses, kind="stable")[:TOP].tolist(),
        "examples": made,
    }


def by_length(task, examples: Examples, inferred: Mapping[str, np.ndarray], tokens: np.ndarray) -> list[dict]:
    """The scores of the shortest fifth of the examples, of the next, ... (fewer groups where each would have under ten)."""
    groups = np.array_split(np.argsort(tokens, kind="stable"), max(1, min(LENGTHS, len(examples) // 10)))
    made = []
    for group in groups:
        scores = task.score(examples.select(group), {name: values[group] for name, values in inferred.items()})
        made.append(
            {"tokens": [int(tokens[group].min()), int(tokens[group].max())], "examples": len(group), "metrics": scores}
        )
    return made


def _windows(features: Features) -> list[list[dict[str, int]]]:
    """For each example its rows: their tokens, and where the text that they read stands, in code points, where the task knows."""
    splits, lengths = features.example_splits, features.lengths
    rows = [{"tokens": int(length)} for length in lengths]
    if "start" in features.aligned:
        (start, at), (end, _), (piece, _) = (features.aligned[name] for name in ("start", "end", "piece"))
        for r, row in enumerate(rows):
            inside = at[r] + np.flatnonzero(piece[at[r] : at[r + 1]] >= 0)
            if len(inside):
                row |= {"start": int(start[inside[0]]), "end": int(end[inside[-1]])}
    return [rows[splits[i] : splits[i + 1]] for i in range(len(splits) - 1)]


def _confusion(outcomes) -> dict[str, Any]:
    """counts [L, L], a line for each expected label, and the commonest confusions."""
    counts = metrics.confusion_matrix(outcomes.expected, outcomes.predicted, len(outcomes.labels))
    wrong = counts - np.diag(counts.diagonal())
    order = np.argsort(-wrong, axis=None, kind="stable")[:TOP]
    pairs = [divmod(int(place), len(outcomes.labels)) for place in order]
    top = [
        {"expected": outcomes.labels[a], "answered": outcomes.labels[b], "count": int(wrong[a, b])}
        for a, b in pairs
        if wrong[a, b]
    ]
    return {"labels": list(outcomes.labels), "counts": counts.tolist(), "top": top}


def _calibration(outcomes) -> dict[str, Any]:
    """The bars of the reliability diagram and its error, before the temperature and after."""
    right = outcomes.expected == outcomes.predicted
    confidences = {"before": outcomes.confidence_before, "after": outcomes.confidence}
    return {
        "expected_calibration_error": {
            name: metrics.expected_calibration_error(right, values) for name, values in confidences.items()
        },
        **{name: metrics.reliability(right, values) for name, values in confidences.items()},
    }


def data_sheet(task, tokenizer, parts: Mapping[str, Examples]) -> dict[str, Any]:
    """What the data are: rows, labels, lengths, rows that are cut, duplicates, and rows of one part that stand in another.

    Args:
        task: a task whose fields are complete.
        tokenizer: the model's tokenizer.
        parts: "train", "validation", ... -> examples.

    Returns:
        For each part: rows; labels (counts); tokens (median, 95 % and most of a row that nothing cuts); longer (rows of more than
        max_length tokens: cut, or in several windows); duplicates (rows whose texts stood before in the part, but for case and
        spaces); contradictions (those with another label); in_train (rows whose texts are in the training data).
    """
    uncut = dataclasses.replace(task, max_length=10**6)
    seen: dict[str, dict[str, str]] = {}
    sheet = {}
    for name, examples in parts.items():
        lengths = uncut.features(tokenizer, examples, targets=False).draws
        own = seen[name] = {}
        duplicates = contradictions = leaked = 0
        for i in range(len(examples)):
            text, label = _key(task, examples, i)
            leaked += name != "train" and text in seen.get("train", ())
            duplicates += text in own
            contradictions += own.setdefault(text, label) != label
        sheet[name] = {
            "rows": len(examples),
            "labels": dict(Counter(task.label_counts(examples)).most_common()),
            "tokens": {
                "median": int(np.median(lengths)),
                "95 %": int(np.percentile(lengths, 95)),
                "most": int(lengths.max()),
            },
            "histogram": [counts.tolist() for counts in np.histogram(lengths, bins=30)],
            "longer": int((lengths > task.max_length).sum()),
            "duplicates": duplicates,
            "contradictions": contradictions,
        }
        if name != "train" and "train" in seen:
            sheet[name]["in_train"] = leaked
    return sheet


def _key(task, examples: Examples, i: int) -> tuple[str, str]:
    """A row's texts without case and spaces that differ, and what it says that they are."""
    texts = [task.input(examples, i, name) for name in task.inputs]
    said = {name: value for name, value in examples[i].items() if name in LABELS}
    return " ".join(json.dumps(texts, ensure_ascii=False).casefold().split()), json.dumps(
        said, sort_keys=True, default=str
    )
