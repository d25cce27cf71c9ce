"""Text written token by token: equal to TF Transformers' own `generate`, number by number, and no row minds the others."""

from __future__ import annotations

import numpy as np
import pytest

from tfbert import models
from tfbert._compat import keras, tf, transformers
from tfbert.decoding.generation import NOTHING, Generation, generate
from tfbert.decoding.generation.scores import adjust, distribution, draw, even
from tfbert.errors import InputError
from tfbert.models.loading import quiet

VOCABULARY = 40
END = 5
LENGTHS = (5, 3, 1, 7)


@pytest.fixture(scope="module")
def gpt2():
    keras.utils.set_random_seed(1)
    config = transformers.GPT2Config(
        vocab_size=VOCABULARY, n_embd=16, n_layer=2, n_head=2, n_positions=32, eos_token_id=END, initializer_range=0.7
    )
    with quiet():
        model = transformers.TFGPT2LMHeadModel(config)
        model.build_in_name_scope()
    models.can_write(model, models.CausalSteps(model), (END,))
    return model


@pytest.fixture(scope="module")
def prompts():
    rng = np.random.default_rng(0)
    ids = np.zeros((len(LENGTHS), max(LENGTHS)), np.int32)
    for row, length in zip(ids, LENGTHS, strict=True):
        row[:length] = rng.integers(6, VOCABULARY, length)
    return tf.constant(ids), tf.sequence_mask(LENGTHS, max(LENGTHS), tf.int32)


def theirs(model, ids, **settings) -> list[int]:
    if "min_new_tokens" in settings:  # which it does not mind
        settings["min_length"] = len(ids) + settings.pop("min_new_tokens")
    with quiet():
        found = model.generate(
            ids[tf.newaxis], attention_mask=tf.ones_like(ids)[tf.newaxis], pad_token_id=0, **settings
        )
    found = found.numpy()[0, len(ids) :].tolist()
    return found[: found.index(END)] if END in found else found


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"num_beams": 3},
        {"num_beams": 4, "length_penalty": 2.0, "min_new_tokens": 3},
        {"num_beams": 2, "length_penalty": -1.0, "repetition_penalty": 1.4},
        {"repetition_penalty": 1.5, "no_repeat_ngram_size": 2},
    ],
    ids=str,
)
def test_ids_are_those_of_tf_transformers_generate_row_by_row(gpt2, prompts, settings):
    ids, mask = prompts
    ours = models.write(gpt2, ids, mask, Generation(max_new_tokens=9, **settings)).numpy()
    ended = 0
    for row, length, prompt in zip(ours, LENGTHS, ids, strict=True):
        count = int((row != NOTHING).sum())
        assert (row[count:] == NOTHING).all()
        expected = theirs(gpt2, prompt[:length], max_new_tokens=9, **settings)
        assert row[:count].tolist() == expected
        ended += count < 9
    assert ended > 0 or settings.get("no_repeat_ngram_size")


@pytest.mark.parametrize(
    "settings", [{}, {"num_beams": 3}, {"do_sample": True, "top_k": 9, "temperature": 2.0}], ids=str
)
def test_batch_mates_and_padding_change_nothing(gpt2, prompts, settings):
    ids, mask = prompts
    settings = Generation(max_new_tokens=8, **settings)
    together = models.write(gpt2, ids, mask, settings).numpy()
    wide = models.write(gpt2, *(tf.pad(each, [[0, 0], [0, 3]]) for each in (ids, mask)), settings).numpy()
    np.testing.assert_array_equal(together, wide)
    for i, length in enumerate(LENGTHS):
        alone = models.write(gpt2, ids[i : i + 1, :length], mask[i : i + 1, :length], settings).numpy()
        np.testing.assert_array_equal(alone[0], together[i])
    none = models.write(gpt2, ids[:0], mask[:0], settings)
    assert none.shape == (0, 8)


def test_the_cache_gives_the_logits_of_the_whole_text(gpt2, prompts):
    ids, mask = prompts
    steps = models.CausalSteps(gpt2)
    _, state, prompt = steps.begin(ids, mask)
    np.testing.assert_array_equal(prompt[1], [NOTHING] * 4 + ids[1, :3].numpy().tolist())
    _, state = steps.step(tf.constant([7, 8, 9, 10]), steps.take(state, tf.constant([3, 2, 1, 0])))
    logits, _ = steps.step(tf.constant([11, 12, 13, 14]), state)
    for row, (i, more) in enumerate(zip([3, 2, 1, 0], [(7, 11), (8, 12), (9, 13), (10, 14)], strict=True)):
        text = [*ids[i, : LENGTHS[i]].numpy(), *more]
        np.testing.assert_allclose(logits[row], gpt2(tf.constant([text])).logits[0, -1], atol=1e-5)


def test_scores_are_changed_as_transformers_changes_them(prompts):
    rng = np.random.default_rng(3)
    scores = tf.constant(rng.normal(size=(4, VOCABULARY)) * 3, tf.float32)
    written = np.array([[7, 8, 7, 8, 9, 7], [6, 6, 6, 6, 6, 6], [9, 8, 7, 6, 9, 8], [30, 31, 32, 33, 34, 35]], np.int32)
    room = np.pad(written, [(0, 0), (0, 3)], constant_values=NOTHING)
    processors = transformers.generation.tf_logits_process
    for settings, processor in (
        ({"repetition_penalty": 1.7}, processors.TFRepetitionPenaltyLogitsProcessor(1.7)),
        ({"no_repeat_ngram_size": 2}, processors.TFNoRepeatNGramLogitsProcessor(2)),
        ({"no_repeat_ngram_size": 1}, processors.TFNoRepeatNGramLogitsProcessor(1)),
        ({"no_repeat_ngram_size": 3}, processors.TFNoRepeatNGramLogitsProcessor(3)),
        ({"min_new_tokens": 5}, processors.TFMinLengthLogitsProcessor(5 + 2, END)),
    ):
        expected = processor(tf.constant(written), scores, 6).numpy()
        got = adjust(scores, tf.constant(room), 6, 4, Generation(**settings), (END,)).numpy()
        np.testing.assert_allclose(got, expected, rtol=1e-6)
        assert (got != scores.numpy()).any()
    # Unlike Transformers', what stands before a shorter prompt is no token.
    got = adjust(scores, tf.constant([[NOTHING, 7]] * 4), 2, 0, Generation(no_repeat_ngram_size=3), (END,))
    np.testing.assert_array_equal(got, scores)


@pytest.mark.parametrize(
    "settings", [{"temperature": 0.6}, {"top_k": 7}, {"top_p": 0.8}, {"temperature": 1.5, "top_k": 20, "top_p": 0.5}]
)
def test_probabilities_of_draws_are_those_of_transformers(settings):
    rng = np.random.default_rng(4)
    scores = tf.constant(rng.normal(size=(3, VOCABULARY)) * 2, tf.float32)
    processors = transformers.generation.tf_logits_process
    warped = scores / settings.get("temperature", 1.0)
    for name, warper in (
        ("top_k", processors.TFTopKLogitsWarper),
        ("top_p", processors.TFTopPLogitsWarper),
    ):
        if name in settings:
            warped = warper(settings[name])(None, warped, 0)
    settings = Generation(do_sample=True, **settings)
    chances, ids = distribution(scores, settings)
    ids = tf.tile([tf.range(VOCABULARY)], [3, 1]) if ids is None else ids
    found = np.zeros((3, VOCABULARY), np.float32)
    np.put_along_axis(found, ids.numpy(), (chances / tf.reduce_sum(chances, 1, keepdims=True)).numpy(), 1)
    np.testing.assert_allclose(found, tf.nn.softmax(warped), atol=1e-6)
    # Of many even numbers as many draw each token as its probability says.
    even_numbers = tf.constant((np.arange(4000) + 0.5) / 4000, tf.float32)
    drawn = draw(tf.repeat(scores[:1], 4000, axis=0), even_numbers, settings).numpy()
    np.testing.assert_allclose(np.bincount(drawn, minlength=VOCABULARY) / 4000, found[0], atol=6e-4)


def test_draws_are_even_and_depend_on_the_seed_and_the_text_alone():
    ids = tf.constant([[7, 8, 0], [8, 7, 0], [7, 8, 9], [17, 8, 9]])
    mask = tf.constant([[1, 1, 0], [1, 1, 0], [1, 1, 1], [1, 1, 1]])
    settings = Generation(do_sample=True, max_new_tokens=500)
    numbers = even(ids, mask, settings).numpy()
    assert numbers.min() >= 0 and numbers.max() < 1 and len(np.unique(numbers)) > 1990
    np.testing.assert_allclose(numbers.mean(1), 0.5, atol=0.05)
    np.testing.assert_allclose(np.corrcoef(numbers), np.eye(4), atol=0.15)
    np.testing.assert_array_equal(numbers[0], even(ids[:1, :2], mask[:1, :2], settings)[0])
    other = even(ids, mask, Generation(do_sample=True, max_new_tokens=500, seed=1)).numpy()
    assert np.abs(other - numbers).mean() > 0.2


def test_every_end_ends_a_text():
    class Next:
        """After i comes i + 1."""

        def begin(self, ids, mask):
            return tf.one_hot(ids[:, -1] + 1, 30), (), ids

        def step(self, token, state):
            return tf.one_hot(token + 1, 30), ()

        def take(self, state, rows):
            return ()

    ids = tf.constant([[1], [5], [20]])
    for beams in (1, 2):
        found = generate(Next(), ids, tf.ones_like(ids), Generation(max_new_tokens=4, num_beams=beams), (4, 7))
        assert found.numpy().tolist()[0] == [2, 3, -1, -1]
        assert found.numpy().tolist()[1] == [6, -1, -1, -1]
    found = generate(Next(), ids, tf.ones_like(ids), Generation(max_new_tokens=2), ())
    assert found.numpy().tolist() == [[2, 3], [6, 7], [21, 22]]


@pytest.mark.parametrize(
    "settings, message",
    [
        (
            {"num_beams": 2, "do_sample": True},
            "num_beams is 2, and do_sample draws tokens; .* leave one of the two out",
        ),
        ({"temperature": 0.5}, "temperature is 0.5, which tokens are drawn by; add do_sample"),
        ({"top_p": 0.5}, "top_p is 0.5, which tokens are drawn by"),
        ({"top_k": 5}, "top_k is 5, which tokens are drawn by"),
        ({"length_penalty": 2.0}, "length_penalty is 2.0, which beams are compared by; give num_beams"),
        ({"max_new_tokens": 0}, "max_new_tokens is 0; it must be at least 1"),
        ({"min_new_tokens": 9, "max_new_tokens": 3}, "min_new_tokens is 9, but max_new_tokens 3"),
        ({"do_sample": True, "top_p": 1.5}, "top_p is 1.5; it must be above 0 and at most 1"),
        ({"do_sample": True, "temperature": 0.0}, "temperature is 0.0; it must be a positive number"),
        ({"repetition_penalty": -1.0}, "repetition_penalty is -1.0; it must be a positive number"),
        ({"num_beams": 2, "length_penalty": float("nan")}, "length_penalty is nan"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings, message):
    with pytest.raises(InputError, match=message):
        Generation(**settings)
