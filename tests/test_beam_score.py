"""The Beam pipeline of examples/beam_score.py answers as the Predictor does, with several workers too; a mistake is one line."""

from __future__ import annotations

import importlib.util
import json
import logging
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import tfbert
from tfbert import models, tasks, tokenization
from tfbert.errors import InputError
from tfbert.serving.hard_texts import HARD_TEXTS
from tfbert.serving.layout import INFORMATION

pytestmark = [
    pytest.mark.skipif(importlib.util.find_spec("apache_beam") is None, reason="needs apache-beam"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # Beam's own, and those of what it imports
]
ROOT = Path(__file__).resolve().parents[1]
SCRIPT = ROOT / "examples" / "beam_score.py"
MESSAGES, OTHERS = (
    [row["text"] for row in tfbert.read(ROOT / "examples" / "data" / f"delivery_{part}.csv")]
    for part in ("test", "train")
)


@pytest.fixture(scope="module")
def script():
    level = logging.getLogger().level
    spec = importlib.util.spec_from_file_location("beam_score", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    yield module
    logging.getLogger().setLevel(level)


def exported(tiny: Path, place: Path, **fields) -> Path:
    """The folder of an export whose answers differ from text to text."""
    task = tasks.SequenceClassification(labels=("no", "perhaps", "café"), max_length=32, **fields)
    model, tokenizer = task.build(tiny, seed=4), tokenization.load_tokenizer(tiny)
    for variable in models.transformer_of(model).layers[-1].trainable_weights[-2:]:
        variable.assign(np.random.default_rng(8).normal(size=variable.shape).astype(np.float32))
    tfbert.export(task, model, tokenizer, place)
    return place


@pytest.fixture(scope="module")
def export(tiny, tmp_path_factory) -> Path:
    return exported(tiny, tmp_path_factory.mktemp("export") / "model", pair=False)


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> list[Path]:
    """Some hundred rows of every kind: lines, blank ones too, CSV with texts of several lines, JSON."""
    folder = tmp_path_factory.mktemp("texts")
    lines, table, values = (folder / name for name in ("messages.txt", "hard.csv", "others.jsonl"))
    lines.write_text("".join(f"{text}\n" for text in [*MESSAGES, "", " ", "Ünïcode 東京 🙂", "word " * 60]), "utf-8")
    hard = [text for text in HARD_TEXTS if "\0" not in text and "\r" not in text]
    quoted = (text.replace('"', '""') for text in hard)
    table.write_text("number,text\n" + "".join(f'{n},"{text}"\n' for n, text in enumerate(quoted)), "utf-8", "replace")
    values.write_text("".join(json.dumps({"text": text}) + "\n" for text in OTHERS), "utf-8")
    return [lines, table, values]


def answered(output: Path) -> dict[tuple[str, int], dict]:
    """The rows that lie in an output folder, by file and number; no row is there twice."""
    rows = [json.loads(line) for file in output.iterdir() for line in file.read_text("utf-8").splitlines()]
    found = {(row.pop("file"), row.pop("row")): row for row in rows}
    assert len(found) == len(rows)
    return found


def check(found: dict, predictor: tfbert.Predictor, files: list[Path]) -> int:
    """Compares each row with the Predictor's answer: numbers to 1e-5, all else exactly. Returns how many answers differ from each other."""
    different = set()
    for file in files:
        rows = list(tfbert.stream(file))
        for number, (row, answer) in enumerate(zip(rows, predictor(rows), strict=True), 1):
            got = found.pop((str(file), number))
            assert {name: got.pop(name) for name in predictor.inputs} == {name: row[name] for name in predictor.inputs}
            for name in ("score", "scores"):
                np.testing.assert_allclose(got.pop(name), answer.pop(name), rtol=1e-5, atol=1e-5)
            assert got == answer
            different.add(got["label"])
    assert not found
    return len(different)


@pytest.mark.slow
def test_several_workers_answer_each_row_as_the_predictor_does(export, files, tmp_path):
    output = tmp_path / "answers"
    words = ["--export", export, "--input", tmp_path / "*.txt", *files[1:], "--output", output, "--window", "100"]
    words += ["--direct_running_mode", "multi_processing", "--direct_num_workers", "2", "--threads", "1"]
    more = [tmp_path / f"{part}.txt" for part in ("one", "two")]
    for number, file in enumerate(more):
        file.write_text("".join(files[0].read_text("utf-8").splitlines(keepends=True)[number::2]), "utf-8")
    path = {"PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, str(SCRIPT), *map(str, words)]
    done = subprocess.run(command, env={**os.environ, **path}, capture_output=True, text=True, check=False)
    assert done.returncode == 0 and done.stderr == "", done.stderr[-2000:]
    assert len(list(output.iterdir())) == 2  # each worker wrote a file
    found = answered(output)
    told = json.loads(done.stdout)
    assert told["rows"] == len(found) > 700 and told["output"] == str(output) and told["rows_per_second"] > 0
    assert check(found, tfbert.Predictor(export), [*more, *files[1:]]) > 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["answers", "one.txt", "two.txt"]


@pytest.mark.slow
def test_pairs_of_texts_come_from_columns(script, tiny, tmp_path, capsys):
    place = exported(tiny, tmp_path / "model", pair=True)
    file = tmp_path / "pairs.csv"
    file.write_text("label,question,text_pair\n" + "".join(f"x,what is {n},it is {n * n}\n" for n in range(40)))
    words = ["--export", str(place), "--input", str(file), "--output", str(tmp_path / "out"), "--batch-size", "7"]
    script.main([*words, "--column", "text=question"])
    assert json.loads(capsys.readouterr().out)["rows"] == 40
    found = answered(tmp_path / "out")
    assert found[str(file), 3]["text"] == "what is 2" and found[str(file), 3]["label"] != "x"
    rows = [{"text": f"what is {n}", "text_pair": f"it is {n * n}"} for n in range(40)]
    scores = [found[str(file), number]["scores"] for number in range(1, 41)]
    np.testing.assert_allclose(scores, [row["scores"] for row in tfbert.Predictor(place)(rows)], rtol=1e-5, atol=1e-5)


@pytest.fixture
def words(export, tmp_path) -> list[str]:
    """Options that would do."""
    (tmp_path / "texts.txt").write_text("good\nbad\n")
    return ["--export", str(export), "--input", str(tmp_path / "texts.txt"), "--output", str(tmp_path / "out")]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("bad.jsonl", b'{"text": "a"}\n{"text": 3}\n', r"bad\.jsonl:2 is \{'text': 3\}; expected text"),
        ("bad.jsonl", b'{"text": "a"}\n{"text"\n', r"bad\.jsonl:2: not valid JSON"),
        ("bad.txt", b"good\n\xff bad\n", r"bad\.txt:2 \(character 1\): 0xff is not valid utf-8"),
        ("other.csv", b"review\ngood\n", r"other\.csv:2 has no 'text'; it has 'review'"),
        ("bad.txt.gz", b"\x1f\x8b no gzip", r"bad\.txt\.gz: damaged or cut-off gzip"),
    ],
)
def test_a_row_that_cannot_be_read_or_answered_ends_the_run_with_its_place(
    script, words, tmp_path, name, content, message, capfd
):
    (tmp_path / name).write_bytes(content)
    words.insert(words.index("--input") + 1, str(tmp_path / name))
    with pytest.raises(InputError, match=message) as error:
        script.main(words)
    assert "while running" not in str(error.value) and "\n" not in str(error.value)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([name, "texts.txt"])  # nothing half-written
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"--export": "none"}, r"none is not a folder; give the folder of an export"),
        ({"--export": "."}, r"\. holds no SavedModel and no numbered version of one"),
        ({"--export": "far://bucket/model/1"}, r"far://bucket/model/1: Unable to get filesystem"),
        ({"--input": "none-*.txt"}, r"none-\*\.txt: there is no such file"),
        ({"--output": "."}, r"\. exists already; choose another folder"),
        ({"--window": "0"}, r"--window is 0; it must be at least 1"),
        ({"--column": "review"}, r"--column review: FIELD=COLUMN is needed, such as text=review"),
        ({"--column": "text=review"}, r"texts\.txt:1: no column 'review'"),
        ({"--thread": "2"}, r"--thread is no option\. Did you mean '--threads'\?"),
        ({"--runner": "Paper"}, r"Unexpected pipeline runner: Paper"),
    ],
)
def test_what_is_not_there_is_told_in_one_line(script, words, changes, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    given = dict(zip(words[::2], words[1::2], strict=True)) | changes
    with pytest.raises(InputError, match=message):
        script.main([word for pair in given.items() for word in pair])
    assert [path.name for path in tmp_path.iterdir()] == ["texts.txt"]


def test_an_export_of_another_program_is_told(script, words, export, tmp_path):
    place = tmp_path / "other"
    for name in ("saved_model.pb", "variables/variables.index", "variables/variables.data-00000-of-00001"):
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_bytes(b"")
    with pytest.raises(InputError, match=f"other has no {INFORMATION}; export it with tfbert"):
        script.inputs_of(str(place))


def test_the_command_line_ends_with_the_line_and_no_traceback(words, tmp_path):
    (tmp_path / "bad.jsonl").write_text('{"text": null}\n')
    words[words.index("--input") + 1] = str(tmp_path / "bad.jsonl")
    words += ["--direct_running_mode", "multi_processing", "--direct_num_workers", "2"]
    path = {"PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, str(SCRIPT), *words]
    done = subprocess.run(command, env={**os.environ, **path}, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("beam_score.py: ") and "bad.jsonl:1 is {'text': None}" in done.stderr
    assert done.stderr.count("\n") == 1 and not (tmp_path / "out").exists()


def test_a_remote_export_is_copied_with_all_its_files(script, export, tmp_path):
    (version,) = (path for path in export.iterdir() if path.is_dir())
    copy = script.copied(str(version), tmp_path / "copy" / "1")  # as from gs://, through Beam's file systems
    files = sorted(path.relative_to(version) for path in version.rglob("*") if path.is_file())
    assert len(files) > 4 and files == sorted(path.relative_to(copy) for path in copy.rglob("*") if path.is_file())
    assert all((version / name).read_bytes() == (copy / name).read_bytes() for name in files)
    one = script.copied(str(version / "saved_model.pb"), tmp_path / "one.pb")
    assert one.read_bytes() == (version / "saved_model.pb").read_bytes()
