"""Longformer: attention against TF Transformers' own and a dense one, gradients in graph mode, and the whole way through the tasks."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
import test_contract as contract
from safetensors.numpy import load_file, save_file
from tiny_families import write
from tokenizers import Tokenizer, decoders, pre_tokenizers, processors
from tokenizers import models as kinds

import tfbert
from tfbert import models
from tfbert._compat import keras, tf, transformers
from tfbert.errors import InputError
from tfbert.models.families import LONGFORMER
from tfbert.models.loading import quiet
from tfbert.models.longformer import global_mask
from tfbert.serving.operations import unservable
from tfbert.sources import from_iterable

SIZES = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "type_vocab_size": 1,
    "initializer_range": 0.2,
}
# Real Longformers' special tokens, and two windows.
CONFIG = {
    **SIZES,
    "vocab_size": 60,
    "max_position_embeddings": 82,
    "attention_window": [8, 4],
    "pad_token_id": 1,
    "sep_token_id": 2,
}
PAD, SEPARATOR = 1, 2


def theirs(head: str | None, **config):
    """TF Transformers' own model, as it is, with random weights."""
    keras.utils.set_random_seed(3)
    rng = np.random.default_rng(3)
    with quiet():
        model = getattr(transformers, LONGFORMER.heads[head].tf_class)(transformers.LongformerConfig(**CONFIG | config))
        model.build_in_name_scope()
    for variable in model.weights:
        variable.assign_add(0.1 * rng.normal(size=variable.shape))
    return model


def ours(head: str | None, folder, **config):
    """The same weights through a folder, with tfbert's attention."""
    models.save(theirs(head), folder)
    return models.load(folder, head, **config)


def batch(longest: int) -> dict[str, np.ndarray]:
    """Three rows [CLS] a [SEP] [SEP] b [SEP] of different lengths, with 2 to 4 tokens before the first separator, padded."""
    rng = np.random.default_rng(longest)
    ids = rng.integers(3, CONFIG["vocab_size"], (3, longest)).astype(np.int32)
    mask = np.ones_like(ids)
    for row, length in enumerate((longest, longest - 2, longest - 6)):
        ids[row, [0, 2 + row, 3 + row, length - 1]] = 0, SEPARATOR, SEPARATOR, SEPARATOR
        ids[row, length:], mask[row, length:] = PAD, 0
    return {"input_ids": ids, "attention_mask": mask}


def first_only(ids):
    return (np.arange(ids.shape[-1]) == 0).astype(np.int32) + np.zeros_like(ids)


# The attention


@pytest.mark.parametrize("head", LONGFORMER.heads)
def test_outputs_equal_those_of_tf_transformers(head, tmp_path):
    reference, model = theirs(head), ours(head, tmp_path / "checkpoint")
    assert model.load_report.missing == model.load_report.unexpected == ()
    wrapped = models.by_choice(model) if head == "multiple-choice" else models.as_keras(model)
    for longest in (13, 40):
        inputs = batch(longest)
        ids, there = inputs["input_ids"], inputs["attention_mask"] > 0
        expected = dict(inputs)
        if head is None:  # theirs has no choice of its own here, and one that fails in graph mode there
            expected["global_attention_mask"] = first_only(ids)
        if head == "multiple-choice":
            expected["global_attention_mask"] = global_mask(tf.constant(ids), "after separator", SEPARATOR).numpy()
            expected = {name: value[:, np.newaxis] for name, value in expected.items()}
        expected, got = reference(expected), wrapped(inputs)
        for name in got:
            one, other = got[name].numpy(), expected[name].numpy()
            if one.shape[1:2] == (longest,):  # what stands at the padding means nothing
                one, other = one[there], other[there]
            np.testing.assert_allclose(one, other, atol=1e-5, rtol=0)
            assert np.abs(other).max() > 0.1


def split(x, own):
    return tf.transpose(tf.reshape(x, [*x.shape[:2], own.num_heads, own.head_dim]), [0, 2, 1, 3])


def dense_attention(query, key, value, seen, own):
    """[B, T, D] three times and bool [B, T, T] -> [B, T, D]."""
    scores = tf.einsum("bhqd,bhkd->bhqk", split(query, own), split(key, own)) / np.sqrt(own.head_dim)
    shares = tf.nn.softmax(tf.where(seen[:, np.newaxis], scores, -1e30))
    return tf.reshape(tf.einsum("bhqk,bhkd->bqhd", shares, split(value, own)), query.shape)


def dense(model, inputs, chosen):
    """The encoder's last states with all T x T scores, after the paper's equations: what the fast one must equal."""
    ids, there = inputs["input_ids"], inputs["attention_mask"] > 0
    chosen = (chosen > 0) & there
    main = model.longformer
    apart = np.abs(np.arange(ids.shape[1])[:, np.newaxis] - np.arange(ids.shape[1]))
    hidden = main.embeddings(input_ids=ids, position_ids=np.cumsum(ids != PAD, 1) * (ids != PAD) + PAD)
    for layer, window in zip(main.encoder.layer, CONFIG["attention_window"]):
        own = layer.attention.self_attention
        seen = ((apart <= window // 2) | chosen[:, np.newaxis]) & there[:, np.newaxis]
        near = dense_attention(own.query(hidden), own.key(hidden), own.value(hidden), seen, own)
        everywhere = np.broadcast_to(there[:, np.newaxis], seen.shape)
        far = dense_attention(
            own.query_global(hidden), own.key_global(hidden), own.value_global(hidden), everywhere, own
        )
        hidden = layer.attention.dense_output(tf.where(chosen[:, :, np.newaxis], far, near), hidden)
        hidden = layer.longformer_output(layer.intermediate(hidden), hidden)
    return hidden


@pytest.mark.parametrize("head", ["sequence-classification", "question-answering"])
def test_gradients_in_graph_mode_equal_those_of_dense_attention(head, tmp_path):
    model = ours(head, tmp_path / "checkpoint", hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    variables = model.trainable_variables
    spec = tf.TensorSpec([None, None], tf.int32)

    @tf.function(input_signature=[spec, spec])
    def step(ids, mask):
        with tf.GradientTape() as tape:
            outputs = model({"input_ids": ids, "attention_mask": mask}, training=True)
            loss = tf.add_n([tf.reduce_sum(outputs[name][:, :7] ** 2) for name in LONGFORMER.heads[head].outputs])
        return loss, [tf.convert_to_tensor(gradient) for gradient in tape.gradient(loss, variables)]

    for longest in (13, 16, 40):
        inputs = batch(longest)
        loss, gradients = step(ids=inputs["input_ids"], mask=inputs["attention_mask"])
        with tf.GradientTape() as tape:
            if head == "sequence-classification":
                outputs = model.classifier(dense(model, inputs, first_only(inputs["input_ids"])))
            else:
                chosen = global_mask(tf.constant(inputs["input_ids"]), "before separator", SEPARATOR).numpy()
                outputs = model.qa_outputs(dense(model, inputs, chosen))
            slow = tf.reduce_sum(outputs[:, :7] ** 2)
        assert float(loss) == pytest.approx(float(slow), rel=1e-5)
        for variable, one, other in zip(variables, gradients, tape.gradient(slow, variables)):
            scale = max(1.0, float(np.abs(one).max()))
            other = tf.convert_to_tensor(other)  # of the word embeddings they come row by row
            np.testing.assert_allclose(one / scale, other / scale, atol=1e-4, rtol=0, err_msg=variable.name)


@pytest.mark.parametrize("head", ["sequence-classification", "question-answering"])
def test_xla_compiles_it(head, tmp_path):
    model = ours(head, tmp_path / "checkpoint")
    inputs = {name: tf.constant(value) for name, value in batch(13).items()}
    step = tf.function(lambda inputs: model(inputs, training=False)[0], jit_compile=True)
    np.testing.assert_allclose(step(inputs), model(inputs)[0], atol=1e-5, rtol=0)


def test_xla_compiles_the_gradient(tmp_path):
    model = ours("sequence-classification", tmp_path / "checkpoint")

    def step(inputs):
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(model(inputs, training=False).logits ** 2)
        return tape.gradient(loss, model.longformer.encoder.layer[0].attention.self_attention.key_global.kernel)

    inputs = {name: tf.constant(value) for name, value in batch(13).items()}
    gradient = tf.function(step, jit_compile=True)(inputs)
    np.testing.assert_allclose(gradient, step(inputs), atol=1e-4, rtol=0)
    assert np.abs(gradient).max() > 1e-3


@pytest.mark.parametrize("head", ["sequence-classification", "question-answering", "multiple-choice"])
def test_padding_and_batch_mates_change_nothing(head, tmp_path):
    model = ours(head, tmp_path / "checkpoint")
    model = models.by_choice(model) if head == "multiple-choice" else models.as_keras(model)
    inputs = batch(30)
    together = model(inputs)
    for row, length in enumerate(inputs["attention_mask"].sum(1)):
        for name, output in model({key: value[row : row + 1, :length] for key, value in inputs.items()}).items():
            other = together[name][row : row + 1]
            other = other[:, :length] if other.shape[1] == 30 else other
            np.testing.assert_allclose(output, other, atol=3e-6, rtol=0)


def test_attention_dropout_is_on_in_training_only(tmp_path):
    rates = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.3}
    inputs = batch(13)
    keras.utils.set_random_seed(5)
    model = ours("sequence-classification", tmp_path / "checkpoint", **rates)
    still, one, other = (model(inputs, training=training).logits.numpy() for training in (False, True, True))
    assert np.abs(one - still).max() > 1e-3 and np.abs(one - other).max() > 1e-3
    model = models.load(tmp_path / "checkpoint", "sequence-classification", **dict.fromkeys(rates, 0.0))
    np.testing.assert_array_equal(model(inputs, training=True).logits, still)


def test_memory_grows_with_the_length_not_with_its_square(tmp_path):
    model = ours("sequence-classification", tmp_path / "checkpoint", max_position_embeddings=82)

    def largest(longest: int) -> int:
        ids = tf.TensorSpec([1, longest], tf.int32)
        graph = tf.function(lambda ids: model({"input_ids": ids}, training=False)[0]).get_concrete_function(ids).graph
        shapes = [output.shape for operation in graph.get_operations() for output in operation.outputs]
        return sum(shape.num_elements() for shape in shapes if shape.is_fully_defined())

    short, long = largest(512), largest(1024)
    assert long < 2.1 * short


def test_global_tokens_of_the_users_choice(tmp_path):
    reference, model = theirs("sequence-classification"), ours("sequence-classification", tmp_path / "checkpoint")
    inputs = batch(20)
    chosen = (np.random.default_rng(0).random((3, 20)) < 0.3).astype(np.int32)
    inputs["global_attention_mask"] = chosen * inputs["attention_mask"]
    np.testing.assert_allclose(model(inputs).logits, reference(inputs).logits, atol=1e-5, rtol=0)
    with pytest.raises(InputError, match="takes no inputs_embeds; leave it out"):
        model.longformer(inputs["input_ids"], inputs_embeds=np.zeros([3, 20, 32], np.float32))


# Checkpoints


def test_names_and_turns_are_pytorchs(tmp_path):
    model = theirs("sequence-classification", num_labels=5)
    models.save(model, tmp_path / "checkpoint")
    stored = load_file(tmp_path / "checkpoint" / "model.safetensors")
    own = "longformer.encoder.layer.1.attention.self."
    for name in ("query", "key", "value", "query_global", "key_global", "value_global"):
        variable = getattr(model.longformer.encoder.layer[1].attention.self_attention, name).kernel
        np.testing.assert_array_equal(stored[f"{own}{name}.weight"], variable.numpy().T)
    assert stored["classifier.out_proj.weight"].shape == (5, 32) and "classifier.dense.bias" in stored
    config = json.loads((tmp_path / "checkpoint" / "config.json").read_text())
    assert config["architectures"] == ["LongformerForSequenceClassification"]
    assert config["attention_window"] == [8, 4] and config["sep_token_id"] == SEPARATOR
    assert len(models.load(tmp_path / "checkpoint", "sequence-classification").config.id2label) == 5
    with pytest.raises(InputError, match="the checkpoint's classifier has 5 labels.*, the task has 2"):
        models.load(tmp_path / "checkpoint", "sequence-classification", num_labels=2)
    about = models.describe(tmp_path / "checkpoint")
    assert (about["positions"], about["type_ids"]) == (80, 0)


def test_tied_copies_of_a_masked_lm_are_taken_away(tmp_path):
    models.save(theirs("masked-lm"), tmp_path / "checkpoint")
    file = tmp_path / "checkpoint" / "model.safetensors"
    stored = load_file(file)
    assert {name for name in stored if name.startswith("lm_head")} == {
        f"lm_head.{name}" for name in ("bias", "dense.weight", "dense.bias", "layer_norm.weight", "layer_norm.bias")
    }
    stored["lm_head.decoder.weight"] = stored["longformer.embeddings.word_embeddings.weight"]
    stored["lm_head.decoder.bias"] = stored["lm_head.bias"]
    save_file(stored, file, metadata={"format": "pt"})
    assert models.load(tmp_path / "checkpoint", "masked-lm").load_report.unexpected == ()
    new = models.load(tmp_path / "checkpoint", "token-classification", num_labels=3)
    assert set(new.load_report.unexpected) >= {"lm_head.bias", "lm_head.dense.weight"}
    assert new.load_report.missing == ("classifier.bias", "classifier.weight")


def test_a_new_masked_lm_head_begins_with_scales_of_one(tmp_path):
    models.save(theirs(None), tmp_path / "checkpoint")
    model = models.load(tmp_path / "checkpoint", "masked-lm")
    np.testing.assert_array_equal(model.lm_head.layer_norm.gamma, np.ones(32))


@pytest.mark.parametrize("window", [7, 0, True, "8", [8, 8, 8], [8, 5], 8.0])
def test_a_wrong_window_is_told(window, tmp_path):
    models.save(theirs(None), tmp_path / "checkpoint")
    config = json.loads((tmp_path / "checkpoint" / "config.json").read_text())
    (tmp_path / "checkpoint" / "config.json").write_text(json.dumps({**config, "attention_window": window}))
    with pytest.raises(
        InputError, match="attention_window is .*; expected an even whole number from 2 to .* a list of 2"
    ):
        models.load(tmp_path / "checkpoint", None)


def test_the_window_can_be_changed_and_belongs_to_longformer_alone(tmp_path, tiny):
    models.save(theirs(None), tmp_path / "checkpoint")
    assert models.load(tmp_path / "checkpoint", None, attention_window=4).config.attention_window == [4, 4]
    with pytest.raises(InputError, match="no setting 'attention_window' in a model's config"):
        models.load(tiny, None, attention_window=4)


# Tasks


@pytest.fixture(scope="module")
def folder(tiny, tmp_path_factory):
    """A Longformer with the tokenizer of the tiny BERT: window 16, positions for texts of 600 tokens and more."""
    tokenizer = tfbert.load_tokenizer(tiny)
    place = tmp_path_factory.mktemp("longformer") / "tiny-longformer"
    special = {"pad_token_id": tokenizer.pad_token_id, "sep_token_id": tokenizer.sep_token_id}
    sizes = {"vocab_size": len(tokenizer), "max_position_embeddings": 700, "attention_window": 16, **special}
    keras.utils.set_random_seed(7)
    with quiet():
        model = transformers.TFLongformerModel(transformers.LongformerConfig(**SIZES | sizes))
        model.build_in_name_scope()
    models.save(model, place, tokenizer)
    return place


def long(examples: list[dict]) -> list[dict]:
    """The same, each text with 600 words before it."""
    return [{**row, "text": "the plot of it and " * 120 + row["text"]} for row in examples]


CASES = {
    "single": contract.CASES["single"],
    "long": (
        tfbert.SequenceClassification(max_length=640),
        long(contract.without_pair(contract.rows(12, lambda i, good: "good" if good else "bad"))),
    ),
    "tokens": contract.CASES["tokens"],
    "questions": contract.CASES["questions without answer"],
}


@pytest.mark.parametrize("name", CASES)
def test_a_task_goes_the_whole_way(name, folder, tmp_path):
    task, examples = CASES[name]
    tuned = tfbert.fine_tune(
        task,
        folder,
        examples,
        examples,
        directory=tmp_path / "run",
        epochs=6,
        batch_size=12,
        learning_rate=5e-3,
        report=False,
    )
    losses = [row["loss"] for row in tuned.history]
    assert losses[-1] < 0.9 * losses[0] or name == "long"
    again = tfbert.load(tmp_path / "run")
    scores = tfbert.evaluate(again.task, again.model, again.tokenizer, from_iterable(examples))
    assert scores == pytest.approx({key: tuned.metrics["metrics"][key] for key in scores}, abs=1e-5)
    texts = contract.texts_for(tuned.task)
    if name == "long":
        texts = [row["text"] for row in examples] + texts
    answers = tfbert.Predictor(tmp_path / "run" / "1")(texts)
    contract.close(tfbert.predict(again.task, again.model, again.tokenizer, texts), answers, 1e-5)
    assert unservable(tmp_path / "run" / "1", "2.19") == []


def test_the_first_token_sees_all_600(folder):
    """The label stands in the last words, 37 windows from [CLS]: only global attention carries it there."""
    examples = from_iterable(CASES["long"][1], "made.csv")
    task = CASES["long"][0].from_data(examples)
    model, tokenizer = task.build(folder, seed=1), tfbert.load_tokenizer(folder)
    good, bad = (CASES["long"][1][i]["text"] for i in (1, 0))
    ids = tokenizer([good, bad], padding=True, return_tensors="np")
    assert ids["input_ids"].shape[1] > 600
    one, other = model({name: ids[name].astype(np.int32) for name in ("input_ids", "attention_mask")})["logits"].numpy()
    assert np.abs(one - other).max() > 1e-4


def test_a_tokenizer_with_another_separator_is_told(folder):
    model, tokenizer = models.load(folder, None, sep_token_id=4), tfbert.load_tokenizer(folder)
    with pytest.raises(InputError, match="the sep token has id 3, but .* says sep_token_id 4"):
        models.check_tokenizer(model, tokenizer, max_length=32)


@pytest.mark.parametrize(("name", "kind"), [("longformer", "tokens"), ("roberta", "questions")])
def test_a_byte_level_tokenizer_goes_the_whole_way(tmp_path, name, kind):
    """Real Longformers have RoBERTa's."""
    place = tmp_path / "checkpoint"
    tokens = [
        "<s>",
        "<pad>",
        "</s>",
        "<unk>",
        "<mask>",
        *sorted(pre_tokenizers.ByteLevel.alphabet()),
        "Ġt",
        "he",
        "Ġthe",
    ]
    merges = [("Ġ", "t"), ("h", "e"), ("Ġt", "he")]
    tokenizer = Tokenizer(kinds.BPE({token: i for i, token in enumerate(tokens)}, merges, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0), add_prefix_space=False)
    if name == "longformer":
        models.save(theirs(None, vocab_size=len(tokens), max_position_embeddings=200), place)
        transformers.LongformerTokenizerFast(tokenizer_object=tokenizer).save_pretrained(place)
    else:
        roberta = transformers.RobertaTokenizerFast(tokenizer_object=tokenizer)
        write(name, place, roberta, 1, pad_token_id=1, sep_token_id=2, max_position_embeddings=200)
    task, examples = contract.CASES[kind]
    task = dataclasses.replace(task, max_length=128, **({"max_question_length": 32} if kind == "questions" else {}))
    tuned = tfbert.fine_tune(task, place, examples, examples, directory=tmp_path / "run", epochs=1, report=False)
    texts = contract.texts_for(tuned.task)
    answers = tfbert.Predictor(tmp_path / "run" / "1")(texts)
    contract.close(tfbert.predict(tuned.task, tuned.model, tuned.tokenizer, texts), answers, 1e-5)
    assert unservable(tmp_path / "run" / "1", "2.19") == []
