"""Scores of answers to questions: the exact match and F1 of SQuAD."""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Sequence

import numpy as np

from tfbert.errors import InputError

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = dict.fromkeys(map(ord, string.punctuation))


def normalized(answer: str) -> str:
    """An answer as the scores compare it: lower case, no ASCII punctuation, no English articles, single spaces.

    Example:
        >>> normalized("The  U.S. Army!")
        'us army'
    """
    return " ".join(_ARTICLES.sub(" ", answer.lower().translate(_PUNCTUATION)).split())


def squad(references: Sequence[Sequence[str]], answers: Sequence[str]) -> dict[str, float]:
    """Exact match and F1 of answers, as the official scripts of SQuAD 1.1 and 2.0 compute them, but as fractions.

    Every answer counts as the best of its comparisons with the right ones (Rajpurkar et al. 2016, section 6.1; 2018). A question without
    answer is right if the answer is "".

    Args:
        references: the right answers of each question; an empty list where there is none.
        answers: an answer for each question; "" for none.

    Returns:
        exact_match and f1; where some questions have answers and some none, also both by kind: has_answer_exact_match, has_answer_f1,
        no_answer_exact_match (which is the F1 too).

    Raises:
        InputError: different numbers of questions and answers.

    Example:
        >>> squad([["Ada Lovelace", "Lovelace"], []], ["the Countess Lovelace", ""])["f1"]
        0.8333333333333333
    """
    exact, f1 = _each(references, answers)
    scores = {"exact_match": float(np.mean(exact)), "f1": float(np.mean(f1))}
    has = np.array([bool(_right(texts)) for texts in references])
    if has.any() and not has.all():
        scores["has_answer_exact_match"] = float(np.mean(exact[has]))
        scores["has_answer_f1"] = float(np.mean(f1[has]))
        scores["no_answer_exact_match"] = float(np.mean(exact[~has]))
    return scores


def squad_threshold(
    references: Sequence[Sequence[str]], answers: Sequence[str], no_answer_scores: Sequence[float]
) -> float:
    """The threshold for which the F1 is highest if questions with a greater no-answer score get no answer.

    This is the search of the official script of SQuAD 2.0 (find_best_thresh): questions sorted by their score, answered from the lowest up.

    Args:
        references: the right answers of each question; an empty list where there is none.
        answers: the answer for each question if it gets one.
        no_answer_scores: how much each question looks as if it had no answer.

    Example:
        >>> squad_threshold([["Ada"], [], []], ["Ada", "Bob", "Eve"], [-3.0, 2.0, 5.0])
        -3.0
    """
    _, f1 = _each(references, answers)
    scores = np.asarray(no_answer_scores, np.float64)
    has = [bool(_right(texts)) for texts in references]
    total = best = float(len(has) - sum(has))  # what answering none of them gives
    threshold = float(scores.min()) - 1.0
    for i in np.argsort(scores, kind="stable").tolist():
        # One more question that is answered gains its F1 if it has an answer; else it loses a right one, if anything but "" is said.
        total += f1[i] if has[i] else -1.0 if answers[i] else 0.0
        if total > best:
            best, threshold = total, float(scores[i])
    return threshold


def _each(references, answers) -> tuple[np.ndarray, np.ndarray]:
    if len(references) != len(answers):
        raise InputError(f"there are {len(references)} questions and {len(answers)} answers; give one answer for each")
    if not len(answers):
        raise InputError("there is no question to score")
    exact, f1 = [], []
    for texts, answer in zip(references, answers, strict=True):
        texts = _right(texts) or [""]
        exact.append(max(float(normalized(text) == normalized(answer)) for text in texts))
        f1.append(max(_f1(text, answer) for text in texts))
    return np.array(exact), np.array(f1)


def _right(texts: Sequence[str]) -> list[str]:
    """The right answers of which something is left when they are normalized; "The" alone is none."""
    return [text for text in texts if normalized(text)]


def _f1(right: str, answer: str) -> float:
    right, answer = normalized(right).split(), normalized(answer).split()
    if not right or not answer:
        return float(right == answer)
    common = sum((Counter(right) & Counter(answer)).values())
    if not common:
        return 0.0
    precision, recall = common / len(answer), common / len(right)
    return 2 * precision * recall / (precision + recall)
