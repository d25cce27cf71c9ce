"""Models: names, transposes and values against an independent BERT in NumPy; damaged and malicious checkpoints; saving and Keras use."""

from __future__ import annotations

import json
import math
import types

import numpy as np
import pytest
from numpy_bert import CONFIG, HIDDEN, batch, bert_weights, classifier, logits_of, numpy_bert, with_head, write
from safetensors.numpy import load_file

from tfbert import models
from tfbert._compat import keras, tf, transformers
from tfbert.errors import InputError
from tfbert.models.families import BERT
from tfbert.models.weights import list_weights, read_weights


@pytest.fixture(scope="module")
def tuned(tmp_path_factory):
    """A fine-tuned classifier with three labels, made without any library's model code."""
    return classifier(tmp_path_factory.mktemp("tuned"))


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A base checkpoint, as sentence-transformers' are: bare names, no head."""
    return write(tmp_path_factory.mktemp("base"), bert_weights(), architectures=["BertModel"])


# Reading weights


def test_forward_pass_equals_numpy(tuned):
    model = models.load(tuned, "sequence-classification")
    assert isinstance(model, transformers.TFBertForSequenceClassification)
    np.testing.assert_allclose(model(batch()).logits, logits_of(with_head(), batch()), atol=1e-5, rtol=0)
    assert model.config.id2label == {0: "name-0", 1: "name-1", 2: "name-2"}
    assert model.load_report == models.LoadReport(str(tuned), (), (), ())


def test_bare_encoder_equals_numpy_from_either_kind_of_names(base, tuned):
    states, pooled = numpy_bert(bert_weights(), batch())
    states = (
        states * batch()["attention_mask"][..., np.newaxis]
    )  # padding has no state: the lean encoder gives zeros there
    for folder in (base, tuned):
        outputs = models.load(folder, None)(batch())
        np.testing.assert_allclose(outputs.last_hidden_state, states, atol=1e-5, rtol=0)
        np.testing.assert_allclose(outputs.pooler_output, pooled, atol=1e-5, rtol=0)


def test_token_classification_and_question_answering_equal_numpy(tmp_path):
    states = numpy_bert(bert_weights(), batch())[0] * batch()["attention_mask"][..., np.newaxis]
    weights = {name: value for name, value in with_head(labels=5).items() if "pooler" not in name}
    folder = write(tmp_path / "tokens", weights, architectures=["BertForTokenClassification"])
    expected = states @ weights["classifier.weight"].T + weights["classifier.bias"]
    model = models.as_keras(models.load(folder, "token-classification", num_labels=5))
    np.testing.assert_allclose(model(batch())["logits"], expected, atol=1e-5, rtol=0)
    weights = with_head(labels=2, name="qa_outputs")
    folder = write(tmp_path / "answers", weights, architectures=["BertForQuestionAnswering"])
    expected = states @ weights["qa_outputs.weight"].T + weights["qa_outputs.bias"]
    outputs = models.as_keras(models.load(folder, "question-answering"))(batch())
    np.testing.assert_allclose(
        np.stack([outputs["start_logits"], outputs["end_logits"]], -1), expected, atol=1e-5, rtol=0
    )


def test_multiple_choice_equals_numpy(tmp_path):
    weights = with_head(labels=1)
    model = models.as_keras(
        models.load(write(tmp_path / "m", weights, architectures=["BertForMultipleChoice"]), "multiple-choice")
    )
    expected = logits_of(weights, batch()).reshape(2, 2)
    inputs = {name: value.reshape(2, 2, 11) for name, value in batch().items()}
    np.testing.assert_allclose(model(inputs)["logits"], expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("kind", ["float16", "bfloat16"])
def test_half_precision_weights_are_widened_exactly(tmp_path, kind):
    half = {name: value.astype(tf.as_dtype(kind).as_numpy_dtype) for name, value in with_head().items()}
    model = models.load(write(tmp_path / "half", half), "sequence-classification")
    expected = logits_of({name: value.astype(np.float32) for name, value in half.items()}, batch())
    np.testing.assert_allclose(model(batch()).logits, expected, atol=1e-5, rtol=0)


def test_old_names_and_pretraining_heads(tmp_path):
    weights = {name.replace("LayerNorm.weight", "LayerNorm.gamma"): value for name, value in with_head().items()}
    weights = {name.replace("LayerNorm.bias", "LayerNorm.beta"): value for name, value in weights.items()}
    weights["cls.seq_relationship.weight"] = np.ones((2, HIDDEN), np.float32)
    weights["bert.embeddings.position_ids"] = np.arange(40)[None]
    model = models.load(write(tmp_path / "old", weights), "sequence-classification")
    np.testing.assert_allclose(model(batch()).logits, logits_of(with_head(), batch()), atol=1e-5, rtol=0)
    assert model.load_report.unexpected == ("cls.seq_relationship.weight", "embeddings.position_ids")


# New heads


def test_a_new_head_depends_on_its_seed_alone(base):
    def head(seed):
        model = models.load(base, "sequence-classification", id2label={0: "no", 1: "yes", 2: "perhaps"}, seed=seed)
        assert model.load_report.missing == ("classifier.bias", "classifier.weight")
        assert model.config.label2id == {"no": 0, "yes": 1, "perhaps": 2}
        return model.classifier.kernel.numpy(), model.classifier.bias.numpy()

    kernel, bias = head(3)
    keras.utils.set_random_seed(99)
    np.testing.assert_array_equal(head(3)[0], kernel)
    assert not np.array_equal(head(4)[0], kernel)
    np.testing.assert_array_equal(bias, np.zeros(3))
    assert np.abs(kernel).max() <= 2 * CONFIG["initializer_range"]
    assert (
        abs(kernel.std() - 0.88 * CONFIG["initializer_range"]) < 0.003
    )  # a normal cut at 2 sigma has deviation 0.880 sigma


def test_a_missing_pooler_begins_anew_and_is_reported(tmp_path):
    weights = {name: value for name, value in bert_weights().items() if "pooler" not in name}
    model = models.load(write(tmp_path / "p", weights), "sequence-classification")
    assert model.load_report.missing == (
        "classifier.bias",
        "classifier.weight",
        "pooler.dense.bias",
        "pooler.dense.weight",
    )


def test_another_number_of_labels_is_an_error_that_names_both(tuned):
    with pytest.raises(
        InputError, match=r"classifier has 3 labels \(name-0, name-1, name-2\), the task has 2 \(a, b\).*new_head=True"
    ):
        models.load(tuned, "sequence-classification", id2label={0: "a", 1: "b"})
    model = models.load(tuned, "sequence-classification", id2label={0: "a", 1: "b"}, new_head=True)
    assert model.load_report.mismatched == ("classifier.bias", "classifier.weight")
    np.testing.assert_array_equal(model.bert.pooler.dense.bias, bert_weights()["pooler.dense.bias"])


def test_other_label_names_are_an_error(tuned):
    with pytest.raises(
        InputError, match=r"labels are \(name-0, name-1, name-2\), the task's \(name-2, name-1, name-0\)"
    ):
        models.load(tuned, "sequence-classification", id2label={0: "name-2", 1: "name-1", 2: "name-0"})


@pytest.mark.parametrize(
    ("name", "architecture"), [("qa_outputs", "BertForQuestionAnswering"), ("classifier", "BertForTokenClassification")]
)
def test_a_head_of_another_task_is_an_error(tmp_path, name, architecture):
    folder = write(tmp_path / "other", with_head(labels=2, name=name), architectures=[architecture])
    with pytest.raises(
        InputError, match=rf"fine-tuned for .* \(it has {name}.*not for sequence-classification; pass new_head=True"
    ):
        models.load(folder, "sequence-classification", num_labels=2)
    report = models.load(folder, "sequence-classification", num_labels=2, new_head=True).load_report
    assert report.missing == ("classifier.bias", "classifier.weight")
    assert report.unexpected == (f"{name}.bias", f"{name}.weight")


def test_weights_that_do_not_fit_are_listed_with_their_shapes(tmp_path):
    weights = with_head()
    weights["bert.encoder.layer.1.output.dense.bias"] = np.ones(31, np.float32)
    with pytest.raises(
        InputError, match=r"another shape encoder.layer.1.output.dense.bias \(\[31\], expected \[32\]\)"
    ):
        models.load(write(tmp_path / "a", weights), "sequence-classification")
    weights = with_head()
    for name in [name for name in weights if "layer.0.attention" in name]:
        del weights[name]
    with pytest.raises(
        InputError, match=r"lacks encoder.layer.0.attention.self.query.weight \[32, 32\].* and 5 more; "
    ):
        models.load(write(tmp_path / "b", weights), "sequence-classification")
    weights = with_head() | {"bert.adapter.weight": np.ones((2, 3), np.float32)}
    with pytest.raises(InputError, match=r"no place for adapter.weight \[2, 3\]"):
        models.load(write(tmp_path / "c", weights), "sequence-classification")
    weights = with_head()
    del weights["classifier.bias"]
    with pytest.raises(InputError, match=r"lacks classifier.bias \[3\]"):
        models.load(write(tmp_path / "d", weights), "sequence-classification", num_labels=3)


def test_a_language_model_that_does_not_tie_its_weights_is_refused(tmp_path):
    weights = with_head(labels=100, name="cls.predictions.decoder")
    weights |= {
        f"cls.predictions.transform.dense.{part}": np.ones((HIDDEN,) * n, np.float32)
        for part, n in (("weight", 2), ("bias", 1))
    }
    weights |= {
        f"cls.predictions.transform.LayerNorm.{part}": np.ones(HIDDEN, np.float32) for part in ("weight", "bias")
    }
    with pytest.raises(
        InputError, match=r"cls.predictions.decoder.weight differs from embeddings.word_embeddings.weight"
    ):
        models.load(write(tmp_path / "untied", weights), "masked-lm")
    weights["cls.predictions.decoder.weight"] = weights["bert.embeddings.word_embeddings.weight"]
    model = models.load(write(tmp_path / "tied", weights), "masked-lm")
    assert model.load_report.missing == ()
    assert model.load_report.unexpected == ("pooler.dense.bias", "pooler.dense.weight")
    np.testing.assert_array_equal(model.mlm.predictions.bias, weights["cls.predictions.decoder.bias"])


# The Keras model


def test_keras_model_equals_the_transformer_and_counts_weights_once(tuned):
    transformer = models.load(tuned, "sequence-classification")
    model = models.as_keras(transformer)
    assert model.transformer is transformer and models.transformer_of(model) is transformer
    assert [variable.name for variable in model.weights] == [variable.name for variable in transformer.weights]
    assert model.count_params() == sum(value.size for value in with_head().values())
    np.testing.assert_array_equal(model(batch())["logits"], transformer(batch()).logits)
    np.testing.assert_allclose(
        model.predict(batch(), verbose=0)["logits"], transformer(batch()).logits, atol=1e-5, rtol=0
    )
    assert not np.array_equal(model(batch(), training=True)["logits"], model(batch(), training=True)["logits"])
    np.testing.assert_array_equal(model(batch())["logits"], model(batch())["logits"])


def test_outputs_are_float32_under_mixed_precision(tuned):
    keras.mixed_precision.set_global_policy("mixed_bfloat16")
    try:
        transformer = models.load(tuned, "sequence-classification")
        model = models.as_keras(transformer)
    finally:
        keras.mixed_precision.set_global_policy("float32")
    assert transformer(batch()).logits.dtype == tf.bfloat16
    assert model(batch())["logits"].dtype == tf.float32
    assert {variable.dtype for variable in model.weights} == {tf.float32}
    np.testing.assert_allclose(model(batch())["logits"], logits_of(with_head(), batch()), atol=0.2, rtol=0)


@pytest.mark.slow
@pytest.mark.parametrize("generator", [False, True])
def test_fit_gives_the_same_bits_as_fitting_the_transformer_itself(tmp_path, generator):
    weights = {name: value for name, value in bert_weights().items() if "layer.1" not in name}
    folder = write(tmp_path / "one-layer", weights, num_hidden_layers=1)
    labels, weights = np.array([0, 2, 1, 2]), np.array([1, 0.5, 2, 0.25], np.float32)
    data = tf.data.Dataset.from_tensor_slices((batch(), labels, weights)).batch(2)

    def trained(wrap):
        keras.utils.set_random_seed(11)
        model = transformer = models.load(folder, "sequence-classification", num_labels=3)
        if wrap:
            model = models.as_keras(transformer)
        keras.utils.set_random_seed(12)
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(loss=loss, optimizer=keras.optimizers.Adam(1e-2), weighted_metrics=["accuracy"])
        history = model.fit(data, epochs=2, verbose=0).history
        return history, transformer.get_weights()

    if generator:
        keras.backend.experimental.enable_tf_random_generator()
    try:
        (wrapped, one), (bare, other) = trained(True), trained(False)
    finally:
        keras.backend.experimental.disable_tf_random_generator()
    assert wrapped["loss"] == bare["loss"]
    assert any("accuracy" in name for name in wrapped)
    before = models.load(folder, "sequence-classification", num_labels=3).get_weights()
    for a, b, start in zip(one, other, before, strict=True):
        np.testing.assert_array_equal(a, b)
        assert not np.array_equal(a, start)


# Saving


@pytest.mark.parametrize(
    "head",
    [None, "sequence-classification", "token-classification", "question-answering", "multiple-choice", "masked-lm"],
)
def test_a_saved_model_comes_back_bit_for_bit(tmp_path, base, head):
    first = models.load(base, head, seed=8)
    models.save(first, tmp_path / "saved")
    again = models.load(tmp_path / "saved", head, seed=9)
    assert again.load_report == models.LoadReport(str(tmp_path / "saved"), (), (), ())
    for a, b in zip(first.weights, again.weights, strict=True):
        np.testing.assert_array_equal(a, b)
    for name in ("id2label", "vocab_size", "layer_norm_eps", "hidden_act", "type_vocab_size", "architectures"):
        assert getattr(again.config, name) == getattr(first.config, name)


def test_a_saved_file_is_the_file_that_was_read(tmp_path, tuned):
    model = models.as_keras(models.load(tuned, "sequence-classification", problem_type="single_label_classification"))
    models.save(model, tmp_path / "saved")
    written, expected = load_file(tmp_path / "saved" / "model.safetensors"), with_head()
    assert written.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_array_equal(written[name], value)
    config = json.loads((tmp_path / "saved" / "config.json").read_text())
    assert config["architectures"] == ["BertForSequenceClassification"]
    assert config["id2label"] == {"0": "name-0", "1": "name-1", "2": "name-2"}
    assert config["label2id"] == {"name-0": 0, "name-1": 1, "name-2": 2}
    assert config["problem_type"] == "single_label_classification"
    assert (tmp_path / "saved" / "model.safetensors").stat().st_mode & 0o777 == 0o644


def test_saving_refuses_weights_that_are_not_finite(tmp_path, tuned):
    model = models.load(tuned, "sequence-classification")
    model.classifier.kernel.assign(tf.fill([HIDDEN, 3], math.nan))
    with pytest.raises(InputError, match="classifier.weight holds 96 values that are not finite"):
        models.save(model, tmp_path / "saved")
    assert not (tmp_path / "saved").exists()


def test_saving_writes_into_a_folder_that_is_there_over_what_was_loaded(tmp_path):
    folder = classifier(tmp_path / "place")
    model = models.load(folder, "sequence-classification")
    model.classifier.bias.assign([1.5, 2.5, 3.5])
    models.save(
        model,
        folder,
        tokenizer=types.SimpleNamespace(save_pretrained=lambda place: (place / "vocab.txt").write_text("[PAD]\n")),
    )
    np.testing.assert_array_equal(load_file(folder / "model.safetensors")["classifier.bias"], [1.5, 2.5, 3.5])
    np.testing.assert_array_equal(
        load_file(folder / "model.safetensors")["classifier.weight"], with_head()["classifier.weight"]
    )
    assert (folder / "vocab.txt").read_text() == "[PAD]\n"


def test_minilm_loads_whole_and_takes_a_new_head(minilm):
    model = models.load(str(minilm), "sequence-classification", id2label={0: "negative", 1: "positive"})
    assert model.load_report.missing == ("classifier.bias", "classifier.weight")
    assert model.load_report.unexpected == ("embeddings.position_ids",)
    assert models.describe(str(minilm))["parameters"]["total"] + 2 * 384 + 2 == model.num_parameters()
    weights = dict(read_weights({name: tensor for name, tensor in list_weights(minilm, BERT).items() if tensor.float}))
    np.testing.assert_array_equal(model.bert.pooler.dense.kernel, weights["pooler.dense.weight"].T)
    np.testing.assert_array_equal(model.bert.embeddings.weight, weights["embeddings.word_embeddings.weight"])
