"""Gradient checkpointing in the lean encoder: the weights of a training without it, from less memory."""

from __future__ import annotations

import numpy as np
import pytest
from test_lean import batch, build

from tfbert import AdamW, SequenceClassification, losses, models, training
from tfbert._compat import keras, tf, transformers
from tfbert.errors import InputError
from tfbert.models import lean
from tfbert.models.loading import quiet

RATES = {"hidden_dropout_prob": 0.3, "attention_probs_dropout_prob": 0.3, "classifier_dropout": 0.0}


@pytest.fixture
def exact_arithmetic():
    """Without the rewriting of sums and products in TensorFlow's graphs, which depends on what else reads them, and rounds otherwise."""
    tf.config.optimizer.set_experimental_options({"arithmetic_optimization": False})
    yield
    tf.config.optimizer.set_experimental_options({"arithmetic_optimization": True})


def weights_after_steps(gradient_checkpointing: bool, precision: str = "float32", rates=RATES, **compiled) -> list:
    """All weights after four steps with dropout."""
    keras.mixed_precision.set_global_policy(precision)
    try:
        keras.utils.set_random_seed(3)
        model = build("bert", "ForSequenceClassification", num_labels=3, **rates)
        lean.put(model, first_token=True, gradient_checkpointing=gradient_checkpointing)
        wrapped = models.as_keras(model)
        wrapped.compile(AdamW(1e-2), loss=losses.sparse_categorical_crossentropy, **compiled)
        wrapped.fit(batch(model), np.array([0, 1, 2, 1, 0]), batch_size=3, epochs=2, shuffle=False, verbose=0)
    finally:
        keras.mixed_precision.set_global_policy("float32")
    return [value.numpy() for value in model.trainable_variables]


@pytest.mark.parametrize("precision", ["float32", "mixed_bfloat16"])
def test_weights_are_equal_to_the_bit_but_for_rewritten_sums(precision, exact_arithmetic):
    plain = weights_after_steps(False, precision)
    for values, expected in zip(weights_after_steps(True, precision), plain):
        np.testing.assert_array_equal(values, expected)


def gradients(family: str, head: str, gradient_checkpointing: bool, way: str = "") -> list[np.ndarray]:
    """The loss and all gradients of one pass with dropout."""
    keras.utils.set_random_seed(3)
    rates = {"dropout": 0.3, "attention_dropout": 0.3} if family == "distilbert" else RATES
    model = build(family, head, **rates)
    if hasattr(model, "dropout"):
        model.dropout.rate = 0.0
    lean.put(model, first_token=head == "ForSequenceClassification", gradient_checkpointing=gradient_checkpointing)
    if way == "lora":
        models.add_lora(model, rank=2, seed=1)
        for variable in model.trainable_variables:
            variable.assign_add(0.1 * tf.ones_like(variable))
    if way == "freeze":
        models.freeze(model, "embeddings", "layers[:1]")
    features, variables = batch(model), model.trainable_variables

    def step(features):
        with tf.GradientTape() as tape:
            total = tf.reduce_sum(tf.sin(model(features, training=True).logits))
        return total, [tf.convert_to_tensor(gradient) for gradient in tape.gradient(total, variables)]

    signature = [{name: tf.TensorSpec([None, None], tf.int32) for name in features}]
    total, found = tf.function(step, input_signature=signature, jit_compile=way == "xla")(features)
    return [total.numpy(), *(gradient.numpy() for gradient in found)]


@pytest.mark.parametrize(
    ("family", "head", "way"),
    [
        ("bert", "ForTokenClassification", "lora"),
        ("bert", "ForTokenClassification", "freeze"),
        ("bert", "ForSequenceClassification", "xla"),
        ("roberta", "ForTokenClassification", ""),
        ("albert, two groups of two", "ForTokenClassification", ""),
        ("distilbert", "ForSequenceClassification", ""),
    ],
)
def test_gradients_are_equal_but_for_rounding(family, head, way):
    plain, again = (gradients(family, head, gradient_checkpointing, way) for gradient_checkpointing in (False, True))
    for values, expected in zip(again, plain, strict=True):
        np.testing.assert_allclose(values, expected, atol=2e-6 * max(1.0, np.abs(expected).max()))
    assert max(np.abs(values).max() for values in plain[1:]) > 0.1


def kept(gradient_checkpointing: bool) -> int:
    """How many float tensors that the forward pass computes the operations of the backward pass read."""
    model = build("bert", "ForTokenClassification", num_hidden_layers=4, **RATES)
    lean.put(model, gradient_checkpointing=gradient_checkpointing)
    features = batch(model)

    def step(features):
        with tf.GradientTape() as tape:
            total = tf.reduce_sum(model(features, training=True).logits)
        border.append(len(tf.compat.v1.get_default_graph().get_operations()))
        return tape.gradient(total, model.trainable_variables)

    border: list[int] = []
    signature = {name: tf.TensorSpec([None, None], tf.int32) for name in features}
    graph = tf.function(step).get_concrete_function(signature).graph
    before, after = graph.get_operations()[: border[0]], graph.get_operations()[border[0] :]
    outputs = [tensor for node in before if node.type != "ReadVariableOp" for tensor in node.outputs]
    made = {tensor.ref() for tensor in outputs if tensor.dtype == tf.float32 and tensor.shape.rank}
    return len(made & {tensor.ref() for node in after for tensor in node.inputs})


def test_backward_pass_reads_little_of_what_the_forward_pass_made():
    assert kept(True) < 0.6 * kept(False)


def test_nothing_is_computed_again_where_nothing_is_trained():
    model = build("bert", "ForTokenClassification")
    features = batch(model)
    expected = model(features).logits * features["attention_mask"][..., np.newaxis].astype(np.float32)
    lean.put(model, gradient_checkpointing=True)
    signature = {name: tf.TensorSpec([None, None], tf.int32) for name in features}
    traced = tf.function(lambda x: model(x, training=False).logits).get_concrete_function(signature)
    found = traced(features) * features["attention_mask"][..., np.newaxis].astype(np.float32)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert not any("StatelessRandom" in node.type for node in traced.graph.get_operations())


def test_fine_tune_passes_it_on(shallow, tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(
        "tfbert.models.loading.put", lambda model, **options: asked.append(options) or lean.put(model, **options)
    )
    rows = [
        {"text": f"it was {word}", "label": label} for label, word in (("a", "good"), ("b", "bad")) for _ in range(8)
    ]
    options = {"epochs": 1, "batch_size": 8, "precision": "float32", "gradient_checkpointing": True}
    options |= {"export": False, "report": False}
    tuned = training.fine_tune(
        SequenceClassification(max_length=16), shallow, rows, rows, directory=tmp_path / "run", **options
    )
    assert asked == [{"first_token": True, "gradient_checkpointing": True}]
    assert tuned.metrics["settings"]["gradient_checkpointing"] is True


def test_other_encoders_refuse_it(tiny):
    with pytest.raises(
        InputError, match="gradient_checkpointing is the lean encoder's, but encoder is 'transformers'; leave one"
    ):
        models.load(tiny, "sequence-classification", encoder="transformers", gradient_checkpointing=True)
    sizes = {
        "hidden_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 16,
        "embedding_size": 8,
    }
    with quiet():
        model = transformers.TFMobileBertModel(transformers.MobileBertConfig(vocab_size=60, **sizes))
    with pytest.raises(InputError, match="is the lean encoder's, which mobilebert does not have; it has bert, electra"):
        lean.put(model, gradient_checkpointing=True)
