"""ELECTRA's pretraining: the generator's draws, both losses and the scores against formulas, shared embeddings, resume, what is saved."""

from __future__ import annotations

import json

import numpy as np
import pytest
from safetensors.numpy import load_file

import tfbert
from tfbert import checkpoints, losses, models, tasks, tokenization
from tfbert._compat import keras, tf, transformers
from tfbert.errors import InputError
from tfbert.losses import IGNORED
from tfbert.masking import STEPS, ReplacedMasking
from tfbert.models.generator import sample
from tfbert.models.loading import quiet
from tfbert.sources import from_iterable

CLAUSES = ("the film is good", "the plot was dull", "a great actor", "it is not boring", "a lovely , bright scene")


def corpus(count: int, seed: int) -> list[dict]:
    rng = np.random.default_rng(seed)
    return [{"text": " ; ".join(rng.choice(CLAUSES, rng.integers(1, 5)))} for _ in range(count)]


@pytest.fixture(scope="module")
def made(tiny_electra, tmp_path_factory):
    """A tiny discriminator with its generator, saved and loaded back."""
    place = tmp_path_factory.mktemp("electra") / "model"
    task, tokenizer = tasks.ReplacedTokenDetection(max_length=12), tokenization.load_tokenizer(tiny_electra)
    models.save(task.build(tiny_electra, seed=3), place, tokenizer)
    return task, task.build(place), tokenizer, place


@pytest.fixture(scope="module")
def theirs(made):
    """The same weights in TF Transformers' own two classes: rows of ids to both logits."""
    discriminator = made[1].transformer
    with quiet():
        both = [
            kind(model.config)
            for kind, model in (
                (transformers.TFElectraForMaskedLM, discriminator.generator),
                (transformers.TFElectraForPreTraining, discriminator),
            )
        ]
        for bare in both:
            bare.build_in_name_scope()
    for bare, model in zip(both, (discriminator.generator, discriminator), strict=True):
        values = {variable.name.split("/", 1)[1]: variable.numpy() for variable in model.weights}
        for variable in bare.weights:
            variable.assign(values[variable.name.split("/", 1)[1]])

    @tf.function(input_signature=[tf.TensorSpec([1, None], tf.int32)] * 2)
    def logits(hidden, read):
        ones = tf.ones_like(hidden)
        return both[0](hidden, attention_mask=ones).logits[0], both[1](read, attention_mask=ones).logits[0]

    return lambda hidden, read: [found.numpy().astype(np.float64) for found in logits([hidden], [read])]


def surprise(logits: np.ndarray, right: int) -> float:
    return float(np.log(np.exp(logits - logits.max()).sum()) + logits.max() - logits[right])


def test_draws_follow_the_softmax():
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(3, 7)).astype(np.float32) * 2
    draws = (np.arange(100_000) * STEPS / 100_000).astype(np.int32)  # evenly over all numbers there are
    found = sample(tf.repeat(logits[:, np.newaxis], len(draws), 1), tf.tile(draws[np.newaxis], [3, 1])).numpy()
    chances = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    for row, expected in zip(found, chances, strict=True):
        assert np.abs(np.bincount(row, minlength=7) / len(draws) - expected).max() < 2e-5
        assert (np.diff(row) >= 0).all()
    edge = tf.constant([[-np.inf, 0.0, -np.inf, 0.0, -np.inf]] * 4)
    assert sample(edge, tf.constant([0, STEPS // 2 - 1, STEPS // 2, STEPS - 1])).numpy().tolist() == [1, 1, 3, 3]


def test_of_the_tokens_taken_85_of_100_are_hidden_and_the_numbers_are_even():
    rows, length = 2000, 64
    masking = ReplacedMasking("token", 4, np.arange(10, 20, dtype=np.int32), longest=length, rows=rows)
    ids = tf.fill([rows, length], 30)
    inputs = {"input_ids": ids, "attention_mask": tf.ones_like(ids)}
    at = tf.range(rows, dtype=tf.int64)
    words = tf.tile(tf.range(length)[tf.newaxis], [rows, 1])
    epoch = tf.constant(0, tf.int64)
    found, targets, weights = tf.function(lambda: masking.batch(inputs, words, at, epoch, tf.ones([rows]), seed=1))()
    taken = found["masked"].numpy() > 0
    assert taken.mean() == pytest.approx(0.15, abs=0.002)
    seen = found["input_ids"].numpy()[taken]
    assert set(seen) == {4, 30} and (seen == 4).mean() == pytest.approx(0.85, abs=0.012)
    np.testing.assert_array_equal(targets["logits"].numpy() != IGNORED, taken)
    assert (targets["replaced"].numpy() == 30).all() and (weights["replaced"].numpy() == 1).all()
    draw = found["draw"].numpy().ravel() / STEPS
    assert draw.min() >= 0 and draw.max() < 1
    assert np.abs(np.histogram(draw, 10, (0, 1))[0] / draw.size - 0.1).max() < 0.005
    again, _, _ = masking.batch(
        {name: values[5:7, :40] for name, values in inputs.items()},
        words[5:7, :40],
        at[5:7],
        epoch,
        tf.ones([2]),
        seed=1,
    )
    np.testing.assert_array_equal(again["draw"], found["draw"][5:7, :40])


def test_both_losses_are_those_of_the_formula(made, theirs):
    task, model, tokenizer, _ = made
    (inputs, targets, weights), *_ = tfbert.make_dataset(
        task, tokenizer, corpus(9, 0), batch_size=64, training=True, seed=4
    )
    outputs = model(inputs)
    generator, discriminator, replaced = [], [], 0
    arrays = [inputs[name].numpy() for name in ("input_ids", "attention_mask", "masked", "draw")]
    for hidden, mask, masked, draw, right, originals, read in zip(
        *arrays, targets["logits"].numpy(), targets["replaced"].numpy(), outputs["replaced"].numpy()[..., 1].astype(int)
    ):
        there, places = mask > 0, np.flatnonzero(masked)
        np.testing.assert_array_equal(originals[there][masked[there] == 0], hidden[there][masked[there] == 0])
        guessed, judged = theirs(hidden[there], read[there])
        for place in places:
            chances = np.exp(guessed[place] - guessed[place].max())
            chosen = np.searchsorted(np.cumsum(chances) / chances.sum(), draw[place] / STEPS, side="right")
            assert read[place] == chosen and right[place] == originals[place]
            generator.append(surprise(guessed[place], right[place]))
        labels = read[there] != originals[there]
        assert not labels[masked[there] == 0].any()
        replaced += labels.sum()
        signs = np.where(labels, 1, -1)
        discriminator += np.log1p(np.exp(-signs * judged)).tolist()
    assert replaced > 10
    model.compile(keras.optimizers.SGD(0.0), loss=task.loss())
    loss, *both = model.evaluate(tf.data.Dataset.from_tensors((inputs, targets, weights)), verbose=0)
    assert both == pytest.approx([np.mean(generator), 50 * np.mean(discriminator)], rel=1e-5)
    assert loss == pytest.approx(sum(both), rel=1e-6)


def test_scores_are_those_of_the_formula_and_always_the_same(made, theirs):
    task, model, tokenizer, _ = made
    examples = from_iterable([*corpus(12, 1), {"text": ""}])
    features = task.scored(tokenizer, examples)
    tables = {**features.ragged, **features.aligned}
    names = ("input_ids", "masked", "draw", "target")
    generator, discriminator, labels, found = [], [], [], []
    for hidden, masked, draw, target in zip(*(np.split(tables[name][0], tables[name][1][1:-1]) for name in names)):
        read = hidden.copy()
        guessed, _ = theirs(hidden, read)
        for place in np.flatnonzero(masked):
            chances = np.exp(guessed[place] - guessed[place].max())
            read[place] = np.searchsorted(np.cumsum(chances) / chances.sum(), draw[place] / STEPS, side="right")
            generator.append(surprise(guessed[place], target[place]))
        _, judged = theirs(hidden, read)
        label = (masked > 0) & (read != target)
        discriminator += np.log1p(np.exp(-np.where(label, 1, -1) * judged)).tolist()
        labels += label.tolist()
        found += (judged > 0).tolist()
    labels, found = np.array(labels), np.array(found)
    hits = (labels & found).sum()
    expected = {
        "loss": np.mean(generator) + 50 * np.mean(discriminator),
        "generator_loss": np.mean(generator),
        "discriminator_loss": np.mean(discriminator),
        "perplexity": np.exp(np.mean(generator)),
        "accuracy": (labels == found).mean(),
        "precision": hits / found.sum(),
        "recall": hits / labels.sum(),
        "f1": 2 * hits / (found.sum() + labels.sum()),
    }
    assert hits > 0
    assert tfbert.evaluate(task, model, tokenizer, examples) == pytest.approx(expected, rel=1e-5)


def test_the_answer_is_the_chance_of_each_token(made, theirs):
    task, model, tokenizer, _ = made
    text = "Très bien , the film [SEP] is good and not boring"
    answers = tfbert.predict(task, model, tokenizer, [text, "", "good"])
    assert [row["count"] for row in answers] == [len(tokenizer.tokenize(text)), 0, 1] and answers[1]["token"] == []
    ids = tokenizer("good")["input_ids"]
    assert answers[2]["score"] == pytest.approx([1 / (1 + np.exp(-theirs(ids, ids)[1][1]))], rel=1e-5)
    assert (answers[2]["token"], answers[2]["start"], answers[2]["end"]) == (["good"], [0], [4])
    assert answers[0]["token"] == tokenizer.tokenize(text)


def test_what_is_saved_are_two_checkpoints_with_one_embedding(tiny_electra, made, tmp_path, capsys):
    task, model, tokenizer, place = made
    (one, other), names = (
        ([load_file(path / "model.safetensors") for path in (place, place / "generator")]),
        "architectures",
    )
    assert [json.loads((path / "config.json").read_text())[names] for path in (place, place / "generator")] == [
        ["ElectraForPreTraining"],
        ["ElectraForMaskedLM"],
    ]
    assert "discriminator_predictions.dense_prediction.weight" in one and "generator_lm_head.bias" in other
    embeddings = [name for name in one if name.startswith("electra.embeddings.")]
    assert len(embeddings) == 5 and "generator_lm_head.weight" not in other
    for name in embeddings:
        np.testing.assert_array_equal(one[name], other[name])
    assert other["electra.encoder.layer.1.intermediate.dense.weight"].shape == (32, 8)
    shared = [variable for variable in model.weights if "word_embeddings" in variable.name]
    assert len(shared) == 1 and shared[0] is models.word_embeddings(model)
    capsys.readouterr()
    tasks.SequenceClassification(labels=("a", "b"), max_length=12).build(place)
    tasks.MaskedLM(max_length=12).build(place / "generator")
    assert capsys.readouterr().err == ""  # nothing is new but the classifier
    tasks.ReplacedTokenDetection(generator_size=1.0).build(tiny_electra)
    assert "has no head and no generator for replaced token detection: new ones begin" in capsys.readouterr().err


class Stop(Exception):
    """Ends a run like a crash: what is on the disk stays."""


def fine_tune(checkpoint, directory, **options):
    task, fixed = tasks.ReplacedTokenDetection(max_length=24), {"export": False, "report": False, "keep_layers": "0"}
    data = corpus(60, 3), corpus(10, 4)
    options = {"epochs": 2, "batch_size": 8, "learning_rate": 5e-3, **fixed, **options}
    return tfbert.fine_tune(task, checkpoint, *data, directory=directory, **options)


@pytest.fixture(scope="module")
def tuned(tiny_electra, tmp_path_factory):
    return fine_tune(tiny_electra, tmp_path_factory.mktemp("whole") / "run")


@pytest.mark.slow
def test_it_learns_and_what_is_shared_stays_shared(tiny_electra, tuned):
    assert tuned.history[-1]["val_generator_loss"] < tuned.history[0]["val_generator_loss"]
    folders = [tuned.directory / "checkpoint", tuned.directory / "checkpoint" / "generator"]
    words = [load_file(folder / "model.safetensors")["electra.embeddings.word_embeddings.weight"] for folder in folders]
    np.testing.assert_array_equal(*words)
    begun = load_file(tiny_electra / "model.safetensors")["embeddings.word_embeddings.weight"]
    assert np.abs(words[0] - begun).max() > 1e-3


@pytest.mark.slow
def test_a_run_that_is_resumed_within_an_epoch_ends_with_the_same_bits(tuned, tiny_electra, tmp_path, monkeypatch):
    reached = checkpoints.SaveState._reached

    def then(self, epoch, batch):
        reached(self, epoch, batch)
        if (epoch, batch) == (1, 4):
            self._writer.join()
            raise Stop

    monkeypatch.setattr(checkpoints.SaveState, "_reached", then)
    with pytest.raises(Stop):
        fine_tune(tiny_electra, tmp_path / "run", save_every=0)
    monkeypatch.undo()
    resumed = fine_tune(tiny_electra, tmp_path / "run", save_every=0, resume=True)
    for before, after in zip(tuned.model.get_weights(), resumed.model.get_weights(), strict=True):
        np.testing.assert_array_equal(before, after)
    again = tfbert.load(tmp_path / "run")
    for before, after in zip(resumed.model.get_weights(), again.model.get_weights(), strict=True):
        np.testing.assert_array_equal(before, after)


def test_the_loss_counts_tokens_alone():
    originals = np.array([[5, 6, 7, IGNORED], [5, IGNORED, IGNORED, IGNORED]])
    outputs = np.array([[[1.0, 5], [2.0, 9], [-3.0, 7], [9.0, 0]], [[-1.0, 4], [9.0, 0], [9.0, 0], [9.0, 0]]])
    expected = [(np.log1p(np.e) + np.log1p(np.exp(-2)) + np.log1p(np.exp(-3))) / 3, np.log1p(np.e)]
    np.testing.assert_allclose(losses.replaced_crossentropy(originals, outputs), expected, rtol=1e-6)
    np.testing.assert_allclose(
        losses.replaced_crossentropy(originals, outputs, weight=50.0), 50 * np.array(expected), rtol=1e-6
    )


def test_what_cannot_be_done_is_told(tiny, tiny_electra, made, tmp_path):
    task, _, tokenizer, _ = made
    with pytest.raises(InputError, match="no head 'replaced-token-detection' for model type bert"):
        task.build(tiny)
    with pytest.raises(InputError, match="generator_size is 0; it must be a positive number"):
        tasks.ReplacedTokenDetection(generator_size=0)
    with pytest.raises(InputError, match="generator_size is 0.01, by which the generator's layers would be 0 wide"):
        tasks.ReplacedTokenDetection(generator_size=0.01).build(tiny_electra)
    with pytest.raises(InputError, match="blank: there is no token of text in it"):
        task.features(tokenizer, from_iterable([{"text": " "}], "blank"))
    assert not list(tmp_path.iterdir())
