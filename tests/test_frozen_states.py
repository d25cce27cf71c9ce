"""The states of frozen layers, computed once: those that TF Transformers computes, and a training with the numbers of one without them."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
from test_contract import CASES
from test_training import OPTIONS, TASK, TEST, TRAIN, VALIDATION

import tfbert
from tfbert import frozen_states, models, pipeline, training
from tfbert._compat import keras, tf
from tfbert.errors import InputError
from tfbert.evaluation import Inference
from tfbert.frozen_states import FrozenStates
from tfbert.models.training_model import FromStates
from tfbert.sources import from_iterable

KINDS = ("windows", "choices", "embedding, cosine", "tokens", "questions")


def built(tiny, name: str, freeze: str):
    task, examples = CASES[name]
    examples = from_iterable(examples, "made.csv")
    task = task.from_data(examples)
    model = task.build(tiny, seed=1)
    models.freeze(model, freeze)
    return task, model, tfbert.load_tokenizer(tiny), examples


def test_each_rung_has_the_hidden_states_of_tf_transformers(tiny, tmp_path):
    task, model, tokenizer, examples = built(tiny, "single", "encoder")
    features = task.features(tokenizer, examples)
    states = FrozenStates(model, features, [0, 1, 2, 3], tmp_path)
    assert models.frozen_rung(model) == 3 and not list(tmp_path.iterdir())
    plain = models.load(tiny, None, encoder="transformers")
    rows = [5, 0, 17]
    tables = pipeline.Tables.of(features)
    inputs = tables.inputs(tf.constant(rows, tf.int64))
    expected = plain(inputs, output_hidden_states=True).hidden_states
    mask = inputs["attention_mask"].numpy()[..., np.newaxis]
    arguments = tf.constant(rows, tf.int64), tf.constant(0, tf.int64), tf.constant(mask.shape[1], tf.int64)
    found = {rung: states.beside([rung])[models.STATES](*arguments).numpy() for rung in range(4)}
    assert found[0].shape == found[1].shape == (3, 0, 32)
    np.testing.assert_allclose(found[2], expected[1] * mask, atol=2e-6)
    np.testing.assert_allclose(found[3], expected[2][:, :1], atol=2e-6)  # the head reads the first token only
    assert states.bytes == 4 * 32 * (int(features.lengths.sum()) + len(examples))
    assert FrozenStates(model, features, [2, 3], tmp_path, "bfloat16").bytes == states.bytes / 2


@pytest.mark.parametrize(
    "kind, freeze", [*((kind, "embeddings,layers[:1]") for kind in KINDS), ("single", "encoder"), ("tokens", "encoder")]
)
def test_outputs_and_learning_are_those_of_the_whole_model(tiny, tmp_path, kind, freeze):
    task, model, tokenizer, examples = built(tiny, kind, freeze)
    features = task.features(tokenizer, examples)
    rung = models.frozen_rung(model)
    states = FrozenStates(model, features, [rung], tmp_path)
    beside = dataclasses.replace(features, beside=states.beside([rung]))
    trained = []
    for each, learner in ((features, model), (beside, FromStates(model))):
        changing = [*models.weights_in_order(model), *models.random_state(model)]  # dropout's numbers among them
        begin = [variable.numpy() for variable in changing]
        # Not Adam: it makes whole steps of the rounding where a gradient is 0, such as that of a key's bias.
        learner.compile(keras.optimizers.SGD(0.05), loss=task.loss())
        data = pipeline.batches(each, batch_size=8, training=True, seed=3)
        losses = learner.fit(data, epochs=2, verbose=0).history["loss"]
        trained.append((losses, [variable.numpy() for variable in models.weights_in_order(model)]))
        for variable, value in zip(changing, begin, strict=True):
            variable.assign(value)
    np.testing.assert_allclose(trained[0][0], trained[1][0], rtol=1e-5)
    moved = 0
    for mine, other, before in zip(trained[0][1], trained[1][1], begin):
        np.testing.assert_allclose(mine, other, atol=2e-5)
        moved += not np.array_equal(mine, before)
    assert moved

    inference = Inference(task, tokenizer, examples)
    expected = inference(model)
    inference.frozen = FrozenStates(model, inference.features, [rung], tmp_path)
    # What lies below is not computed again: without its weights the answers are the same.
    table = models.word_embeddings(model)
    table.assign(np.full(table.shape, np.nan))
    found = inference(FromStates(model))
    for name, values in expected.items():
        np.testing.assert_allclose(found[name], values, atol=2e-5, err_msg=name)


def test_another_rung_is_traced_anew(tiny, tmp_path):
    task, model, tokenizer, examples = built(tiny, "single", "encoder")
    inference = Inference(task, tokenizer, examples)
    expected = inference(model)
    inference.frozen = FrozenStates(model, inference.features, [2, 3], tmp_path)
    learner = FromStates(model)
    for freeze in ("encoder", "embeddings,layers[:1]", "embeddings"):
        models.unfreeze(model)
        models.freeze(model, freeze)
        found = inference(learner)
        np.testing.assert_allclose(found["scores"], expected["scores"], atol=1e-6, err_msg=freeze)


def fine_tune(tiny, place, **options):
    options = {**OPTIONS, "epochs": 3, "export": False, **options}
    return training.fine_tune(TASK, tiny, TRAIN, VALIDATION, test=TEST, directory=place, **options)


WAYS = {
    "lower layers, accumulated": {"freeze": "embeddings,layers[:1]", "accumulate": 2, "r_drop": 0.5},
    "gradual unfreezing": {"unfreeze": "gradual"},
    "a plan, averages": {"unfreeze": "0: head; 2: pooler, layers[-1]", "ema": 0.9, "schedule": "slanted-triangular"},
    "feature extraction, XLA": {"freeze": "encoder", "xla": "on"},
    "bfloat16": {"freeze": "encoder", "precision": "bfloat16"},
}


@pytest.fixture(scope="module")
def gradual(tiny, tmp_path_factory):
    return fine_tune(tiny, tmp_path_factory.mktemp("gradual") / "auto", **WAYS["gradual unfreezing"])


@pytest.mark.parametrize("way", WAYS)
def test_fine_tune_has_the_scores_of_the_run_without_the_file(tiny, tmp_path, way, request):
    each = fine_tune(tiny, tmp_path / "off", frozen_cache="off", **WAYS[way])
    shared = way == "gradual unfreezing"
    once = request.getfixturevalue("gradual") if shared else fine_tune(tiny, tmp_path / "auto", **WAYS[way])
    assert once.metrics["frozen_cache_bytes"] > 0 and "frozen_cache_bytes" not in each.metrics
    tolerance = 2e-2 if way == "bfloat16" else 1e-4
    for mine, other in zip(once.history, each.history, strict=True):
        np.testing.assert_allclose(mine["loss"], other["loss"], rtol=tolerance)
        if way != "bfloat16":
            assert mine["val_accuracy"] == other["val_accuracy"]
    for mine, other in zip(once.model.weights, each.model.weights, strict=True):
        if "key/bias" not in mine.name:  # its gradient is 0, and Adam makes whole steps of the rounding
            np.testing.assert_allclose(mine.numpy(), other.numpy(), atol=tolerance, err_msg=mine.name)
    if way != "bfloat16":
        assert once.metrics["metrics"]["accuracy"] == each.metrics["metrics"]["accuracy"]
    assert once.metrics["layer_groups"] == each.metrics["layer_groups"]
    assert [path.name for path in once.directory.parent.iterdir() if path.name != "off"] == ["auto"]
    assert [path.name for path in each.directory.parent.iterdir() if path.name != "auto"] == ["off"]


def test_half_the_size_on_request_and_close(tiny, tmp_path):
    full, half = (
        fine_tune(tiny, tmp_path / cache, frozen_cache=cache, freeze="encoder") for cache in ("auto", "bfloat16")
    )
    assert half.metrics["frozen_cache_bytes"] * 2 == full.metrics["frozen_cache_bytes"]
    np.testing.assert_allclose([row["loss"] for row in half.history], [row["loss"] for row in full.history], rtol=2e-2)


def test_gradual_unfreezing_is_told_by_group(gradual):
    groups = json.loads((gradual.directory / "metrics.json").read_text())["layer_groups"]
    assert {name: group.get("from_epoch") for name, group in groups.items()} == {
        "embeddings": None,
        "layers[0]": 3,
        "layers[1]": 2,
        "pooler": 2,
        "head": 1,
    }
    assert groups["embeddings"]["trainable"] == 0 and groups["layers[0]"]["trainable"] > 0
    assert gradual.metrics["trainable_parameters"] == sum(group["trainable"] for group in groups.values())
    rates = tfbert.report._rates(gradual.metrics, 3)
    steps = gradual.metrics["steps"]
    assert list(rates) == ["layers[0]", "layers[1]", "pooler", "head"]
    assert not rates["layers[0]"][: 2 * steps].any() and rates["layers[0]"][2 * steps] == rates["head"][2 * steps] > 0


def test_without_room_on_the_disk_each_epoch_computes_them(tiny, tmp_path, monkeypatch, capsys):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(frozen_states.os, "posix_fallocate", full, raising=False)
    tuned = fine_tune(tiny, tmp_path / "auto", freeze="encoder", epochs=2)
    assert "frozen_cache_bytes" not in tuned.metrics
    told = r"need 0\.0 GiB in .*: No space left on device; keep them in bfloat16 \(--frozen-cache bfloat16\)"
    assert "No space left on device" in capsys.readouterr().err
    with pytest.raises(InputError, match=told):
        fine_tune(tiny, tmp_path / "half", freeze="encoder", epochs=2, frozen_cache="bfloat16")


def test_mistakes_are_told(tiny, tmp_path):
    for options, message in (
        ({"frozen_cache": "of"}, "frozen_cache is 'of'; it must be one of auto, bfloat16, off. Did you mean 'off'"),
        ({"unfreeze": "gradually"}, "cannot read the plan 'gradually'; write gradual, or epochs counted from 0"),
        ({"unfreeze": "1: head"}, "plan has the epochs .1.; give whole numbers from 0"),
        ({"unfreeze": "0: head; 0: encoder"}, "cannot read the plan"),
        ({"unfreeze": "0: hed"}, "there is no group 'hed'; Did you mean 'head'"),
        ({"unfreeze": "gradual", "freeze": "embeddings"}, "leave one of the two out"),
        ({"unfreeze": "gradual", "lora": 2}, "leave one of the two out"),
    ):
        with pytest.raises(InputError, match=message):
            fine_tune(tiny, tmp_path / "wrong", **options)
    assert not list(tmp_path.iterdir())
