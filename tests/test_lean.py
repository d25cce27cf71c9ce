"""The lean encoder beside the TF Transformers layers: outputs, gradients, padding, dropout, precision, XLA, and what falls back."""

from __future__ import annotations

import contextlib
import gc
import math
import subprocess
import sys
import weakref

import numpy as np
import pytest

from tfbert import models
from tfbert._compat import keras, tf, transformers
from tfbert.errors import InputError
from tfbert.models import kernels, lean
from tfbert.models.loading import quiet

SIZES = {
    "vocab_size": 60,
    "hidden_size": 16,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "max_position_embeddings": 40,
}
DISTILBERT = {"vocab_size": 60, "dim": 16, "n_layers": 3, "n_heads": 2, "hidden_dim": 32, "max_position_embeddings": 40}
# The configuration's class, the model classes' common name, and settings.
FAMILIES = {
    "bert": ("BertConfig", "TFBert", SIZES),
    "roberta": ("RobertaConfig", "TFRoberta", {**SIZES, "pad_token_id": 1}),
    "xlm-roberta": ("XLMRobertaConfig", "TFXLMRoberta", {**SIZES, "pad_token_id": 1}),
    "camembert": ("CamembertConfig", "TFCamembert", {**SIZES, "pad_token_id": 1}),
    "electra": ("ElectraConfig", "TFElectra", {**SIZES, "embedding_size": 8}),
    "albert": (
        "AlbertConfig",
        "TFAlbert",
        {**SIZES, "embedding_size": 8, "num_hidden_groups": 3, "inner_group_num": 1},
    ),
    "albert, two groups of two": (
        "AlbertConfig",
        "TFAlbert",
        {**SIZES, "embedding_size": 8, "num_hidden_layers": 4, "num_hidden_groups": 2, "inner_group_num": 2},
    ),
    "distilbert": ("DistilBertConfig", "TFDistilBert", DISTILBERT),
}
HEADS = {
    "ForSequenceClassification": ("logits",),
    "ForTokenClassification": ("logits",),
    "ForQuestionAnswering": ("start_logits", "end_logits"),
    "Model": ("last_hidden_state",),
}
LENGTHS = (11, 3, 7, 2, 9)


def build(family: str, head: str, **changes):
    """A model with weights drawn so that nothing is near 0 or 1, and every bias counts."""
    config_class, name, settings = FAMILIES[family]
    with quiet():
        config = getattr(transformers, config_class)(**{**settings, **changes})
        model = getattr(transformers, name + head)(config)
        model.build_in_name_scope()
    random = np.random.default_rng(7)
    for variable in model.trainable_variables:
        variable.assign(variable + random.normal(0, 0.2, variable.shape).astype(np.float32))
    return model


def batch(model, lengths=LENGTHS) -> dict[str, np.ndarray]:
    random, longest = np.random.default_rng(8), max(lengths)
    mask = (np.arange(longest) < np.array(lengths)[:, np.newaxis]).astype(np.int32)
    ids = np.where(mask, random.integers(5, 60, mask.shape), model.config.pad_token_id or 0).astype(np.int32)
    features = {"input_ids": ids, "attention_mask": mask}
    if getattr(model.config, "type_vocab_size", 0) == 2:
        features["token_type_ids"] = (np.arange(longest) > 3).astype(np.int32) * mask
    return features


def outputs_and_gradients(model, features, names, static: bool = False):
    """Outputs of real tokens and the gradients of a number made from them; `static` traces with known shapes."""
    mask = tf.constant(features["attention_mask"], tf.float32)

    def compute(features):
        with tf.GradientTape() as tape:
            found = [model(features, training=False)[name] for name in names]
            if found[0].shape.rank == 3:
                found = [values * mask[..., tf.newaxis] for values in found]
            elif names[0] == "start_logits":
                found = [values * mask for values in found]
            total = tf.add_n([tf.reduce_sum(tf.sin(values)) for values in found])
        gradients = tape.gradient(total, model.trainable_variables)
        return found, [None if each is None else tf.convert_to_tensor(each) for each in gradients]

    shape = features["input_ids"].shape if static else [None, None]
    found, gradients = tf.function(
        compute, input_signature=[{name: tf.TensorSpec(shape, tf.int32) for name in features}]
    )(features)
    return [values.numpy() for values in found], {
        variable.name: None if gradient is None else gradient.numpy()
        for variable, gradient in zip(model.trainable_variables, gradients)
    }


def assert_same_gradients(ours, theirs):
    assert ours.keys() == theirs.keys()
    for name, expected in theirs.items():
        if expected is None:
            assert ours[name] is None or not ours[name].any(), name
            continue
        # softmax does not see what is added to all keys alike: this gradient is 0 but for rounding
        scale = 1.0 if "key/bias" in name or "k_lin/bias" in name else max(1e-2, np.abs(expected).max())
        np.testing.assert_allclose(ours[name] / scale, expected / scale, atol=1e-4, err_msg=name)


CASES = [
    (family, head) for family in FAMILIES for head in HEADS if family == "bert" or head.startswith(("ForSeq", "ForTok"))
]


@pytest.mark.parametrize(("family", "head"), CASES)
def test_outputs_and_gradients_equal_those_of_transformers(family, head):
    model = build(family, head)
    features = batch(model)
    theirs, their_gradients = outputs_and_gradients(model, features, HEADS[head], static=False)
    names = [variable.name for variable in model.variables]
    lean.put(model, first_token=head == "ForSequenceClassification")
    # padding left out, as at unknown shapes, and computed, as at known ones
    for static in (False, True) if family in ("bert", "roberta") else (False,):
        ours, our_gradients = outputs_and_gradients(model, features, HEADS[head], static)
        for values, expected in zip(ours, theirs):
            assert np.abs(expected).max() > 0.1
            np.testing.assert_allclose(values, expected, atol=1e-5)
        assert_same_gradients(our_gradients, their_gradients)
    assert [variable.name for variable in model.variables] == names


def test_encoder_runs_its_own_operations_and_not_transformers():
    model = build("bert", "ForTokenClassification")
    lean.put(model)

    def never(*_, **__):
        raise AssertionError("TF Transformers' encoder ran")

    model.bert.encoder.call = never
    signature = {name: tf.TensorSpec([None, None], tf.int32) for name in batch(model)}
    traced = tf.function(lambda x: model(x, training=True).logits).get_concrete_function(signature)
    kinds = [node.type for node in traced.graph.get_operations()]
    assert kinds.count("BatchMatMulV2") == 2 * SIZES["num_hidden_layers"]
    assert kinds.count("StatelessRandomUniformFullIntV2") == 1 + 3 * SIZES["num_hidden_layers"]


@pytest.mark.parametrize("head", ["ForSequenceClassification", "ForTokenClassification"])
def test_padding_and_batch_mates_change_nothing(head):
    model = build("bert", head)
    lean.put(model, first_token=head == "ForSequenceClassification")
    features = batch(model)
    together = tf.function(lambda x: model(x).logits, reduce_retracing=True)
    together({name: values[:1, :2] for name, values in features.items()})  # so that shapes are dynamic from here on
    found = together({name: np.pad(values, ((0, 1), (0, 5))) for name, values in features.items()})
    assert np.isfinite(found).all()
    for i, length in enumerate(LENGTHS):
        alone = together({name: values[i : i + 1, :length] for name, values in features.items()})[0]
        np.testing.assert_allclose(found[i][:length] if alone.shape.rank == 2 else found[i], alone, atol=2e-6)


@pytest.mark.parametrize("checkpointing", [False, True])
def test_a_graph_goes_with_what_was_traced_and_has_its_gradients_until_then(checkpointing):
    """tf.custom_gradient by itself keeps every graph that it was in."""
    model = build("bert", "ForSequenceClassification", hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    lean.put(model, first_token=True, gradient_checkpointing=checkpointing)
    features = {name: tf.constant(values) for name, values in batch(model).items()}

    def gradients(computed):
        with tf.GradientTape() as tape:  # outside of what is traced: the graph is asked for its gradients later
            loss = tf.reduce_sum(tf.square(computed(features)))
        return tape.gradient(loss, model.trainable_weights)

    def logits(x):
        return model(x, training=True).logits

    traced = tf.function(logits)
    for one, other in zip(gradients(logits), gradients(traced), strict=True):
        if one is not None:
            np.testing.assert_allclose(tf.convert_to_tensor(one), tf.convert_to_tensor(other), atol=1e-5)
    graph = weakref.ref(traced.get_concrete_function(features).graph)
    assert graph() is not None and graph().tfbert_gradients
    del traced
    gc.collect()
    assert graph() is None


def test_all_places_of_padding_are_zero_in_the_hidden_states():
    model = build("bert", "Model")
    lean.put(model)
    features = batch(model)
    states = tf.function(
        lambda x: model(x).last_hidden_state,
        input_signature=[{name: tf.TensorSpec([None, None], tf.int32) for name in features}],
    )(features).numpy()
    assert (states[features["attention_mask"] == 0] == 0).all()
    assert (states[features["attention_mask"] == 1] != 0).any(axis=1).all()


@pytest.mark.parametrize("precision", ["mixed_bfloat16", "mixed_float16"])
def test_low_precision_is_as_near_to_float32_as_transformers(precision):
    exact = build("bert", "ForSequenceClassification")
    features = batch(exact)
    expected, _ = outputs_and_gradients(exact, features, ("logits",))
    keras.mixed_precision.set_global_policy(precision)
    try:
        model = build("bert", "ForSequenceClassification")
        theirs, _ = outputs_and_gradients(model, features, ("logits",))
        lean.put(model, first_token=True)
        ours, gradients = outputs_and_gradients(model, features, ("logits",))
    finally:
        keras.mixed_precision.set_global_policy("float32")
    assert np.abs(ours[0] - expected[0]).max() <= 1.5 * np.abs(theirs[0] - expected[0]).max() + 1e-3
    assert all(value.dtype == np.float32 and np.isfinite(value).all() for value in gradients.values())


@pytest.mark.parametrize(
    "count, expected", [(1, 8), (12, 16), (64, 64), (65, 72), (934, 960), (1024, 1024), (1030, 1152)]
)
def test_a_few_places_of_padding_make_up_a_round_number_of_rows(count, expected):
    mask = np.zeros([4, 512], np.int32)
    mask.flat[np.random.default_rng(0).choice(mask.size, count, replace=False)] = 1
    places = kernels.Places(tf.constant(mask), dense=False)
    x = tf.reshape(tf.range(1.0, mask.size + 1), [-1, 1])
    with tf.GradientTape() as tape:
        tape.watch(x)
        rows = places.rows(x)
        total = tf.reduce_sum(places.zero_padded(rows)) + tf.reduce_sum(places.padded(rows) * mask.reshape(-1, 1))
    assert len(rows) == expected
    np.testing.assert_array_equal(places.real(rows)[:, 0], x.numpy()[mask.reshape(-1) > 0, 0])
    np.testing.assert_array_equal(
        places.zero_padded(rows)[..., 0], (x.numpy() * mask.reshape(-1, 1)).reshape(mask.shape)
    )
    np.testing.assert_array_equal(tape.gradient(total, x), 2.0 * mask.reshape(-1, 1))  # padding learns nothing
    full = kernels.Places(tf.ones([3, 7], tf.int32), dense=False)
    assert len(full.rows(tf.zeros([21, 2]))) == 21  # there is no padding to take


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("dtype, limit", [("float32", 1e-6), ("bfloat16", 2**-7)])
def test_a_product_and_its_gradients_are_numpys(dtype, limit, transposed):
    random = np.random.default_rng(0)
    # Numbers that bfloat16 has, so that only the sums are rounded.
    x, kernel, bias, upstream = (random.integers(-8, 9, shape) / 8 for shape in ([40, 24], [24, 16], [16], [40, 16]))
    given = [tf.constant(value, dtype) for value in (x, kernel.T if transposed else kernel, bias)]
    with tf.GradientTape() as tape:
        tape.watch(given)
        result = kernels.dense(*given, transposed=transposed)
    gradients = tape.gradient(result, given, tf.constant(upstream, dtype))
    to_kernel = x.T @ upstream
    expected = [x @ kernel + bias, upstream @ kernel.T, to_kernel.T if transposed else to_kernel, upstream.sum(0)]
    for ours, value in zip([result, *gradients], expected):
        assert ours.dtype == dtype
        np.testing.assert_allclose(tf.cast(ours, tf.float64), value, atol=limit * np.abs(value).max())


def test_compiles_with_xla_at_static_shapes_to_equal_numbers():
    model = build("bert", "ForTokenClassification", hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    lean.put(model)
    features = batch(model)

    def gradient(x):
        with tf.GradientTape() as tape:
            total = tf.reduce_sum(tf.square(model(x, training=True).logits[:, 0]))
        return total, tape.gradient(total, model.classifier.kernel)

    for ours, expected in zip(tf.function(gradient, jit_compile=True)(features), tf.function(gradient)(features)):
        np.testing.assert_allclose(ours, expected, rtol=1e-4, atol=1e-5)


# Dropout


def test_dropout_drops_each_element_with_its_probability_and_keeps_the_others():
    x = tf.ones([1_000_000])
    for rate in (0.1, 0.25, 0.5):
        dropped = []
        for step in range(16):
            values = kernels.Noise(tf.constant(3, tf.int64), tf.constant(step, tf.int64)).drop(x, rate).numpy()
            assert set(np.unique(values)) == {0.0, 1.0}
            dropped.append(1 - values.mean())
        # 16 million draws: five standard deviations, and those of the threshold, drawn once a call
        spread = 5 * (math.sqrt(rate * (1 - rate) / 16e6) + 0.5 / 256 / math.sqrt(16))
        assert abs(np.mean(dropped) - rate) < spread
        assert {round(256 * share) for share in dropped} <= {math.floor(256 * rate), math.ceil(256 * rate)}


def test_dropout_is_a_function_of_seed_step_and_draw():
    def draw(seed, step, number=0):
        noise = kernels.Noise(tf.constant(seed, tf.int64), tf.constant(step, tf.int64))
        return [noise.drop(tf.ones([999]), 0.5).numpy() for _ in range(number + 1)][-1]

    same = draw(1, 2)
    np.testing.assert_array_equal(draw(1, 2), same)
    for other in (draw(2, 2), draw(1, 3), draw(1, 2, number=1)):
        assert 0.4 < np.mean(other == same) < 0.6


def test_gradient_of_dropout_is_its_mask():
    x = tf.Variable(tf.range(1.0, 51.0))
    with tf.GradientTape() as tape:
        values = kernels.Noise(tf.constant(5, tf.int64), tf.constant(0, tf.int64)).drop(x, 0.3)
    np.testing.assert_array_equal(tape.gradient(values, x), values.numpy() > 0)


def test_mean_of_many_dropped_passes_is_near_the_pass_without():
    """Dropout's factors are in the right places: with one too many or too few the mean would be off by a tenth."""
    model = build("bert", "Model", hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.1, num_hidden_layers=1)
    lean.put(model)
    features = {name: np.repeat(values[:1], 400, 0) for name, values in batch(model).items()}
    exact = model(features, training=False).last_hidden_state[0].numpy()
    runs = [model(features, training=True).last_hidden_state.numpy() for _ in range(10)]
    assert np.std(runs[0], axis=0).max() > 0.05
    np.testing.assert_allclose(np.mean(np.concatenate(runs), axis=0), exact, atol=0.05)


def test_two_runs_of_one_seed_drop_the_same_and_two_seeds_do_not():
    def losses(seed):
        keras.utils.set_random_seed(seed)
        model = build("bert", "ForTokenClassification")
        lean.put(model)
        return [float(tf.reduce_sum(model(batch(model), training=True).logits)) for _ in range(3)]

    first = losses(1)
    assert first == losses(1)
    assert len({*first, *losses(2)}) == 6


# What is not the lean encoder's


def test_what_it_does_not_compute_transformers_answers():
    model = build("bert", "ForSequenceClassification")
    features = batch(model)
    expected = model(features, output_attentions=True, output_hidden_states=True)
    lean.put(model, first_token=True)
    found = model(features, output_attentions=True, output_hidden_states=True)
    np.testing.assert_allclose(found.attentions[2], expected.attentions[2], atol=1e-6)
    np.testing.assert_allclose(found.hidden_states[3], expected.hidden_states[3], atol=1e-6)
    as_tuple = model(features, return_dict=False)
    np.testing.assert_allclose(as_tuple[0], expected.logits, atol=1e-5)


def test_other_families_stay_as_they_are():
    with quiet():
        config = transformers.MobileBertConfig(
            vocab_size=60,
            hidden_size=16,
            num_hidden_layers=1,
            num_attention_heads=2,
            intermediate_size=16,
            embedding_size=8,
        )
        model = transformers.TFMobileBertModel(config)
    before = model.mobilebert.call
    lean.put(model)
    assert model.mobilebert.call == before


def test_load_takes_either_encoder_and_refuses_others(tiny):
    ours = models.load(tiny, "sequence-classification", num_labels=3)
    theirs = models.load(tiny, "sequence-classification", num_labels=3, encoder="transformers")
    features = batch(ours)
    np.testing.assert_allclose(ours(features).logits, theirs(features).logits, atol=1e-5)
    assert "call" in vars(ours.bert) and "call" not in vars(theirs.bert)
    with pytest.raises(
        InputError, match=r"encoder is 'leen'; it must be one of lean, transformers. Did you mean 'lean'"
    ):
        models.load(tiny, None, encoder="leen")


# Served


@pytest.mark.parametrize("few", [0, 128])
@pytest.mark.parametrize("family", ["bert", "albert, two groups of two", "distilbert"])
@pytest.mark.parametrize("first_token", [True, False])
def test_what_is_served_gives_the_same_numbers_from_weights_put_together_once(family, first_token, few, monkeypatch):
    monkeypatch.setattr("tfbert.models.few_tokens.FEW", few)  # tokens up to which hidden states are columns
    model = build(family, "ForSequenceClassification" if first_token else "ForTokenClassification")
    lean.put(model, first_token=first_token)
    features = batch(model)
    signature = {name: tf.TensorSpec([None, None], tf.int32) for name in features}
    plain = tf.function(lambda x: model(x, training=False).logits).get_concrete_function(signature)
    weights = lean.for_answers(model)
    with weights.in_use():
        served = tf.function(lambda x: model(x, training=False).logits).get_concrete_function(signature)
    ours, expected = served(features).numpy(), plain(features).numpy()
    real = features["attention_mask"] > 0
    np.testing.assert_allclose(
        ours if first_token else ours[real], expected if first_token else expected[real], atol=1e-6
    )
    assert {id(variable) for variable in weights.variables} <= {id(variable) for variable in served.variables}

    def matrices_joined(function):
        return sum(
            node.type == "ConcatV2" and node.outputs[0].dtype == tf.float32 for node in function.graph.get_operations()
        )

    assert matrices_joined(plain) > 0 and matrices_joined(served) == 0
    assert any("CustomGradient" in name for name in _gradients(plain)) and not _gradients(served)


def _gradients(function) -> list[str]:
    """The gradients by hand in a graph."""
    names = []
    for node in function.graph.get_operations():
        with contextlib.suppress(ValueError):
            names.append(node.get_attr("_gradient_op_type").decode())
    return names


REPLICAS = """
import numpy as np
from tfbert._compat import tf, keras, transformers
from tfbert import AdamW, losses, models
from tfbert.models.kernels import Noise
from tfbert.models.lean import put
from tfbert.models.loading import quiet

tf.config.set_logical_device_configuration(
    tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 2)
one, two = tf.distribute.OneDeviceStrategy("/CPU:0"), tf.distribute.MirroredStrategy(["/CPU:0", "/CPU:1"])
"""
DRAWN = """
def mask():
    replica = tf.distribute.get_replica_context().replica_id_in_sync_group
    return Noise(tf.cast(replica, tf.int64) * (1 << 31) + 7, tf.constant(1, tf.int64)).drop(tf.ones([64]), 0.5)
first, second = two.experimental_local_results(two.run(tf.function(mask)))
assert 0.2 < np.mean(first.numpy() == second.numpy()) < 0.8
print("equal")
"""
LEARNT = """
random = np.random.default_rng(0)
ids = random.integers(5, 25, (16, 7)).astype(np.int32)
features = {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}
data = tf.data.Dataset.from_tensor_slices((features, random.integers(0, 3, 16))).batch(8)

def train(strategy, rate):
    keras.utils.set_random_seed(3)
    with strategy.scope():
        config = transformers.BertConfig(vocab_size=60, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32,
            num_labels=3, hidden_dropout_prob=rate, attention_probs_dropout_prob=rate)
        with quiet():
            model = transformers.TFBertForSequenceClassification(config)
            model.build_in_name_scope()
        put(model, first_token=True)
        wrapped = models.as_keras(model)
        optimizer = AdamW(1e-2)
        optimizer.learn_rows(models.word_embeddings(wrapped), np.unique(ids))
        wrapped.compile(optimizer, loss=losses.sparse_categorical_crossentropy)
    return wrapped.fit(data, epochs=3, verbose=0).history["loss"]

np.testing.assert_allclose(train(two, 0.0), train(one, 0.0), atol=1e-5)
dropped = train(two, 0.5)
assert all(np.isfinite(dropped)) and dropped != train(one, 0.5)
print("equal")
"""


@pytest.mark.parametrize("code", [DRAWN, LEARNT], ids=["what it draws", "what it learns"])
def test_a_replica_of_its_own_drops_its_own(code, tmp_path):
    """Two replicas with half a batch each learn what one learns with the whole, and draw different masks."""
    script = tmp_path / "replicas.py"
    script.write_text(REPLICAS + code, encoding="utf-8")
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=False)
    assert done.stdout.strip().endswith("equal"), done.stderr[-3000:]
