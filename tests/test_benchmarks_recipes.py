"""benchmarks/recipes.py: its runs are those that `tfbert fine-tune` takes, what is there is not run again, and the table's arithmetic."""

from __future__ import annotations

import collections
import importlib
import json
from pathlib import Path
from unittest import mock

import pytest
from safetensors.numpy import load_file

from tfbert.command_line import fine_tuning
from tfbert.sources import read

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"


@pytest.fixture(scope="module")
def recipes():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(BENCHMARKS))
        yield importlib.import_module("recipes")


@pytest.fixture(scope="module")
def reviews(tmp_path_factory) -> Path:
    """A folder as prepare_data.py writes it: 60 rows of which a quarter is positive, and 8 to test on."""
    folder = tmp_path_factory.mktemp("data")
    for name in ("sentiment_mr", "movie_reviews"):
        (folder / name).mkdir()
        for part, count in (("train", 60), ("test", 8)):
            rows = [
                ("a great film", "positive") if i % 4 == 0 else ("a dull, awful plot", "negative") for i in range(count)
            ]
            lines = "".join(f'"{text} {i}",{label}\n' for i, (text, label) in enumerate(rows))
            (folder / name / f"{part}.csv").write_text("text,label\n" + lines)
    return folder


def test_the_command_line_reads_the_settings_of_each_recipe(recipes, reviews):
    for run in recipes.runs(recipes.parse([str(reviews)])):
        words = recipes.command(run, Path("a.csv"), Path("b.csv"), Path("out"))
        assert words[1:4] == ["-m", "tfbert", "fine-tune"]
        read_back = fine_tuning.arguments(words[4:])
        expected = dict(run["settings"])
        assert read_back.task.max_length == expected.pop("max_length")
        fixed = {"seed": run["seed"], "resume": True, "export": False, "report": False}
        assert read_back.adapt == expected.pop("adapt", None)
        assert read_back.settings == {**expected, **fixed}
        assert (read_back.train, read_back.test, read_back.output) == ("a.csv", "b.csv", "out")


def test_every_recipe_has_its_first_seed_before_another_has_its_second(recipes):
    found = recipes.runs(
        recipes.parse(["x", "movie_reviews", "--recipes", "full", "ema", "--seeds", "2", "--rows", "40"])
    )
    assert [(run["seed"], run["recipe"]) for run in found] == [(0, "full"), (0, "ema"), (1, "full"), (1, "ema")]
    assert {run["data"] for run in found} == {"movie_reviews"} and {run["rows"] for run in found} == {40}
    assert found[1]["settings"] == {
        "epochs": 3,
        "batch_size": 16,
        "max_length": 128,
        "ema": 0.99,
        "learning_rate": recipes.RATE,
    }


def test_some_rows_are_each_label_s_share_and_the_same_again(recipes, reviews, tmp_path):
    file = reviews / "sentiment_mr" / "train.csv"
    chosen = recipes.training_file(file, 20, tmp_path)
    rows = list(read(chosen))
    assert collections.Counter(row["label"] for row in rows) == {"positive": 5, "negative": 15}
    everything = [(row["text"], row["label"]) for row in read(file)]
    assert {(row["text"], row["label"]) for row in rows} < set(everything)
    written = chosen.read_bytes()
    assert recipes.training_file(file, 20, tmp_path).read_bytes() == written
    assert recipes.training_file(file, None, tmp_path) == recipes.training_file(file, 60, tmp_path) == file


def learned(score: float, seconds: float, parameters: int) -> dict:
    return {
        "test": {"accuracy": score, "f1_macro": 0.1},
        "train_seconds": seconds,
        "cpu_seconds": None if seconds == 10 else 2 * seconds,
        "trainable_parameters": parameters,
        "best_epoch": 2,
    }


def test_what_is_there_is_not_run_again_and_the_table_has_medians(recipes, reviews, tmp_path, monkeypatch, capsys):
    scores = {"full": (0.80, 0.84, 0.82), "frozen": (0.70, 0.73, 0.74), "llrd": (0.85, 0.84, 0.83)}
    made, stops = [], [4, 8]

    def fine_tune(run, folder, place):
        if len(made) in stops:
            stops.remove(len(made))
            raise KeyboardInterrupt
        made.append((run["seed"], run["recipe"]))
        place.mkdir()
        score = scores[run["recipe"]][run["seed"]]
        return learned(score, 10 * (run["seed"] + 1) ** 2, 66 if run["recipe"] == "frozen" else 5000)

    monkeypatch.setattr(recipes, "fine_tune", fine_tune)
    words = [str(reviews), "sentiment_mr", "--recipes", *scores, "--rows", "20", "--output", str(tmp_path / "r.jsonl")]
    with pytest.raises(KeyboardInterrupt):
        recipes.main(words)
    recipes.main([*words, "--table-only"])
    half = {row["recipe"]: row["accuracy"] for row in map(json.loads, capsys.readouterr().out.splitlines())}
    assert half == {"full": {"0": 0.8, "1": 0.84}, "frozen": {"0": 0.7}, "llrd": {"0": 0.85}}
    with pytest.raises(KeyboardInterrupt):
        recipes.main(words)
    recipes.main(words)
    capsys.readouterr()
    recipes.main(words)
    assert made == [(seed, recipe) for seed in range(3) for recipe in scores]
    assert not any((tmp_path / "recipes").iterdir())
    out, err = capsys.readouterr()
    found = {row["recipe"]: row for row in map(json.loads, out.splitlines())}
    assert (found["full"]["median"], found["full"]["min"], found["full"]["max"]) == (0.82, 0.8, 0.84)
    assert found["full"]["to_full"] is None and found["full"]["train_seconds"] == 40
    assert found["full"]["cpu_seconds"] == 130  # of None, 80 and 180
    assert found["frozen"]["to_full"] == -0.1  # of -0.1, -0.11 and -0.08
    assert found["llrd"]["to_full"] == 0.01  # of 0.05, 0 and 0.01
    assert "| sentiment_mr | full | 0.820 | 0.800 | 0.840 |  | 40 | 130 | 5,000 | 3 |" in err
    assert (
        "| frozen | 0.730 | 0.700 | 0.740 | -0.100 | 40 | 130 | 66 | 3 | `freeze=encoder, learning_rate=0.005` |" in err
    )
    recipes.main([*words, "--epochs", "1", "--table-only"])
    assert capsys.readouterr().out == ""  # those are other runs


@pytest.mark.slow
def test_a_run_is_made_by_the_command_line_and_taken_where_it_is_complete(
    recipes, reviews, tiny, tmp_path, monkeypatch, capsys
):
    output = tmp_path / "recipes.jsonl"
    words = [str(reviews), "sentiment_mr", "--recipes", "frozen", "--rows", "40", "--epochs", "1", "--seeds", "1"]
    words += ["--checkpoint", str(tiny), "--output", str(output)]
    with mock.patch.object(recipes.shutil, "rmtree", side_effect=KeyboardInterrupt), pytest.raises(KeyboardInterrupt):
        recipes.main(words)
    (place,) = [path for path in (tmp_path / "recipes").iterdir() if path.is_dir()]
    metrics = json.loads((place / "metrics.json").read_text())
    (row,) = map(json.loads, output.read_text().splitlines())
    assert row["accuracy"] == metrics["test"]["accuracy"] and row["trainable_parameters"] == 2 * 32 + 2
    assert metrics["rows"] == {"train": 36, "validation": 4, "test": 8}
    assert metrics["settings"]["freeze"] == "encoder" and metrics["settings"]["learning_rate"] == 50 * recipes.RATE
    saved = load_file(place / "checkpoint" / "model.safetensors")
    for name, value in load_file(tiny / "model.safetensors").items():
        assert (saved[f"bert.{name}"] == value).all(), name
    assert row["cpu_seconds"] > 0
    output.unlink()
    monkeypatch.setattr(recipes.subprocess, "run", None)  # nothing is left to run
    recipes.main(words)
    assert json.loads(output.read_text()) == {**row, "cpu_seconds": None} and not place.exists()
    assert json.loads(capsys.readouterr().out)["accuracy"] == {"0": round(row["accuracy"], 4)}
