"""The best answer over windows, against the published procedure in NumPy."""

from __future__ import annotations

import numpy as np
import pytest

from tfbert._compat import tf
from tfbert.decoding.spans import best_spans, target_places

SPECS = [
    tf.TensorSpec([None, None], tf.float32),
    tf.TensorSpec([None, None], tf.float32),
    tf.TensorSpec([None, None], tf.bool),
    tf.TensorSpec([None, None], tf.int32),
    tf.TensorSpec([None, None], tf.int32),
    tf.TensorSpec([None, None], tf.bool),
    tf.TensorSpec([None], tf.int32),
    tf.TensorSpec([], tf.int32),
]


def published(windows, n_best: int, max_answer_length: int, no_answer: bool) -> dict[str, float]:
    """One example: windows are (start_logits, end_logits, allowed, start, end, place of [CLS]). The steps of run_qa's postprocessing."""
    found, nulls = [], []
    for first_logits, last_logits, allowed, start, end, cls in windows:
        nulls.append(first_logits[cls] + last_logits[cls])
        for s in np.argsort(-first_logits, kind="stable")[:n_best]:
            for e in np.argsort(-last_logits, kind="stable")[:n_best]:
                if allowed[s] and allowed[e] and s <= e < s + max_answer_length:
                    found.append((first_logits[s] + last_logits[e], start[s], end[e]))
    null = min(nulls)
    entries = [(score, (a, b)) for score, a, b in found]
    if no_answer:
        entries.append((null, None))
    entries = sorted(entries, key=lambda entry: -entry[0])[:n_best]
    if no_answer and all(place is not None for _, place in entries):
        entries.append((null, None))
    scores = np.array([score for score, _ in entries], np.float64)
    shares = np.exp(scores - scores.max()) / np.exp(scores - scores.max()).sum() if len(scores) else scores
    spans = [k for k, (_, place) in enumerate(entries) if place is not None]
    if not spans:
        return {"start": 0, "end": 0, "score": 0.0}
    best = spans[0]
    return {
        "start": entries[best][1][0],
        "end": entries[best][1][1],
        "score": shares[best],
        "no_answer_score": null - entries[best][0],
        "null_probability": next((shares[k] for k, (_, place) in enumerate(entries) if place is None), 0.0),
    }


def random_batch(rng, count: int, width: int):
    rows, example = [], []
    for i in range(count):
        for _ in range(rng.integers(1, 5)):
            size = int(rng.integers(4, width + 1))
            question = int(rng.integers(1, size - 1))
            allowed = (np.arange(size) > question) & (np.arange(size) < size - 1)
            start = np.cumsum(rng.integers(1, 5, size)) * allowed
            end = (start + rng.integers(1, 3, size)) * allowed
            cls = int(rng.choice([0, size - 1]))
            rows.append((*rng.normal(0, 3, (2, size)).astype(np.float32), allowed, start, end, cls))
            example.append(i)

    def padded(k, fill, dtype):
        made = np.full((len(rows), width), fill, dtype)
        for r, row in enumerate(rows):
            made[r, : len(row[k])] = row[k]
        return made

    tensors = [padded(0, -1e9, np.float32), padded(1, -1e9, np.float32), padded(2, False, bool)]
    tensors += [
        padded(3, 0, np.int32),
        padded(4, 0, np.int32),
        np.arange(width) == np.array([[row[5]] for row in rows]),
    ]
    tensors += [np.array(example, np.int32), np.int32(count)]
    return rows, example, tensors


@pytest.mark.parametrize("no_answer", [False, True])
@pytest.mark.parametrize("n_best, longest", [(20, 30), (3, 4), (1, 2)])
def test_2400_examples_are_answered_as_published(n_best, longest, no_answer):
    rng = np.random.default_rng(n_best)
    run = tf.function(
        lambda *given: best_spans(*given, n_best=n_best, max_answer_length=longest, no_answer=no_answer),
        input_signature=SPECS,
    )
    unanswered = 0
    for width in (6, 12, 25, 60):
        rows, example, tensors = random_batch(rng, 100, width)
        got = {name: tensor.numpy() for name, tensor in run(*tensors).items()}
        for i in range(100):
            windows = [row for row, number in zip(rows, example) if number == i]
            for name, value in published(windows, n_best, longest, no_answer).items():
                if name in ("start", "end"):
                    assert got[name][i] == value
                else:
                    assert got[name][i] == pytest.approx(value, abs=1e-5)
            unanswered += got["score"][i] == 0
        alone = [
            run(*(t[np.array(example) == i] for t in tensors[:6]), np.zeros(example.count(i), np.int32), np.int32(1))
            for i in (0, 57)
        ]
        for i, answer in zip((0, 57), alone):
            for name, tensor in answer.items():
                assert tensor.numpy()[0] == pytest.approx(got[name][i], abs=1e-6)
    assert unanswered < (200 if n_best > 1 else 390)  # windows that hold a candidate are the rule


def test_no_example_gives_no_answer_and_no_candidate_an_empty_one():
    run = tf.function(
        lambda *given: best_spans(*given, n_best=20, max_answer_length=30, no_answer=True), input_signature=SPECS
    )
    nothing = [np.zeros((0, 3), spec.dtype.as_numpy_dtype) for spec in SPECS[:6]]
    for tensor in run(*nothing, np.zeros(0, np.int32), np.int32(0)).values():
        assert tensor.shape == (0,)
    flat = [np.zeros((1, 3), spec.dtype.as_numpy_dtype) for spec in SPECS[:6]]
    found = {name: tensor.numpy().tolist() for name, tensor in run(*flat, np.zeros(1, np.int32), np.int32(1)).items()}
    assert found == {"start": [0], "end": [0], "score": [0.0], "no_answer_score": [1e6], "null_probability": [1.0]}


def test_the_target_is_the_tokens_that_hold_the_answer():
    start, end = np.array([2, 6, 10, 11]), np.array([5, 10, 11, 20])
    for answer, expected in (
        ((2, 5), (0, 0)),
        ((6, 11), (1, 2)),
        ((7, 9), (1, 1)),
        ((0, 5), None),
        ((11, 21), None),
        ((12, 20), (3, 3)),
    ):
        assert target_places(start, end, answer) == expected
    # Two pieces of one character have its place.
    assert target_places(np.array([0, 1, 1, 2]), np.array([1, 2, 2, 3]), (1, 2)) == (1, 2)
    assert target_places(np.zeros(0, int), np.zeros(0, int), (0, 1)) is None
