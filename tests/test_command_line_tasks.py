"""Every other task through the command line: from a file to an export that answers as the checkpoint does."""

from __future__ import annotations

import json

import numpy as np
import pytest

from tfbert.__main__ import main

RANDOM = np.random.default_rng(2)
WORDS = "good bad fine great film plot scene boring dull bright".split()


def sentence(least: int = 3, most: int = 8) -> str:
    return " ".join(RANDOM.choice(WORDS, int(RANDOM.integers(least, most))))


def conll(folder, count: int = 40):
    rows = [f"the\tO\nactor\tI-PER\n{sentence().replace(' ', chr(9) + 'O' + chr(10))}\tO\n" for _ in range(count)]
    (folder / "train.conll").write_text("\n".join(rows))
    return "train.conll"


def squad(folder, count: int = 40):
    paragraphs = []
    for i in range(count // 2):
        before = sentence()
        context = f"{before} the actor {sentence()}"
        qas = [
            {"id": f"{i}a", "question": "the", "answers": [{"text": "actor", "answer_start": len(before) + 5}]},
            {"id": f"{i}b", "question": "it", "answers": [], "is_impossible": True},
        ]
        paragraphs.append({"context": context, "qas": qas})
    (folder / "train.json").write_text(json.dumps({"data": [{"title": "t", "paragraphs": paragraphs}]}))
    return "train.json"


def choices(folder, count: int = 40):
    rows = [{"text": sentence(), "choices": [sentence(), "it was", "was it"], "label": i % 3} for i in range(count)]
    (folder / "train.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return "train.jsonl"


def pairs(folder, count: int = 40):
    lines = [f"{sentence()},{sentence()},{i % 6}" for i in range(count)]
    (folder / "train.csv").write_text("\n".join(["one,two,score", *lines]))
    return "train.csv"


def documents(folder, count: int = 40):
    (folder / "train.txt").write_text("\n\n".join(f"{sentence()}\n{sentence()}" for _ in range(count)))
    return "train.txt"


QUESTION = {"question": "the", "context": "a dull film of the actor " * 9}
CASES = {
    "token-classification": (
        conll,
        ["--max-length", "16"],
        "the actor",
        {"entity", "label", "score", "start", "end", "count"},
    ),
    "question-answering": (
        squad,
        ["--max-length", "24"],
        QUESTION,
        {"answer", "score", "start", "end", "no_answer_score"},
    ),
    "multiple-choice": (
        choices,
        ["--max-length", "32"],
        {"text": "good", "choices": ["a", "b", "c"]},
        {"choice", "score", "scores"},
    ),
    "sentence-embedding": (
        pairs,
        ["--max-length", "16", "--text", "one", "--text-pair", "two", "--label", "score"],
        "good film",
        {"embedding"},
    ),
    "masked-lm": (documents, ["--max-length", "16"], "the [MASK]", {"token", "score"}),
}


@pytest.mark.parametrize("task", CASES)
def test_a_task_goes_from_a_file_to_an_export_that_answers_alike(task, shallow, tmp_path, capsys):
    write, options, row, outputs = CASES[task]
    train, place = tmp_path / write(tmp_path), tmp_path / "run"
    argv = ["fine-tune", task, "--train", train, "--output", place, "--checkpoint", shallow, "--epochs", "1", *options]
    assert main(list(map(str, argv))) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["export"] == str(place / "1") and all(abs(score) >= 0 for score in result["metrics"].values())
    (tmp_path / "ask.jsonl").write_text(json.dumps(row if isinstance(row, dict) else {"text": row}) + "\n")
    if isinstance(row, dict):
        argv = ["predict", str(place), "--input", str(tmp_path / "ask.jsonl")]
    else:
        argv = ["predict", str(place), row]
    assert main(argv) == 0
    served = json.loads(capsys.readouterr().out)
    assert set(served) == outputs
    for path in (place / "1").rglob("*"):
        path.unlink() if path.is_file() else None
    (place / "1").rename(place / "gone")
    assert main(argv) == 0
    model = json.loads(capsys.readouterr().out)
    for name, value in served.items():
        if isinstance(value, float) or (isinstance(value, list) and value and isinstance(value[0], float)):
            np.testing.assert_allclose(model[name], value, atol=1e-5)
        else:
            assert model[name] == value
    data = [*options[2:], "--data", str(train)]
    assert main(["evaluate", str(place), *data]) == 0
    scores = json.loads(capsys.readouterr().out)
    assert set(scores["metrics"]) == set(result["metrics"])
    assert main(["evaluate", str(place), *data, "--details"]) == 0
    summary, *rows = map(json.loads, capsys.readouterr().out.splitlines())
    assert summary["metrics"] == scores["metrics"] and summary["by_label"] == scores["by_label"]
    assert len(rows) == sum(group["examples"] for group in summary["by_length"])
    assert all(row["loss"] >= 0 and row["answer"].keys() == outputs and row["tokens"] > 0 for row in rows)
    assert result["report"] == str(place / "report.html") and (place / "report.html").is_file()
