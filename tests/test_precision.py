"""Exports in bfloat16 and int8: their numbers, their size, what they cost on labelled data, and when they are refused."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from test_lean import batch, build

import tfbert
from tfbert import AdamW, _compat, evaluation, models, tokenization
from tfbert._compat import tf
from tfbert.errors import InputError
from tfbert.models import lean, served
from tfbert.serving import Predictor, export
from tfbert.serving.layout import INFORMATION
from tfbert.tasks import SequenceClassification

LABELS = ("bad", "fine", "good")
WORDS = "good bad fine great awful film plot actor scene boring lovely dull bright".split()
TEXTS = [f"{a} {b} the {c}" for a in WORDS[:5] for b in WORDS[5:9] for c in WORDS[9:]]


def by_columns(matrix: np.ndarray) -> np.ndarray:
    """A matrix as int8 with a scale for each column can hold it, element by element."""
    made = np.empty_like(matrix)
    for j in range(matrix.shape[1]):
        step = max(abs(matrix[:, j])) / 127
        made[:, j] = np.round(matrix[:, j] / step) * step
    return made


# numbers


def test_a_matrix_in_int8_is_numpys():
    rng = np.random.default_rng(1)
    x, kernel, bias = (rng.normal(size=size).astype(np.float32) for size in ((5, 12), (12, 7), 7))
    kernel[:, 2] *= 100
    found = served.Matrix(kernel, bias, "int8").product(tf.constant(x)).numpy()
    np.testing.assert_allclose(found, x @ by_columns(kernel) + bias, rtol=1e-5, atol=1e-4)
    assert np.abs(found - (x @ kernel + bias)).max() > 1e-2
    rows = served.Matrix(kernel, None, "int8").rows(tf.constant([3, 3, 11])).numpy()
    np.testing.assert_allclose(rows, by_columns(kernel.T).T[[3, 3, 11]], atol=1e-5)


def test_a_matrix_in_bfloat16_keeps_eight_bits():
    rng = np.random.default_rng(2)
    table = rng.normal(size=(9, 4)).astype(np.float32)
    found = served.Matrix(table, None, "bfloat16").rows(tf.constant([8, 0])).numpy()
    mantissa, exponent = np.frexp(table[[8, 0]])
    np.testing.assert_array_equal(found, np.ldexp(np.round(mantissa * 256) / 256, exponent))


@pytest.mark.parametrize("few", [0, 128])
@pytest.mark.parametrize("family", ["bert", "roberta", "electra", "albert, two groups of two", "distilbert"])
@pytest.mark.parametrize("first_token", [True, False])
def test_int8_gives_what_float32_gives_with_rounded_weights(family, first_token, few, monkeypatch):
    monkeypatch.setattr("tfbert.models.few_tokens.FEW", few)  # tokens up to which hidden states are columns
    model = build(family, "ForSequenceClassification" if first_token else "ForTokenClassification")
    lean.put(model, first_token=first_token)
    features = batch(model)
    real = features["attention_mask"] > 0
    exact = model(features).logits.numpy()
    signature = {name: tf.TensorSpec([None, None], tf.int32) for name in features}
    weights = lean.for_answers(model, "int8")
    with weights.in_use():
        graph = tf.function(lambda x: model(x, training=False).logits).get_concrete_function(signature)
    found = graph(features).numpy()
    encoder = vars(getattr(model, model.base_model_prefix))["lean"]
    parts = encoder.parts(encoder.main)
    table = parts.embeddings.weight
    table.assign(by_columns(table.numpy().T).T)
    projections = {
        id(each): each
        for layer in parts.layers
        for each in (layer.query, layer.key, layer.value, layer.output, layer.up, layer.down)
    }
    for each in [*projections.values(), *([parts.project] if parts.project is not None else [])]:
        each.kernel.assign(by_columns(each.kernel.numpy()))
    rounded = model(features).logits.numpy()
    chosen = slice(None) if first_token else real
    np.testing.assert_allclose(found[chosen], rounded[chosen], atol=2e-4)
    assert np.abs(rounded - exact)[chosen].max() > 1e-3


@pytest.mark.parametrize("family", ["bert", "electra", "distilbert"])
def test_bfloat16_computes_in_bfloat16_and_stays_near_float32(family):
    model = build(family, "ForTokenClassification")
    lean.put(model)
    features = batch(model)
    real = features["attention_mask"] > 0
    exact = model(features).logits.numpy()[real]
    signature = {name: tf.TensorSpec([None, None], tf.int32) for name in features}
    weights = lean.for_answers(model, "bfloat16")
    with weights.in_use():
        graph = tf.function(lambda x: model(x, training=False).logits).get_concrete_function(signature)
    found = graph(features)
    assert found.dtype == tf.float32
    error = np.linalg.norm(found.numpy()[real] - exact) / np.linalg.norm(exact)
    assert 1e-4 < error < 0.05
    products = [node for node in graph.graph.get_operations() if node.type in ("MatMul", "BatchMatMulV2")]
    assert sum(node.outputs[0].dtype == tf.bfloat16 for node in products) >= 6 * 3
    table = model.get_input_embeddings().weight
    assert table.ref() not in {variable.ref() for variable in graph.variables}  # no second copy


def test_a_model_without_the_lean_encoder_has_no_lower_precision(tiny):
    model = models.as_keras(models.load(tiny, "sequence-classification", num_labels=3, encoder="transformers"))
    assert models.for_answers(model).variables == []
    with pytest.raises(InputError, match="precision is 'int8', which needs the lean encoder.*take float32"):
        models.for_answers(model, "int8")


# exports


@pytest.fixture(scope="module")
def fitted(tiny, tmp_path_factory) -> SimpleNamespace:
    """A model, labelled examples on which it is always right, and its export in each precision."""
    task = SequenceClassification(labels=LABELS, pair=False, max_length=24)
    model, tokenizer = task.build(tiny, seed=3), tokenization.load_tokenizer(tiny)
    rng = np.random.default_rng(5)
    kernel, bias = model.trainable_weights[-2:]
    kernel.assign(2 * rng.normal(size=kernel.shape).astype(np.float32))
    scores = [answer["scores"] for answer in evaluation.predict(task, model, tokenizer, TEXTS)]
    bias.assign(-np.log(scores).mean(0))  # so that every label is some text's
    answers = evaluation.predict(task, model, tokenizer, TEXTS)
    sure = [(sorted(a["scores"])[-1] - sorted(a["scores"])[-2], a["label"], t) for a, t in zip(answers, TEXTS)]
    examples = [{"text": text, "label": label} for margin, label, text in sure if margin > 0.05]
    assert {row["label"] for row in examples} == set(LABELS) and len(examples) > 20
    base = tmp_path_factory.mktemp("precisions")
    made = {
        name: export(task, model, tokenizer, base / name, precision=name, data=examples, target="2.19")
        for name in served.PRECISIONS
    }
    return SimpleNamespace(task=task, model=model, tokenizer=tokenizer, examples=examples, made=made)


def test_each_precision_answers_from_disk_near_float32(fitted):
    exact = Predictor(fitted.made["float32"], verify=True)(TEXTS)
    for name, limit in (("bfloat16", 0.05), ("int8", 0.05)):
        found = Predictor(fitted.made[name], verify=True)(TEXTS)
        gaps = [np.abs(np.subtract(a["scores"], b["scores"])).max() for a, b in zip(found, exact)]
        assert 1e-5 < max(gaps) < limit
        assert all(a["label"] == b["label"] for a, b, gap in zip(found, exact, gaps) if b["score"] > 0.55)


def test_a_process_whose_weights_are_said_to_be_frozen_answers_alike(fitted):
    """README advises so for servers: oneDNN keeps each product's weights as it has them for the first request."""
    program = (
        "import json, sys\n"
        "from tfbert.serving import Predictor\n"
        "places, requests = json.load(sys.stdin)\n"
        "predictors = [Predictor(place) for place in places]\n"
        "print(json.dumps([[predictor(texts) for texts in requests] for predictor in predictors]))\n"
    )
    requests = [TEXTS[:1], TEXTS, TEXTS[3:9], [" ".join(TEXTS)[:900]] * 9]
    places = [str(place) for place in fitted.made.values()]
    done = subprocess.run(
        [sys.executable, "-c", program],
        input=json.dumps([places, requests]),
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(tfbert.__file__).parents[1]), _compat.FROZEN_WEIGHTS: "1"},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    for place, answers in zip(places, json.loads(done.stdout), strict=True):
        expected = [Predictor(place)(texts) for texts in requests]
        for found, wanted in zip(sum(answers, []), sum(expected, []), strict=True):
            np.testing.assert_allclose(found["scores"], wanted["scores"], atol=0.02 if "bfloat16" in place else 1e-5)


@pytest.mark.parametrize("value", ["1", "true", "TRUE"])
def test_no_training_begins_where_weights_are_said_to_be_frozen(value, tiny, tmp_path, monkeypatch):
    monkeypatch.setenv(_compat.FROZEN_WEIGHTS, value)
    message = f"{_compat.FROZEN_WEIGHTS}={value} makes .* it is for servers. Unset it and begin a new process"
    with pytest.raises(InputError, match=message):
        AdamW(1e-3)
    with pytest.raises(InputError, match=message):
        tfbert.fine_tune(SequenceClassification(), tiny, "absent.csv", directory=tmp_path / "run")
    assert not (tmp_path / "run").exists()
    for allowed in ("0", "false", ""):
        monkeypatch.setenv(_compat.FROZEN_WEIGHTS, allowed)
        AdamW(1e-3)


def stored(place: Path) -> dict[str, int]:
    """The bytes on disk of the variables of an export, by their dtype."""
    reader = tf.train.load_checkpoint(str(place / "variables" / "variables"))
    dtypes, found = reader.get_variable_to_dtype_map(), {}
    for name, shape in reader.get_variable_to_shape_map().items():
        if dtypes[name] != tf.string:
            found[dtypes[name].name] = found.get(dtypes[name].name, 0) + int(np.prod(shape)) * dtypes[name].size
    return found


def test_matrices_take_half_or_a_quarter_of_the_bytes(fitted):
    whole, half, quarter = (stored(fitted.made[name]) for name in served.PRECISIONS)
    assert whole.keys() == {"float32"} and half.keys() == {"bfloat16", "float32"}
    words = fitted.model.transformer.config.vocab_size
    kernels = 2 * (4 * 32 * 32 + 2 * 32 * 64)
    assert quarter["int8"] == kernels + 32 * words
    assert half["bfloat16"] == 2 * (kernels + 32 * words + 2 * (5 * 32 + 64 + 32 - 32))
    data = {
        name: (place / "variables" / "variables.data-00000-of-00001").stat().st_size
        for name, place in fitted.made.items()
    }
    assert data["int8"] < data["bfloat16"] < data["float32"]
    assert data["float32"] - data["int8"] == pytest.approx(3 * quarter["int8"], rel=0.1)


def test_both_scores_are_stored(fitted):
    for name, place in fitted.made.items():
        information = json.loads((place / INFORMATION).read_text(encoding="utf-8"))
        assert information["precision"] == name
        expected = evaluation.evaluate(fitted.task, fitted.model, fitted.tokenizer, fitted.examples)
        assert information["scores"]["model"] == pytest.approx(expected, abs=1e-6)
        assert information["scores"]["model"]["accuracy"] == 1
        rows = Predictor(place)([row["text"] for row in fitted.examples])
        right = np.mean([row["label"] == example["label"] for row, example in zip(rows, fitted.examples)])
        assert information["scores"]["export"]["accuracy"] == pytest.approx(right)


def test_an_export_that_loses_too_much_is_refused(fitted, tmp_path, monkeypatch):
    arguments = (fitted.task, fitted.model, fitted.tokenizer, tmp_path / "out")
    eight_bits = served.rounded

    def one_bit(matrix, axis):
        numbers, scale = eight_bits(matrix, axis)
        return np.sign(numbers).astype(np.int8), scale * 40

    monkeypatch.setattr(served, "rounded", one_bit)
    with pytest.raises(
        InputError, match=r"in int8 accuracy is 0\.\d+, the model's 1\.0000: worse by more than max_drop, 0.01"
    ):
        export(*arguments, precision="int8", data=fitted.examples)
    assert list((tmp_path / "out").iterdir()) == []


def test_what_cannot_be_measured_is_refused_before_the_work(fitted, tmp_path):
    arguments = (fitted.task, fitted.model, fitted.tokenizer, tmp_path / "out")
    for settings, told in (
        ({"precision": "int8"}, r"there is no data to measure what that costs; give data \(--data FILE\)"),
        ({"precision": "int8", "data": []}, "data is empty"),
        ({"precision": "int8", "data": [{"text": "a", "label": "odd"}]}, "odd"),
        ({"precision": "bfloat61", "data": fitted.examples}, "Did you mean 'bfloat16'"),
        ({"precision": "int8", "data": fitted.examples, "max_drop": 2}, "max_drop is 2; it must be from 0 to 1"),
    ):
        with pytest.raises(InputError, match=told):
            export(*arguments, **settings)
    assert not (tmp_path / "out").exists()
