"""The arithmetic of the benchmarks of serving, and that serving.c answers as the Predictor does."""

from __future__ import annotations

import importlib
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tfbert import models, tasks, tokenization
from tfbert.errors import InputError
from tfbert.serving import Predictor, export

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"


@pytest.fixture(scope="module")
def scripts():
    """The scripts as modules, by the short names by which they import each other."""
    names = ("training", "serving", "compare", "report", "profile_serving", "tfbert_serving")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(BENCHMARKS))
        yield type("Scripts", (), {name: importlib.import_module(name) for name in names})
    for name in names:
        del sys.modules[name]


@pytest.mark.parametrize(
    ("count", "share", "expected"),
    [(1, 0.99, 1), (4, 0.5, 2), (5, 0.5, 3), (100, 0.95, 95), (60, 0.99, 60), (200, 0.99, 198)],
)
def test_percentile_is_the_nearest_rank(scripts, count, share, expected):
    values = list(range(count, 0, -1))
    assert scripts.serving.percentile(values, share) == expected
    assert scripts.serving.percentile(values, share) == np.percentile(values, 100 * share, method="inverted_cdf")


def test_an_export_is_a_name_a_folder_and_settings(scripts):
    parse = scripts.serving.parse_export
    assert parse("a=x/1") == {"name": "a", "folder": "x/1", "environment": {}}
    given = "b=x/2,signature=fast,intra=1,TF_ENABLE_ONEDNN_OPTS=1"
    expected = {
        "name": "b",
        "folder": "x/2",
        "signature": "fast",
        "intra": "1",
        "environment": {"TF_ENABLE_ONEDNN_OPTS": "1"},
    }
    assert parse(given) == expected
    for wrong in ("", "a", "=x", "a=", "a=x,intra=many", "a=x,colour=red", "a=x,INTRA"):
        with pytest.raises(InputError, match="--export"):
            parse(wrong)


def made(sorted_seconds, start, peak, latencies):
    def row(seconds):
        return {"seconds": seconds, "cpu_seconds": 2 * seconds, "each": latencies, "peak_memory_bytes": peak}

    found = {name: [row(s) for s in sorted_seconds] for name in ("sorted", "unsorted", "short")}
    return {**found, "start": [{"cold_start_seconds": s} for s in start]}


def test_ratios_are_above_1_where_tfbert_is_better(scripts):
    ours = scripts.serving.measures(made([2, 8], [3.0], 2**20, [0.010, 0.020]), 16)
    theirs = scripts.serving.measures(made([4, 2], [1.5], 2**21, [0.030, 0.010]), 16)
    assert ours["texts_per_second_sorted"] == [8, 2] and ours["latency_ms_p50"] == [10, 10]
    assert (
        ours["latency_ms_p99"] == [20, 20]
        and ours["cpu_ms_a_text_sorted"] == [250, 1000]
        and ours["peak_memory_mib"] == [1]
    )
    found = scripts.serving.ratios(ours, theirs)
    assert found["texts_per_second_unsorted"] == {"median": 1.125, "min": 0.25, "max": 2.0}  # 8/4 and 2/8
    assert found["latency_ms_p99"]["median"] == 1.5 and found["cold_start_seconds"]["median"] == 0.5
    assert found["peak_memory_mib"]["median"] == 2.0


def test_scores_are_compared_where_the_labels_are_equal(scripts):
    ours = {"labels": ["a", "b", "a", "b"], "scores": [0.5, 0.6, 0.7, 0.8]}
    theirs = {"labels": ["a", "b", "a", "a"], "scores": [0.5, 0.6005, 0.70005, 0.1]}
    found = scripts.serving.compare_answers(ours, theirs)
    assert found == {
        "texts": 4,
        "equal_labels": 0.75,
        "different_labels": 1,
        "different_scores": 1,
        "largest_score_difference": 0.0005,
    }


# A side that answers "a" to everything, in as many seconds as it is told at its start.
SIDE = """
import json, sys
def say(count, batch):
    print(json.dumps({"seconds": SECONDS, "cpu_seconds": SECONDS, "peak_memory_bytes": 2**20, "each": [SECONDS / count] * count,
                      "labels": ["61"] * count, "scores": [0.5] * count, "about": {"versions": {"side": "1"}}}), flush=True)
say(1, 1)
for line in sys.stdin:
    batch, answers, path = line.rstrip().split(" ", 2)
    say(len(open(path).read().split()), int(batch))
"""


@pytest.fixture
def result(scripts, tmp_path, monkeypatch):
    serving = scripts.serving
    monkeypatch.setattr(serving, "WORK", tmp_path)
    monkeypatch.setattr(serving, "PAUSE", 0)
    sides = {}
    for name, seconds in (("tfbert", "2.0"), ("onnx", "3.0")):
        sides[name] = ([sys.executable, "-c", SIDE.replace("SECONDS", seconds)], {}, tmp_path / f"{name}.log")
    options = serving.arguments().parse_args(
        ["--rounds", "2", "--requests", "4", "--starts", "1", "--export", "tfbert=/x/y/1"]
    )
    texts = ["one", "and two", "é three words"]
    made = serving.summary(serving.measure(sides, texts, options), texts, options) | {
        "about": {"versions": {"tensorflow": "2"}}
    }
    return made | {"machine": {"processor": "P", "cores": 2, "flags": ["avx2"], "load_average": [2.0, 3.0]}}


def test_sides_work_in_turn_and_the_result_is_told(scripts, result, tmp_path):
    assert result["ratios"]["onnx"]["texts_per_second_sorted"] == {"median": 1.5, "min": 1.5, "max": 1.5}
    assert result["answers"]["onnx"]["equal_labels"] == 1 and result["settings"]["words"] == [1, 2, 3]
    assert result["settings"]["exports"] == ["tfbert=1"]  # no folders of a machine
    assert json.loads(json.dumps(result)) == result
    shown = scripts.serving.table(result)
    assert "tfbert / onnx: texts_per_second_sorted 1.50 (1.50 to 1.50)" in shown
    assert [bytes.fromhex(line).decode() for line in (tmp_path / "sorted.txt").read_text().split()] == [
        "one",
        "and two",
        "é three words",
    ]


def test_a_side_that_fails_tells_why(scripts, tmp_path):
    code = "import sys; print('no such model', file=sys.stderr); sys.exit(3)"
    with pytest.raises(RuntimeError, match=r"onnx ended with exit code 3:\nno such model"):
        scripts.serving.Side("onnx", [sys.executable, "-c", code], {}, tmp_path / "log")


def test_results_are_stored_shown_and_compared(scripts, result, tmp_path, capsys):
    stored, shown, new = tmp_path / "results.json", tmp_path / "RESULTS.md", tmp_path / "new.json"
    new.write_text(json.dumps(result) + "\n")
    for _ in range(2):  # the second replaces the first
        scripts.report.main([str(new)], stored, shown)
        assert scripts.compare.read_results(stored) == [result]
    text = shown.read_text()
    assert "| onnx | 1.50 | 1.50 | 1.50 |" in text and "without VNNI and bfloat16" in text and "busy" in text
    assert scripts.compare.main([str(new), "--stored", str(stored)]) == 0
    worse = json.loads(json.dumps(result))
    worse["ratios"]["onnx"]["texts_per_second_sorted"]["median"] = 1.1
    new.write_text(json.dumps(worse))
    assert scripts.compare.main([str(new), "--stored", str(stored)]) == 1
    assert "onnx texts_per_second_sorted fell from 1.50 to 1.10, 27%" in capsys.readouterr().err
    assert scripts.compare.main([str(new), "--stored", str(stored), "--allowed", "0.3"]) == 0


def test_a_fall_is_a_share_of_the_stored_ratio(scripts):
    stored = {"a": 2.0, "b": 0.5, "gone": 1.0}
    assert scripts.compare.fallen({"a": 1.5, "b": 0.3, "new": 0.1}, stored, 0.25) == {"b": (0.5, 0.3)}


def test_ratios_of_every_benchmark_are_found(scripts):
    ratios = scripts.compare.ratios
    trained = {"tokens_per_second": {"median": 2.0, "min": 1.0}, "peak_memory": {"median": 1.1, "min": 1.1}}
    expected = {"trainer tokens_per_second": 2.0, "trainer peak_memory": 1.1}
    assert ratios({"benchmark": "training", "ratios": {"trainer": trained}}) == expected
    assert ratios({"graph_over_tokenizer": {"median": 1.2, "quartiles": [1, 2]}}) == {"tokenizer": 1.2}


def test_the_stored_results_are_the_table_that_is_shown(scripts, tmp_path):
    stored = tmp_path / "results.json"
    shutil.copy(BENCHMARKS / "results.json", stored)
    scripts.report.main([], stored, tmp_path / "RESULTS.md")
    assert stored.read_text() == (BENCHMARKS / "results.json").read_text()
    assert (tmp_path / "RESULTS.md").read_text() == (BENCHMARKS / "RESULTS.md").read_text(), "run benchmarks/report.py"


def test_a_profile_tells_tokenization_encoder_and_answers_apart(scripts):
    one = [
        ("m/w", "VarHandleOp", 0, 1),
        ("s/split", "Wordpiece", 1, 5),
        ("x/m/a", "MatMul", 9, 40),
        ("s/best", "ArgMax", 50, 2),
    ]
    two = [
        ("m/w", "VarHandleOp", 0, 3),
        ("s/split", "Wordpiece", 3, 9),
        ("x/m/a", "MatMul", 13, 60),
        ("s/best", "ArgMax", 70, 2),
    ]
    found = scripts.profile_serving.parts(scripts.profile_serving.nodes([one, two]), "m/")
    assert {name: [node["op"] for node in of] for name, of in found.items()} == {
        "tokenization": ["Wordpiece"],
        "encoder": ["VarHandleOp", "MatMul"],
        "answers": ["ArgMax"],
    }
    assert scripts.profile_serving.by_operation(found["encoder"], 1) == [("MatMul", 1, 50)]


@pytest.mark.slow
def test_the_program_and_the_profile_know_an_export(scripts, tiny, tmp_path):
    task = tasks.SequenceClassification(labels=("no", "perhaps", "café"), pair=False, max_length=32)
    model, tokenizer = task.build(tiny, seed=4), tokenization.load_tokenizer(tiny)
    for variable in models.transformer_of(model).layers[-1].trainable_weights[-2:]:  # large enough that answers differ
        variable.assign(np.random.default_rng(8).normal(size=variable.shape).astype(np.float32))
    place = export(task, model, tokenizer, tmp_path / "model")
    try:
        program = scripts.tfbert_serving.compile_program(tmp_path / "serving")
    except InputError as error:
        pytest.skip(str(error))
    texts = ["a man", "", "café \0 au lait", "two\nlines", "Ünïcode 東京 🙂", "the end of it all", "seven"]
    file = scripts.serving.write_texts(tmp_path / "texts.txt", texts)
    command = scripts.tfbert_serving.command(program, place, file, intra=1, inter=1)
    side = scripts.serving.Side("tfbert", command, {"CUDA_VISIBLE_DEVICES": "-1"}, tmp_path / "log")
    try:
        told, silent = side(file, 3, answers=True), side(file, 3)
    finally:
        side.stop()
    expected = Predictor(place)(texts)
    assert [bytes.fromhex(label).decode() for label in told["labels"]] == [row["label"] for row in expected]
    np.testing.assert_allclose(told["scores"], [row["score"] for row in expected], atol=1e-6)
    assert side.first["labels"] == told["labels"][:1] and len({row["label"] for row in expected}) > 1
    assert len(told["each"]) == 3 and sum(told["each"]) <= told["seconds"] and told["peak_memory_bytes"] > 2**20
    assert silent["labels"] == silent["scores"] == []
    with pytest.raises(InputError, match="has no signature fast; it has"):
        scripts.tfbert_serving.tensor_names(place, "fast")


@pytest.mark.parametrize("name", ["serving", "compare", "profile_serving"])
def test_help_is_there(name):
    done = subprocess.run(
        [sys.executable, str(BENCHMARKS / f"{name}.py"), "--help"], capture_output=True, text=True, check=True
    )
    assert "usage:" in done.stdout


def test_no_peers_is_one_line(scripts, capsys, tmp_path):
    assert scripts.serving.main(["--peer-python", str(tmp_path / "no-python")]) == 2
    assert "no-python; `make bench` makes it, or name one with --peer-python" in capsys.readouterr().err
