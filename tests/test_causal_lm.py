"""Causal language models: what is learnt from which tokens, what is written, and what an export writes."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

import tfbert
from tfbert import losses, models, serving, tasks, tokenization
from tfbert._compat import tf
from tfbert.decoding.generation import NOTHING
from tfbert.errors import InputError
from tfbert.models.configuration import read_config

DOCUMENTS = [{"text": text} for text in ("a good film", "the plot is very dull and the actor was not good", "", "it")]
PAIRS = [
    {"text": "a good", "target": "film", "weight": 2.0},
    {"text": "the plot of it was very", "target": "dull and boring and awful"},
    {"text": "", "target": "it"},
]


@pytest.fixture(scope="module")
def tokenizer(tiny_gpt2):
    return tokenization.load_tokenizer(tiny_gpt2)


@pytest.fixture(scope="module")
def model(tiny_gpt2):
    return tasks.CausalLM(max_length=16, max_new_tokens=6).build(tiny_gpt2)


def ids_of(tokenizer, text: str) -> list[int]:
    return tokenizer(text, add_special_tokens=False)["input_ids"]


def rows_of(table) -> list[list[int]]:
    values, splits = table
    return [values[a:b].tolist() for a, b in zip(splits, splits[1:])]


def test_each_token_of_a_document_is_told_once_from_those_before(tokenizer):
    task = tasks.CausalLM(max_length=5, max_new_tokens=2).from_data(DOCUMENTS)
    features = task.features(tokenizer, tfbert.Examples(DOCUMENTS, source="made"))
    end, expected = tokenizer.eos_token_id, []
    for document in DOCUMENTS:
        whole = [end, *ids_of(tokenizer, document["text"]), end]
        for i in range(0, len(whole) - 1, 5):
            expected.append((whole[:-1][i : i + 5], whole[1:][i : i + 5]))
    assert rows_of(features.ragged["input_ids"]) == [ids for ids, _ in expected]
    assert rows_of(features.targets) == [target for _, target in expected]
    assert features.weights.tolist() == [len(ids) for ids, _ in expected]
    assert np.diff(features.examples).tolist() == [1, 3, 1, 1] and features.alone


def test_of_a_prompt_with_a_target_the_target_alone_is_learnt(tokenizer):
    task = tasks.CausalLM(max_length=8, max_new_tokens=4).from_data(PAIRS)
    assert task.completion
    features = task.features(tokenizer, tfbert.Examples(PAIRS, source="made"))
    end, no = tokenizer.eos_token_id, losses.IGNORED
    a, good, film, it = (ids_of(tokenizer, word)[0] for word in ("a", "good", "film", "it"))
    prompt = ids_of(tokenizer, PAIRS[1]["text"])[-4:]  # the last 8 - 4
    target = ids_of(tokenizer, PAIRS[1]["target"])[:4]
    assert rows_of(features.ragged["input_ids"]) == [[a, good, film], [*prompt, *target[:3]], [end, it]]
    assert rows_of(features.targets) == [[no, film, end], [no, no, no, *target], [it, end]]
    assert features.weights.tolist() == [4.0, 4.0, 2.0]
    answered = task.features(tokenizer, tfbert.Examples(PAIRS, source="made"), targets=False)
    assert rows_of(answered.ragged["input_ids"]) == [[a, good], prompt, [end]]


def test_loss_and_perplexity_are_those_of_the_formula(model, tokenizer):
    for examples in (DOCUMENTS, PAIRS):
        task = tasks.CausalLM(max_length=8, max_new_tokens=4).from_data(examples)
        features = task.features(tokenizer, tfbert.Examples(examples, source="made"))
        total, count, right, by_row = 0.0, 0, 0, []
        for ids, target in zip(rows_of(features.ragged["input_ids"]), rows_of(features.targets), strict=True):
            logits = model.transformer(tf.constant([ids])).logits.numpy()[0].astype(np.float64)
            chances = logits - np.log(np.exp(logits).sum(1, keepdims=True))
            told = [(i, t) for i, t in enumerate(target) if t != losses.IGNORED]
            by_row.append(-np.mean([chances[i, t] for i, t in told]))
            total += by_row[-1] * len(told)
            count += len(told)
            right += sum(int(chances[i].argmax() == t) for i, t in told)
        scores = tfbert.evaluate(task, model, tokenizer, examples)
        assert scores["loss"] == pytest.approx(total / count, rel=1e-5)
        assert scores["perplexity"] == pytest.approx(math.exp(total / count), rel=1e-5)
        assert scores["accuracy"] == pytest.approx(right / count)
        inputs, targets, weights = next(iter(tfbert.make_dataset(task, tokenizer, examples, batch_size=9)))
        np.testing.assert_allclose(task.loss()(targets, model(inputs)["logits"]), by_row, rtol=1e-5)
        np.testing.assert_allclose(weights, features.weights / features.weights.mean(), rtol=1e-6)


def test_texts_are_those_of_the_tokenizer_and_of_transformers_generate(model, tokenizer, tiny_gpt2):
    task = tasks.CausalLM(max_length=16, max_new_tokens=6)
    texts = ["a good film", "the plot of it is very dull and the actor was not good at all", "lovely ##s 好"]
    for text, answer in zip(texts, tfbert.predict(task, model, tokenizer, texts), strict=True):
        ids = tf.constant([ids_of(tokenizer, text)[-10:]])
        found = model.transformer.generate(ids, attention_mask=tf.ones_like(ids), max_new_tokens=6, pad_token_id=0)
        expected = tokenizer.decode(
            found.numpy()[0, ids.shape[1] :], skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
        assert answer == {"generated_text": expected} and expected


def test_ids_become_the_text_that_the_tokenizer_makes_of_them(tokenizer):
    rng = np.random.default_rng(2)
    ids = rng.integers(-2, len(tokenizer) + 3, (300, 12)).astype(np.int32)
    ids[:50, :3] = 0
    kept = [[i for i in row if 0 <= i < len(tokenizer)] for row in ids.tolist()]
    expected = [tokenizer.decode(row, skip_special_tokens=True, clean_up_tokenization_spaces=False) for row in kept]
    assert any(text.startswith("##") for text in expected)
    for pieces in (tokenization.RustPieces(tokenizer), tokenization.graph_tokenizer(tokenizer)):
        found = pieces.detokenize(tf.constant(ids)).numpy()
        assert [text.decode() for text in found] == expected
        assert pieces.detokenize(tf.zeros([0, 4], tf.int32)).shape == (0,)
    ragged = tf.RaggedTensor.from_tensor(tf.constant(ids), padding=NOTHING)
    assert tokenization.graph_tokenizer(tokenizer).detokenize(ragged).shape == (300,)


def test_a_stop_is_one_token_that_ends_a_text_too(tokenizer):
    assert tasks.CausalLM(stop=("film", ".")).ends(tokenizer) == (
        tokenizer.eos_token_id,
        *ids_of(tokenizer, "film"),
        *ids_of(tokenizer, "."),
    )
    with pytest.raises(InputError, match="stop has 'film film', which is 2 tokens; give texts of one token each"):
        tasks.CausalLM(stop=("film film",)).ends(tokenizer)


def test_what_is_trained_is_what_is_exported(tiny_gpt2, tmp_path):
    pairs = [{"text": "a good", "target": "film"}, {"text": "the plot was", "target": "very dull"}] * 8
    task = tasks.CausalLM(max_length=12, max_new_tokens=3, num_beams=2, scores=("exact_match",))
    options = {"epochs": 6, "learning_rate": 2e-2, "batch_size": 4, "report": False}
    tuned = tfbert.fine_tune(task, tiny_gpt2, pairs, pairs, directory=tmp_path / "out", **options)
    assert tuned.metrics["metrics"]["exact_match"] == 1 and tuned.metrics["metrics"]["perplexity"] < 2
    answers = tfbert.Predictor(tmp_path / "out")(["a good", "the plot was"])
    assert answers == [{"generated_text": "film"}, {"generated_text": "very dull"}]
    again = tfbert.load(tmp_path / "out")
    assert tfbert.predict(again.task, again.model, again.tokenizer, ["a good", "the plot was"]) == answers
    golden = json.loads((tmp_path / "out" / "1" / "assets.extra" / "tfbert.json").read_text())["golden"]
    assert all(set(row["answer"]) == {"generated_text"} for row in golden)


def test_drawn_texts_are_the_same_in_an_export(model, tokenizer, tmp_path):
    task = tasks.CausalLM(max_length=16, max_new_tokens=6, do_sample=True, top_p=0.9, repetition_penalty=1.2)
    predictor = tfbert.Predictor(serving.export(task, model, tokenizer, tmp_path, target="2.19"))
    texts = ["a good film", "the plot", "", "a good film"]
    answers = predictor(texts)
    assert answers == tfbert.predict(task, model, tokenizer, texts)
    assert answers[0] == answers[3] == predictor("a good film") and len({row["generated_text"] for row in answers}) == 3


def test_all_word_embeddings_learn(model, tokenizer, tiny_gpt2):
    """The head chooses among all tokens, also those that no text has."""
    task = tasks.CausalLM(max_length=12, max_new_tokens=4).from_data(DOCUMENTS)
    features = task.features(tokenizer, tfbert.Examples(DOCUMENTS, source="made"))
    assert features.written and tfbert.features.pieces_in_use(features) is None


def test_a_checkpoint_of_pytorch_is_read_by_its_own_names(tiny_gpt2):
    """Conv1D's matrices lie as in TensorFlow, its biases have one dimension; the head is the word embeddings."""
    tensors = models.loading.list_weights(tiny_gpt2, models.families.FAMILIES["gpt2"])
    assert tensors["h.0.mlp.c_fc.weight"].shape == (32, 48) and tensors["h.0.mlp.c_fc.bias"].shape == (48,)
    assert "lm_head.weight" not in tensors and tensors["wte.weight"].name == "transformer.wte.weight"
    settings = read_config(tiny_gpt2)
    assert (settings["hidden_size"], settings["intermediate_size"], settings["max_position_embeddings"]) == (32, 48, 64)


def test_what_cannot_be_done_is_refused(model, tokenizer, tiny, tiny_gpt2, tmp_path):
    with pytest.raises(InputError, match="max_new_tokens is 32, but a row has max_length 20 tokens"):
        tasks.CausalLM(max_length=20)
    with pytest.raises(InputError, match="no head 'causal-lm' for model type bert; it has"):
        tasks.CausalLM().build(tiny)
    with pytest.raises(InputError, match="num_beams is 3, and do_sample draws tokens"):
        tasks.CausalLM(num_beams=3, do_sample=True)
    with pytest.raises(InputError, match="there is no score 'blue'; .* Did you mean 'bleu'?"):
        tasks.CausalLM(scores=("blue",))
    with pytest.raises(InputError, match="scores has bleu, which compare written texts with targets"):
        tasks.CausalLM(scores=("exact_match", "bleu")[1:]).from_data(DOCUMENTS).check(tfbert.Examples(DOCUMENTS))
    with pytest.raises(InputError, match="max_length is 65, but .* has 64 positions"):
        tfbert.predict(tasks.CausalLM(max_length=65), model, tokenizer, ["a"])
    mixed = tfbert.Examples([*PAIRS, *DOCUMENTS], source="made.csv")
    with pytest.raises(InputError, match="row 4 of made.csv: no field 'target'"):
        tasks.CausalLM().from_data(mixed).check(mixed)
    with pytest.raises(InputError, match="row 1 of made.csv: has a target, but the task learns from raw text"):
        tasks.CausalLM(completion=False).check(mixed)
