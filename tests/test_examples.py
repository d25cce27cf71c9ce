"""Every example script runs, trains and asks, with a tiny checkpoint in place of the packaged one, and is short."""

from __future__ import annotations

import itertools
import json
import os
import re
import socket
import subprocess
import sys
import types
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from matplotlib.text import Text

import tfbert
from tfbert import models, tokenization
from tfbert._compat import keras, transformers
from tfbert.models.loading import quiet

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
# The words that must be on the screen in the end: a score of the test data, and one of the questions with its answer.
SHOWN = {
    "custom_loop": (r"accuracy [01]\.\d{3}", r"[01]\.\d\d  \w+: He threw"),
    "multiple_choice": (r"accuracy +[01]\.\d{3}", r"Who mended the clock\? +[01]\.\d\d  \w+"),
    "pretraining": (r"perplexity +\d+\.\d{3} +\d+\.\d{3}", r"I want my \[MASK\] back\.\n +\S+ [01]\.\d\d, "),
    "question_answering": (r"exact_match +[01]\.\d{3}", r"Where does the bus stop now\? +[01]\.\d\d .* \[\d+, \d+\)"),
    "sentence_embedding": (r"recall_at_1 +[01]\.\d{3} .*[01]\.\d{3}", r"Can I drink beer .*\n +-?[01]\.\d\d  \w+"),
    "sequence_classification": (r"accuracy +[01]\.\d{3}", r"\n    \w+ +[01]\.\d\d  He threw"),
    "text_generation": (r"perplexity +\d+\.\d{3}", r"\n    courier_complaint: *\S"),
    "translation": (r"exact_match +[01]\.\d{3}", r"\A(    .*\n){3}\Z"),
    "token_classification": (r"f1 +[01]\.\d{3}", r"Zoë Brandt of Kestrel Freight"),
}


@pytest.fixture(scope="module")
def roomy(tiny, tmp_path_factory) -> Path:
    """A checkpoint as tiny, of one layer, with positions for a whole passage, whose words are letters to it."""
    config = transformers.BertConfig.from_pretrained(tiny)
    config.max_position_embeddings, config.num_hidden_layers = 512, 1
    keras.utils.set_random_seed(7)
    with quiet():
        model = transformers.TFBertModel(config)
        model.build_in_name_scope()
    place = tmp_path_factory.mktemp("roomy") / "bert"
    models.save(model, place, tokenization.load_tokenizer(tiny))
    return place


def loaded(name: str, changes: Sequence[tuple[str, str]] = (), folder: Path = EXAMPLES) -> types.ModuleType:
    """A script as a module, after some changes (pattern and replacement), as if it were in a folder."""
    text = (EXAMPLES / f"{name}.py").read_text("utf-8")
    for pattern, replacement in changes:
        text = re.sub(pattern, replacement, text)
    script = types.ModuleType(name)
    script.__file__ = str(folder / f"{name}.py")
    exec(compile(text, script.__file__, "exec"), vars(script))
    return script


def test_every_example_is_short_and_tested():
    scripts = {path.stem: path.read_text("utf-8") for path in EXAMPLES.glob("*.py")}
    longer = {
        "beam_score": 245,
        "compare": 165,
        "local_workers": 120,
        "search": 175,
    }  # they have options, tables and pictures
    assert scripts.keys() == {*SHOWN, *longer}  # two have a file of tests: test_beam_score, test_workers
    for name, text in scripts.items():
        assert len(text.splitlines()) <= longer.get(name, 82), name


@pytest.mark.slow
@pytest.mark.parametrize("name", SHOWN)
def test_an_example_trains_and_asks_its_export(name, roomy, fewer, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("tfbert.plots.available", lambda: False)  # a report is not what an example is about
    shorter = {
        r'(epochs"?[=:] ?)\d+': r"\g<1>1",
        r"vocab_size=1\d00": "vocab_size=500",
        r"rows\[40:200\]": "rows[40:60]",
        r"rows\[200:\]": "rows[200:400]",
    }
    script = loaded(name, [("all-MiniLM-L6-v2", str(roomy)), *shorter.items()], fewer)
    script.OUTPUT = tmp_path / "out"
    script.train()
    trained = capsys.readouterr().out
    script.ask()
    asked = capsys.readouterr().out
    score, answer = SHOWN[name]
    assert re.search(score, trained), trained
    assert re.search(answer, asked), asked
    if name == "token_classification":  # after one epoch there may be no entity
        found = [label for answers in tfbert.Predictor(script.OUTPUT)(script.UNSEEN) for label in answers["label"]]
        assert re.findall(r"\n        (\S+) ", asked) == found


@pytest.mark.slow
def test_the_loop_of_ones_own_gives_the_weights_of_fit(roomy, fewer, tmp_path):
    script = loaded("custom_loop", [("all-MiniLM-L6-v2", str(roomy))], fewer)
    script.OUTPUT = tmp_path / "out"
    mine = script.train(epochs=2)
    strategy, _, batches, model, optimizer = script.pieces(epochs=2)
    begun = [weight.copy() for weight in model.get_weights()]
    with strategy.scope():
        model.compile(optimizer, loss=script.TASK.loss())
    model.fit(batches, epochs=2, verbose=0)
    for ours, theirs in zip(mine.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-6)
    assert max(np.abs(theirs - first).max() for theirs, first in zip(model.get_weights(), begun, strict=True)) > 1e-4


def reviews(folder: Path) -> Path:
    """A file of 50 labelled rows of four words."""
    rows = [("good film", "good") if i % 2 else ("an awful plot", "bad") for i in range(50)]
    place = folder / "reviews.csv"
    place.write_text("text,label\n" + "".join(f"{text} {i},{label}\n" for i, (text, label) in enumerate(rows)))
    return place


@pytest.fixture(scope="module")
def compare() -> types.ModuleType:
    return loaded("compare")


@pytest.mark.slow
def test_ways_are_compared_on_the_same_rows(compare, roomy, tmp_path, capsys):
    data, output = reviews(tmp_path), tmp_path / "out"
    words = ["--data", str(data), "--checkpoints", str(roomy), "--ways", "frozen", "full", "--epochs", "1"]
    compare.main([*words, "--learning-rate", "1e-4", "--seed", "3", "--output", str(output)])
    out, err = capsys.readouterr()
    frozen, full = map(json.loads, out.splitlines())
    assert (frozen["way"], full["way"]) == ("frozen", "full") and full["score"] == "accuracy"
    assert frozen["trainable_parameters"] == 2 * 32 + 2 and full["trainable_parameters"] == full["parameters"]
    assert frozen["learning_rate"] == pytest.approx(5e-3) and full["learning_rate"] == 1e-4
    folders = [path for path in output.iterdir() if path.is_dir()]
    metrics = {path.name.split("-")[-1]: json.loads((path / "metrics.json").read_text()) for path in folders}
    assert metrics["full"]["data_sha256"] == metrics["frozen"]["data_sha256"]
    assert metrics["full"]["rows"] == {"train": 36, "validation": 4, "test": 10}
    for row in (frozen, full):
        of = metrics[row["way"]]
        assert (row["test"], row["validation"]) == (of["test"]["accuracy"], of["validation"]["accuracy"])
        assert of["settings"]["seed"] == 3 and row["latency_ms_p50"] > 0
        assert re.search(
            rf"  {row['way']} +{row['test']:.3f} +{row['validation']:.3f} .* {row['trainable_parameters']:,} ", err
        )
    assert (output / "compare.png").read_bytes().startswith(b"\x89PNG")


@pytest.fixture
def search_words(roomy, tmp_path) -> list[str]:
    """The options of a small search: of four words, on rows made here."""
    data = reviews(tmp_path)
    return ["--data", str(data), "--checkpoint", str(roomy), "--most-epochs", "2", "--output", str(tmp_path / "out")]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:(currentThread|getName).. is deprecated:DeprecationWarning")  # KerasTuner's own
def test_a_search_tries_settings_goes_on_and_exports_the_best(search_words, tmp_path, capsys):
    script = loaded("search")
    script.main([*search_words, "--trials", "2"])
    out, err = capsys.readouterr()
    *trials, best = map(json.loads, out.splitlines())
    assert [row["trial"] for row in trials] == ["0", "1"] and trials[0]["learning_rate"] != trials[1]["learning_rate"]
    for row in trials:
        metrics = json.loads((tmp_path / "out" / "trials" / f"run_{row['trial']}" / "metrics.json").read_text())
        assert {name: metrics["settings"][name] for name in script.SEARCHED} == {
            name: pytest.approx(row[name]) for name in script.SEARCHED
        }
        assert row["accuracy"] == metrics["validation"]["accuracy"] and 2e-5 <= row["learning_rate"] <= 1e-3
    assert max(row["accuracy"] for row in trials) == next(
        row["accuracy"] for row in trials if row["trial"] == best["best"]
    )
    answers = tfbert.Predictor(best["export"])([f"good film {i}" for i in range(3)])
    assert {answer["label"] for answer in answers} <= {"good", "bad"} and 0 <= best["test"] <= 1
    assert f"of trial {best['best']}: test accuracy {best['test']:.4f}" in err
    assert (tmp_path / "out" / "search.png").read_bytes().startswith(b"\x89PNG")
    script.main([*search_words, "--trials", "3"])  # what is done is not done again
    again = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row.get("trial") for row in again] == ["2", None]


@pytest.mark.slow
def test_several_processes_share_a_search(search_words, tmp_path):
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    address = {"KERASTUNER_ORACLE_IP": "127.0.0.1", "KERASTUNER_ORACLE_PORT": str(port)}
    command = [sys.executable, str(EXAMPLES / "search.py"), *search_words, "--trials", "3"]
    path = {"PYTHONPATH": os.pathsep.join(sys.path)}
    pieces = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    every = {
        name: subprocess.Popen(command, env={**os.environ, **path, **address, "KERASTUNER_TUNER_ID": name}, **pieces)
        for name in ("chief", "tuner0", "tuner1")
    }
    try:
        told = {name: every[name].communicate(timeout=240) for name in ("tuner1", "tuner0")}
    finally:
        for process in every.values():
            process.kill()
            process.communicate()
    rows = [json.loads(line) for out, _ in told.values() for line in out.splitlines()]
    trials = sorted(row["trial"] for row in rows if "trial" in row)
    assert trials == ["0", "1", "2"], [err[-2000:] for _, err in told.values()]
    assert sum("best" in row for row in rows) == 1


def test_a_search_tells_what_is_wrong_in_one_line(search_words, tmp_path):
    words = [*search_words, "--trials", "1", "--checkpoint", str(tmp_path / "none")]
    path = {"PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, str(EXAMPLES / "search.py"), *words]
    done = subprocess.run(command, env={**os.environ, **path}, capture_output=True, text=True, check=False)
    assert done.returncode == 1 and done.stdout == ""
    assert re.match(r"search\.py: .*none", done.stderr.splitlines()[-1])


def test_latency_is_the_median_without_the_first_requests(compare, monkeypatch):
    seconds = iter([9, 9, 0.001, 0.005, 0.002])
    clock, asked = [0.0], []

    def predictor(rows):
        asked.extend(rows)
        clock[0] += next(seconds)

    monkeypatch.setattr(compare, "time", types.SimpleNamespace(perf_counter=lambda: clock[0]))
    rows = [{"text": "a"}, {"text": "b"}]
    assert compare.latency(predictor, rows, warmup=2, requests=3) == pytest.approx(2)
    assert asked == [rows[i % 2] for i in range(5)]


def test_two_files_are_to_learn_from_and_to_test_on(compare, capsys):
    found = {name: len(part) for name, part in compare.parts(compare.DATA).items()}
    assert found == {"train": 520, "validation": 58, "test": 144}
    with pytest.raises(SystemExit):
        compare.parse(["--data", "a.csv", "b.csv", "c.csv"])
    assert "--data takes one file or two, got 3" in capsys.readouterr().err


def test_the_labels_of_the_picture_can_be_read(compare):
    ways = {
        "full": (0.8, 60, 22_700_000),
        "lora": (0.8, 40, 70_000),
        "bitfit": (0.801, 40, 30_000),
        "frozen": (0.5, 9, 3_000),
    }
    rows = []
    for checkpoint in ("all-MiniLM-L6-v2", "a/folder/with/a/long/name/of/a/model"):
        for way, (score, seconds, learn) in ways.items():
            row = {"checkpoint": checkpoint, "way": way, "score": "accuracy", "test": score, "train_seconds": seconds}
            rows.append({**row, "trainable_parameters": learn, "parameters": 22_700_000, "latency_ms_p50": 8.0})
    made = compare.picture(rows)
    made.canvas.draw()
    (axes,), renderer = made.axes, made.canvas.get_renderer()
    texts = (*axes.texts, *axes.get_legend().get_texts())
    boxes = [Text.get_window_extent(text, renderer) for text in texts]  # not the lines to the points
    assert len(boxes) == 8 + 2
    for one, other in itertools.combinations(boxes, 2):
        assert not one.overlaps(other)
    for box in boxes:
        assert made.bbox.x0 <= box.x0 and box.x1 <= made.bbox.x1 and made.bbox.y0 <= box.y0 and box.y1 <= made.bbox.y1
    sizes = {points.get_offsets()[0][0]: points.get_sizes()[0] for points in axes.collections[:8]}  # by seconds
    assert sizes[60] > sizes[40] > sizes[9] and len(sizes) == 3
    assert compare.beside([0.1, 0.12, 0.9, 0.98], 0.1) == pytest.approx([0.1, 0.2, 0.9, 1.0])
    assert compare.beside([0.96, 0.97, 0.98], 0.1) == pytest.approx([0.8, 0.9, 1.0])
