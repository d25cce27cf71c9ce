"""`prepare`: the same bytes by any number of processes and after any interruption, its mistakes, its command."""

from __future__ import annotations

import hashlib
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import tfbert
from tfbert import prepared, sources
from tfbert.__main__ import main
from tfbert._compat import tf
from tfbert.errors import InputError
from tfbert.prepared import parts, writing
from tfbert.prepared.manifest import Counts, packed, unpacked

TASK = tfbert.SequenceClassification(max_length=24)


def rows(count: int, seed: int = 0) -> list[dict]:
    chance = np.random.default_rng(seed)
    words = "good bad fine great awful film plot actor scene boring".split()
    return [
        {"text": " ".join(chance.choice(words, chance.integers(1, 20))), "label": "abc"[i % 3]} for i in range(count)
    ]


def write(path: Path, examples: list[dict]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in examples), encoding="utf-8")
    return str(path)


def digests(folder) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(Path(folder).iterdir())}


def left_over(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.name.startswith("."))


@pytest.fixture
def small_parts(monkeypatch):
    monkeypatch.setattr(parts, "EXAMPLES", 20)


class Stop(Exception):
    """Ends it like a crash."""


def stop_at(monkeypatch, number: int) -> None:
    call = parts.Job.__call__

    def then(job):
        if job.number == number:
            (job.place / f"{job.number:06}.tfrecord").write_bytes(b"half of i")
            raise Stop
        return call(job)

    monkeypatch.setattr(parts.Job, "__call__", then)


def test_the_manifest_says_what_is_there(tiny, tmp_path, small_parts):
    given = rows(103)
    made = tfbert.prepare(TASK, tiny, given, tmp_path / "made", shards=4)
    manifest, counts = made.manifest, made.manifest.counts
    assert (counts.examples, counts.records, counts.rows) == (103, 103, 103)
    assert [shard.records for shard in manifest.shards] == [26, 26, 26, 25]
    features = made.task.features(tfbert.load_tokenizer(tiny), sources.from_iterable(given))
    assert counts.tokens == features.lengths.sum()
    assert counts.lengths.tolist() == np.bincount(features.lengths).tolist()
    assert counts.pieces.tolist() == tfbert.features.pieces_in_use(features).tolist()
    assert manifest.source == {"name": "examples", "sha256": sources.fingerprint(given)}
    for shard in manifest.shards:
        data = (tmp_path / "made" / shard.file).read_bytes()
        assert (len(data), hashlib.sha256(data).hexdigest()) == (shard.bytes, shard.sha256)
    found = list(tf.data.TFRecordDataset(str(tmp_path / "made" / manifest.shards[1].file)))
    example = tf.train.Example.FromString(found[2].numpy())  # record 9
    ids, splits = features.ragged["input_ids"]
    assert list(example.features.feature["ids/input_ids"].int64_list.value) == ids[splits[9] : splits[10]].tolist()
    assert list(example.features.feature["target/"].int64_list.value) == [0]
    assert left_over(tmp_path) == []


def test_the_bytes_are_the_same_by_two_processes_and_after_an_interruption(tiny, tmp_path, monkeypatch, small_parts):
    path = write(tmp_path / "rows.jsonl", rows(110))
    options = {"shards": 3}
    expected = digests(tfbert.prepare(TASK, tiny, path, tmp_path / "one", **options).folder)
    assert digests(tfbert.prepare(TASK, tiny, path, tmp_path / "two", processes=2, **options).folder) == expected
    with monkeypatch.context() as patch:
        stop_at(patch, 3)
        with pytest.raises(Stop):
            tfbert.prepare(TASK, tiny, path, tmp_path / "run", **options)
    assert not (tmp_path / "run").exists() and left_over(tmp_path) == [".run.parts"]
    with pytest.raises(
        InputError, match=r"was begun and not finished; pass resume \(--resume\) to go on, or overwrite"
    ):
        tfbert.prepare(TASK, tiny, path, tmp_path / "run", **options)
    altered = tmp_path / ".run.parts" / "000001.tfrecord"
    altered.write_bytes(altered.read_bytes()[:-1] + b"x")  # not trusted, made anew
    made = []
    call = parts.Job.__call__
    monkeypatch.setattr(parts.Job, "__call__", lambda job: (made.append(job.number), call(job))[1])
    assert digests(tfbert.prepare(TASK, tiny, path, tmp_path / "run", resume=True, **options).folder) == expected
    assert made == [1, 3, 4, 5] and left_over(tmp_path) == []


def test_parts_that_are_not_whole_or_of_other_rows_are_not_trusted(tiny, tmp_path, small_parts):
    place = tmp_path / "parts"
    place.mkdir()
    job = parts.Job(
        TASK.from_data(sources.from_iterable(rows(9))), str(tiny), place, 0, sources.from_iterable(rows(9)), "s", False
    )
    part = job()
    assert parts.finished(place, 0, "s").to_json() == part.to_json() and parts.finished(place, 1, "s") is None
    assert parts.finished(place, 0, "other") is None
    (place / "000000.json").write_text("{}")
    assert parts.finished(place, 0, "s") is None


def test_a_wrong_row_is_told_with_its_line_and_what_was_done_is_kept(tiny, tmp_path, small_parts):
    given = rows(110)
    broken = [*given]
    broken[70] = {"text": "no label"}
    broken[90] = {"label": "a"}
    path = write(tmp_path / "rows.jsonl", broken)
    task = tfbert.SequenceClassification(max_length=24, labels=("a", "b", "c"), pair=False)
    for processes in (1, 2):
        with pytest.raises(InputError, match=r"rows.jsonl:71: no field 'label'; the row has 'text'"):
            tfbert.prepare(task, tiny, path, tmp_path / "made", processes=processes, overwrite=True)
        assert (tmp_path / ".made.parts" / "000002.json").is_file() and not (tmp_path / "made").exists()
        assert not (tmp_path / ".made.parts" / "000003.json").exists()
    (tmp_path / "rows.jsonl").write_text((tmp_path / "rows.jsonl").read_text() + '{"text": \n')
    with pytest.raises(InputError, match=r"rows.jsonl:71: no field 'label'"):  # of two mistakes the first
        tfbert.prepare(task, tiny, path, tmp_path / "made", processes=2, resume=True)
    with pytest.raises(InputError, match=r"rows.jsonl:111: not valid JSON"):  # in the first pass, for the labels
        tfbert.prepare(TASK, tiny, path, tmp_path / "made", resume=True)
    write(tmp_path / "rows.jsonl", given)
    made = tfbert.prepare(task, tiny, path, tmp_path / "made", resume=True)
    whole = tfbert.prepare(task, tiny, path, tmp_path / "whole")
    assert digests(made.folder) == digests(whole.folder)


def test_other_settings_do_not_go_on(tiny, tmp_path, monkeypatch, small_parts):
    with monkeypatch.context() as patch:
        stop_at(patch, 1)
        with pytest.raises(Stop):
            tfbert.prepare(TASK, tiny, rows(60), tmp_path / "made")
    for task, changes, name in [
        (tfbert.SequenceClassification(max_length=16), {}, "max_length"),
        (TASK, {"keep_examples": True}, "keep_examples"),
    ]:
        with pytest.raises(InputError, match=f"were made with another {name}; take what they were begun with, or pass"):
            tfbert.prepare(task, tiny, rows(60), tmp_path / "made", resume=True, **changes)
    assert len(tfbert.prepare(TASK, tiny, rows(60), tmp_path / "made", overwrite=True)) == 60


def test_what_cannot_be_prepared_is_told(tiny, tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").touch()
    (tmp_path / "file").touch()
    for given, place, changes, message in [
        (rows(9), "full", {}, "full is not empty and holds no prepared data; choose another output folder"),
        (rows(9), "file", {}, "file is a file; the output must be a folder"),
        (rows(9), "made", {"shards": 10}, "shards is 10, but there are 9 records; take fewer"),
        (rows(9), "made", {"processes": 0}, "processes is 0 and shards None; both must be at least 1"),
        (rows(9), "made", {"columns": {"text": "t"}}, "columns and options are for a file"),
        ([], "made", {}, "has no examples; training needs some"),
        (iter(rows(9)), "made", {}, "can be read only once, but what the task leaves open"),
        ([{"text": "a", "label": "x"}] * 3, "made", {}, "only 'x'; classification needs at least two labels"),
        (tmp_path / "none.jsonl", "made", {}, "none.jsonl: there is no such file"),
    ]:
        with pytest.raises(InputError, match=message):
            tfbert.prepare(TASK, tiny, given, tmp_path / place, **{"overwrite": True, **changes})
    pretraining = tfbert.BertPretraining(max_length=16)
    with pytest.raises(
        InputError, match="drawn anew for each epoch from all documents, which data in a stream do not hold"
    ):
        tfbert.prepare(pretraining, tiny, [{"text": "good\nfilm"}] * 4, tmp_path / "made", overwrite=True)
    tfbert.prepare(TASK, tiny, rows(9), tmp_path / "made", overwrite=True)
    with pytest.raises(InputError, match=r"made holds prepared data; choose another output folder, or pass overwrite"):
        tfbert.prepare(TASK, tiny, rows(9), tmp_path / "made")


def test_an_iterator_is_read_once_where_the_task_is_whole(tiny, tmp_path):
    task = tfbert.SequenceClassification(max_length=24, labels=("a", "b", "c"), pair=False)
    made = tfbert.prepare(task, tiny, iter(rows(30)), tmp_path / "made", keep_examples=True)
    assert list(made.examples()) == rows(30)
    with pytest.raises(InputError, match="row 2 of train: label 'z' is not one of: a, b, c"):
        bad = iter([*rows(1), {"text": "a", "label": "z"}])
        tfbert.prepare(task, tiny, bad, tmp_path / "bad")


def test_fields_that_the_data_fill_are_those_that_memory_fills(tiny, tmp_path):
    """Also where they depend on how often a label is there, or on the least and the most number."""
    given = [{"text": "a", "text_pair": "b", "label": value, "id": i} for i, value in enumerate([0.5, 2.0, 2.0, 4.5])]
    for task in (
        tfbert.SequenceClassification(kind="regression", max_length=16),
        tfbert.SentenceEmbedding(objective="cosine", max_length=16),
    ):
        made = tfbert.prepare(task, tiny, given, tmp_path / task.name)
        assert made.task == task.from_data(sources.from_iterable(given))
    multi = [{"text": "a", "label": "x,y" if i % 3 else "y"} for i in range(10)]
    task = tfbert.SequenceClassification(kind="multi", max_length=16)
    made = tfbert.prepare(task, tiny, multi, tmp_path / "multi")
    assert made.task == task.from_data(sources.from_iterable(multi)) and made.task.head_bias


def test_documents_come_as_read_documents_gives_them(tmp_path):
    (tmp_path / "a.txt").write_text("\none\ntwo \n\n \nthree\r\n\nfour")
    (tmp_path / "b.txt").write_text("five\n\n")
    (tmp_path / "c.txt").write_text("six\nseven\n")
    for path in (tmp_path / "a.txt", str(tmp_path / "*.txt"), [tmp_path / "c.txt", tmp_path / "b.txt"]):
        whole, found = sources.read_documents(path), sources.documents(path)
        places = []
        assert [row for row in found if places.append(found.last.where(0)) is None] == list(whole)
        assert places == [whole.where(i) for i in range(len(whole))] and found.notes == whole.notes
        assert found.share() == 1


def test_counts_add_up_and_ids_are_packed():
    one = Counts(1, 2, 3, 4, np.array([0, 1, 1]), np.array([1, 9]), (1.0, 2.0))
    two = Counts(1, 1, 1, 3, np.array([0, 0, 0, 1]), np.array([2]), (0.5, 1.0))
    both = Counts.from_json(json.loads(json.dumps((one + two).to_json())))
    assert (both.examples, both.records, both.rows, both.tokens) == (2, 3, 4, 7)
    assert both.lengths.tolist() == [0, 1, 1, 1] and both.pieces.tolist() == [1, 2, 9]
    assert both.weights == (0.5, 2.0)
    assert unpacked(packed(np.array([], np.int64))).tolist() == []


def test_progress_tells_rows_share_and_time_left(capsys):
    stream = sources.Stream(sources.Examples([{"text": str(i)}]) for i in range(100))
    stream.share = lambda: stream.taken / 100
    times = iter([0, 2, 6, 6, 7, 12])
    progress = writing.Progress(stream, lambda: next(times))
    for _ in range(3):
        for _ in range(25):
            next(stream)
        progress.done(25, 100)
    progress.end()
    told = capsys.readouterr().err.splitlines()
    assert told[0] == "tfbert: 50 rows, 50%, 0:00:06 left, 8 rows/s, 33 tokens/s"
    assert len(told) == 2 and told[1] == "tfbert: 75 rows, 75%, 0:00:04 left, 6 rows/s, 25 tokens/s"


def test_a_process_that_dies_is_told():
    with pytest.raises(InputError, match="a process that tokenized has died"), prepared.processes.Processes(1) as pool:
        pool.submit(Dying(pool)).result()


class Dying:
    """A job whose process is killed before it is told."""

    def __init__(self, pool):
        self.pool = pool

    def to_json(self) -> dict:
        (process,) = self.pool._started
        process.kill()
        process.wait()
        return {}


def test_the_command_prints_what_it_wrote(tiny, tmp_path, capsys):
    path = write(tmp_path / "rows.jsonl", [{"body": row["text"], "label": row["label"]} for row in rows(40)])
    arguments = ["--train", path, "--text", "body", "--output", str(tmp_path / "made"), "--max-length", "24"]
    command = ["prepare", "sequence-classification", "--checkpoint", str(tiny), *arguments, "--shards", "2"]
    assert main(command) == 0
    result = json.loads(capsys.readouterr().out)
    made = prepared.Prepared(tmp_path / "made")
    assert result == {
        "output": str(tmp_path / "made"),
        "examples": 40,
        "records": 40,
        "rows": 40,
        "tokens": made.manifest.counts.tokens,
        "shards": 2,
        "bytes": sum(shard.bytes for shard in made.manifest.shards),
        "sha256": made.manifest.digest(),
        "labels": ["a", "b", "c"],
    }
    assert main(command) == 2
    assert "holds prepared data; choose another output folder" in capsys.readouterr().err
    assert main(["prepare"]) == 2
    assert "the task comes first: tfbert prepare TASK --train FILE" in capsys.readouterr().err


@pytest.mark.slow
def test_the_command_is_killed_and_goes_on_and_is_trained_from(tiny, tmp_path, capsys):
    path = write(tmp_path / "rows.jsonl", rows(12_000))
    options = ["--checkpoint", str(tiny), "--train", path, "--max-length", "24", "--shards", "2", "--processes", "2"]
    command = ["prepare", "sequence-classification", *options, "--output"]
    process = subprocess.Popen([sys.executable, "-m", "tfbert", *command, str(tmp_path / "run")])
    while process.poll() is None and not (tmp_path / ".run.parts" / "000000.json").exists():
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert main([*command, str(tmp_path / "run"), "--resume"]) == 0
    assert main([*command, str(tmp_path / "whole")]) == 0
    assert digests(tmp_path / "run") == digests(tmp_path / "whole")
    validation = write(tmp_path / "validation.jsonl", rows(40, 1))
    capsys.readouterr()
    train = ["fine-tune", "sequence-classification", "--checkpoint", str(tiny), "--train", str(tmp_path / "run")]
    more = [
        "--validation",
        validation,
        "--output",
        str(tmp_path / "tuned"),
        "--epochs",
        "1",
        "--no-export",
        "--batch-size",
        "256",
    ]
    assert main([*train, *more]) == 0
    assert json.loads(capsys.readouterr().out)["metrics"]["accuracy"] > 0
    metrics = json.loads((tmp_path / "tuned" / "metrics.json").read_text())
    assert metrics["rows"] == {"train": 12_000, "validation": 40} and metrics["steps"] == 47
