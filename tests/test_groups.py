"""Layer groups of every family; what is frozen stays to the bit, costs no backward pass, and computes as in serving."""

from __future__ import annotations

import numpy as np
import pytest

from tfbert import models
from tfbert._compat import keras, tf, transformers
from tfbert.errors import InputError
from tfbert.models.lean import put
from tfbert.models.loading import quiet

SIZES = {
    "vocab_size": 40,
    "hidden_size": 8,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "intermediate_size": 16,
    "max_position_embeddings": 12,
}
LAYERS = ["layers[0]", "layers[1]", "layers[2]"]
FAMILIES = {
    "Bert": ({}, ["embeddings", *LAYERS, "pooler", "head"]),
    "Roberta": ({}, ["embeddings", *LAYERS, "head"]),
    "Electra": ({"embedding_size": 4}, ["embeddings", *LAYERS, "head"]),
    "MPNet": ({}, ["embeddings", *LAYERS, "pooler", "head"]),
    "DebertaV2": ({}, ["embeddings", *LAYERS, "pooler", "head"]),
    "DistilBert": ({"dim": 8, "n_layers": 3, "n_heads": 2, "hidden_dim": 16}, ["embeddings", *LAYERS, "head"]),
    "Albert": ({"embedding_size": 4}, ["embeddings", "layers[0:3]", "pooler", "head"]),
    "Longformer": ({"attention_window": 4}, ["embeddings", *LAYERS, "head"]),
}
BATCH = {
    "input_ids": np.array([[2, 7, 9, 3, 0, 0], [2, 8, 11, 12, 13, 3], [2, 5, 3, 0, 0, 0], [2, 21, 30, 6, 3, 0]]),
    "attention_mask": np.array([[1, 1, 1, 1, 0, 0], [1] * 6, [1, 1, 1, 0, 0, 0], [1, 1, 1, 1, 1, 0]]),
}
LABELS = np.array([0, 2, 1, 2])


def build(family="Bert", kind="ForSequenceClassification", lean=False, **options):
    keras.utils.set_random_seed(5)
    config = getattr(transformers, f"{family}Config")(**{**SIZES, **FAMILIES[family][0], "num_labels": 3, **options})
    with quiet():
        model = getattr(transformers, f"TF{family}{kind}")(config)
        model.build_in_name_scope()
    if lean:
        put(model, first_token=kind == "ForSequenceClassification")
    return model


def fit(model, *, rate=0.05, epochs=1, callbacks=(), optimizer=None):
    keras.utils.set_random_seed(6)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer or keras.optimizers.Adam(rate), loss=loss)
    return model.fit(BATCH, LABELS, batch_size=2, shuffle=False, epochs=epochs, verbose=0, callbacks=list(callbacks))


def learning(model) -> set[str]:
    return {variable.name.split("/", 1)[1] for variable in model.trainable_weights}


# Groups


@pytest.mark.parametrize("family", FAMILIES)
def test_every_variable_is_in_one_group_from_the_bottom(family):
    model = build(family)
    groups = models.layer_groups(model)
    assert list(groups) == FAMILIES[family][1]
    names = [variable.name for variables in groups.values() for variable in variables]
    assert sorted(names) == sorted(variable.name for variable in model.weights)
    for name, variables in groups.items():
        number = name.removeprefix("layers[").split(":")[0].rstrip("]")
        if number.isdecimal():
            assert all(f"_._{number}/" in variable.name for variable in variables)
    assert all("classifier" in variable.name for variable in groups["head"] if family not in ("DistilBert",))


def test_parameters_are_those_of_the_formula():
    model = build()
    models.freeze(model, "embeddings,layers[:2]")
    layer = 4 * (8 * 8 + 8) + 2 * 8 * 16 + 16 + 8 + 4 * 8
    embeddings = 8 * (40 + 12 + 2) + 2 * 8
    assert models.count_parameters(model) == {
        "embeddings": {"total": embeddings, "trainable": 0},
        "layers[0]": {"total": layer, "trainable": 0},
        "layers[1]": {"total": layer, "trainable": 0},
        "layers[2]": {"total": layer, "trainable": layer},
        "pooler": {"total": 72, "trainable": 72},
        "head": {"total": 27, "trainable": 27},
        "all": {"total": embeddings + 3 * layer + 99, "trainable": layer + 99},
    }


def test_albert_s_layers_are_frozen_together_or_not_at_all():
    model = build("Albert", num_hidden_groups=3, num_hidden_layers=6)
    assert list(models.layer_groups(model))[1:4] == ["layers[0:2]", "layers[2:4]", "layers[4:6]"]
    models.freeze(model, "layers[:4]")
    counts = models.count_parameters(model)
    assert [counts[name]["trainable"] == 0 for name in ("layers[0:2]", "layers[2:4]", "layers[4:6]")] == [
        True,
        True,
        False,
    ]
    with pytest.raises(InputError, match=r"layers\[1\]: the layers of layers\[0:2\] share their variables; name all"):
        models.freeze(model, "layers[1]")


def test_a_keras_model_around_an_encoder_has_the_encoder_s_groups():
    inside = build("Bert", "Model")
    ids = keras.Input([None], dtype="int32", name="input_ids")
    model = keras.Model(ids, keras.layers.Dense(3, name="own")(inside(ids).pooler_output))
    groups = models.layer_groups(model)
    assert list(groups) == ["embeddings", *LAYERS, "pooler", "head"]
    assert [variable.name for variable in groups["head"]] == ["own/kernel:0", "own/bias:0"]
    models.freeze(model, "encoder")
    assert [variable.name for variable in model.trainable_weights] == ["own/kernel:0", "own/bias:0"]


MISTAKES = {
    "embedings": r"no group 'embedings'; Did you mean 'embeddings'\? there are embeddings, layers\[0:3\], pooler, head",
    "layers[3]": r"layers\[3\] is no layer; the model has layers\[0\] to layers\[2\]",
    "layers[3:]": r"layers\[3:\] is no layer",
    "layers[a]": r"cannot read 'layers\[a\]'; write layers\[3\], layers\[:6\]",
    "layers[::0]": r"layers\[::0\] is no layer",
    "layers[]": r"layers\[\] is no layer",
    "": "no group ''",
}


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes_are_told(name):
    with pytest.raises(InputError, match=MISTAKES[name]):
        models.freeze(build(), "pooler", name)


def test_names_are_python_s_slices():
    model = build(num_hidden_layers=7)
    numbers = list(range(7))
    for text in (":3", "-2:", "1:6:2", "::3", "2", "-1", ":", " 1 : 3 "):
        models.unfreeze(model)
        models.freeze(model, f"layers[{text}]")
        expected = eval(f"numbers[{text}]")
        expected = [expected] if isinstance(expected, int) else expected
        counts = models.count_parameters(model)
        assert [i for i in numbers if counts[f"layers[{i}]"]["trainable"] == 0] == expected, text


# Freezing


@pytest.mark.parametrize("lean", [False, True])
def test_what_is_frozen_stays_to_the_bit_and_the_rest_learns(lean):
    model = build(lean=lean)
    models.freeze(model, "embeddings", "layers[:2]")
    before = {variable.name: variable.numpy() for variable in model.weights}
    fit(model)
    moved = {v.name.split("/", 1)[1] for v in model.weights if not np.array_equal(v.numpy(), before[v.name])}
    # A key's bias shifts all scores of a query alike: its gradient is rounding.
    assert moved - {"bert/encoder/layer_._2/attention/self/key/bias:0"} == learning(model) - {
        "bert/encoder/layer_._2/attention/self/key/bias:0"
    }
    assert all("layer_._2" in name or "pooler" in name or "classifier" in name for name in moved)


def test_bitfit_trains_the_encoder_s_biases_and_the_head():
    model = build("Roberta")
    models.freeze(model, "weights")
    names = learning(model)
    assert names == {
        variable.name.split("/", 1)[1]
        for variable in model.weights
        if variable.name.endswith(("/bias:0", "/beta:0")) or "classifier" in variable.name
    }
    assert models.count_parameters(model)["embeddings"]["trainable"] == 8  # LayerNorm's shift
    fit(model)


@pytest.mark.parametrize("family", ["Bert", "Albert", "DistilBert"])
def test_unfreezing_puts_every_list_back_in_its_order(family):
    model = build(family)
    order = [variable.name for variable in model.weights]
    models.freeze(model, "weights")
    models.freeze(model, "head")
    assert [variable.name for variable in model.weights] != order
    models.unfreeze(model)
    assert [variable.name for variable in model.weights] == order
    assert learning(model) == {name.split("/", 1)[1] for name in order}


def test_what_keras_switched_off_and_statistics_stay_off():
    model = keras.Sequential(
        [keras.layers.Dense(2, name="a"), keras.layers.BatchNormalization(name="b"), keras.layers.Dense(1, name="c")]
    )
    model.build([None, 3])
    model.layers[0].trainable = False
    models.freeze(model, "b")
    assert [variable.name for variable in model.trainable_weights] == ["c/kernel:0", "c/bias:0"]
    models.unfreeze(model)
    assert [v.name for v in model.trainable_weights] == ["b/gamma:0", "b/beta:0", "c/kernel:0", "c/bias:0"]


# What it costs and how it computes


def products(*frozen, lean) -> int:
    """How many matrix products a training step really runs: after TensorFlow has pruned its graph."""
    model = build(lean=lean, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    models.freeze(model, *frozen) if frozen else None
    model.compile(keras.optimizers.SGD(), loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    signature = tf.data.Dataset.from_tensors((BATCH, LABELS)).element_spec
    step = tf.function(lambda *data: model.train_step(data)).get_concrete_function(*signature).graph
    ends = [output.op.name for output in step.outputs] + [op.name for op in step.control_outputs]
    nodes = tf.compat.v1.graph_util.extract_sub_graph(step.as_graph_def(), ends).node
    return sum(node.op in ("MatMul", "BatchMatMulV2") for node in nodes)


@pytest.mark.parametrize("lean", [False, True])
def test_no_gradient_is_computed_below_the_lowest_layer_that_learns(lean):
    # A layer has 4 projections (3 in the lean encoder, and 4 in its last layer, which computes the first token), 2 products of
    # attention and 2 of the feed-forward. Then the pooler and the head; the lean encoder multiplies token types by their table.
    layers, types = ([6, 6, 7], 1) if lean else ([8, 8, 8], 0)
    forward = sum(layers) + types + 2
    assert products(lean=lean) == forward + 2 * (sum(layers) + 2) + types
    assert products("embeddings", lean=lean) == forward + 2 * (sum(layers) + 2) - (1 if lean else 3)
    into_layer = 2 if lean else 3  # projections of what comes from below
    assert products("embeddings,layers[:2]", lean=lean) == forward + 2 * (layers[2] + 2) - into_layer
    assert products("encoder", lean=lean) == forward + 1  # the head's own matrix


def test_a_frozen_bottom_computes_as_in_serving():
    model = build("Bert", "Model", lean=True, hidden_dropout_prob=0.5, attention_probs_dropout_prob=0.5)
    served = model(BATCH, training=False).last_hidden_state
    assert not np.allclose(model(BATCH, training=True).last_hidden_state, served, atol=1e-2)
    models.freeze(model, "embeddings,layers")
    np.testing.assert_array_equal(model(BATCH, training=True).last_hidden_state, served)
    models.unfreeze(model, "layers[2]")  # which drops again
    assert not np.allclose(model(BATCH, training=True).last_hidden_state, served, atol=1e-4)


# In fine_tune and on the command line


def test_inspect_counts_what_would_learn_as_the_model_does(tiny):
    for text in ("embeddings,layers[:1]", "weights", "encoder", "pooler,layers"):
        about = models.describe(tiny, freeze=text)["trainable_parameters"]
        model = models.load(tiny, None)
        models.freeze(model, text)
        counts = models.count_parameters(model)
        found = [about["embeddings"], *about["layers"], about["pooler"], about["total"]]
        assert found == [count["trainable"] for count in counts.values()]
    assert "trainable_parameters" not in models.describe(tiny)
    with pytest.raises(InputError, match=r"layers\[2\] is no layer; the model has layers\[0\] to layers\[1\]"):
        models.describe(tiny, freeze="layers[2]")


def test_reinitialized_layers_are_drawn_as_before_pretraining_and_the_others_kept(tiny):
    from_disk, again, other = (models.load(tiny, "sequence-classification") for _ in range(3))
    for variable in models.layer_groups(from_disk)["layers[1]"]:
        variable.assign(variable + 0.3)
    before = {name: [v.numpy() for v in group] for name, group in models.layer_groups(from_disk).items()}
    models.reinitialize(from_disk, 1, seed=5)
    models.reinitialize(again, 1, seed=5)
    models.reinitialize(other, 1, seed=6)
    scale = from_disk.config.initializer_range
    drawn = []
    for name, group in models.layer_groups(from_disk).items():
        for variable, old, same, differs in zip(
            group, before[name], models.layer_groups(again)[name], models.layer_groups(other)[name], strict=True
        ):
            now = variable.numpy()
            if name not in ("layers[1]", "pooler"):
                np.testing.assert_array_equal(now, old)
            elif "kernel" in variable.name:
                np.testing.assert_array_equal(now, same)
                assert np.not_equal(now, differs).mean() > 0.99 and np.abs(now).max() <= 2 * scale
                drawn.append(now.ravel())
            else:
                np.testing.assert_array_equal(now, 1.0 if "gamma" in variable.name else 0.0)
    drawn = np.concatenate(drawn)
    # Of a normal distribution cut at two deviations the deviation is 0.88.
    np.testing.assert_allclose([drawn.mean() / scale, drawn.std() / scale], [0, 0.8796], atol=0.02)
