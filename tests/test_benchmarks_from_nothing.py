"""benchmarks/from_nothing.py: its text, its entropy, the words of its commands, that what is done is not done again, and its table."""

from __future__ import annotations

import importlib
import json
import math
from pathlib import Path

import pytest

from tfbert import models
from tfbert.command_line import creating, fine_tuning

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"
WIKI = " \n = One = \n \n First words . \n More of it . \n = = Part = = \n Last . \n \n = Two = \n \n Other words . \n"


@pytest.fixture(scope="module")
def benchmark():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(BENCHMARKS))
        yield importlib.import_module("from_nothing")


def test_articles_are_documents_and_every_tenth_is_held_out(benchmark, tmp_path):
    (tmp_path / "a.txt").write_text(WIKI)
    assert benchmark.articles([tmp_path / "a.txt"]) == [
        "= One =\nFirst words .\nMore of it .\n= = Part = =\nLast .",
        "= Two =\nOther words .",
    ]
    (tmp_path / "a.txt").write_text("".join(f" = {i} = \n \n words {i} \n" for i in range(21)))
    options = benchmark.parse([str(tmp_path), "data", "--output", str(tmp_path / "out"), "--articles", "20"])
    train, test = benchmark.write_text(options)
    assert test.read_text() == "= 0 =\nwords 0\n\n= 10 =\nwords 10\n"
    assert train.read_text().count("= ") == 18 and "words 11\n\n= 12 =" in train.read_text()
    (tmp_path / "more.csv").write_text("text,label\n" + "".join(f'"more {i}\n  of it",{i % 2}\n' for i in range(3)))
    options = benchmark.parse([str(tmp_path), "data", "--output", options.output.as_posix(), "--articles", "9"])
    options.more_text = [tmp_path / "more.csv"]
    train, test = benchmark.write_text(options)
    assert test.read_text() == "= 0 =\nwords 0\n\nmore 1 of it\n"
    assert train.read_text().endswith("= 8 =\nwords 8\n\nmore 0 of it\n\nmore 2 of it\n")


def test_the_entropy_is_that_of_the_texts_own_frequencies(benchmark, tmp_path):
    place = models.create_checkpoint(
        tmp_path / "made", ["a b c d"] * 3, vocab_size=9, hidden_size=4, num_hidden_layers=1, num_attention_heads=1
    )
    (tmp_path / "text.txt").write_text("a a\n\na b\n")
    expected = -(0.75 * math.log(0.75) + 0.25 * math.log(0.25))
    assert benchmark.unigram_entropy(place, tmp_path / "text.txt") == pytest.approx(expected)


class Runs:
    """In place of the commands: leaves what they leave."""

    def __init__(self, stop_after: int):
        self.words, self.left = [], stop_after

    def __call__(self, command, check, stdout):
        if not self.left:
            raise KeyboardInterrupt
        self.left -= 1
        assert check and command[1:3] == ["-m", "tfbert"]
        words = command[3:]
        self.words.append(words)
        if words[0] == "create":
            creating.arguments(words[1:])
            models.create_checkpoint(
                words[1], ["a b c d"] * 3, vocab_size=9, hidden_size=4, num_hidden_layers=1, num_attention_heads=1
            )
            return
        read = fine_tuning.arguments(words[1:])
        assert read.settings["resume"] and not read.settings["export"] and not read.settings["report"]
        place = Path(read.output)
        place.mkdir()
        if read.task.name == "sequence-classification":
            scores = {"accuracy": (0.8 if "pretrained" in place.name else 0.6) + 0.01 * read.settings["seed"]}
        elif read.task.name == "masked-lm":
            scores = {"loss": 3.0, "perplexity": 20.1}
        else:
            scores = {"loss": 14.0, "generator_loss": 4.0}
        found = {
            "test": scores,
            "train_seconds": 30.0,
            "parameters": 7,
            "settings": {"epochs": read.settings["epochs"]},
        }
        (place / "metrics.json").write_text(json.dumps(found))


def test_what_is_done_is_not_done_again_and_the_time_is_filled(benchmark, tmp_path, monkeypatch, capsys):
    (tmp_path / "a.txt").write_text("".join(f" = {i} = \n \n a b c d {i} \n" for i in range(21)))
    words = [str(tmp_path), "data", "--output", str(tmp_path / "out"), "--minutes", "2"]
    runs = Runs(stop_after=5)
    monkeypatch.setattr(benchmark.subprocess, "run", runs)
    with pytest.raises(KeyboardInterrupt):
        benchmark.main(words)
    first = list(runs.words)
    runs.left = 100
    benchmark.main(words)
    assert len(runs.words) == 2 + 4 + 12 and runs.words[:5] == first
    assert len({tuple(words) for words in runs.words}) == len(runs.words)
    assert (
        sum("--epochs=4" in words for words in runs.words if "sequence-classification" not in words) == 2
    )  # 120 s / 30 s
    assert sum(words[0] == "create" for words in runs.words) == 2 and "--model-type=electra" in sum(runs.words, [])
    capsys.readouterr()
    benchmark.main([*words, "--table-only"])
    out, err = capsys.readouterr()
    masked, electra = map(json.loads, out.splitlines())
    assert (masked["masked_lm_loss"], electra["masked_lm_loss"]) == (3.0, 4.0)
    assert masked["accuracy"] == {"begin": [0.6, 0.61, 0.62], "pretrained": [0.8, 0.81, 0.82]}
    assert masked["median"] == {"begin": 0.61, "pretrained": 0.81} and masked["epochs"] == 4
    assert (
        f"| masked-lm | 4 | 30 | 3.000 | {masked['unigram_entropy']:.3f} | 0.610 (0.600 to 0.620) | 0.810 (0.800 to 0.820) |"
        in err
    )
