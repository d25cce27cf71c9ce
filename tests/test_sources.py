"""Examples, Parquet, paths, TensorFlow Datasets, splitting and the fingerprint; text formats are in test_sources_text.py."""

from __future__ import annotations

import gzip
import re
import sys
from collections import Counter

import numpy as np
import pytest

from tfbert.errors import InputError
from tfbert.sources import Examples, fingerprint, from_iterable, read, read_csv, read_lines, read_tfds, split, stream

GOOD = "text,label\nfine,pos\nawful,neg\n"


@pytest.fixture
def place(tmp_path, monkeypatch):
    """Writes a file into the current folder, so that messages name it as a user would."""
    monkeypatch.chdir(tmp_path)

    def write(content, name="train.csv"):
        content = content.encode("utf-8") if isinstance(content, str) else content
        (tmp_path / name).write_bytes(content)
        return name

    return write


def refusal(call, *args, **options) -> str:
    with pytest.raises(InputError) as caught:
        call(*args, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# ---- Examples


def test_places_survive_slices_and_selections(place):
    examples = read(place('text,label\n"two\nlines",a\n\nthree,b\nfour,c\n'))
    assert examples.lines == [2, 5, 6]
    assert examples[1:].where(0) == "train.csv:5"
    assert examples[::-1].where(0) == "train.csv:6"
    assert examples.select(np.array([2, 0])).lines == [6, 2]
    assert examples.select([2, 0]) == [{"text": "four", "label": "c"}, {"text": "two\nlines", "label": "a"}]
    rows = from_iterable(({"n": number} for number in range(30)), "my list")
    assert rows[10:20].select([7]).where(0) == "row 18 of my list"
    assert rows.where(-1) == "row 30 of my list"


def test_from_iterable_gives_plain_python():
    rows = [{"text": np.str_("a"), "label": np.int64(3), "score": np.float32(0.5), "ids": np.array([1, 2])}]
    [row] = from_iterable(rows)
    assert row == {"text": "a", "label": 3, "score": 0.5, "ids": [1, 2]}
    assert [type(value) for value in row.values()] == [str, int, float, list]
    examples = from_iterable(
        [{"text": "a\ud83d\0b", "more": [{"t": "\udc00"}]}, {"text": b"caf\xc3\xa9", "x": ("a", None)}]
    )
    assert examples == [{"text": "a\ufffdb", "more": [{"t": "\ufffd"}]}, {"text": "café", "x": ["a", None]}]
    assert examples.notes == ["examples: 1 NUL character removed", "examples: 2 lone surrogates replaced by U+FFFD"]
    assert from_iterable(examples) is examples
    assert examples.fields() == ["more", "text", "x"]


def test_from_iterable_takes_a_data_frame():
    class Frame:
        columns = ["text"]

        def to_dict(self, how):
            return [{"text": how}]

    assert from_iterable(Frame()) == [{"text": "records"}]


def test_from_iterable_refuses_what_is_not_rows():
    assert refusal(from_iterable, [{"text": "a"}, "b"]) == (
        "row 2 of examples: a row must be a dict such as {'text': '...'}, got str"
    )
    assert "got str; read a file with tfbert.read(path)" in refusal(from_iterable, "train.csv")
    assert "one dict with the keys 'train', 'test'; pick one" in refusal(from_iterable, {"train": [], "test": []})
    assert refusal(from_iterable, 3, "data") == "data: expected a list of dicts, got int"
    assert refusal(from_iterable, [{0: "a"}]) == "row 1 of examples: a field's name must be text, got 0"
    assert "not UTF-8 (invalid start byte at byte 2)" in refusal(from_iterable, [{"text": b"a\xff"}])
    endless = []
    endless.append(endless)
    assert "nested more than 64 deep" in refusal(from_iterable, [{"text": endless}])


# ---- Parquet, optional packages, paths


def test_parquet(place, tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    parquet.write_table(
        pyarrow.table({"sentence": ["a", "b\0"], "label": [1, None], "tags": [["x"], []]}), tmp_path / "d.parquet"
    )
    assert refusal(read, place((tmp_path / "d.parquet").read_bytes(), "e.parquet")) == (
        "row 2 of e.parquet: the label is empty; give every row a label or delete the row"
    )
    examples = read("d.parquet", columns={"text": "sentence", "number": "label"})
    assert examples == [{"text": "a", "number": 1, "tags": ["x"]}, {"text": "b", "number": None, "tags": []}]
    place(gzip.compress((tmp_path / "d.parquet").read_bytes()), "f.parquet.gz")
    assert read("f.parquet.gz", columns={"number": "label"})[0]["number"] == 1
    assert "d.csv: is a Parquet file" in refusal(read, place((tmp_path / "d.parquet").read_bytes(), "d.csv"))
    assert refusal(read, place(b"PAR1 and no more", "g.parquet")).startswith("g.parquet: not a whole Parquet file (")
    one_name = pyarrow.table([["a"], ["b"]], names=["text", "text"])
    parquet.write_table(one_name, tmp_path / "h.parquet")
    assert refusal(read, "h.parquet").startswith("h.parquet: ")


def test_optional_packages_are_named(place, monkeypatch):
    path = place(b"PAR1", "d.parquet")
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)
    assert refusal(read, path).startswith(
        "d.parquet: Parquet needs pyarrow, which is not installed; pip install pyarrow"
    )
    assert "needs tensorflow_datasets, which is not installed" in refusal(read, "tfds:glue/sst2:train")


def test_paths_and_names_that_lead_nowhere(place, tmp_path):
    place(GOOD)
    assert refusal(read, "trian.csv") == "trian.csv: there is no such file. Did you mean 'train.csv'?"
    assert refusal(read, "data/train.csv") == "data/train.csv: there is no folder data; check the path"
    assert refusal(read, tmp_path) == f"{tmp_path}: is a folder (train.csv); name a file in it"
    (tmp_path / "folder.csv").mkdir()
    assert refusal(read_csv, "folder.csv") == "folder.csv: is a folder (empty); name a file in it"
    assert "a path cannot hold a NUL" in refusal(read, "a\0.csv")
    known = "known are .conll, .csv, .json, .jsonl, .parquet, .tsv, .txt, each also with .gz"
    assert refusal(read, place("", "d.xlsx")) == f"d.xlsx: the suffix '.xlsx' is not known; {known}"
    assert "got list; rows in memory need no reading" in refusal(read, [{"text": "a"}])
    assert refusal(read, "tfds:glue") == "'tfds:glue': expected tfds:NAME:SPLIT, such as tfds:glue/sst2:train"


# ---- TensorFlow Datasets


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """The folder of a tiny data set, prepared without a network."""
    tfds = pytest.importorskip("tensorflow_datasets")

    class TfbertSample(tfds.core.GeneratorBasedBuilder):
        VERSION = tfds.core.Version("1.0.0")

        def _info(self):
            kind = tfds.features.ClassLabel(names=["neg", "pos"])
            features = {
                "idx": np.int32,
                "sentence": tfds.features.Text(),
                "label": kind,
                "tags": tfds.features.Sequence(kind),
            }
            return tfds.core.DatasetInfo(
                builder=self, features=tfds.features.FeaturesDict(features), disable_shuffling=True
            )

        def _split_generators(self, manager):
            return {"train": self._generate_examples([1, 0, 1]), "test": self._generate_examples([-1, -1])}

        def _generate_examples(self, labels):
            for number, label in enumerate(labels):
                yield number, {"idx": number, "sentence": f"café {number}", "label": label, "tags": [1, 0][:number]}

    folder = tmp_path_factory.mktemp("tfds")
    settings = tfds.download.DownloadConfig(try_download_gcs=False)
    TfbertSample(data_dir=folder).download_and_prepare(download_config=settings)
    return folder


def test_tfds(prepared):
    examples = read("tfds:tfbert_sample:train", data_dir=prepared, columns={"text": "sentence"})
    assert examples == [
        {"idx": 0, "text": "café 0", "label": "pos", "tags": []},
        {"idx": 1, "text": "café 1", "label": "neg", "tags": ["pos"]},
        {"idx": 2, "text": "café 2", "label": "pos", "tags": ["pos", "neg"]},
    ]
    assert examples.where(2) == "row 3 of tfds:tfbert_sample:train"
    test = read_tfds("tfbert_sample:1.0.0", split="test[:1]", data_dir=prepared)
    assert test == [{"idx": 0, "sentence": "café 0", "tags": []}]
    assert test.notes == ["tfds:tfbert_sample:1.0.0:test[:1]: 1 row with a hidden label (-1)"]


def test_tfds_from_the_folder_that_holds_it_all_at_once_and_as_it_comes(prepared):
    folder = prepared / "tfbert_sample" / "1.0.0"
    for name in (f"tfds:{folder}:train", f"tfds:{folder}:train[1:]", f"tfds:{folder}:train+test"):
        examples = read(name, columns={"text": "sentence"})
        found = stream(name, columns={"text": "sentence"})
        assert list(found) == examples and found.share() == 1
        assert found.last.where(0) == examples.where(len(examples) - 1) and found.notes == examples.notes
    assert len(read(f"tfds:{folder}:train[:34%]")) == 1
    assert "no split 'trian'" in refusal(read, f"tfds:{folder}:trian")


def test_tfds_errors(prepared, tmp_path):
    assert refusal(read, "tfds:tfbert_sample:trian", data_dir=prepared) == (
        "tfds:tfbert_sample:trian: no split 'trian'; the splits are 'train', 'test'. Did you mean 'train'?"
    )
    message = refusal(read, "tfds:tfbert_sample:train", data_dir=tmp_path)
    assert message.startswith(f"tfds:tfbert_sample: not prepared in {tmp_path}; prepare it once, in Python: ")
    assert "TFDS has no such data set. Did you mean 'tfbert_sample'?" in refusal(read, "tfds:tfbert_smple:train")
    assert (
        refusal(read, "tfds:glue/sst22:train")
        == "tfds:glue/sst22: TFDS has no such data set. Did you mean 'glue/sst2'?"
    )
    [record] = (prepared / "tfbert_sample" / "1.0.0").glob("*test.tfrecord*")
    record.write_bytes(record.read_bytes()[:-3])
    assert "its files are damaged" in refusal(read, "tfds:tfbert_sample:test", data_dir=prepared)


# ---- splitting and the fingerprint


def rows(labels):
    return from_iterable([{"text": str(number), "label": label} for number, label in enumerate(labels)])


def test_split_gives_each_class_its_share():
    chance = np.random.default_rng(3)
    for size in (11, 200, 1003):
        labels = chance.choice(["a", "b", "c", "d"], size=size, p=[0.55, 0.3, 0.1, 0.05]).tolist()
        for fraction in (0.1, 0.25, 0.5, 0.9):
            rest, held_out = split(rows(labels), fraction, seed=5)
            assert len(held_out) == round(size * fraction)
            assert sorted(int(row["text"]) for row in [*rest, *held_out]) == list(range(size))
            names, sizes = np.unique(labels, return_counts=True)
            given = Counter(row["label"] for row in held_out)
            assert all(
                abs(given[name] - count * len(held_out) / size) < 1 for name, count in zip(names.tolist(), sizes)
            )
            for part in (rest, held_out):
                assert [int(row["text"]) for row in part] == sorted(int(row["text"]) for row in part)
                assert part.where(0) == f"row {int(part[0]['text']) + 1} of examples"


def test_split_takes_the_largest_remainders():
    labels = ["a"] * 13 + ["b"] * 17 + ["c"] * 10
    _, held_out = split(rows(labels), 0.1)  # shares 1.3, 1.7 and 1.0 of 4
    assert Counter(row["label"] for row in held_out) == {"a": 1, "b": 2, "c": 1}


def test_split_depends_on_the_seed_alone():
    examples = rows(["a", "b"] * 50)
    assert split(examples, 0.2, seed=1) == split(examples, 0.2, seed=1)
    assert split(examples, 0.2, seed=1) != split(examples, 0.2, seed=2)
    assert [int(row["text"]) for row in split(examples, 0.05, seed=0)[1]] == [22, 23, 27, 36, 74]


def test_split_by_sets_of_labels_and_without_classes():
    _, held_out = split(rows([["x", "y"], ["y", "x"], []] * 10), 0.5)
    assert Counter(tuple(sorted(row["label"])) for row in held_out) == {("x", "y"): 10, (): 5}
    # Floats, a missing field and None all mean: draw from the whole, so the same rows.
    expected = [row["text"] for row in split(rows(["a"] * 40), 0.2)[1]]
    for examples, stratify in [(rows([0.5, 1] * 20), "label"), (rows("ab" * 20), None), (rows("ab" * 20), "other")]:
        assert [row["text"] for row in split(examples, 0.2, stratify=stratify)[1]] == expected


def test_split_keeps_the_lines(place):
    rest, held_out = split(read(place(GOOD + "good,pos\nbad,neg\n")), 0.5)
    assert sorted([*rest.lines, *held_out.lines]) == [2, 3, 4, 5]
    assert {row["label"] for row in held_out} == {"pos", "neg"}


@pytest.mark.parametrize("fraction", [0, 1, -0.1, 1.5, float("nan"), True, "0.1"])
def test_split_refuses_a_fraction_out_of_range(fraction):
    assert refusal(split, rows("ab" * 9), fraction).startswith(
        f"fraction={fraction!r}: expected a share above 0 and below 1"
    )


def test_split_refuses_too_few_rows_and_odd_seeds():
    assert refusal(split, rows("abc")).startswith("examples: 3 rows are too few to hold out 0.1 of them (0 rows)")
    assert "too few" in refusal(split, rows("ab"), 0.9)
    assert "too few" in refusal(split, [])
    assert refusal(split, rows("abc"), 0.5, seed=-1).startswith("seed=-1: expected a whole number")


def test_fingerprint_is_of_the_rows_alone(place):
    examples = read(place(GOOD))
    assert (
        fingerprint(examples)
        == fingerprint(list(examples))
        == fingerprint([dict(reversed(row.items())) for row in examples])
    )
    assert fingerprint(examples) != fingerprint(examples[::-1])
    assert fingerprint([{"a": 1}]) != fingerprint([{"a": "1"}])
    assert re.fullmatch("[0-9a-f]{64}", fingerprint([{"a": None, "b": [1.5, {"é": object()}]}]))


# ---- real data


@pytest.mark.data
def test_real_csv_and_tsv(data):
    for name, count in {"train": 10_003, "test": 3_080}.items():
        examples = read(data / "banking77" / f"{name}.csv", columns={"label": "category"})
        assert (len(examples), len({row["label"] for row in examples})) == (count, 77)
    for name, count in {"train": 43_410, "dev": 5_426, "test": 5_427}.items():
        examples = read(data / "goemotions" / f"{name}.tsv", header=["text", "label", "id"])
        assert (len(examples), len({row["id"] for row in examples})) == (count, count)
        assert {int(label) for row in examples for label in row["label"].split(",")} == set(range(28))
    names = ["genre", "file", "year", "id", "label", "text", "text_pair"]
    for name, count in {"train": 5_749, "dev": 1_500, "test": 1_379}.items():
        examples = read(data / "stsb" / f"sts-{name}.tsv", header=names, drop_extra=True)
        assert len(examples) == examples.lines[-1] == count
        assert all(0 <= float(row["label"]) <= 5 for row in examples)
    path = data / "stsb" / "sts-train.tsv"
    assert refusal(read, path, header=names, quoting=False).startswith(f"{path}:5553: 9 columns, but 7 expected")


@pytest.mark.data
def test_real_jsonl_and_lines(data):
    columns = {"text": "sentence1", "text_pair": "sentence2", "label": "gold_label"}
    examples = read(data / "snli_dev" / "snli_1.0_dev.jsonl.gz", columns=columns)
    assert len(examples) == 10_000
    assert {row["label"] for row in examples} == {"entailment", "neutral", "contradiction", "-"}
    for name, lines, count in [("valid", 3_760, 2_461), ("test", 4_358, 2_891)]:
        path = data / "wikitext2" / f"{name}.txt"
        examples = read(path)
        assert len(examples) == count
        assert len(path.read_bytes().split(b"\n")) - 1 == lines
    for side in ("pos", "neg"):
        path = data / "sentiment_mr" / f"rt-polarity.{side}"
        assert len(read_lines(path, encoding="latin-1")) == 5_331
    assert "(byte 48): 0xf3 is not valid utf-8" in refusal(read_lines, data / "sentiment_mr" / "rt-polarity.pos")
    assert isinstance(read_lines(data / "multi30k" / "val.de.gz"), Examples)
