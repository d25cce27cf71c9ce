"""Rows as they come: the same rows and places as `read` gives, few at a time, and answers in their order."""

from __future__ import annotations

import csv
import gzip
import json
import os
import random
import re

import numpy as np
import pyarrow.parquet
import pytest

from tfbert import evaluation, sources, tokenization
from tfbert.errors import InputError
from tfbert.serving import Predictor, export
from tfbert.sources import Stream, read, stream, streaming, windows
from tfbert.tasks import SequenceClassification

TEXTS = ["good", "a dull plot", "", "the film is very lovely, very bright", "naïve 😀", "awful " * 40, "fine", "b"] * 6


def placed(rows: Stream) -> list[tuple[str, dict]]:
    return [(rows.last.where(0), row) for row in rows]


def whole(*arguments, **options) -> list[tuple[str, dict]]:
    examples = read(*arguments, **options)
    return [(examples.where(i), row) for i, row in enumerate(examples)]


# reading


@pytest.mark.parametrize("block", [1, 7, 2**16])
def test_every_kind_of_file_gives_the_rows_and_places_of_read(tmp_path, monkeypatch, block):
    monkeypatch.setattr(streaming, "BLOCK", block)
    chance = random.Random(4)
    texts = ["x" + "".join(chance.choices('ab", \t;é€😀\n', k=chance.randrange(12))) for _ in range(40)]
    rows = [{"id": str(i), "body": text} for i, text in enumerate(texts)]
    for name, delimiter in (("a.csv", ","), ("a.tsv", "\t")):
        with open(tmp_path / name, "w", encoding="utf-8-sig", newline="") as file:
            writer = csv.DictWriter(file, ["id", "body"], delimiter=delimiter)
            writer.writeheader()
            writer.writerows(rows)
    lines = "".join(json.dumps(row, ensure_ascii=i % 2 == 0) + "\n" * (1 + i % 3) for i, row in enumerate(rows))
    (tmp_path / "a.jsonl").write_text(lines, encoding="utf-8")
    (tmp_path / "a.json").write_text(json.dumps(rows), encoding="utf-8")
    (tmp_path / "b.csv.gz").write_bytes(gzip.compress((tmp_path / "a.csv").read_bytes()))
    (tmp_path / "b.tsv").write_text('id\tbody\n1\t"Fine," he lied\n2\tan "odd quote\n', encoding="utf-8")
    (tmp_path / "old.csv").write_bytes(b'id,body\r1,"one\rtwo"\r2,three')
    for name in ("a.csv", "a.tsv", "a.jsonl", "a.json", "b.csv.gz", "b.tsv", "old.csv"):
        found = stream(tmp_path / name, columns={"text": "body"})
        expected = whole(tmp_path / name, columns={"text": "body"})
        assert placed(found) == expected, name
        assert found.share() == 1
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "a.parquet")
    found = stream(tmp_path / "a.parquet", columns={"text": "body"})
    assert placed(found) == whole(tmp_path / "a.parquet", columns={"text": "body"}) and found.share() == 1
    (tmp_path / "half.parquet").write_bytes((tmp_path / "a.parquet").read_bytes()[:-9])
    with pytest.raises(InputError, match="half.parquet: not a whole Parquet file"):
        stream(tmp_path / "half.parquet")
    (tmp_path / "a.txt").write_text("one\r\n\ntwo\rhalves\nlast", encoding="utf-16")
    found = placed(stream(tmp_path / "a.txt", encoding="utf-16"))
    assert [row["text"] for _, row in found] == ["one", "", "two\rhalves", "last"]
    assert [place.rsplit(":")[-1] for place, _ in found] == ["1", "2", "3", "4"]


@pytest.mark.parametrize(
    ("name", "content", "good"),
    [
        ("a.csv", b"text,id\ngood,1\n\nbad,2,3\n", 1),
        ("a.csv", b'text,id\ngood,1\n"bad\nworse,2\n', 1),
        ("a.csv", b'text,id\n"a\nb",1\n"bad"x,2\n', 1),
        ("a.csv", b"text,id\n", 0),
        ("a.csv", b"", 0),
        ("a.csv", b"txet,id\na,1\n", 0),
        ("a.jsonl", b'{"text": "a"}\n\n{"text": NaN}\n', 1),
        ("a.jsonl", b'{"text": "a"}\n[1]\n', 1),
        ("a.jsonl", b"\n", 0),
    ],
)
def test_a_bad_row_is_told_as_read_tells_it_after_the_rows_before_it(tmp_path, name, content, good):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError) as expected:
        read(tmp_path / name, columns={"text": "text"})
    rows = stream(tmp_path / name, columns={"text": "text"})
    assert [next(rows)["text"] for _ in range(good)] == [row["text"] for row in rows_before(content, name, good)]
    with pytest.raises(InputError, match=f"^{re.escape(str(expected.value))}$"):
        next(rows)


def rows_before(content: bytes, name: str, count: int) -> list[dict]:
    lines = content.decode().splitlines(keepends=True)
    rows = csv.DictReader(lines) if name.endswith("csv") else map(json.loads, lines)
    return [next(iter(rows)) for _ in range(count)]


def test_what_is_no_text_is_told(tmp_path):
    for content, message in [
        (b"one\ntw\xe9\n", "a.txt:2 (character 3): 0xe9 is not valid utf-8"),
        (b"one\ntwo \xf0\x9f", "a.txt:2 (character 5): 0xf0 is not valid utf-8"),
        (b"\x1f\x8b\x08\0\0", "is a gzip file; let its name end in .gz"),
        (b"a\0b\0c\0", "looks like a binary file"),
        (b"\xff\xfea\0", "is UTF-16; convert it"),
    ]:
        (tmp_path / "a.txt").write_bytes(content)
        with pytest.raises(InputError, match=re.escape(message)):
            list(stream(tmp_path / "a.txt"))
    (tmp_path / "a.txt.gz").write_bytes(gzip.compress(os.urandom(10**5).hex().encode())[:-9])
    with pytest.raises(InputError, match="damaged or cut-off gzip"):
        list(stream(tmp_path / "a.txt.gz"))


def test_a_line_or_record_without_end_is_told_before_it_fills_the_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(streaming, "LONGEST", 1000)
    monkeypatch.setattr(streaming, "BLOCK", 100)
    (tmp_path / "a.txt").write_text("good\n" + "x" * 5000 + "\n")
    rows = stream(tmp_path / "a.txt")
    assert next(rows) == {"text": "good"}
    with pytest.raises(InputError, match="a.txt:2: a line of more than 1,000 characters"):
        next(rows)
    assert rows.share() < 0.5
    (tmp_path / "a.csv").write_text('text\ngood\n"it begins\n' + "and goes on\n" * 1000)
    rows = stream(tmp_path / "a.csv")
    assert next(rows) == {"text": "good"}
    with pytest.raises(InputError, match="a.csv:3: a double quote opens here and is not closed"):
        next(rows)
    assert rows.share() < 0.5


def test_of_a_large_file_only_what_is_asked_for_is_read(tmp_path):
    for name, line in (("a.csv", "{},good\n"), ("a.jsonl", '{{"text": "{}"}}\n'), ("a.txt", "{}\n")):
        with open(tmp_path / name, "w") as file:
            file.write("text,label\n" * name.endswith("csv"))
            file.writelines(line.format(f"{i} film " * 20) for i in range(5000))
        rows = stream(tmp_path / name)
        assert next(rows)["text"] == "0 film " * 20
        assert 0 < rows.share() < 0.2 and rows.taken == 1
        assert sum(1 for _ in rows) == 4999 and rows.share() == 1


def test_notes_say_what_was_changed(tmp_path):
    (tmp_path / "a.csv").write_text("text,id\na\0 good film,1\nb,2,3\n")
    rows = stream(tmp_path / "a.csv", drop_extra=True)
    assert [row["text"] for row in rows] == ["a good film", "b"]
    assert [note.split(": ")[1] for note in rows.notes] == [
        "1 NUL character removed",
        "1 row with more columns than the header, surplus dropped",
    ]


def test_a_pipe_that_has_nothing_more_says_so_once():
    read_end, write_end = os.pipe()
    with open(read_end, "rb", buffering=0) as file, open(write_end, "wb", buffering=0) as pipe:
        pipe.write(b"one\ntw")
        lines = streaming._lines(streaming.blocks(file), "a pipe", "utf-8", [])
        assert [next(lines), next(lines)] == ["one\n", None]
        pipe.write(b"o\nth")
        pipe.write(b"ree\n\xf0\x9f")
        assert [next(lines), next(lines), next(lines)] == ["two\n", "three\n", None]
        pipe.write(b"\x98\x80")
        pipe.close()
        assert list(lines) == ["😀"]


# windows


def test_windows_grow_and_hold_no_more_than_they_should():
    taken = []
    rows = (taken.append(i) or i for i in range(1000))
    given = 0
    sizes = []
    for part in windows(rows, first=3, most=20):
        assert part == list(range(given, given + len(part)))
        given += len(part)
        assert len(taken) == given  # nothing is read ahead
        sizes.append(len(part))
    assert sizes[:5] == [3, 6, 12, 20, 20] and sum(sizes) == 1000


def test_windows_give_what_came_before_an_error():
    def rows():
        yield from (1, None, None, 2, 3)
        raise InputError("row 4 is bad")

    parts = windows(rows(), first=8, most=8)
    assert [next(parts), next(parts)] == [[1], [2, 3]]
    with pytest.raises(InputError, match="row 4 is bad"):
        next(parts)


# answers


@pytest.fixture(scope="module")
def made(tiny, tmp_path_factory):
    task = SequenceClassification(max_length=24, labels=("bad", "fine", "good"), pair=False)
    model, tokenizer = task.build(tiny, seed=3), tokenization.load_tokenizer(tiny)
    rng = np.random.default_rng(5)
    for variable in model.trainable_weights[-2:]:  # the head: large enough that answers differ
        variable.assign(rng.normal(size=variable.shape).astype(np.float32))
    predictor = Predictor(export(task, model, tokenizer, tmp_path_factory.mktemp("export"), target="2.19"))

    def by_model(rows, **settings):
        return evaluation.predict_stream(task, model, tokenizer, rows, **settings)

    at_once = {"export": predictor(TEXTS), "model": evaluation.predict(task, model, tokenizer, TEXTS)}
    return {"export": predictor.stream, "model": by_model}, at_once


@pytest.mark.parametrize("way", ["export", "model"])
def test_answers_equal_those_of_all_at_once_and_hold_a_window(made, way):
    answer, expected = made[0][way], made[1][way]
    taken = []
    answers = []
    rows = (taken.append(text) or text for text in TEXTS)
    for one in answer(rows, window=10, batch_size=4):
        answers.append(one)
        assert len(taken) - len(answers) < 10  # however long the source is
    assert len({round(one["score"], 4) for one in answers}) > 5
    assert [one["label"] for one in answers] == [one["label"] for one in expected]
    for one, other in zip(answers, expected, strict=True):
        np.testing.assert_allclose(one["scores"], other["scores"], atol=1e-6)
    assert list(answer([], window=10)) == []


@pytest.mark.parametrize("way", ["export", "model"])
def test_an_idle_source_gets_its_answers_and_a_bad_row_comes_after_them(made, tmp_path, way):
    answer, expected = made[0][way], made[1][way]
    asked = []

    def slow():
        yield from TEXTS[:2]
        yield None
        asked.append("after the pause")
        yield TEXTS[2]
        yield 3

    answers = answer(slow(), batch_size=32)
    assert [next(answers)["label"], next(answers)["label"]] == [one["label"] for one in expected[:2]]
    assert not asked
    assert next(answers)["label"] == expected[2]["label"]
    with pytest.raises(InputError, match="row 4"):
        next(answers)
    (tmp_path / "a.jsonl").write_text('{"text": "good"}\n\n{"txet": "bad"}\n')
    answers = answer(stream(tmp_path / "a.jsonl"))
    assert next(answers)["label"] == expected[0]["label"]
    with pytest.raises(InputError, match=re.escape("a.jsonl:3") + ".*'text'.*Did you mean 'txet'"):
        next(answers)


@pytest.mark.parametrize("way", ["export", "model"])
def test_settings_that_mean_nothing_are_told(made, way):
    for settings in ({"window": 0}, {"batch_size": 0}):
        (name,) = settings
        with pytest.raises(InputError, match=f"{name} is 0; it must be at least 1"):
            next(made[0][way](TEXTS, **settings))


def test_documents_are_those_that_are_read_whole(tmp_path):
    """Long ones of short lines, and those of an old file, whose lines end at \\r."""
    for name, content in (("long", b"a line\n" * 300 + b"\nSecond.\n"), ("old", b"one\rtwo\r\rthree\r")):
        (tmp_path / name).write_bytes(content)
        whole = sources.read_documents(tmp_path / name, max_characters=1000)
        streamed = sources.documents(tmp_path / name, max_characters=1000)
        found = [(row, streamed.last.where(0)) for row in streamed]
        assert len(found) == 2 and found == [(row, whole.where(i)) for i, row in enumerate(whole)]
    (tmp_path / "wide").write_text("b\n" + "a" * 1001 + "\n")
    with pytest.raises(InputError, match="wide:2: a text of 1,001 characters"):
        list(sources.documents(tmp_path / "wide", max_characters=1000))
