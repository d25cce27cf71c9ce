"""Zero-shot classification against the Hugging Face pipeline, score by score."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

import tfbert
from tfbert import tokenization
from tfbert._compat import keras, transformers
from tfbert.errors import InputError
from tfbert.models.loading import quiet

TEXTS = ["the film was great", "awful , dull and very boring", "it is 7 o'clock", "b"]
LABELS = ["good", "bad film", "actor of the plot"]
NAMES = ("contradiction", "neutral", "entailment")


@pytest.fixture(scope="module")
def made(tiny):
    task = tfbert.SequenceClassification(labels=NAMES, pair=True, max_length=48)
    model = task.build(tiny, seed=2)
    kernel, bias = model.transformer.classifier.weights
    kernel.assign(np.random.default_rng(0).normal(size=kernel.shape))
    bias.assign([0.3, -0.2, 0.5])
    return task, model, tokenization.load_tokenizer(tiny)


@pytest.mark.parametrize("multi", [False, True])
def test_scores_are_those_of_the_zero_shot_pipeline(made, multi):
    task, model, tokenizer = made
    with quiet():
        bare = transformers.TFBertForSequenceClassification(model.transformer.config)
        bare.build_in_name_scope()
        bare.set_weights(model.transformer.get_weights())
    theirs = transformers.ZeroShotClassificationPipeline(model=bare, tokenizer=tokenizer, framework="tf")
    ours = tfbert.zero_shot(task, model, tokenizer, TEXTS, LABELS, multi=multi, template="it is {}", batch_size=5)
    expected = theirs(TEXTS, LABELS, multi_label=multi, hypothesis_template="it is {}")
    for one, other in zip(ours, expected, strict=True):
        scores = dict(zip(other["labels"], other["scores"]))
        np.testing.assert_allclose(one["scores"], [scores[label] for label in LABELS], atol=1e-5)
        assert one["labels"] == LABELS
        if multi:
            assert "label" not in one
        else:
            assert one["label"] == other["labels"][0] and one["score"] == max(one["scores"])
    assert np.ptp([row["scores"] for row in ours]) > 0.05
    ours = tfbert.zero_shot(task, model, tokenizer, TEXTS, LABELS[:1], multi=multi, template="it is {}")
    expected = theirs(TEXTS, LABELS[:1], multi_label=multi, hypothesis_template="it is {}")
    np.testing.assert_allclose([row["scores"] for row in ours], [row["scores"] for row in expected], atol=1e-5)


def test_one_text_and_many_pooled_rows(made, tiny):
    task, _, tokenizer = made
    windows = dataclasses.replace(task, long_text="windows", max_length=12)
    keras.utils.set_random_seed(0)
    model = windows.build(tiny, seed=2)
    long = " ".join(TEXTS) * 3
    both = tfbert.zero_shot(windows, model, tokenizer, [long, TEXTS[0]], LABELS)
    assert len(both) == 2
    for text, one in zip([long, TEXTS[0]], both, strict=True):
        np.testing.assert_allclose(
            one["scores"], tfbert.zero_shot(windows, model, tokenizer, text, LABELS)[0]["scores"], atol=1e-6
        )


def test_what_is_no_entailment_is_refused(made, tiny):
    task, model, tokenizer = made

    def refused(match, task=task, labels=LABELS, **options):
        with pytest.raises(InputError, match=match):
            tfbert.zero_shot(task, model, tokenizer, TEXTS, labels, **options)

    refused("labels are .*; give at least one, each once", labels=[])
    refused("labels are .*; give at least one, each once", labels=["a", "a"])
    refused("must have {} where the label goes", template="this is it")
    refused("max_length is 65, but .* has 64 positions", task=dataclasses.replace(task, max_length=65))
    braces = tfbert.zero_shot(
        task, model, tokenizer, TEXTS, LABELS, template="{it} is {}"
    )  # only {} is the label's place
    assert len(braces) == len(TEXTS)
    refused(r"no label 'entails'.*name the right one, entailment=.*Did you mean 'entailment'\?", entailment="entails")
    refused("no label 'not_entailment'", multi=True, contradiction="not_entailment")
    refused("needs a sequence-classification of pairs", task=dataclasses.replace(task, pair=False))
    refused("this is masked-lm of text", task=tfbert.MaskedLM())
