"""Text to text: what encoder and decoder read, what is learnt, what is written, and what an export writes."""

from __future__ import annotations

import math

import numpy as np
import pytest
import tiny_writers
from safetensors.numpy import load_file, save_file

import tfbert
from tfbert import losses, models, serving, tasks, tokenization
from tfbert._compat import tf
from tfbert.errors import InputError
from tfbert.models.loading import quiet

PAIRS = [
    {"text": "a good film", "target": "lovely", "weight": 2.0},
    {"text": "the plot of it was very dull", "target": "boring and awful and dull"},
    {"text": "", "target": ""},
]
TASK = tasks.Seq2Seq(max_length=9, max_new_tokens=4, prefix="it is ")


@pytest.fixture(scope="module")
def tokenizer(tiny_t5):
    return tokenization.load_tokenizer(tiny_t5)


@pytest.fixture(scope="module")
def model(tiny_t5):
    return TASK.build(tiny_t5)


def rows_of(table) -> list[list[int]]:
    values, splits = table
    return [values[a:b].tolist() for a, b in zip(splits, splits[1:])]


def sides(tokenizer) -> list[tuple[list[int], list[int]]]:
    """Of each pair the ids of the text and of the target, cut as the task says."""
    texts = [tokenizer("it is " + row["text"], max_length=9, truncation=True)["input_ids"] for row in PAIRS]
    targets = [tokenizer(row["target"])["input_ids"][:4] for row in PAIRS]
    return list(zip(texts, targets, strict=True))


def test_the_decoder_reads_the_target_behind_its_first_token(model, tokenizer):
    features = TASK.features(tokenizer, tfbert.Examples(PAIRS, source="made"))
    assert features.weights.tolist() == [4.0, 4.0, 1.0] and features.written
    inputs, targets, _ = next(iter(tfbert.make_dataset(TASK, tokenizer, PAIRS, batch_size=3)))
    logits = model(inputs)["logits"].numpy()
    loss = TASK.loss()(targets, logits).numpy()
    for i, (text, target) in enumerate(sides(tokenizer)):
        read = tf.constant([[0, *target[:-1]]])  # T5 begins with the padding
        with quiet():
            expected = model.transformer(input_ids=tf.constant([text]), decoder_input_ids=read).logits[0].numpy()
        np.testing.assert_allclose(logits[i, : len(target)], expected, atol=2e-5)
        told = rows_of(features.targets)[i]
        assert told == [losses.IGNORED] * len(text) + target
        chances = expected - np.log(np.exp(expected.astype(np.float64)).sum(1, keepdims=True))
        assert loss[i] == pytest.approx(-np.mean([chances[k, t] for k, t in enumerate(target)]), rel=1e-5)


def test_perplexity_is_that_of_transformers_loss(model, tokenizer):
    total, count = 0.0, 0
    for text, target in sides(tokenizer):
        with quiet():
            found = model.transformer(input_ids=tf.constant([text]), labels=tf.constant([target]))
        total += float(tf.reduce_mean(found.loss)) * len(target)
        count += len(target)
    scores = tfbert.evaluate(TASK, model, tokenizer, PAIRS, batch_size=2)
    assert scores["perplexity"] == pytest.approx(math.exp(total / count), rel=1e-5)
    assert set(scores) == {"loss", "perplexity", "accuracy"}


@pytest.mark.parametrize("family", ["t5", "bart"])
@pytest.mark.parametrize("settings", [{}, {"num_beams": 3, "length_penalty": 0.5}], ids=str)
def test_texts_are_those_of_transformers_generate(family, settings, tiny, tiny_t5, tmp_path):
    folder = tiny_t5 if family == "t5" else tiny_writers.bart(tiny, tmp_path / "bart")
    task = tasks.Seq2Seq(max_length=16, max_new_tokens=6, **settings)
    model, tokenizer = task.build(folder), tokenization.load_tokenizer(folder)
    assert not model.transformer.load_report.missing and not model.transformer.load_report.unexpected
    model.transformer.generation_config.forced_eos_token_id = (
        None  # BART's own puts another token at the end of max_new_tokens
    )
    texts = [row["text"] for row in PAIRS] + ["lovely actor, bright scene"]
    ours = tfbert.predict(task, model, tokenizer, texts)
    assert len({answer["generated_text"] for answer in ours}) > 1
    for text, answer in zip(texts, ours, strict=True):
        ids = tf.constant([tokenizer(text)["input_ids"]])
        with quiet():
            found = model.transformer.generate(ids, max_new_tokens=6, **settings).numpy()[0]
        expected = tokenizer.decode(found, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        assert answer == {"generated_text": expected}


def test_a_bare_bart_gets_the_bias_that_it_has_not(tiny, tmp_path):
    """As BartModel of PyTorch saves it."""
    folder = tiny_writers.bart(tiny, tmp_path / "bart")
    weights = load_file(folder / "model.safetensors")
    bare = {name: values for name, values in weights.items() if name != "final_logits_bias"}
    save_file(bare, folder / "model.safetensors", metadata={"format": "pt"})
    model = tasks.Seq2Seq(max_length=16, max_new_tokens=6).build(folder)
    assert model.transformer.load_report.missing == ("final_logits_bias",)
    with pytest.raises(InputError, match="reinitialize is 1; the model has 1 to 0 layers"):
        models.reinitialize(model, 1)


def test_an_export_writes_what_the_model_does(model, tokenizer, tmp_path):
    task = tasks.Seq2Seq(max_length=12, max_new_tokens=5, num_beams=2, no_repeat_ngram_size=2)
    place = serving.export(task, model, tokenizer, tmp_path, target="2.19")
    texts = [row["text"] for row in PAIRS]
    assert tfbert.Predictor(place)(texts) == tfbert.predict(task, model, tokenizer, texts)


def test_it_learns_to_write(tiny_t5, tmp_path):
    pairs = [{"text": "a good", "target": "film"}, {"text": "the plot was", "target": "very dull"}] * 8
    task = tasks.Seq2Seq(max_length=12, max_new_tokens=3, scores=("exact_match",))
    tuned = tfbert.fine_tune(
        task,
        tiny_t5,
        pairs,
        pairs,
        directory=tmp_path / "out",
        epochs=8,
        learning_rate=1e-2,
        batch_size=4,
        export=False,
        report=False,
        freeze="encoder",
    )
    assert tuned.metrics["metrics"]["exact_match"] == 1
    assert set(tuned.metrics["layer_groups"]) == {"embeddings", "encoder", "decoder"}
    again = tfbert.load(tmp_path / "out")
    answers = tfbert.predict(again.task, again.model, again.tokenizer, ["a good", "the plot was"])
    assert answers == [{"generated_text": "film"}, {"generated_text": "very dull"}]


def test_what_cannot_be_done_is_refused(tiny, tiny_gpt2, tmp_path):
    with pytest.raises(InputError, match="no head 'seq2seq' for model type gpt2; it has causal-lm"):
        tasks.Seq2Seq().build(tiny_gpt2)
    with pytest.raises(InputError, match="max_new_tokens is 32, but .*bart has 24 positions; lower it to 24 or less"):
        tasks.Seq2Seq(max_length=20).build(tiny_writers.bart(tiny, tmp_path / "bart"))
    with pytest.raises(InputError, match="row 1 of made.csv: no field 'target'; the row has 'text'"):
        TASK.check(tfbert.Examples([{"text": "a"}], source="made.csv"))
