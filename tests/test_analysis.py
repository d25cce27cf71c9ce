"""Error analysis against numbers worked out by hand: calibration, outcomes, losses, groups by length, the data sheet, the page."""

from __future__ import annotations

import base64
import dataclasses
import datetime
import json
import re

import numpy as np
import pytest
from scipy.optimize import minimize_scalar

import tfbert
from tfbert import analysis, metrics, plots, report, serving, tasks, tokenization
from tfbert._compat import tf
from tfbert.errors import InputError
from tfbert.evaluation import Inference, example_losses
from tfbert.sources import from_iterable

RNG = np.random.default_rng(3)


def softmax(logits):
    powers = np.exp(logits - logits.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)


# ---- calibration


def test_the_temperature_is_where_log_loss_is_least():
    logits = RNG.normal(size=(500, 4)) * 3
    labels = np.array([RNG.choice(4, p=row) for row in softmax(logits / 2.5)])  # honest at temperature 2.5

    def log_loss(temperature):
        scores = softmax(logits / temperature)
        targets = np.eye(4)[labels] * (1 - 1 / 502) + 1 / 502 / 4
        return -(targets * np.log(scores)).sum(-1).mean()

    expected = minimize_scalar(log_loss, bounds=(0.1, 10), method="bounded", options={"xatol": 1e-7}).x
    found = metrics.fit_temperature(labels, softmax(logits))
    assert found == pytest.approx(expected, abs=1e-4) and 2.2 < found < 2.8
    np.testing.assert_allclose(metrics.temper(softmax(logits), found), softmax(logits / found), atol=1e-9)
    right = labels == logits.argmax(-1)
    errors = [
        metrics.expected_calibration_error(right, scores.max(-1))
        for scores in (softmax(logits), softmax(logits / found))
    ]
    assert errors[1] < 0.06 < errors[0]


def test_rows_that_are_all_right_do_not_ask_for_certainty():
    scores = softmax(np.eye(3)[np.arange(30) % 3] * 2.0)
    found = metrics.fit_temperature(np.arange(30) % 3, scores)
    # 1/32 of each target is spread over 3 labels: the right one has 1 - 2/96.
    assert metrics.temper(scores, found).max() == pytest.approx(1 - 2 / 96, abs=1e-4)
    assert metrics.fit_temperature(np.zeros(10_000, int), softmax(np.tile([0.1, 0.0], (10_000, 1)))) == pytest.approx(
        0.1
    )
    assert metrics.fit_temperature([0, 1] * 50, softmax(np.tile([9.0, 0.0], (100, 1)))) == pytest.approx(10)
    with pytest.raises(InputError, match=r"labels are \[3\] for scores \[2, 2\]"):
        metrics.fit_temperature([0, 1, 0], np.ones((2, 2)) / 2)


@pytest.mark.parametrize("kind", ["single", "multi"])
def test_the_temperature_is_tuned_stored_and_in_the_exported_graph(tiny, tmp_path, kind):
    words = [["good"], ["bad"], ["good", "bad"], []]
    rows = [
        {"text": f"{' '.join(words[i % 4])} film {i}", "label": words[i % (2 if kind == "single" else 4)]}
        for i in range(40)
    ]
    rows = [{**row, "label": row["label"][0]} for row in rows] if kind == "single" else rows
    task = tasks.SequenceClassification(kind=kind, max_length=16).from_data(from_iterable(rows))
    model, tokenizer = task.build(tiny, seed=1), tokenization.load_tokenizer(tiny)
    kernel = model.transformer.classifier.weights[0]
    kernel.assign(np.random.default_rng(0).normal(size=kernel.shape))
    inferred = Inference(task, tokenizer, from_iterable(rows))(model)
    tuned = task.tuned(from_iterable(rows), inferred)
    both = inferred["scores"] if kind == "single" else np.stack([1 - inferred["scores"], inferred["scores"]], -1)
    targets = task._targets(from_iterable(rows)).astype(int)
    assert tuned.temperature == pytest.approx(metrics.fit_temperature(targets, both), abs=1e-4)
    assert abs(tuned.temperature - 1) > 0.05
    few = from_iterable(rows[:29])
    assert task.tuned(few, {"scores": inferred["scores"][:29]}).temperature is None
    fixed = dataclasses.replace(task, temperature=1.0)
    assert fixed.tuned(from_iterable(rows), inferred).temperature == 1.0
    again = tasks.by_name(task.name).from_json(json.loads(json.dumps(tuned.to_json())))
    assert again == tuned
    expected = metrics.temper(both, tuned.temperature)
    expected = expected if kind == "single" else expected[..., 1]
    place = serving.export(again, model, tokenizer, tmp_path)
    served = tfbert.Predictor(place)([row["text"] for row in rows])
    np.testing.assert_allclose([row["scores"] for row in served], expected, atol=1e-5)
    if kind == "single":  # with several labels the thresholds are tuned too, and with them what is predicted
        before, after = (
            t.outcomes(from_iterable(rows), Inference(t, tokenizer, from_iterable(rows))(model)) for t in (task, tuned)
        )
        np.testing.assert_array_equal(after.predicted, before.predicted)
        np.testing.assert_allclose(after.confidence_before, before.confidence, atol=1e-5)


# ---- outcomes and details


def test_outcomes_of_single_labels_and_what_follows_from_them(tiny):
    task = tasks.SequenceClassification(labels=("a", "b", "c"), pair=False)
    examples = from_iterable([{"text": "t" * (i + 1), "label": label} for i, label in enumerate("abcca")], "made.csv")
    scores = np.array([[0.7, 0.2, 0.1], [0.5, 0.3, 0.2], [0, 0.1, 0.9], [0.2, 0.6, 0.2], [0.8, 0.1, 0.1]], np.float32)
    found = task.outcomes(examples, {"scores": scores})
    np.testing.assert_array_equal(found.expected, [0, 1, 2, 2, 0])
    np.testing.assert_array_equal(found.predicted, [0, 0, 2, 1, 0])
    np.testing.assert_allclose(found.confidence, [0.7, 0.5, 0.9, 0.6, 0.8])
    features = task.features(tokenization.load_tokenizer(tiny), examples, targets=False)
    losses = np.array([0.1, 0.9, 0.2, 1.5, 0.3])
    details = analysis.details(task, examples, {"scores": scores}, [{"label": "x"}] * 5, features, losses)
    assert details["confusion"]["counts"] == [[2, 0, 0], [1, 0, 0], [0, 1, 1]]
    assert details["confusion"]["top"] == [
        {"expected": "b", "answered": "a", "count": 1},
        {"expected": "c", "answered": "b", "count": 1},
    ]
    assert details["top_losses"] == [3, 1, 4, 2, 0]
    assert [example["right"] for example in details["examples"]] == [True, False, True, False, True]
    assert details["examples"][1] == {
        "where": "row 2 of made.csv",
        "input": {"text": "tt"},
        "expected": {"label": "b"},
        "answer": {"label": "x"},
        "right": False,
        "loss": 0.9,
        "tokens": 4,
        "windows": [{"tokens": 4}],
    }
    assert details["metrics"]["accuracy"] == 0.6 and details["by_length"][0]["examples"] == 5
    json.dumps(details)


def test_outcomes_of_several_labels_are_one_decision_for_each():
    task = tasks.SequenceClassification(
        labels=("a", "b"), kind="multi", pair=False, thresholds=(0.3, 0.5), temperature=2.0
    )
    examples = from_iterable([{"text": "t", "label": ["a"]}, {"text": "u", "label": ["a", "b"]}])
    found = task.outcomes(examples, {"scores": np.array([[0.4, 0.1], [0.2, 0.9]], np.float32)})
    assert found.labels == ("without the label", "with the label")
    np.testing.assert_array_equal(found.example, [0, 0, 1, 1])
    np.testing.assert_array_equal(found.expected, [1, 0, 1, 1])
    np.testing.assert_array_equal(found.predicted, [1, 0, 0, 1])
    np.testing.assert_allclose(found.confidence, [0.4, 0.9, 0.8, 0.9], atol=1e-6)
    squared = [0.16 / (0.16 + 0.36), 0.81 / 0.82, 0.64 / 0.68, 0.81 / 0.82]  # temperature 2 undone: odds squared
    np.testing.assert_allclose(found.confidence_before, squared, atol=1e-6)


def test_outcomes_of_tags_are_those_of_the_words():
    task = tasks.TokenClassification(labels=("O", "B-X", "I-X"))
    examples = from_iterable(
        [{"words": ["ab", "c", "\u200b"], "tags": ["B-X", "I-X", "O"]}, {"words": ["d"], "tags": ["O"]}]
    )
    inferred = {
        "label": np.array([[1, 0], [1, 0]]),
        "score": np.array([[0.9, 0.6], [0.5, 0]], np.float32),
        "start": np.array([[0, 3], [0, 0]]),
        "end": np.array([[2, 4], [1, 0]]),
        "count": np.array([2, 1]),
    }
    found = task.outcomes(examples, inferred)
    np.testing.assert_array_equal(found.example, [0, 0, 0, 1])
    np.testing.assert_array_equal(found.expected, [1, 2, 0, 0])
    np.testing.assert_array_equal(found.predicted, [1, 0, 0, 1])
    np.testing.assert_allclose(found.confidence, [0.9, 0.6, 1, 0.5], atol=1e-6)
    assert task.label_counts(examples) == {"X": 1}


def test_losses_are_those_of_each_example_alone(tiny):
    rows = [{"text": "good film " * (i % 5 + 1), "label": "ab"[i % 2], "weight": 1 + i} for i in range(13)]
    examples = from_iterable(rows)
    task = tasks.SequenceClassification(max_length=16).from_data(examples)
    model, tokenizer = task.build(tiny, seed=1), tokenization.load_tokenizer(tiny)
    found = example_losses(task, model, tokenizer, examples, batch_size=4)
    scores = Inference(task, tokenizer, examples)(model)["scores"]
    np.testing.assert_allclose(found, -np.log([row[i % 2] for i, row in enumerate(scores)]), atol=1e-5)


def test_the_loss_of_a_text_in_windows_is_the_mean_over_its_words(tiny):
    words = "the film and a good plot of it is very dull not great".split()
    tags = ["B-X" if i % 3 else "O" for i in range(len(words))]
    examples = from_iterable([{"words": words, "tags": tags}, {"words": words[:2], "tags": tags[:2]}])
    wide, narrow = (tasks.TokenClassification(max_length=length, stride=2).from_data(examples) for length in (32, 8))
    model, tokenizer = wide.build(tiny, seed=1), tokenization.load_tokenizer(tiny)
    scores = []
    for row in examples:
        ids = tokenizer(" ".join(row["words"]))["input_ids"]
        logits = model({"input_ids": tf.constant([ids]), "attention_mask": tf.ones([1, len(ids)], tf.int32),
                        "token_type_ids": tf.zeros([1, len(ids)], tf.int32)})["logits"].numpy()[0, 1:-1]  # fmt: skip
        scores.append(-np.log([p[wide.labels.index(tag)] for p, tag in zip(softmax(logits), row["tags"])]).mean())
    np.testing.assert_allclose(example_losses(wide, model, tokenizer, examples), scores, atol=1e-5)
    found = example_losses(narrow, model, tokenizer, examples)
    assert found[1] == pytest.approx(scores[1], abs=1e-5) and np.isfinite(found[0]) and abs(found[0] - scores[0]) > 1e-5
    details = tfbert.evaluate(narrow, model, tokenizer, examples, details=True)
    windows = details["examples"][0]["windows"]
    text = " ".join(words)
    assert len(windows) > 1 and windows[0]["start"] == 0 and windows[-1]["end"] == len(text)
    for one, after in zip(windows, windows[1:]):
        assert one["tokens"] <= 8 and after["start"] < one["end"]  # they overlap


def test_groups_by_length_hold_every_example_once():
    task = tasks.SequenceClassification(labels=("a", "b"), pair=False)
    count = 53
    examples = from_iterable([{"text": "t", "label": "ab"[i % 2]} for i in range(count)])
    scores = RNG.dirichlet([1, 1], count).astype(np.float32)
    tokens = RNG.integers(3, 60, count)
    groups = analysis.by_length(task, examples, {"scores": scores}, tokens)
    assert len(groups) == 5 and sum(group["examples"] for group in groups) == count
    hits = scores.argmax(-1) == np.arange(count) % 2
    assert sum(group["metrics"]["accuracy"] * group["examples"] for group in groups) == pytest.approx(hits.sum())
    for one, after in zip(groups, groups[1:]):
        assert one["tokens"][1] <= after["tokens"][0]


# ---- data sheet and page


def test_the_data_sheet_counts(tiny):
    train = [
        {"text": "A good film", "label": "a", "weight": 1.0},
        {"text": "a  GOOD film", "label": "a", "weight": 2.0},  # the same text
        {"text": "a good film", "label": "b"},  # and another label
        {"text": "the " * 20, "label": "b"},
        {"text": "dull", "label": "b"},
    ]
    test = [{"text": "Dull", "label": "a"}, {"text": "new", "label": "a"}]
    parts = {"train": from_iterable(train), "test": from_iterable(test)}
    task = tasks.SequenceClassification(max_length=8).from_data(parts["train"])
    sheet = analysis.data_sheet(task, tokenization.load_tokenizer(tiny), parts)
    dated = [{**row, "day": datetime.date(2024, 1, 1 + i), "id": i} for i, row in enumerate(train)]
    again = analysis.data_sheet(task, tokenization.load_tokenizer(tiny), {"train": from_iterable(dated)})
    assert again["train"] == sheet["train"]
    histogram = sheet["train"].pop("histogram")
    assert sheet["train"] == {
        "rows": 5,
        "labels": {"b": 3, "a": 2},
        "tokens": {"median": 5, "95 %": 18, "most": 22},
        "longer": 1,
        "duplicates": 2,
        "contradictions": 1,
    }
    assert sum(histogram[0]) == 5 and sheet["test"]["in_train"] == 1 and sheet["test"]["longer"] == 0
    json.dumps(sheet)


@pytest.fixture(scope="module")
def tuned(shallow, tmp_path_factory):
    words = {"<b>good</b>": "good lovely great", "$bad$": "bad awful dull"}
    rows = [
        {"text": f"<script>alert(1)</script> {word} film {i}", "label": label}
        for i in range(40)
        for label, said in words.items()
        for word in said.split()
    ]
    return tfbert.fine_tune(
        tasks.SequenceClassification(max_length=32), shallow, rows[:200], test=rows[200:], epochs=2, learning_rate=5e-3,
        directory=tmp_path_factory.mktemp("report") / "run", export=False,
    )  # fmt: skip


def test_the_page_is_whole_safe_and_alone(tuned):
    page = (tuned.directory / "report.html").read_text("utf-8")
    pictures = re.findall(r'src="data:image/png;base64,([^"]+)"', page)
    assert len(pictures) == page.count("<img") == 7
    for picture in pictures:
        assert base64.b64decode(picture).startswith(b"\x89PNG\r\n\x1a\n")
    assert "<script" not in page and "&lt;script&gt;alert(1)" in page and "&lt;b&gt;good&lt;/b&gt;" in page
    assert not re.search(r'(src|href)="(?!data:)', page) and "http" not in page
    assert "rows whose text is in the training data" in page and "task.temperature" in page
    metrics_file = json.loads((tuned.directory / "metrics.json").read_text("utf-8"))
    assert metrics_file["data"]["test"]["rows"] == 40 and f"{metrics_file['test']['accuracy']:.4g}" in page
    assert sorted(metrics_file["data"]["train"]["labels"]) == ["$bad$", "<b>good</b>"]


@pytest.mark.parametrize("labels", [2, 45])
def test_the_page_of_many_labels_shows_the_lowest(tuned, labels):
    details = tfbert.evaluate(
        tuned.task, tuned.model, tuned.tokenizer, [{"text": "a film", "label": "$bad$"}], details=True
    )
    names = [f"label {i}" for i in range(labels)]
    details["by_label"] = {name: {"f1": i / labels, "support": 3} for i, name in enumerate(names)}
    details["confusion"] = {"labels": names, "counts": np.eye(labels, dtype=int).tolist(), "top": []}
    page = report.html(tuned.task, tuned.metrics, tuned.history, details)
    assert ("The 40 lowest of 45 labels." in page) == (labels == 45)
    assert ('alt="Confusion matrix"' in page) == (labels == 2) and "Nothing was confused." in page


def test_without_matplotlib_a_report_asked_for_is_an_error_before_the_work(monkeypatch, shallow, tmp_path):
    monkeypatch.setattr(plots, "available", lambda: False)
    rows = [{"text": f"a {i}", "label": "ab"[i % 2]} for i in range(40)]
    task = tasks.SequenceClassification(max_length=8)
    with pytest.raises(InputError, match=r"a report needs matplotlib.*pip install matplotlib"):
        tfbert.fine_tune(task, shallow, rows, directory=tmp_path / "a", report=True)
    assert not (tmp_path / "a").exists()
    tfbert.fine_tune(task, shallow, rows, directory=tmp_path / "b", epochs=1, export=False)
    assert not (tmp_path / "b" / "report.html").exists() and (tmp_path / "b" / "metrics.json").exists()


def test_a_report_that_fails_costs_nobody_a_training(monkeypatch, shallow, tmp_path):
    def broken(*_):
        raise MemoryError

    monkeypatch.setattr("tfbert.training.html", broken)
    rows = [{"text": f"a {i}", "label": "ab"[i % 2]} for i in range(40)]
    with pytest.raises(MemoryError):
        tfbert.fine_tune(
            tasks.SequenceClassification(max_length=8), shallow, rows, directory=tmp_path / "a", epochs=1, export=False
        )
    kept = tfbert.load(tmp_path / "a")
    assert kept.metrics["rows"]["train"] == 36 and not (tmp_path / "a" / "report.html").exists()
