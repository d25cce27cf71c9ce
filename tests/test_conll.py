"""Tagged sentences from files, the schemes of tags, and spans of characters as tags."""

from __future__ import annotations

import gzip
import re

import numpy as np
import pytest

import tfbert
from tfbert.errors import InputError
from tfbert.sources import tags


def write(folder, text: str, name: str = "train.conll", encoding: str = "utf-8"):
    (folder / name).write_bytes(text.encode(encoding))
    return folder / name


def test_sentences_documents_and_comments_are_told_apart(tmp_path):
    place = write(
        tmp_path,
        "-DOCSTART- -X- O\r\n\r\n# sent_id = 1\r\nZoë NNP B-PER\r\n# SYM O\r\n\r\n\r\n-DOCSTART- -X- O\r\nRome NNP B-LOC",
    )
    examples = tfbert.read(place)
    assert examples == [{"words": ["Zoë", "#"], "tags": ["B-PER", "O"]}, {"words": ["Rome"], "tags": ["B-LOC"]}]
    assert [examples.where(i) for i in range(2)] == [f"{place}:4", f"{place}:9"]
    assert tfbert.read(place, tag_column=1)[0]["tags"] == ["NNP", "SYM"]
    assert tfbert.read(place, tag_column=None, columns={"tokens": "words"})[1] == {"tokens": ["Rome"]}


def test_latin_1_gzip_and_lines_of_tabs(tmp_path):
    place = write(tmp_path, "Müller\tB-PER\n\t\nging\tO\n", encoding="latin-1")
    assert tfbert.read_conll(place, encoding="latin-1") == [
        {"words": ["Müller"], "tags": ["B-PER"]},
        {"words": ["ging"], "tags": ["O"]},
    ]
    packed = tmp_path / "a.conll.gz"
    packed.write_bytes(gzip.compress(b"New York\tB-LOC\n"))
    assert tfbert.read(packed)[0]["words"] == ["New York"]
    with pytest.raises(InputError, match=re.escape(f"{place}:1 (byte 2): 0xfc is not valid utf-8")):
        tfbert.read(place)


@pytest.mark.parametrize(
    "text, options, message",
    [
        ("a O\nb O\nc\n", {}, ":3: 1 columns, the first line has 2; every word needs all of them"),
        (
            "a\n",
            {},
            ":1: the line has the word but no tag (1 columns); give each word its tag, or read it with tag_column=None",
        ),
        ("a\tO\n\tO\n", {}, ":2: the word is empty; every line needs a word and its tag"),
        ("a\tO\nb\t \n", {}, ":2: the tag is empty"),
        ("a O\n", {"tag_column": 5}, ":1: tag_column is 5, but the line has 2 columns, 0 to 1"),
        ("\n\n", {}, ": there are no rows in it"),
        ("abc O\ndef O\n", {"max_characters": 5}, ":1: a sentence of more than 5 characters"),
    ],
)
def test_faults_are_told_with_their_line(tmp_path, text, options, message):
    place = write(tmp_path, text)
    with pytest.raises(InputError, match=re.escape(f"{place}{message}")):
        tfbert.read_conll(place, **options)


def test_sentences_can_be_split_and_fingerprinted(tmp_path):
    rows = "\n\n".join(f"word{i} O" for i in range(20))
    examples = tfbert.read(write(tmp_path, rows))
    rest, held_out = tfbert.split(examples, 0.25, seed=3)
    assert (len(rest), len(held_out)) == (15, 5) and held_out.where(0).startswith(f"{tmp_path}/train.conll:")


SPANS = [(0, 2, "PER"), (2, 3, "PER"), (4, 5, "LOC"), (5, 7, "ORG")]
WRITTEN = {
    "BIO": "B-PER I-PER B-PER O B-LOC B-ORG I-ORG O",
    "IOB1": "I-PER I-PER B-PER O I-LOC I-ORG I-ORG O",
    "BIOES": "B-PER E-PER S-PER O S-LOC B-ORG E-ORG O",
    "BILOU": "B-PER L-PER U-PER O U-LOC B-ORG L-ORG O",
}


@pytest.mark.parametrize("scheme", WRITTEN)
def test_each_scheme_is_recognised_and_becomes_bio(scheme):
    row = WRITTEN[scheme].split()
    assert tags.detect_scheme([["O"], row], where=str) == scheme
    assert tags.tags_to_spans(row) == SPANS
    assert tags.to_bio(row, scheme=scheme, where="x") == WRITTEN["BIO"].split()


@pytest.mark.parametrize("scheme", WRITTEN)
def test_random_sentences_survive_every_scheme(scheme):
    rng = np.random.default_rng(4)
    end, single = {"BIOES": "ES", "BILOU": "LU"}.get(scheme, "IB")
    for _ in range(300):
        row, bio, before = [], [], None
        for _ in range(rng.integers(1, 8)):
            kind, size = rng.choice(["O", "A", "B-C"]), int(rng.integers(1, 4))
            if kind == "O":
                row, bio, before = row + ["O"] * size, bio + ["O"] * size, None
                continue
            bio += [f"B-{kind}"] + [f"I-{kind}"] * (size - 1)
            first = "I" if scheme == "IOB1" and before != kind else "B"
            inner = [f"{first}-{kind}"] + [f"I-{kind}"] * (size - 2) + [f"{end}-{kind}"] * (size > 1)
            row, before = row + ([f"{single if scheme != 'IOB1' else first}-{kind}"] if size == 1 else inner), kind
        assert tags.to_bio(row, scheme=scheme, where="x") == bio


@pytest.mark.parametrize(
    "row, message",
    [
        ("O I-PER", "a.conll:7, word 2: 'I-PER' follows 'O'; in BIO an entity begins with 'B-PER'"),
        ("B-LOC I-PER", "a.conll:7, word 2: 'I-PER' follows 'B-LOC'; in BIO"),
        ("S-LOC E-PER", "a.conll:7, word 2: 'E-PER' follows 'S-LOC'; in BIOES an entity begins with 'B-PER'"),
        (
            "S-LOC B-PER O",
            "a.conll:7, word 2: 'B-PER' is the last of its entity; in BIOES that is 'E-PER', or 'S-PER' for a single word",
        ),
        ("B-PER NOUN", "a.conll:7, word 2: tag 'NOUN' has no prefix, others have"),
        ("S-PER U-PER", "a.conll:7, word 2: tag 'U-PER' is not of the scheme BIOES"),
    ],
)
def test_an_illegal_sequence_is_told_by_place_and_can_be_repaired(row, message):
    row = row.split()
    # "B-Q" with nothing before it shows that a B- stands at the beginning of every entity: this is not IOB1.
    with pytest.raises(InputError, match=re.escape(message)):
        scheme = tags.detect_scheme([row, ["B-Q"] if "S-" not in str(row) else ["O"]], where=lambda i: "a.conll:7")
        tags.to_bio(row, scheme=scheme, where="a.conll:7")
    if "NOUN" not in row and "U-PER" not in row:
        expected = [tag if tag == "O" else "B-" + tag[2:] for tag in row]
        assert tags.to_bio(row, scheme="BIO", where="x", repair=True) == expected


@pytest.mark.parametrize(
    "span, message",
    [
        (
            {"start": 0, "end": 2, "label": "PER"},
            "'Zo', begins or ends inside a word or at a space; move it to whole words: start 0, end 3",
        ),
        ({"start": 3, "end": 4, "label": "PER"}, "there is no word in it"),
        (
            {"start": 4, "end": 4, "label": "PER"},
            "goes from 4 to 4 in a text of 13 characters; expected 0 <= start < end",
        ),
        ({"start": 0, "end": 99, "label": "PER"}, "goes from 0 to 99"),
        ({"start": 0, "end": 3, "label": ""}, "label is ''; expected a name"),
        ({"start": 0, "end": 3}, "expected a dict with start, end and label"),
        ({"start": 9, "end": 13, "label": "LOC"}, "'Rome', overlaps another span"),
    ],
)
def test_a_span_that_does_not_fit_its_words_is_told(span, message):
    text = "Zoë saw Rome "
    text = "Zoë sees Rome"
    spans = [{"start": 4, "end": 13, "label": "X"}, span] if "overlaps" in message else [span]
    with pytest.raises(InputError, match=re.escape(f"a.jsonl:3: span {len(spans)}") + ".*" + re.escape(message)):
        tags.spans_to_tags(text, spans, tags.word_places(text), "a.jsonl:3")


@pytest.mark.data
def test_wnut_17_is_read_whole(data):
    counts = {"wnut17train.conll": 3394, "emerging.dev.conll": 1009, "emerging.test.annotated": 1287}
    for name, count in counts.items():
        text = (data / "wnut17" / name).read_text("utf-8")
        examples = tfbert.read_conll(data / "wnut17" / name)
        assert len(examples) == count
        rows = [row["tags"] for row in examples]
        assert sum(map(len, rows)) == sum("\t" in line and bool(line.strip()) for line in text.split("\n"))
        found = [span for row in rows for span in tags.tags_to_spans(row)]
        assert len(found) == len(re.findall(r"\tB-", text))
