"""Entity scores against seqeval, to the last digit, on sequences of legal and illegal tags."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import seqeval.metrics
from seqeval.scheme import IOB2

from tfbert import metrics
from tfbert.errors import InputError

BIO = ["O", "O", "B-PER", "I-PER", "B-LOC", "I-LOC", "B-a-b", "I-a-b"]
BIOES = [*BIO, "E-PER", "S-PER", "E-LOC", "S-LOC"]


def random_rows(labels, count: int, seed: int):
    rng = np.random.default_rng(seed)
    lengths = rng.integers(1, 15, count)
    right = [rng.choice(labels, n).tolist() for n in lengths]
    found = [[tag if rng.random() < 0.7 else str(rng.choice(labels)) for tag in row] for row in right]
    return right, found


def expected(right, found, **options) -> dict[str, float]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # seqeval warns where a share is of nothing
        names = ("precision", "recall", "f1")
        scores = {name: getattr(seqeval.metrics, f"{name}_score")(right, found, **options) for name in names}
        scores["f1_macro"] = seqeval.metrics.f1_score(right, found, average="macro", **options)
        return scores | {"accuracy": seqeval.metrics.accuracy_score(right, found)}


@pytest.mark.parametrize("labels", [BIO, BIOES], ids=["BIO", "BIOES"])
def test_the_default_reading_is_seqevals_on_1000_sequences(labels):
    right, found = random_rows(labels, 1000, 1)
    assert metrics.entities(right, found) == expected(right, found)
    for i in range(0, 1000, 5):
        assert metrics.entities(right[i : i + 5], found[i : i + 5]) == pytest.approx(
            expected(right[i : i + 5], found[i : i + 5]), abs=1e-15
        )


def test_the_strict_reading_is_seqevals_on_1000_sequences():
    right, found = random_rows(BIO, 1000, 2)
    options = {"mode": "strict", "scheme": IOB2}
    assert metrics.entities(right, found, strict=True) == expected(right, found, **options)
    assert metrics.entities(right, found, strict=True)["f1"] != metrics.entities(right, found)["f1"]
    for i in range(0, 200, 5):
        part = right[i : i + 5], found[i : i + 5]
        assert metrics.entities(*part, strict=True) == pytest.approx(expected(*part, **options), abs=1e-15)


@pytest.mark.parametrize("strict", [False, True])
def test_each_type_is_seqevals_report(strict):
    right, found = random_rows(BIO, 300, 3)
    options = {"mode": "strict", "scheme": IOB2} if strict else {}
    report = seqeval.metrics.classification_report(right, found, output_dict=True, zero_division=0, **options)
    ours = metrics.entities_by_type(right, found, strict=strict)
    assert list(ours) == ["LOC", "PER", "a-b"]
    for kind, scores in ours.items():
        theirs = report[kind]
        assert scores == {
            "precision": theirs["precision"],
            "recall": theirs["recall"],
            "f1": theirs["f1-score"],
            "support": theirs["support"],
        }


def test_tags_without_prefix_are_scored_by_word():
    right, found = [["NOUN", "VERB", "NOUN"]], [["NOUN", "NOUN", "NOUN"]]
    assert metrics.entities(right, found) == {"accuracy": 2 / 3}
    assert metrics.entities_by_type(right, found)["NOUN"] == {
        "precision": 2 / 3,
        "recall": 1.0,
        "f1": 0.8,
        "support": 2,
    }


def test_nothing_found_is_zero_and_unequal_lengths_are_told():
    assert metrics.entities([["B-PER"]], [["O"]])["f1"] == 0.0
    nothing = {"precision": 0.0, "recall": 0.0, "f1": 0.0, "f1_macro": 0.0, "accuracy": 1.0}
    assert metrics.entities([["O", "O"]], [["O", "O"]], typed=True) == nothing
    assert metrics.entities([["O", "O"]], [["O", "O"]]) == {"accuracy": 1.0}
    with pytest.raises(InputError, match="sentence 2 has 1 right tags and 2 predicted ones"):
        metrics.entities([["O"], ["O"]], [["O"], ["O", "O"]])
    with pytest.raises(InputError, match="there are 1 sentences to compare with 2"):
        metrics.entities([["O"]], [["O"], ["O"]])
