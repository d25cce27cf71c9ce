"""fine_tune: equal to plain Keras, whole folders or none, and one clear line for each mistake."""

from __future__ import annotations

import dataclasses
import errno
import json
import signal

import numpy as np
import pytest

import tfbert
from tfbert import checks, files, models, training
from tfbert._compat import keras, tf
from tfbert.errors import Diverged, InputError, Interrupted

WORDS = {"good": "good great lovely bright fine".split(), "bad": "bad awful dull boring not".split()}


def rows(count: int, seed: int = 0) -> list[dict]:
    rng = np.random.default_rng(seed)
    labels = ["good", "bad"] * (count // 2)
    return [{"text": " ".join(rng.choice(WORDS[label], rng.integers(2, 9))), "label": label} for label in labels]


TRAIN, VALIDATION, TEST = rows(96), rows(32, 1), rows(24, 2)
TASK = tfbert.SequenceClassification(max_length=32)
OPTIONS = {"epochs": 2, "batch_size": 8, "learning_rate": 5e-3, "precision": "float32", "report": False}


@pytest.fixture(scope="module")
def tuned(shallow, tmp_path_factory):
    place = tmp_path_factory.mktemp("runs") / "movies"
    return training.fine_tune(TASK, shallow, TRAIN, VALIDATION, test=TEST, directory=place, export=False, **OPTIONS)


def test_the_folder_holds_what_the_design_promises(tuned):
    found = {str(path.relative_to(tuned.directory)) for path in tuned.directory.rglob("*") if path.is_file()}
    assert {
        "task.json",
        "metrics.json",
        "history.csv",
        "checkpoint/config.json",
        "checkpoint/model.safetensors",
    } <= found
    stored = json.loads((tuned.directory / "metrics.json").read_text())
    assert stored == json.loads(json.dumps(tuned.metrics))
    assert stored["rows"] == {"train": 96, "validation": 32, "test": 24}
    assert {
        "train_seconds",
        "tokens_per_second",
        "padding_share",
        "peak_memory_bytes",
        "versions",
        "data_sha256",
    } <= stored.keys()
    assert stored["metrics"] == stored["test"] and stored["test"]["accuracy"] > 0.9
    assert tuned.adapter is None and not (tuned.directory / "adapter").exists()  # LoRA's
    assert not list(tuned.directory.parent.glob(".*"))


def test_history_has_a_row_per_epoch_with_the_rate_of_its_last_step(tuned):
    lines = (tuned.directory / "history.csv").read_text().strip().split("\n")
    assert len(lines) == 3 and lines[0].startswith("epoch,learning_rate,loss,val_accuracy")
    # 12 steps an epoch, 24 in all, ceil(2.4) = 3 of warmup: the rate of step t is 5e-3 * (24 - t) / 21
    assert tuned.history[0]["learning_rate"] == pytest.approx(5e-3 * (24 - 11) / 21, rel=1e-6)
    assert tuned.history[1]["learning_rate"] == pytest.approx(5e-3 * (24 - 23) / 21, rel=1e-6)
    assert tuned.history[1]["loss"] < tuned.history[0]["loss"]


def test_loading_gives_the_same_answers(tuned):
    again = tfbert.load(tuned.directory)
    texts = ["a great film", "awful plot", ""]
    assert again.task == tuned.task and again.history == tuned.history
    assert tfbert.predict(again.task, again.model, again.tokenizer, texts) == tfbert.predict(
        tuned.task, tuned.model, tuned.tokenizer, texts
    )
    assert tfbert.evaluate(again.task, again.model, again.tokenizer, TEST) == pytest.approx(
        tuned.metrics["test"], abs=1e-6
    )


def plain_keras(shallow, wrap: bool):
    """The README's plain run: `compile` and `fit` of the TF Transformers class, or of its functional wrapper."""
    task = TASK.from_data(tfbert.sources.from_iterable(TRAIN))
    tokenizer = tfbert.load_tokenizer(shallow)
    keras.utils.set_random_seed(0)
    model = models.load(shallow, task.head, id2label=dict(enumerate(task.labels)))
    model = models.as_keras(model) if wrap else model
    dataset = tfbert.make_dataset(task, tokenizer, TRAIN, batch_size=8, training=True)
    model.compile(tfbert.AdamW(tfbert.WarmupLinear(5e-3, 2 * len(dataset), warmup_fraction=0.1)), loss=task.loss())
    model.fit(dataset, epochs=2, verbose=0)
    return models.transformer_of(model)


@pytest.mark.parametrize("wrap", [False, True], ids=["the TF Transformers class", "its functional wrapper"])
def test_plain_keras_gives_the_same_weights_bit_for_bit(shallow, tuned, wrap):
    assert tuned.metrics["best_epoch"] in (1, 2)
    whole = training.load(tuned.directory)
    if tuned.metrics["best_epoch"] == 1:
        pytest.fail("choose data on which the last epoch is the best: the plain run keeps no best epoch")
    for mine, theirs in zip(models.transformer_of(whole.model).weights, plain_keras(shallow, wrap).weights):
        np.testing.assert_array_equal(mine.numpy(), theirs.numpy())


def test_weights_of_the_best_epoch_are_kept(shallow, tmp_path, monkeypatch):
    scores = iter([0.9, 0.5, 0.7, 0.7])
    monkeypatch.setattr("tfbert.metrics.classification", lambda *_: {"accuracy": next(scores)})
    three = training.fine_tune(
        TASK,
        shallow,
        TRAIN,
        VALIDATION,
        directory=tmp_path / "a",
        export=False,
        **{**OPTIONS, "epochs": 3, "schedule": "constant"},
    )
    monkeypatch.undo()
    one = training.fine_tune(
        TASK,
        shallow,
        TRAIN,
        VALIDATION,
        directory=tmp_path / "b",
        export=False,
        **{**OPTIONS, "epochs": 1, "schedule": "constant"},
    )
    assert three.metrics["best_epoch"] == 1
    for kept, expected in zip(three.model.get_weights(), one.model.get_weights()):
        np.testing.assert_array_equal(kept, expected)


def nothing_left(folder) -> bool:
    return not folder.exists() or not list(folder.iterdir())


def test_a_diverging_run_stops_and_leaves_nothing(shallow, tmp_path):
    with pytest.raises(
        InputError,
        match=r"(the loss is (nan|inf) at epoch 1, step \d+|is not finite after epoch 1).*lower the learning rate",
    ):
        training.fine_tune(
            TASK, shallow, TRAIN, VALIDATION, directory=tmp_path / "out" / "run", **{**OPTIONS, "learning_rate": 1e35}
        )
    assert nothing_left(tmp_path / "out")


def test_a_full_disk_is_told_and_leaves_nothing(shallow, tmp_path, monkeypatch):
    def full(*args, **kwargs):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("tfbert.models.saving.save_file", full)
    with pytest.raises(
        InputError, match=r"cannot write .*the disk is full \([\d,]+ MiB free\); free some space and run again"
    ):
        training.fine_tune(
            TASK, shallow, TRAIN, VALIDATION, directory=tmp_path / "out" / "run", **{**OPTIONS, "epochs": 1}
        )
    assert nothing_left(tmp_path / "out")


def test_a_finished_run_is_kept_unless_told_otherwise(shallow, tuned):
    before = (tuned.directory / "metrics.json").read_bytes()
    with pytest.raises(
        InputError, match=r"holds a finished run; choose another output folder, or pass overwrite \(--overwrite\)"
    ):
        training.fine_tune(TASK, shallow, TRAIN, VALIDATION, directory=tuned.directory, **OPTIONS)
    with files.locked(tuned.directory), pytest.raises(InputError, match="is in use by another run"):
        training.fine_tune(TASK, shallow, TRAIN, VALIDATION, directory=tuned.directory, overwrite=True, **OPTIONS)
    assert (tuned.directory / "metrics.json").read_bytes() == before


def test_a_folder_of_something_else_is_never_touched(shallow, tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(InputError, match="is not empty and not the output of a run"):
        training.fine_tune(TASK, shallow, TRAIN, VALIDATION, directory=tmp_path, overwrite=True, **OPTIONS)
    assert (tmp_path / "thesis.tex").read_text() == "years of work"


@pytest.mark.parametrize(
    "change, message",
    [
        ({"train": []}, "train has no examples"),
        (
            {"train": [{"text": "good", "label": "a"}] * 20},
            "the rows have only 'a'; classification needs at least two labels",
        ),
        ({"validation": rows(8)[::2]}, "validation: no row has the label 'bad', so its score cannot be measured"),
        (
            {"validation": [{"text": "x", "label": "god"}, *rows(8)]},
            r"row 1 of validation: label 'god' is not one of: bad, good\. Did you mean 'good'\?",
        ),
        ({"task": tfbert.SequenceClassification(max_length=65)}, "max_length is 65, but .* has 64 positions"),
        ({"epochs": 0}, "epochs is 0; it must be at least 1"),
        ({"accumulate": 0}, "accumulate is 0; it must be at least 1"),
        ({"seeds": 0}, "seeds is 0; it must be at least 1"),
        ({"reinitialize": 3}, "reinitialize is 3; the model has 1 to 2 layers"),
        ({"ema": 1.0}, "ema is 1.0; it must be at least 0, .* and below 1"),
        (
            {"task": tfbert.SequenceClassification(kind="regression"), "r_drop": 1.0},
            "r_drop compares two answers as classes",
        ),
        ({"task": tfbert.SentenceEmbedding(objective="ranking"), "accumulate": 2}, "this objective compares all"),
        ({"fgm": -0.5}, "fgm is -0.5; it must be at least 0"),
        ({"learning_rate": -1.0}, "learning_rate is -1.0; it must be positive"),
        ({"precision": "float23"}, r"precision is 'float23'; .* Did you mean 'float32'\?"),
        ({"monitor": "acuracy"}, "accuracy"),
        ({"schedule": "warmup-liner"}, r"Did you mean 'warmup-linear'\?"),
        ({"strategy": "gpu"}, "TensorFlow sees no GPU"),
    ],
)
def test_each_mistake_is_one_line_and_leaves_nothing(tiny, tmp_path, change, message):
    arguments = {"task": TASK, "checkpoint": tiny, "train": TRAIN, "validation": VALIDATION, **OPTIONS, **change}
    if "strategy" in change and tf.config.list_physical_devices("GPU"):
        pytest.skip("this machine has a GPU")
    with pytest.raises(InputError, match=message) as told:
        training.fine_tune(
            arguments.pop("task"),
            arguments.pop("checkpoint"),
            arguments.pop("train"),
            arguments.pop("validation"),
            directory=tmp_path / "out" / "run",
            **arguments,
        )
    assert "\n" not in str(told.value)
    assert nothing_left(tmp_path / "out")


def test_bfloat16_and_float16_learn_and_are_scored_in_float32(shallow, tmp_path):
    for precision in ("bfloat16", "float16"):
        run = training.fine_tune(
            TASK,
            shallow,
            TRAIN,
            VALIDATION,
            directory=tmp_path / precision,
            export=False,
            **{**OPTIONS, "precision": precision},
        )
        assert run.metrics["validation"]["accuracy"] > 0.9
        assert keras.mixed_precision.global_policy().name == "float32"
        assert all(weight.dtype == np.float32 for weight in run.model.get_weights())
        again = tfbert.load(tmp_path / precision)
        assert tfbert.evaluate(again.task, again.model, again.tokenizer, VALIDATION) == pytest.approx(
            run.metrics["validation"], abs=1e-6
        )


def test_dropout_of_zero_makes_training_mode_exact(shallow):
    ones, zeros = np.ones([1, 4], np.int32), np.zeros([1, 4], np.int32)
    inputs = {"input_ids": np.array([[2, 40, 41, 3]], np.int32), "attention_mask": ones, "token_type_ids": zeros}
    for dropout, same in ((0.0, True), (0.5, False), (None, False)):
        model = dataclasses.replace(TASK, labels=("a", "b"), dropout=dropout).build(shallow)
        one, other = (model(inputs, training=mode)["logits"].numpy() for mode in (True, False))
        assert np.array_equal(one, other) == same
    with pytest.raises(InputError, match="dropout is 1.0; it must be at least 0 and below 1"):
        tfbert.SequenceClassification(dropout=1.0)


def test_a_task_without_labels_is_told_before_anything_is_built(shallow):
    for step in (TASK.build, TASK.check):
        with pytest.raises(
            InputError, match=r"the task has no labels yet; take them from the data, task.from_data\(train\)"
        ):
            step(shallow)


def test_a_new_regression_head_begins_at_the_mean_and_a_trained_one_is_kept(shallow, tmp_path):
    examples = tfbert.sources.from_iterable([{"text": "good", "label": value} for value in (1, 2.5, 4)])
    task = tfbert.SequenceClassification(kind="regression", max_length=32).from_data(examples)
    assert task.head_bias == (2.5,)
    model = task.build(shallow)
    bias = models.transformer_of(model).classifier.bias
    np.testing.assert_array_equal(bias.numpy(), [2.5])
    bias.assign([-1.0])
    models.save(model, tmp_path / "saved", tfbert.load_tokenizer(shallow))
    np.testing.assert_array_equal(models.transformer_of(task.build(tmp_path / "saved")).classifier.bias.numpy(), [-1.0])


def test_a_weight_of_two_is_the_row_twice(shallow):
    """Exactly, on the whole gradient: dropout off, one batch."""
    task = TASK.from_data(tfbert.sources.from_iterable(TRAIN))
    tokenizer = tfbert.load_tokenizer(shallow)
    some = TRAIN[:6]
    twice = [{**row, "weight": 2.0 if i in (1, 4) else 1.0} for i, row in enumerate(some)]
    losses = []
    for examples in (twice, [*some, some[1], some[4]]):
        model = task.build(shallow, seed=3)
        model.compile(keras.optimizers.SGD(0.0), loss=task.loss())
        dataset = tfbert.make_dataset(task, tokenizer, examples, batch_size=8)
        losses.append(model.evaluate(dataset, verbose=0))
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)


def test_a_new_multi_label_head_begins_at_the_labels_log_odds(shallow):
    rows = [{"text": "good", "label": label} for label in ("a", "a,b", "a", "")]
    task = tfbert.SequenceClassification(kind="multi", max_length=32)
    task = task.from_data(tfbert.sources.from_iterable(rows))
    assert task.head_bias == (0.847298, -0.847298)  # log(3.5 / 1.5), log(1.5 / 3.5)
    np.testing.assert_allclose(models.transformer_of(task.build(shallow)).classifier.bias.numpy(), task.head_bias)
    for wrong, message in (
        ((1.0,), "head_bias has 1 values for 2 labels; give one for each"),
        ((1.0, float("nan")), "head_bias is 1.0, nan; each must be a finite number"),
    ):
        with pytest.raises(InputError, match=message):
            dataclasses.replace(task, head_bias=wrong)


def test_parts_of_a_batch_change_nothing_and_moving_averages_are_what_is_kept(shallow, tmp_path):
    def run(name, **options):
        task = dataclasses.replace(TASK, dropout=0.0)
        options = {**OPTIONS, "seed": 4, **options}
        return training.fine_tune(task, shallow, TRAIN, VALIDATION, directory=tmp_path / name, export=False, **options)

    whole, parts = run("whole"), run("parts", accumulate=3)
    for name in ("loss", "val_log_loss", "learning_rate"):
        np.testing.assert_allclose(
            [row[name] for row in parts.history], [row[name] for row in whole.history], rtol=2e-4
        )
    assert len(whole.history) == 2 and whole.history[0]["loss"] > whole.history[1]["loss"]
    # The averages lag behind the weights, along the same way.
    averaged = run("averaged", ema=0.9)
    first, last = (row["loss"] for row in averaged.history)
    assert (first, last) == tuple(row["loss"] for row in whole.history)
    assert averaged.history[0]["val_log_loss"] > whole.history[0]["val_log_loss"]
    kept = tfbert.evaluate(averaged.task, averaged.model, averaged.tokenizer, VALIDATION)
    assert kept["accuracy"] == max(row["val_accuracy"] for row in averaged.history)


def test_adversarial_and_agreeing_runs_learn(shallow, tmp_path):
    found = training.fine_tune(
        TASK,
        shallow,
        TRAIN,
        VALIDATION,
        directory=tmp_path / "run",
        export=False,
        fgm=0.02,
        r_drop=1.0,
        **OPTIONS,
    )
    assert found.metrics["metrics"]["accuracy"] > 0.9
    assert {"fgm": 0.02, "r_drop": 1.0, "accumulate": 1}.items() <= found.metrics["settings"].items()


def test_of_several_seeds_the_best_is_kept_and_all_are_told(shallow, tmp_path, monkeypatch):
    options = {**OPTIONS, "epochs": 1, "learning_rate": 1e-3, "export": False}
    alone = {
        seed: training.fine_tune(
            TASK, shallow, TRAIN, VALIDATION, test=TEST, directory=tmp_path / f"{seed}", seed=seed, **options
        )
        for seed in (3, 5)
    }
    call = training.run.Run.__call__

    def diverges_with_4(self, *arguments):
        if self.settings["seed"] == 4:
            raise Diverged("the loss is nan at epoch 1, step 2")
        return call(self, *arguments)

    monkeypatch.setattr(training.run.Run, "__call__", diverges_with_4)
    both = training.fine_tune(
        TASK,
        shallow,
        TRAIN,
        VALIDATION,
        test=TEST,
        directory=tmp_path / "all",
        seed=3,
        seeds=3,
        monitor="val_log_loss",
        **options,
    )
    told = both.metrics["seeds"]
    losses = {seed: run.metrics["validation"]["log_loss"] for seed, run in alone.items()}
    best = min(losses, key=losses.get)
    assert losses[3] != losses[5] and told["kept"] == best
    assert told["failed"] == {4: "the loss is nan at epoch 1, step 2"}
    found = {seed: run.metrics["test"]["log_loss"] for seed, run in alone.items()}
    assert told["scores"]["log_loss"] == {
        "by_seed": {"3": found[3], "5": found[5]},
        "median": np.median(list(found.values())),
        "min": min(found.values()),
        "max": max(found.values()),
    }
    for kept, mine in zip(both.model.get_weights(), alone[best].model.get_weights(), strict=True):
        np.testing.assert_array_equal(kept, mine)
    assert json.loads((tmp_path / "all" / "metrics.json").read_text())["seeds"]["kept"] == best
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize("more", [{}, {"seeds": 2}], ids=str)
def test_a_label_that_is_held_out_alone_is_one_that_the_data_have(shallow, tmp_path, monkeypatch, more):
    words, rows = ["Ada", "wrote", "to", "Rome"], []
    rows = [{"words": words, "tags": ["B-PER", "O", "O", "B-LAW" if i == 3 else "O"]} for i in range(10)]
    monkeypatch.setattr(checks, "split", lambda data, *_, **__: (data.select([0, 1, 2, *range(4, 10)]), data[3:4]))
    options = {**OPTIONS, "epochs": 1, "export": False, "report": False, **more}
    tuned = training.fine_tune(
        tfbert.TokenClassification(max_length=8), shallow, rows, directory=tmp_path / "run", **options
    )
    assert tuned.task.labels == ("O", "B-LAW", "I-LAW", "B-PER", "I-PER") and tuned.metrics["rows"]["validation"] == 1


def test_the_best_of_several_seeds_is_chosen_by_the_score_of_the_filled_task(shallow, tmp_path, monkeypatch):
    """Of words with entities F1, which the task knows once it has seen the data."""
    scores = {0: {"f1": 0.5, "accuracy": 0.75}, 1: {"f1": 0.75, "accuracy": 0.5}}
    results = training.run.Run._results

    def told(self, model, found, by_label):
        return {**results(self, model, found, by_label), "validation": scores[self.settings["seed"]]}

    monkeypatch.setattr(training.run.Run, "_results", told)
    words = ["Ada", "wrote", "to", "Rome"]
    rows = [{"words": words, "tags": [["B-PER", "O", "O", "B-LOC"], ["O"] * 4][i % 2]} for i in range(8)]
    options = {**OPTIONS, "epochs": 1, "export": False, "report": False, "seeds": 2}
    task = tfbert.TokenClassification(max_length=8)
    tuned = training.fine_tune(task, shallow, rows, rows, directory=tmp_path / "run", **options)
    assert tuned.metrics["seeds"]["kept"] == 1


def test_seeds_that_all_diverge_are_an_error_and_an_interrupted_one_goes_on(shallow, tmp_path, monkeypatch):
    options = {**OPTIONS, "epochs": 1, "export": False, "directory": tmp_path / "run", "seeds": 2}
    call, ran = training.run.Run.__call__, []

    def run(outcome):
        def instead(self, *arguments):
            ran.append(self.settings["seed"])
            return outcome.get(self.settings["seed"], call)(self, *arguments)

        monkeypatch.setattr(training.run.Run, "__call__", instead)
        return training.fine_tune(TASK, shallow, TRAIN, VALIDATION, **options)

    def diverge(*_):
        raise Diverged("the loss is inf")

    def interrupt(*_):
        raise Interrupted(signal.SIGTERM, "saved")

    with pytest.raises(Diverged, match="all 2 runs diverged; of the first: the loss is inf"):
        run({0: diverge, 1: diverge})
    options["overwrite"] = True
    with pytest.raises(Interrupted):
        run({1: interrupt})
    options["overwrite"] = False
    with pytest.raises(InputError, match="has runs that were interrupted; pass resume"):
        run({})
    with pytest.raises(InputError, match="run was begun otherwise: epochs: 1 -> 2; go on as it was begun"):
        training.fine_tune(TASK, shallow, TRAIN, VALIDATION, **{**options, "resume": True, "epochs": 2})
    ran.clear()
    options["resume"] = True
    assert run({}).metrics["seeds"]["failed"] == {} and ran == [1]
    assert not list(tmp_path.glob(".*"))


def test_scoring_every_so_many_steps_changes_when_it_is_scored_and_not_what_is_learned(tuned, shallow, tmp_path):
    """24 steps in all: scored after 10, 20 and 24; the weights after 24 are those of the run that is scored twice."""
    often = training.fine_tune(
        TASK,
        shallow,
        TRAIN,
        VALIDATION,
        test=TEST,
        directory=tmp_path / "often",
        export=False,
        evaluate_every=10,
        **OPTIONS,
    )
    assert [row["epoch"] for row in often.history] == [0.8333, 1.6667, 2]
    assert [row["epoch"] for row in tuned.history] == [1, 2]
    for name in ("val_accuracy", "val_f1_macro", "learning_rate"):
        assert often.history[-1][name] == tuned.history[-1][name]
    by_score = max(often.history, key=lambda row: row["val_accuracy"])
    assert often.metrics["best_epoch"] == by_score["epoch"]
    whole, twice = often.history, tuned.history
    # Each loss is the mean over its steps: 10 + 10 + 4 here, 12 + 12 there.
    sums = sum(row["loss"] * steps for row, steps in zip(whole, (10, 10, 4))), sum(12 * row["loss"] for row in twice)
    np.testing.assert_allclose(*sums, rtol=1e-5)
