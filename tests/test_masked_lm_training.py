"""Masked language models from raw text: rows, loss and perplexity against formulas, resume to the bit, and that they learn."""

from __future__ import annotations

import json

import numpy as np
import pytest
from safetensors.numpy import load_file

import tfbert
from tfbert import checkpoints, losses, models, pipeline, tasks, tokenization, training
from tfbert._compat import keras, tf, transformers
from tfbert.errors import InputError
from tfbert.models.loading import quiet
from tfbert.sources import from_iterable

CLAUSES = ("the film is good", "the plot was dull", "a great actor", "it is not boring", "a lovely , bright scene")
MIXED = [
    "the film is great . it was not very good",
    "boring",
    "",
    "a lovely actor , and then the awful plot of the film",
]


def corpus(count: int, seed: int) -> list[dict]:
    """Documents of a few clauses, of which each word tells much about the next."""
    rng = np.random.default_rng(seed)
    return [{"text": " ; ".join(rng.choice(CLAUSES, rng.integers(1, 5)))} for _ in range(count)]


@pytest.fixture(scope="module")
def made(tiny, tmp_path_factory):
    """A tiny masked LM, saved and loaded back, so that its head is the checkpoint's; without dropout."""
    place = tmp_path_factory.mktemp("masked") / "model"
    task, tokenizer = tasks.MaskedLM(max_length=12), tokenization.load_tokenizer(tiny)
    models.save(task.build(tiny, seed=3), place, tokenizer)
    return task, task.build(place), tokenizer, place


@pytest.fixture(scope="module")
def theirs(made):
    """The same weights in TF Transformers' own class, from rows of ids to logits for every place."""
    with quiet():
        bare = transformers.TFBertForMaskedLM(made[1].transformer.config)
        bare.build_in_name_scope()
    bare.set_weights(made[1].transformer.get_weights())

    def logits(ids) -> np.ndarray:
        return bare(tf.constant([ids], tf.int32), attention_mask=tf.ones([1, len(ids)], tf.int32)).logits.numpy()[0]

    return logits


def surprise(logits: np.ndarray, right: int) -> float:
    """Minus the logarithm of the softmax of the right one, in float64."""
    logits = logits.astype(np.float64)
    return float(np.log(np.exp(logits - logits.max()).sum()) + logits.max() - logits[right])


def rows_of(features, name: str) -> list[np.ndarray]:
    values, splits = {**features.ragged, **features.aligned}[name]
    return np.split(values, splits[1:-1])


def test_documents_are_cut_into_full_rows_and_none_holds_two(made):
    task, _, tokenizer, _ = made
    texts = [*MIXED, "one [MASK] and [SEP]", " ".join(["film"] * 35)]
    features = task.features(tokenizer, from_iterable([{"text": text} for text in texts]))
    rows = iter(rows_of(features, "input_ids"))
    for text, count in zip(texts, np.diff(features.examples), strict=True):
        whole = tokenizer.convert_tokens_to_ids(tokenizer.tokenize(text.replace("[", "[ ").replace("]", " ]")))
        for k in range(max(1, -(-len(whole) // 10))):
            row = next(rows).tolist()
            assert row == [tokenizer.cls_token_id, *whole[10 * k : 10 * k + 10], tokenizer.sep_token_id]
        assert count == k + 1
    assert next(rows, None) is None and features.lengths.max() == 12
    words = rows_of(features, "word")[-4]
    assert words[0] == words[-1] == -1 and (words[1:-1] >= 0).all()
    assert set(features.masking.others) == set(range(tokenizer.vocab_size)) - set(tokenizer.all_special_ids)


def test_the_loss_is_the_mean_over_the_masked_tokens_of_the_batch(made, theirs):
    task, model, tokenizer, _ = made
    examples = [{"text": row["text"], "weight": 1 + i % 3} for i, row in enumerate(corpus(23, 0))]
    dataset = tfbert.make_dataset(task, tokenizer, examples, batch_size=16, training=True, seed=4)
    weights_of = dict(zip((row["text"] for row in examples), (row["weight"] for row in examples)))
    assert len(weights_of) > 10
    rows, ratios = 0, set()
    for inputs, targets, weights in dataset:
        logits = model(inputs)["logits"]
        assert logits.shape[1] == inputs["masked"].numpy().sum(1).max()
        each, counts = [], []
        for ids, mask, right in zip(*(x.numpy() for x in (inputs["input_ids"], inputs["attention_mask"], targets))):
            found, places = theirs(ids[mask > 0]), np.flatnonzero(right != losses.IGNORED)
            each.append([surprise(found[place], right[place]) for place in places])
            counts.append(len(places))
        loss = task.loss()(targets, logits).numpy()
        np.testing.assert_allclose(loss, [np.mean(row) for row in each], rtol=1e-5)
        # weights = (weight of the document x masked tokens), of mean 1
        ratio = weights.numpy() / counts
        ratios |= set(np.round(ratio / ratio.min(), 4))
        np.testing.assert_allclose(weights.numpy().mean(), 1, rtol=1e-6)
        expected = np.sum(ratio * [sum(row) for row in each]) / np.sum(ratio * counts)
        np.testing.assert_allclose(np.mean(loss * weights), expected, rtol=1e-5)
        rows += len(loss)
    assert rows == len(task.features(tokenizer, from_iterable(examples)).lengths) > 23
    assert ratios == {1, 2, 3} or ratios == {1, 1.5, 2, 3}


def test_perplexity_is_that_of_the_formula_and_the_masks_are_always_the_same(made, theirs):
    task, model, tokenizer, _ = made
    examples = from_iterable([*corpus(30, 1), {"text": MIXED[-1]}, {"text": ""}])
    features = task.scored(tokenizer, examples)
    found, right = [], []
    for ids, masked, target in zip(*(rows_of(features, name) for name in ("input_ids", "masked", "target"))):
        logits, places = theirs(ids), np.flatnonzero(masked)
        assert (target[places] != losses.IGNORED).all() and (target != losses.IGNORED).sum() == len(places)
        found += [surprise(logits[place], target[place]) for place in places]
        right += [logits[place].argmax() == target[place] for place in places]
    assert len(found) > 20
    scores = tfbert.evaluate(task, model, tokenizer, examples)
    expected = {"loss": np.mean(found), "perplexity": np.exp(np.mean(found)), "accuracy": np.mean(right)}
    assert scores == pytest.approx(expected, rel=1e-5)
    assert tfbert.evaluate(task, model, tokenizer, examples, batch_size=2) == pytest.approx(scores, rel=1e-6)
    # A data set that does not train has those masks too.
    (inputs, targets, _), *_ = tfbert.make_dataset(task, tokenizer, examples, batch_size=200)
    there = inputs["attention_mask"].numpy() > 0
    np.testing.assert_array_equal(inputs["input_ids"].numpy()[there], features.ragged["input_ids"][0])
    np.testing.assert_array_equal(targets.numpy()[there], features.aligned["target"][0])


def test_pseudo_perplexity_masks_each_token_alone(made, theirs):
    _, model, tokenizer, _ = made
    task = tasks.MaskedLM(max_length=12, scoring="pseudo")
    examples = from_iterable([{"text": MIXED[0]}, {"text": MIXED[-1]}, {"text": "boring"}])
    found = []
    for row in rows_of(task.features(tokenizer, examples), "input_ids"):
        for place in range(1, len(row) - 1):
            ids = row.copy()
            ids[place] = tokenizer.mask_token_id
            found.append(surprise(theirs(ids)[place], row[place]))
    scores = tfbert.evaluate(task, model, tokenizer, examples)
    assert scores["loss"] == pytest.approx(np.mean(found), rel=1e-5)
    assert scores["pseudo_perplexity"] == pytest.approx(np.exp(np.mean(found)), rel=1e-5) and "perplexity" not in scores
    assert task.monitor == "pseudo_perplexity"
    with pytest.raises(InputError, match="row 2 of examples: there is no token of text in it"):
        tfbert.evaluate(task, model, tokenizer, [{"text": "good"}, {"text": " \n"}])


def test_a_restart_draws_the_masks_that_the_unbroken_run_has(made):
    task, _, tokenizer, _ = made
    features = task.features(tokenizer, from_iterable(corpus(50, 2)))
    options = {"batch_size": 8, "training": True, "seed": 5}
    whole = pipeline.batches(features, **options)
    passes = [list(whole), list(whole)]
    again = list(pipeline.batches(features, start=(1, 3), **options))
    assert len(again) == len(passes[1]) - 3
    for one, other in zip(passes[1][3:], again, strict=True):
        for left, right in zip(tf.nest.flatten(one), tf.nest.flatten(other), strict=True):
            np.testing.assert_array_equal(left, right)

    def masks(batches) -> set:
        return {tuple(row) for inputs, _, _ in batches for row in inputs["masked"].numpy().tolist()}

    assert masks(passes[0]) != masks(passes[1])
    with pytest.raises(InputError, match=r"pad_to \(and xla\) need batches of one shape"):
        pipeline.batches(features, pad_to=(12,), **options)


OPTIONS = {"epochs": 4, "batch_size": 8, "learning_rate": 3e-3, "export": False, "report": False}


def fine_tune(checkpoint, directory, masking="token", **options):
    task = tasks.MaskedLM(max_length=24, masking=masking)
    data = corpus(160, 3), corpus(40, 4)
    return tfbert.fine_tune(task, checkpoint, *data, directory=directory, **{**OPTIONS, **options})


@pytest.mark.slow
@pytest.mark.parametrize("masking", ["token", "whole-word", "span"])
def test_it_learns_and_what_is_saved_is_a_checkpoint_with_its_head(tiny, tmp_path, capsys, masking):
    precision = (
        "bfloat16" if masking == "span" else "float32"
    )  # a model of low precision is built twice, and told of once
    tuned = fine_tune(tiny, tmp_path / "run", masking, precision=precision)
    said = capsys.readouterr().err
    assert said.count("has no masked-LM head: a new one begins") == 1
    perplexities = [row["val_perplexity"] for row in tuned.history]
    assert perplexities[-1] < 0.6 * perplexities[0] and tuned.history[-1]["loss"] < 0.8 * tuned.history[0]["loss"]
    # In training it is that of bfloat16, at the end that of the same weights in float32.
    tolerance = 0.01 if precision == "bfloat16" else 0
    assert tuned.metrics["metrics"]["perplexity"] == pytest.approx(min(perplexities), rel=tolerance)
    names = set(load_file(tmp_path / "run" / "checkpoint" / "model.safetensors"))
    assert {"cls.predictions.bias", "cls.predictions.transform.dense.weight"} < names
    assert "bert.embeddings.word_embeddings.weight" in names and "cls.predictions.decoder.weight" not in names
    config = json.loads((tmp_path / "run" / "checkpoint" / "config.json").read_text())
    assert config["architectures"] == ["BertForMaskedLM"]
    again = tfbert.load(tmp_path / "run")
    assert "masked-LM head" not in capsys.readouterr().err
    for before, after in zip(tuned.model.get_weights(), again.model.get_weights(), strict=True):
        np.testing.assert_array_equal(before, after)
    (answer,) = tfbert.predict(again.task, again.model, again.tokenizer, ["the film is good ; a great [MASK]"])
    assert len(answer["token"]) == 5 and set(answer["token"]) <= set(" ; ".join(CLAUSES).split())
    # The encoder goes on under another head.
    other = models.load(tmp_path / "run" / "checkpoint", "sequence-classification", num_labels=2)
    assert {name for name in other.load_report.unexpected if name.startswith("cls.predictions.")}


class Stop(Exception):
    """Ends a run like a crash: what is on the disk stays."""


@pytest.mark.slow
def test_a_run_that_is_resumed_within_an_epoch_ends_with_the_same_bits(shallow, tmp_path, monkeypatch):
    expected = fine_tune(shallow, tmp_path / "whole", "span", epochs=2)
    reached = checkpoints.SaveState._reached

    def then(self, epoch, batch):
        reached(self, epoch, batch)
        if (epoch, batch) == (1, 4):
            self._writer.join()
            raise Stop

    monkeypatch.setattr(checkpoints.SaveState, "_reached", then)
    with pytest.raises(Stop):
        fine_tune(shallow, tmp_path / "run", "span", epochs=2, save_every=0)
    monkeypatch.undo()
    tuned = fine_tune(shallow, tmp_path / "run", "span", epochs=2, save_every=0, resume=True)
    for before, after in zip(expected.model.get_weights(), tuned.model.get_weights(), strict=True):
        np.testing.assert_array_equal(before, after)
    rows = [[{**row, "seconds": 0} for row in run.history] for run in (expected, tuned)]
    assert rows[0] == rows[1]


def test_a_batch_in_parts_is_the_same_update(shallow):
    task, tokenizer = tasks.MaskedLM(max_length=24), tokenization.load_tokenizer(shallow)
    (batch,) = tfbert.make_dataset(task, tokenizer, corpus(16, 5), batch_size=64)
    found = []
    for parts in (1, 3):
        keras.utils.set_random_seed(0)
        options = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
        model = models.at_masked(models.load(shallow, "masked-lm", **options))
        model = tfbert.TrainingModel(model, accumulate=parts)
        model.compile(keras.optimizers.SGD(1.0), loss=task.loss())
        model.fit(tf.data.Dataset.from_tensors(batch), verbose=0)
        found.append(model.get_weights())
    for one, other in zip(*found, strict=True):
        np.testing.assert_allclose(one, other, atol=2e-5)


def test_what_cannot_be_learnt_from_is_told(tiny, tmp_path, made):
    task, model, tokenizer, _ = made
    (tmp_path / "one.txt").write_text("the film is good\n")
    (tmp_path / "none.txt").write_text("\n \n")
    with pytest.raises(InputError, match="one.txt: 1 rows are too few to hold out 0.1 of them"):
        tfbert.fine_tune(task, tiny, tfbert.read_documents(tmp_path / "one.txt"), directory=tmp_path / "out", **OPTIONS)
    with pytest.raises(InputError, match="none.txt: there are no rows in it"):
        tfbert.read_documents(tmp_path / "none.txt")
    with pytest.raises(InputError, match="blank: there is no token of text in it"):
        task.features(tokenizer, from_iterable([{"text": " "}, {"text": ""}], "blank"))
    with pytest.raises(InputError, match=r"masking is 'spam'; it must be one of .* Did you mean 'span'\?"):
        tasks.MaskedLM(masking="spam")
    with pytest.raises(InputError, match=r"scoring is 'psuedo'; .* Did you mean 'pseudo'\?"):
        tasks.MaskedLM(scoring="psuedo")
    maskless = tmp_path / "maskless"
    transformers.BertTokenizerFast(tokenizer_object=tokenizer.backend_tokenizer, mask_token=None).save_pretrained(
        maskless
    )
    for file in ("config.json", "model.safetensors"):
        (maskless / file).write_bytes((tiny / file).read_bytes())
    with pytest.raises(InputError, match="the tokenizer has no mask token; choose the checkpoint of a masked language"):
        training.fine_tune(task, maskless, corpus(20, 0), directory=tmp_path / "out", **OPTIONS)
    with pytest.raises(InputError, match="need batches of one shape"):
        fine_tune(tiny, tmp_path / "out", xla="on")
    with pytest.raises(InputError, match="r_drop compares two answers as classes"):
        fine_tune(tiny, tmp_path / "out", r_drop=1.0)
    assert not (tmp_path / "out").exists()


def test_documents_are_parted_by_blank_lines_and_shards_are_read_in_order(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "b-10.txt").write_text("four\nfive\n")
    (tmp_path / "b-09.txt").write_text("\none\n two \n\n\n \nthree\n")
    examples = tfbert.read_documents("b-09.txt")
    assert examples == [{"text": "one\n two "}, {"text": "three"}]
    assert [examples.where(i) for i in (0, 1)] == ["b-09.txt:2", "b-09.txt:7"] and examples.notes == []
    both = tfbert.read_documents("b-*.txt", "body")
    assert [row["body"] for row in both] == ["one\n two ", "three", "four", "five"]
    assert both.where(3) == "b-*.txt:b-10.txt:2"
    assert both.notes == ["b-10.txt: no blank line parts documents, so each line is one"]
    with pytest.raises(InputError, match=r"there is no file c-\*.txt; check the pattern"):
        tfbert.read_documents("c-*.txt")
