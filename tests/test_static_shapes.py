"""Few static shapes: the lengths to pad to, and training that XLA compiles beside training in TensorFlow's graph."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

import tfbert
from tfbert import devices, models, pipeline, training
from tfbert._compat import keras, tf
from tfbert.command_line import doctor
from tfbert.errors import InputError
from tfbert.static_shapes import boundaries

WORDS = {"good": "good great lovely bright fine".split(), "bad": "bad awful dull boring not".split()}


def rows(count: int, seed: int = 0) -> list[dict]:
    rng = np.random.default_rng(seed)
    labels = ["good", "bad"] * (count // 2)
    return [{"text": " ".join(rng.choice(WORDS[label], rng.integers(2, 12))), "label": label} for label in labels]


TRAIN, VALIDATION = rows(50), rows(32, 1)
TASK = tfbert.SequenceClassification(max_length=32, dropout=0.0)
OPTIONS = {
    "epochs": 2,
    "batch_size": 8,
    "learning_rate": 5e-3,
    "precision": "float32",
    "export": False,
    "report": False,
}


def positions(lengths: list[int], batch_size: int, chosen) -> int:
    ordered = sorted(lengths)
    widest = [max(ordered[i : i + batch_size]) for i in range(0, len(ordered), batch_size)]
    return sum(batch_size * min(width for width in chosen if width >= longest) for longest in widest)


def test_no_other_boundaries_take_fewer_positions():
    rng = np.random.default_rng(0)
    for _ in range(60):
        lengths = rng.integers(1, 30, rng.integers(1, 40)).tolist()
        batch_size, count, overhead = int(rng.integers(1, 5)), int(rng.integers(1, 5)), int(rng.integers(0, 60))
        others = itertools.chain.from_iterable(
            itertools.combinations(sorted({*lengths}), number) for number in range(1, count + 1)
        )
        least = min(
            positions(lengths, batch_size, chosen) + overhead * len(chosen)
            for chosen in others
            if chosen[-1] == max(lengths)
        )
        found = boundaries(rng.permutation(lengths), batch_size=batch_size, count=count, overhead=overhead)
        assert found == tuple(sorted(set(found))) and found[-1] == max(lengths) and len(found) <= count
        assert positions(lengths, batch_size, found) + overhead * len(found) == least


def test_boundaries_of_nothing_are_an_error():
    with pytest.raises(InputError, match="needs rows, batch_size and count of at least 1; got 0, 1, 4"):
        boundaries([])
    with pytest.raises(InputError, match="got 2, 1, 0"):
        boundaries([3, 4], count=0)


def test_auto_pads_to_the_boundaries_of_the_data(tiny):
    tokenizer = tfbert.load_tokenizer(tiny)
    task = TASK.from_data(tfbert.sources.from_iterable(TRAIN))
    features = task.features(tokenizer, tfbert.sources.from_iterable(TRAIN))
    widths = boundaries(features.draws, batch_size=8, overhead=features.draws.sum() / 100)
    assert 2 <= len(widths) <= 4
    dataset = tfbert.make_dataset(task, tokenizer, TRAIN, batch_size=8, training=True, pad_to="auto")
    shapes = {tuple(inputs["input_ids"].shape) for inputs, _, _ in dataset}
    assert shapes <= {(8, width) for width in widths} and (8, widths[-1]) in shapes
    known = pipeline.statistics(features, batch_size=8, training=True, pad_to=widths)
    assert pipeline.statistics(features, batch_size=8, training=True, pad_to="auto") == known
    with pytest.raises(InputError, match="pad_to is 'least'; give lengths in tokens, such as .32, 128., or 'auto'"):
        tfbert.make_dataset(task, tokenizer, TRAIN, pad_to="least")


@pytest.fixture
def compiled(monkeypatch) -> list[bool]:
    """Of each `compile` from now on, whether XLA is asked for."""
    found = []
    compile_ = keras.Model.compile
    monkeypatch.setattr(
        keras.Model,
        "compile",
        lambda model, *given, **options: found.append(options["jit_compile"]) or compile_(model, *given, **options),
    )
    return found


def test_xla_learns_what_the_graph_learns(shallow, tmp_path, compiled):
    tuned = {
        xla: training.fine_tune(TASK, shallow, TRAIN, VALIDATION, directory=tmp_path / xla, xla=xla, **OPTIONS)
        for xla in ("on", "off")
    }
    assert compiled == [True, False]
    # Seven batches an epoch; the last is filled up, and its rows count as many as in the graph.
    for run in tuned.values():
        assert run.history[1]["loss"] < run.history[0]["loss"]
    # The order of additions is the compiler's and the processor's, and Adam's first steps enlarge what rounding leaves.
    assert tuned["on"].metrics["validation"] == pytest.approx(tuned["off"].metrics["validation"], abs=1e-5)
    assert tuned["on"].metrics["best_epoch"] == tuned["off"].metrics["best_epoch"]
    start = models.load(tuned["on"].metrics["settings"]["checkpoint"], "sequence-classification", num_labels=2)
    mine, theirs = (models.transformer_of(tuned[xla].model).trainable_variables for xla in ("on", "off"))
    for variable, value, expected in zip(start.trainable_variables, mine, theirs):
        if "/key/bias" in variable.name:
            continue  # its gradient is 0 but for rounding, of which Adam makes whole steps
        np.testing.assert_allclose(value, expected, atol=2e-3, err_msg=variable.name)
        moved = np.abs(value - expected).mean() / max(np.abs(expected - variable).mean(), 1e-9)
        assert moved < 0.02 or "classifier" in variable.name, (variable.name, moved)
    assert tuned["on"].metrics["padding_share"] > tuned["off"].metrics["padding_share"]


def test_a_step_with_dropout_and_what_is_computed_again_is_compiled(tiny, tmp_path, compiled):
    task = tfbert.SequenceClassification(max_length=32, dropout=0.1)
    options = {**OPTIONS, "epochs": 8, "xla": "on", "gradient_checkpointing": True}
    short = [{**row, "text": " ".join(row["text"].split()[:2])} for row in TRAIN]  # one length, one compilation
    run = training.fine_tune(task, tiny, short, VALIDATION, directory=tmp_path / "run", **options)
    assert compiled == [True]
    assert run.metrics["validation"]["accuracy"] > 0.9


def test_auto_is_xla_where_there_is_a_gpu(monkeypatch):
    assert [devices.uses_xla(name, "cpu") for name in devices.XLA] == [False, True, False]
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: [kind])
    assert [devices.uses_xla(name, "auto") for name in devices.XLA] == [True, True, False]
    assert not devices.uses_xla("auto", "cpu")
    with pytest.raises(InputError, match="xla is 'of'; it must be one of auto, on, off. Did you mean 'off'"):
        devices.uses_xla("of", "cpu")


def test_what_xla_cannot_do_is_refused_where_it_was_asked_for(tiny, tmp_path):
    with pytest.raises(InputError, match="xla compiles Keras' own training step, not accumulate, fgm or r_drop"):
        training.fine_tune(TASK, tiny, TRAIN, directory=tmp_path / "run", xla="on", accumulate=2)
    pairs = [{"text": row["text"], "text_pair": row["text"]} for row in TRAIN]
    task = tfbert.SentenceEmbedding(objective="ranking", max_length=32)
    with pytest.raises(InputError, match="this objective compares all examples of a batch; leave it out"):
        training.fine_tune(task, tiny, pairs, directory=tmp_path / "run", xla="on")


def test_doctor_tells_what_runs_a_training_step(monkeypatch):
    check = doctor._compiler()
    assert check["ok"] and check["found"] == "TensorFlow's graph"
    monkeypatch.setattr(devices, "uses_xla", lambda *_: True)
    assert doctor._compiler()["found"] == "XLA"

    def fails(*_):
        raise RuntimeError("libdevice not found")

    monkeypatch.setattr(devices, "uses_xla", fails)
    check = doctor._compiler()
    assert not check["ok"] and "libdevice not found" in check["found"] and "--xla off" in check["advice"]
