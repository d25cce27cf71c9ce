"""The benchmarks of batch scoring and of an export under load: their arithmetic, and a short run of each side."""

from __future__ import annotations

import importlib
import json
import shutil
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
    names = ("training", "serving", "tfbert_serving", "batch_scoring", "load_sides", "load")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(BENCHMARKS))
        yield type("Scripts", (), {name: importlib.import_module(name) for name in names})
    for name in names:
        del sys.modules[name]


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """A folder of texts of 1 to 40 words in two files, beside one that has none."""
    folder = tmp_path_factory.mktemp("data")
    (folder / "more").mkdir()
    for name, begin in (("one.csv", 1), ("more/two.csv", 2)):
        rows = ((f"a film {n} " + "of awful plot " * (n // 3)).strip() for n in range(begin, 40, 2))
        (folder / name).write_text("text,label\n" + "".join(f"{text},x\n" for text in rows))
    (folder / "more" / "pairs.csv").write_text("question\nwhy\n")
    return folder


@pytest.fixture(scope="module")
def exports(tiny, tmp_path_factory) -> list[Path]:
    """Two exports that answer otherwise."""
    task = tasks.SequenceClassification(labels=("no", "perhaps", "café"), pair=False, max_length=32)
    tokenizer, made = tokenization.load_tokenizer(tiny), []
    for seed in (8, 9):
        model = task.build(tiny, seed=4)
        for variable in models.transformer_of(model).layers[-1].trainable_weights[-2:]:
            variable.assign(np.random.default_rng(seed).normal(size=variable.shape).astype(np.float32))
        made.append(export(task, model, tokenizer, tmp_path_factory.mktemp("export") / "model").parent)
    return made


def test_texts_come_from_all_files(scripts, data, tmp_path):
    found = scripts.batch_scoring.texts(data)
    assert len(found) == 39 and found[0] == "a film 2" and found[19] == "a film 1"
    with pytest.raises(InputError, match="holds no .csv file"):
        scripts.batch_scoring.texts(data / "none")
    shutil.copy(data / "more" / "pairs.csv", tmp_path)
    with pytest.raises(InputError, match="no .csv file has a column text"):
        scripts.batch_scoring.texts(tmp_path)


def test_rows_are_spread_over_files(scripts, tmp_path):
    one, two = scripts.batch_scoring.written(tmp_path / "texts", ["a", "b", "c"], 2)
    assert (one.read_text(), two.read_text()) == ("a\nc\n", "b\n")


def test_answers_are_compared_row_by_row(scripts):
    def answer(score: float, label: str = "yes") -> dict:
        return {"label": label, "scores": [score, 1 - score], "spans": [{"start": 3, "score": score}]}

    def compared(*rows) -> dict:
        expected = {("a.txt", 1): answer(0.25), ("a.txt", 2): answer(0.5)}
        lines = (json.dumps({"file": "a.txt", "row": number, "text": "t", **found}) for number, found in rows)
        return scripts.batch_scoring.compared(expected, lines)

    equal = {"rows": 2, "unexpected": 0, "different": 0, "largest_difference": 0.0, "missing": 0}
    assert compared((2, answer(0.5)), (1, answer(0.25))) == equal
    assert compared((2, answer(0.5)), (1, answer(0.375)))["largest_difference"] == 0.125
    assert compared((2, answer(0.5)), (1, answer(0.25, "no"))) == equal | {"different": 1}
    assert compared((2, answer(0.5)), (2, answer(0.5))) == equal | {"unexpected": 1, "missing": 1}
    assert compared((2, answer(0.5))) == equal | {"rows": 1, "missing": 1}


def test_growth_is_the_slope_of_the_samples_between_two_times(scripts):
    samples = [(0.0, 500.0), *((seconds, 100 + seconds / 30) for seconds in range(60, 600, 10)), (700.0, 900.0)]
    assert scripts.load.growth(samples, 60, 600) == pytest.approx(2.0)
    assert scripts.load.growth(samples, 0, 50) == 0.0


def test_what_was_told_becomes_figures(scripts):
    told = {"requests": 4, "rows": 10, "failures": 0, "different": 1, "largest_difference": 1e-7}
    found = scripts.load.figures(told | {"latencies": [0.001, 0.004, 0.002, 0.003]}, 2.0)
    assert found == told | {
        "seconds": 2.0,
        "rows_per_second": 5.0,
        "latency_ms_p50": 2.0,
        "latency_ms_p95": 4.0,
        "latency_ms_p99": 4.0,
    }
    assert "latency_ms_p50" not in scripts.load.figures(told | {"latencies": []}, 2.0)


def test_an_answer_that_differs_and_one_that_fails_are_counted(scripts):
    sides = scripts.load_sides
    expected = sides.parted({"label": "a", "scores": [0.25, 0.75]})
    assert sides.apart(expected, {"label": "a", "scores": [0.25, 0.5]}) == 0.25
    assert sides.apart(expected, {"label": "b", "scores": [0.25, 0.75]}) == float("inf")
    asking = object.__new__(sides.Asking)
    asking._lock = sides.threading.Lock()
    asking._fresh()
    asking._note(0.5, 2, [1e-7, 0.25])
    asking._note(0.25, 1, [float("inf")])
    asking._note(1.0, 3, None)
    report = {"requests": 3, "rows": 6, "failures": 1, "different": 2, "largest_difference": 0.25}
    assert asking.report() == report | {"latencies": [0.5, 0.25, 1.0]} and asking.report()["requests"] == 0


@pytest.mark.slow
@pytest.mark.parametrize("side", ["predictor", "program"])
def test_a_side_answers_under_load_while_versions_change(scripts, exports, data, side, tmp_path, monkeypatch, capsys):
    if side == "program" and shutil.which("gcc") is None:
        pytest.skip("there is no gcc")
    monkeypatch.setattr(scripts.load, "WORK", tmp_path / "work")
    monkeypatch.setattr(scripts.load, "EVERY", 0.1)
    words = [*map(str, exports), str(data), "--sides", side, "--minutes", "0.03", "--texts", "20", "--swaps", "3"]
    assert scripts.load.main([*words, "--pause", "0.3", "--plot", str(tmp_path / "load.png")]) == 0
    told, table = capsys.readouterr()
    result = json.loads(told)
    for part in ("steady", "swapped"):
        row = result[part]
        assert row["requests"] > 8 and row["failures"] == row["different"] == 0 and row["largest_difference"] < 1e-5
        assert row["requests"] <= row["rows"] <= 8 * row["requests"]
        assert 0 < row["latency_ms_p50"] <= row["latency_ms_p95"] <= row["latency_ms_p99"]
    assert len(result["swaps"]) == 3 and all(swap["memory_mib"] > 50 for swap in result["swaps"])
    assert result["memory"]["start_mib"] > 50 and result["settings"]["exports"] == 2
    heap = result["memory"].get("allocated_mib_half_and_end", [])
    assert len(heap) == 2 * (side == "program") and all(20 < size < result["memory"]["end_mib"] for size in heap)
    assert f"{side}, swapped" in table and (tmp_path / "load.png").read_bytes().startswith(b"\x89PNG")
    answers = [[row["label"] for row in Predictor(place)([f"a film {n}" for n in range(20)])] for place in exports]
    assert answers[0] != answers[1]  # else it would not show which version answered


def test_what_cannot_be_asked_is_one_line(scripts, exports, data, tmp_path, capsys):
    assert scripts.load.main([str(tmp_path), str(data)]) == 2
    assert "holds no SavedModel" in capsys.readouterr().err
    assert scripts.load.main([str(exports[0]), str(tmp_path / "none")]) == 2
    assert "holds no .csv file; benchmarks/prepare_data.py makes some" in capsys.readouterr().err
