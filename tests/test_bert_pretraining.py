"""BERT's pretraining: loss and scores against formulas on TF Transformers' own model, restarts, resume to the bit, and what is saved."""

from __future__ import annotations

import json

import numpy as np
import pytest
from safetensors.numpy import load_file

import tfbert
from tfbert import batch_parts, checkpoints, losses, models, pipeline, tasks, tokenization
from tfbert._compat import keras, tf, transformers
from tfbert.errors import InputError
from tfbert.models.loading import quiet
from tfbert.sources import from_iterable

LINES = (
    "the film is good",
    "a dull plot",
    "it was not very boring",
    "the actor , and the scene",
    "lovely",
    "awful and bad",
)


def corpus(count: int, seed: int, **fields) -> list[dict]:
    rng = np.random.default_rng(seed)
    return [{"text": "\n".join(rng.choice(LINES, rng.integers(2, 9)))} for _ in range(count)]


@pytest.fixture(scope="module")
def made(tiny, tmp_path_factory):
    """A tiny model with both heads, saved and loaded back."""
    place = tmp_path_factory.mktemp("pretraining") / "model"
    task, tokenizer = tasks.BertPretraining(max_length=24), tokenization.load_tokenizer(tiny)
    models.save(task.build(tiny, seed=3), place, tokenizer)
    return task, task.build(place), tokenizer, place


@pytest.fixture(scope="module")
def theirs(made):
    """The same weights in TF Transformers' own class, from rows to both heads' logits."""
    with quiet():
        bare = transformers.TFBertForPreTraining(made[1].transformer.config)
        bare.build_in_name_scope()
    bare.set_weights(made[1].transformer.get_weights())

    @tf.function(input_signature=[tf.TensorSpec([1, None], tf.int32)] * 2)
    def both(ids, types):
        found = bare(ids, attention_mask=tf.ones_like(ids), token_type_ids=types)
        return found.prediction_logits[0], found.seq_relationship_logits[0]

    def logits(ids, types) -> list[np.ndarray]:
        return [found.numpy() for found in both([ids], [types])]

    return logits


def surprise(logits: np.ndarray, right: int) -> float:
    """Minus the logarithm of the softmax of the right one, in float64."""
    logits = logits.astype(np.float64)
    return float(np.log(np.exp(logits - logits.max()).sum()) + logits.max() - logits[right])


def unpadded(*arrays, mask) -> list[list]:
    return [[values[there > 0] for values in row] for *row, there in zip(*(x.numpy() for x in (*arrays, mask)))]


@pytest.mark.parametrize("order", ["next-sentence", "sentence-order"])
def test_the_loss_is_the_sum_of_the_means_over_masked_tokens_and_over_pairs(made, theirs, order):
    _, model, tokenizer, _ = made
    task = tasks.BertPretraining(max_length=24, order=order)
    examples = [*corpus(20, 0), {"text": "good"}, {"text": ""}]  # the last two have no pair
    dataset = tfbert.make_dataset(task, tokenizer, examples, batch_size=64, training=True, seed=4)
    (inputs, targets, weights), *_ = dataset
    tokens, pairs = [], []
    names = ("input_ids", "token_type_ids")
    rows = unpadded(*(inputs[name] for name in names), targets["logits"], mask=inputs["attention_mask"])
    for (ids, types, right), label in zip(rows, targets["order"].numpy()):
        masked, pair = theirs(ids, types)
        tokens += [surprise(masked[place], right[place]) for place in np.flatnonzero(right != losses.IGNORED)]
        pairs.append(surprise(pair, label))
    parted = weights["order"].numpy() > 0
    assert 25 < parted.sum() <= len(parted) - 2 and 0 < targets["order"].numpy().mean() < 1
    model.compile(keras.optimizers.SGD(0.0), loss=task.loss())
    inputs_and_all = tf.data.Dataset.from_tensors((inputs, targets, weights))
    loss, of_tokens, of_pairs = model.evaluate(inputs_and_all, verbose=0)
    assert of_tokens == pytest.approx(np.mean(tokens), rel=1e-5)
    assert of_pairs == pytest.approx(np.mean(np.array(pairs)[parted]), rel=1e-5)
    assert loss == pytest.approx(of_tokens + of_pairs, rel=1e-6)


def test_scores_are_those_of_the_formula_on_pairs_that_are_always_the_same(made, theirs):
    task, model, tokenizer, _ = made
    examples = from_iterable([*corpus(12, 1), {"text": "good"}])
    features = task.scored(tokenizer, examples)
    tables = {**features.ragged, **features.aligned}
    names = ("input_ids", "token_type_ids", "target", "label")
    tokens, right, pairs, ordered = [], [], [], []
    for ids, types, target, label in zip(*(np.split(tables[name][0], tables[name][1][1:-1]) for name in names)):
        masked, pair = theirs(ids, types)
        for place in np.flatnonzero(target != losses.IGNORED):
            tokens.append(surprise(masked[place], target[place]))
            right.append(masked[place].argmax() == target[place])
        assert len(set(label)) == 1
        if label[0] != losses.IGNORED:
            pairs.append(surprise(pair, label[0]))
            ordered.append(pair.argmax() == label[0])
    assert 10 < len(pairs) <= len(features.lengths) - 1
    expected = {
        "loss": np.mean(tokens) + np.mean(pairs),
        "perplexity": np.exp(np.mean(tokens)),
        "accuracy": np.mean(right),
        "next_sentence_loss": np.mean(pairs),
        "next_sentence_accuracy": np.mean(ordered),
    }
    assert tfbert.evaluate(task, model, tokenizer, examples) == pytest.approx(expected, rel=1e-5)
    assert tfbert.evaluate(task, model, tokenizer, examples, batch_size=3) == pytest.approx(expected, rel=1e-5)


def test_the_answer_is_the_softmax_of_the_second_head(made, theirs):
    task, model, tokenizer, _ = made
    pairs = [("the film", "it was good"), ("", "[SEP]")]
    for answer, pair in zip(tfbert.predict(task, model, tokenizer, pairs), pairs, strict=True):
        found = tokenizer(*pair)
        logits = theirs(found["input_ids"], found["token_type_ids"])[1].astype(np.float64)
        chances = np.exp(logits) / np.exp(logits).sum()
        assert answer["label"] == ("IsNext", "NotNext")[chances.argmax()]
        assert answer["score"] == pytest.approx(chances.max(), rel=1e-5)


def test_a_restart_draws_the_pairs_that_the_unbroken_run_has(made):
    task, _, tokenizer, _ = made
    features = task.features(tokenizer, from_iterable(corpus(30, 2)))
    options = {"batch_size": 8, "training": True, "seed": 5}
    whole = pipeline.batches(features, **options)
    passes = [list(whole), list(whole)]
    again = list(pipeline.batches(features, start=(1, 3), **options))
    assert len(again) == len(passes[1]) - 3 > 2
    for one, other in zip(passes[1][3:], again, strict=True):
        for left, right in zip(tf.nest.flatten(one), tf.nest.flatten(other), strict=True):
            np.testing.assert_array_equal(left, right)
    rows = [
        {tuple(row) for inputs, _, _ in batches for row in inputs["input_ids"].numpy().tolist()} for batches in passes
    ]
    assert not rows[0] & rows[1]


def test_heads_are_found_kept_and_begun_one_by_one(tiny, made, tmp_path, capsys):
    task, model, tokenizer, place = made
    weights = load_file(place / "model.safetensors")
    assert weights["cls.seq_relationship.weight"].shape == (2, 32) and "cls.predictions.bias" in weights
    assert "bert.pooler.dense.weight" in weights and "cls.predictions.decoder.weight" not in weights
    assert json.loads((place / "config.json").read_text())["architectures"] == ["BertForPreTraining"]
    # As a masked LM it has its head, and its own checkpoint then lacks the other head alone.
    masked = tasks.MaskedLM(max_length=24)
    capsys.readouterr()
    models.save(masked.build(place), tmp_path / "masked", tokenizer)
    assert capsys.readouterr().err == ""
    (found,) = tfbert.predict(masked, masked.build(place), tokenizer, ["the [MASK] is good"])
    assert len(found["token"]) == 5
    again = task.build(tmp_path / "masked")
    said = capsys.readouterr().err
    assert "has no seq_relationship: new ones begin" in said and "predictions" not in said
    kept = {v.name: v.numpy() for v in model.transformer.weights if "nsp" not in v.name and "pooler" not in v.name}
    for variable in again.transformer.weights:
        if "nsp" not in variable.name and "pooler" not in variable.name:
            inside = variable.name.split("/", 1)[1]
            np.testing.assert_array_equal(
                variable, next(values for name, values in kept.items() if name.endswith(inside)), err_msg=inside
            )
    task.build(tiny)
    assert "has no predictions and no seq_relationship" in capsys.readouterr().err
    other = models.load(place, "sequence-classification", num_labels=3)
    assert {"cls.seq_relationship.weight", "cls.predictions.bias"} <= set(other.load_report.unexpected)


def test_a_part_of_a_batch_has_its_rows_of_each_target_and_weight():
    inputs, targets, weights = (
        {name: tf.range(6.0) + 10 * i + place for i, name in enumerate(names)}
        for place, names in enumerate((("input_ids", "masked"), ("logits", "order"), ("logits", "order")))
    )
    found = batch_parts.cut(inputs, targets, weights, 2, 4)
    for whole, part in zip((inputs, targets, weights), found, strict=True):
        assert {name: values.numpy().tolist() for name, values in part.items()} == {
            name: values.numpy()[2:4].tolist() for name, values in whole.items()
        }


class Stop(Exception):
    """Ends a run like a crash: what is on the disk stays."""


def fine_tune(checkpoint, directory, **options):
    task, fixed = tasks.BertPretraining(max_length=24, order="sentence-order"), {"export": False, "report": False}
    data = corpus(40, 3), corpus(10, 4)
    options = {"epochs": 2, "batch_size": 8, "learning_rate": 5e-3, **fixed, **options}
    return tfbert.fine_tune(task, checkpoint, *data, directory=directory, **options)


@pytest.fixture(scope="module")
def tuned(shallow, tmp_path_factory):
    return fine_tune(shallow, tmp_path_factory.mktemp("whole") / "run")


@pytest.mark.slow
def test_it_learns(tuned):
    assert tuned.history[-1]["loss"] < tuned.history[0]["loss"]


@pytest.mark.slow
def test_a_run_that_is_resumed_within_an_epoch_ends_with_the_same_bits(tuned, shallow, tmp_path, monkeypatch):
    reached = checkpoints.SaveState._reached

    def then(self, epoch, batch):
        reached(self, epoch, batch)
        if (epoch, batch) == (1, 4):
            self._writer.join()
            raise Stop

    monkeypatch.setattr(checkpoints.SaveState, "_reached", then)
    with pytest.raises(Stop):
        fine_tune(shallow, tmp_path / "run", save_every=0)
    monkeypatch.undo()
    again = fine_tune(shallow, tmp_path / "run", save_every=0, resume=True)
    for before, after in zip(tuned.model.get_weights(), again.model.get_weights(), strict=True):
        np.testing.assert_array_equal(before, after)
    rows = [[{**row, "seconds": 0} for row in run.history] for run in (tuned, again)]
    assert rows[0] == rows[1]


def test_what_cannot_be_learnt_from_is_told(made):
    task, _, tokenizer, _ = made
    with pytest.raises(InputError, match=r"order is 'next sentence'; .* Did you mean 'next-sentence'\?"):
        tasks.BertPretraining(order="next sentence")
    with pytest.raises(InputError, match=r"masking is 'spam'; .* Did you mean 'span'\?"):
        tasks.BertPretraining(masking="spam")
    with pytest.raises(InputError, match="blank: there is no token of text in it"):
        task.features(tokenizer, from_iterable([{"text": " "}, {"text": "\n"}], "blank"))
    with pytest.raises(InputError, match="there are 1 with text; part the text by blank lines"):
        task.features(tokenizer, from_iterable([{"text": "the film\nis good"}]))
    with pytest.raises(InputError, match="row 2 of examples: no field 'text'"):
        task.check(from_iterable([{"text": "a"}, {"txt": "b"}]))
