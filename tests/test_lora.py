"""LoRA: the sum by NumPy, gradients by another model, what learns, and that a merged or saved model is an ordinary one."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from test_groups import BATCH, LABELS, build

from tfbert import SequenceClassification, load_tokenizer, models, predict
from tfbert._compat import keras, tf
from tfbert.errors import InputError

NO_DROPOUT = {
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
    "num_hidden_layers": 2,
    "initializer_range": 0.3,
}
QUERY = "layer_._1/attention/self/query"


def logits(model):
    return np.asarray(model(BATCH, training=False).logits)


def named(model) -> dict:
    return {variable.name.split("/", 1)[1].removesuffix(":0"): variable for variable in model.weights}


def learned(lean=True, family="Bert", **options):
    """A model with LoRA whose small matrices are not zero any more."""
    model = build(family, lean=lean, **NO_DROPOUT)
    models.add_lora(model, 2, alpha=6.0, **options)
    random = np.random.default_rng(0)
    for name, variable in named(model).items():
        if "lora_up" in name:
            variable.assign(random.normal(0, 0.5, variable.shape))
    return model


@pytest.mark.parametrize("lean", [False, True])
def test_the_model_computes_what_it_did_until_it_has_learned_and_then_the_sum(lean):
    plain = build(lean=lean, **NO_DROPOUT)
    model = build(lean=lean, **NO_DROPOUT)
    models.add_lora(model, 2)
    np.testing.assert_array_equal(logits(model), logits(plain))
    model = learned(lean, targets=("query", "value", "down"))
    found = named(model)
    for name, variable in named(plain).items():
        place = name.removesuffix("/kernel")
        if f"{place}/lora_up" in found:
            down, up = (found[f"{place}/lora_{part}"].numpy() for part in ("down", "up"))
            variable.assign(variable + 3.0 * down @ up)
    assert np.abs(logits(model) - logits(build(lean=lean, **NO_DROPOUT))).max() > 1e-2
    np.testing.assert_allclose(logits(model), logits(plain), atol=1e-5, rtol=0)


def test_the_small_matrices_and_the_head_learn_with_the_gradients_of_the_chain_rule():
    model = learned()
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    trained = {name for name, each in named(model).items() if any(each is other for other in model.trainable_weights)}
    sizes = 2 * 2 * (8 * 2 + 2 * 8) + 8 * 3 + 3
    assert models.count_parameters(model)["all"]["trainable"] == sizes
    assert {name.rsplit("/", 1)[1] for name in trained if "classifier" not in name} == {"lora_down", "lora_up"}
    with tf.GradientTape() as tape:
        value = loss(LABELS, model(BATCH, training=True).logits)
    found = named(model)
    down, up = (found[f"bert/encoder/{QUERY}/lora_{part}"] for part in ("down", "up"))
    mine = tape.gradient(value, [down, up])
    models.merge_lora(model)
    kernel = named(model)[f"bert/encoder/{QUERY}/kernel"]
    with tf.GradientTape() as tape:
        value = loss(LABELS, model(BATCH, training=False).logits)
    whole = tape.gradient(value, kernel).numpy()
    np.testing.assert_allclose(mine[0], 3.0 * whole @ up.numpy().T, atol=1e-6)
    np.testing.assert_allclose(mine[1], 3.0 * down.numpy().T @ whole, atol=1e-6)


@pytest.mark.parametrize("family", ["Bert", "Albert", "DistilBert"])
def test_merged_is_unmerged_and_an_ordinary_model(family):
    model = learned(family=family)
    before, names = logits(model), [v.name for v in build(family, **NO_DROPOUT).weights]
    models.merge_lora(model)
    np.testing.assert_allclose(logits(model), before, atol=1e-5, rtol=0)
    models.unfreeze(model)
    assert [v.name.split("/", 1)[1] for v in model.weights] == [name.split("/", 1)[1] for name in names]
    assert len(model.trainable_weights) == len(names)
    models.merge_lora(model)  # nothing to do
    np.testing.assert_allclose(logits(model), before, atol=1e-5, rtol=0)


def test_training_moves_nothing_else_and_what_is_saved_is_the_sum(tiny, tmp_path):
    model = models.load(tiny, "sequence-classification", num_labels=3)
    models.add_lora(model, 4)
    before = {name: variable.numpy() for name, variable in named(model).items()}
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(0.05), loss=loss)
    model.fit(BATCH, LABELS, batch_size=4, epochs=3, verbose=0)
    moved = {name for name, variable in named(model).items() if not np.array_equal(variable.numpy(), before[name])}
    assert all("lora" in name or "classifier" in name for name in moved) and any("lora_down" in name for name in moved)
    expected = logits(model)
    models.save(model, tmp_path / "saved")
    again = models.load(tmp_path / "saved", "sequence-classification")
    assert again.load_report == models.LoadReport(str(tmp_path / "saved"), (), (), ())
    np.testing.assert_allclose(logits(again), expected, atol=1e-5, rtol=0)


def test_predict_traces_a_model_once_until_its_variables_are_others(tiny, monkeypatch):
    task, tokenizer = SequenceClassification(labels=("bad", "good"), max_length=12), load_tokenizer(tiny)
    model, texts, traces = task.build(tiny, seed=1), ["a good film", "dull"], []
    outputs = SequenceClassification.outputs
    monkeypatch.setattr(SequenceClassification, "outputs", lambda *given: [traces.append(given[0]), outputs(*given)][1])

    def scores(task=task):
        return [row["scores"] for row in predict(task, model, tokenizer, texts)]

    plain = scores()
    assert scores() == plain and len(predict(task, model, tokenizer, texts * 40)) == 80 and len(traces) == 1
    models.add_lora(model, 2)
    scores()
    for variable in model.trainable_weights:
        if "lora_up" in variable.name:
            variable.assign_add(tf.ones_like(variable))
    learned = scores()
    assert np.abs(np.subtract(learned, plain)).max() > 1e-3
    models.merge_lora(model)
    np.testing.assert_allclose(scores(), learned, atol=1e-5)
    assert len(traces) == 2  # the first is that of the merged model too
    assert scores(dataclasses.replace(task, max_length=10)) == scores() and len(traces) == 3


def test_mistakes_are_told():
    for options, message in (
        ({"targets": ["querry"]}, "no target 'querry'; Did you mean 'query'"),
        ({"rank": 9}, "rank is 9; give a whole number from 1 to 8"),
    ):
        with pytest.raises(InputError, match=message):
            models.add_lora(build(**NO_DROPOUT), **options)
    model = learned()
    with pytest.raises(InputError, match="has LoRA already; merge_lora first"):
        models.add_lora(model)
    with pytest.raises(InputError, match="LoRA knows the layers of bert, electra"):
        models.add_lora(build("MPNet"))
