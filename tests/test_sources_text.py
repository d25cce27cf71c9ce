"""The text formats: CSV, TSV, JSON, lines; each error with its exact place."""

from __future__ import annotations

import csv
import gzip
import json
import random
from collections import Counter

import pytest

from tfbert.errors import InputError
from tfbert.sources import read, read_csv, read_json, read_jsonl, read_lines

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


# ---- CSV and TSV


def test_csv_values_are_text_as_they_stand(place):
    content = '\ufefftext,label\r\n"a ""b""\r\nc\rd, e",NA\r\nf"g,null\r\n\r\n"",None\r\n'
    examples = read(place(content))
    assert [tuple(row.values()) for row in examples] == [
        ('a "b"\r\nc\rd, e', "NA"),
        ('f"g', "null"),
        ("", "None"),
    ]
    assert examples.lines == [2, 4, 6]
    assert examples.notes == []
    assert read(place("text,label\rfine,pos\rbad,neg\r")).lines == [2, 3]


def test_csv_round_trip_with_the_standard_writer(tmp_path):
    chance = random.Random(7)
    for number in range(40):
        delimiter = chance.choice(",\t;|")
        rows = [
            ["".join(chance.choices('ab", \t;|\n\ré€😀', k=chance.randrange(9))) for _ in range(3)] for _ in range(12)
        ]
        for row in rows:
            row[0] = row[0] + "x"  # no row may look like a blank line
        path = tmp_path / f"{number}.csv"
        with open(path, "w", newline="", encoding="utf-8") as file:
            writer = csv.writer(
                file, delimiter=delimiter, quoting=csv.QUOTE_ALL, lineterminator=chance.choice(["\n", "\r\n"])
            )
            writer.writerows([["a", "b", "c"], *rows])
        examples = read_csv(path, delimiter=delimiter)
        assert [list(row.values()) for row in examples] == rows
        lines = path.read_bytes().decode().split("\n")
        for line, row in zip(examples.lines, rows):
            assert lines[line - 1].startswith('"' + row[0].replace('"', '""').split("\n")[0])


def test_columns_are_renamed_and_win_a_clash(place):
    path = place("text,sentence,label\nold,new,a\n")
    assert read(path, columns={"text": "sentence"}) == [{"text": "new", "label": "a"}]
    assert read(path, columns={"text": "sentence", "text_pair": "sentence"}) == [
        {"text": "new", "text_pair": "new", "label": "a"}
    ]
    assert read(path, columns={"text": "sentence", "label": "text"}) == [{"label": "old", "text": "new"}]
    assert read(place("a;pos\n"), header=["x", "label"], delimiter=";", columns={"text": "x"}) == [
        {"text": "a", "label": "pos"}
    ]


@pytest.mark.parametrize(
    ("content", "options", "message"),
    [
        ("", {}, "train.csv: the file is empty"),
        ("\ufeff\n\r\n", {}, "train.csv: the file is empty"),
        ("\ntext,label\n", {}, "train.csv:2: only a header line ('text', 'label') and no rows"),
        ("text,label,text\na,b,c\n", {}, "train.csv:1: two columns are named 'text'; give each its own name"),
        ("a,b\n", {"header": ["text", "text"]}, "train.csv: two columns are named 'text'"),
        ("text,label\na,b\na,b,c\n", {}, "train.csv:3: 3 columns, but 2 expected ('text', 'label'); put a text that holds"),
        ("text,label\na\n", {}, "train.csv:2: 1 column, but 2 expected ('text', 'label'); fill the missing columns"),
        ('text,label\n"a\nb",c\nd\n', {}, "train.csv:4: 1 column, but 2 expected"),
        ('text,label\na,b\n"c,d\ne,f"\ng,h\n', {}, "train.csv:3: 1 column, but 2 expected ('text', 'label'); the row spans lines 3 to 4"),
        ("text,label\na,b,c\n", {"quoting": False}, "train.csv:2: 3 columns, but 2 expected ('text', 'label'); without quoting"),
        (GOOD + '"open,pos\nx,neg\n', {}, "train.csv:4: a double quote opens here and is not closed before a ','"),
        (GOOD + 'x,"a\nb"\n"c" d,neg\n', {}, "train.csv:6: a double quote opens here"),
        (GOOD + '"x\ny","a" b\n', {}, "train.csv:5: a double quote opens here"),
        (GOOD + "a\rb,neg\n", {}, "train.csv:4: a carriage return (\\r) outside quotes"),
        ("text,label\na,pos\nb, \n", {}, "train.csv:3: the label is empty; give every row a label or delete the row"),
        ("text,kind\na,\n", {"columns": {"label": "kind"}}, "train.csv:2: the label is empty"),
        (
            "sentence,label\na,b\n",
            {"columns": {"text": "sentnce"}},
            "train.csv:1: no column 'sentnce'; the columns are 'sentence', 'label'. Did you mean 'sentence'?",
        ),
        ("text;label\na;b\n", {"columns": {"text": "text"}}, "The columns seem to be separated by ';'; pass delimiter=';'"),
        (GOOD, {"columns": ["text"]}, "columns=['text']: expected a dict from field to column"),
        (GOOD, {"header": "text,label"}, "header='text,label': expected a list of names"),
        (GOOD, {"delimiter": ",,"}, "delimiter=',,': expected one character"),
        (GOOD, {"encoding": "utf-9"}, "encoding='utf-9' is not one that Python knows"),
        (GOOD, {"encoding": "rot13"}, "train.csv: cannot be decoded with encoding='rot13'"),
        (b"text,label\ncaf\xe9,pos\n", {}, "train.csv:2 (byte 4): 0xe9 is not valid utf-8 (invalid continuation byte)"),
        (GOOD.encode("utf-16"), {}, "train.csv: is UTF-16; convert it: iconv -f utf-16 -t utf-8 train.csv"),
        (GOOD.encode("utf-32"), {}, "train.csv: is UTF-32; convert it: iconv -f utf-32 -t utf-8 train.csv"),
        (GOOD.encode("utf-16-le"), {}, "train.csv: looks like a binary file (30 of its 60 characters are NUL)"),
        (b"\x89PNG\r\n\0\0\0\rIHDR", {}, "train.csv: looks like a binary file"),
        (gzip.compress(GOOD.encode(), mtime=0), {}, "train.csv: is a gzip file; let its name end in .gz"),
        ("text,label\n" + "x" * 1_048_576 + ",pos\n", {}, "train.csv:2: a text of 1,048,576 characters; the limit is 1,000,000:"),
        ("text,label\na,pos\nabcdef,neg\n", {"max_characters": 5}, "train.csv:3: a text of 6 characters; the limit is 5:"),
        (GOOD, {"delimeter": ";"}, "train.csv: a .csv file has no option 'delimeter'; its options are delimiter,"),
    ],
)  # fmt: skip
def test_csv_errors_name_the_place(place, content, options, message):
    assert message in refusal(read, place(content), **options)


def test_unbalanced_quotes_tell_the_remedy(place):
    path = place('text,label\n"Fine" he said,neg\n')
    assert "pass quoting=False (--no-quoting)" in refusal(read, path)
    assert read(path, quoting=False) == [{"text": '"Fine" he said', "label": "neg"}]


def test_what_is_counted_is_noted(place):
    examples = read(place("text,label\na\0b,nan\nc\ufeffd\0,pos\ne, pos\n"))
    assert [row["text"] for row in examples] == ["ab", "c\ufeffd", "e"]
    assert examples.notes == [
        "train.csv: 2 NUL characters removed",
        "train.csv: 1 byte-order mark (U+FEFF) inside the text, kept as it is",
        "train.csv: 1 label 'nan', kept as text: a class, or a missing value?",
    ]


def test_latin_1_on_request(place):
    assert read(place(b"text,label\ncaf\xe9,pos\n"), encoding="latin-1") == [{"text": "café", "label": "pos"}]
    assert read(place(GOOD.encode("utf-16")), encoding="utf-16") == read(place(GOOD))


@pytest.mark.parametrize(
    ("content", "texts", "noted"),
    [
        ("text\tlabel\nplain\ta\n", ["plain"], False),
        ('text\tlabel\n"a ""b""\tc"\tx\n', ['a "b"\tc'], False),
        ('text\tlabel\n"Fine," he lied\tx\n', ['"Fine," he lied'], True),
        # Quoted, the first two lines would be one row of two columns: a row would vanish without a word.
        ('text\tlabel\n"a\tx\nb"\ty\nc\tz\n', ['"a', 'b"', "c"], True),
        ('text\tlabel\n"a\nb"\ty\n', ["a\nb"], False),
        ("text\tlabel\na\rb\tx\r\n", ["a\rb"], False),
    ],
)
def test_tsv_is_read_by_the_quoting_that_fits(place, content, texts, noted):
    examples = read(place(content, "train.tsv"))
    assert [row["text"] for row in examples] == texts
    assert any("read without quoting" in note for note in examples.notes) == noted


def test_tsv_errors_and_surplus_columns(place):
    path = place("a\tb\nc\td\te\n", "train.tsv")
    assert refusal(read, path, header=["text", "label"]).startswith("train.tsv:2: 3 columns, but 2 expected")
    examples = read(path, header=["text", "label"], drop_extra=True)
    assert examples == [{"text": "a", "label": "b"}, {"text": "c", "label": "d"}]
    assert examples.notes == ["train.tsv: 1 row with more columns than the header, surplus dropped"]
    path = place('text\tlabel\n"a\tb\tc\nd"\n', "train.tsv")
    assert refusal(read, path).startswith("train.tsv:2: 1 column, but 2 expected")


# ---- JSON


def test_jsonl_keeps_types_and_lines(place):
    path = place(
        '{"text": "a\\u0000\\ud83d", "label": [1, 2]}\r\n\n{"text": "\\ud83d\\ude00 \u2028", "label": 0.5}', "d.jsonl"
    )
    examples = read(path, columns={"text": "text"})
    assert examples == [{"text": "a\ufffd", "label": [1, 2]}, {"text": "😀 \u2028", "label": 0.5}]
    assert examples.lines == [1, 3]
    assert examples.notes == ["d.jsonl: 1 NUL character removed", "d.jsonl: 1 lone surrogate replaced by U+FFFD"]


@pytest.mark.parametrize(
    ("line", "options", "message"),
    [
        ('{"text": }', {}, "d.jsonl:2: not valid JSON (Expecting value at column 10); expected one JSON object a line"),
        ('["a"]', {}, "d.jsonl:2: a row must be a dict such as {'text': '...'}, got list"),
        ('{"text": "a", "text": "b"}', {}, "d.jsonl:2: the key 'text' stands twice in one object"),
        ('{"label": NaN}', {}, "d.jsonl:2: NaN is not a JSON number"),
        ('{"label": -Infinity}', {}, "d.jsonl:2: -Infinity is not a JSON number"),
        ('{"label": null}', {}, "d.jsonl:2: the label is empty"),
        ('{"text": ' + "[" * 100_000, {}, "d.jsonl:2: lists or objects nested too deeply"),
        ('{"text": ' + "[" * 70 + "]" * 70 + "}", {}, "d.jsonl:2: lists or dicts nested more than 64 deep"),
        ('{"a": ' + "1" * 5000 + "}", {}, "d.jsonl:2: "),
        ('{"text": "abcdef"}', {"max_characters": 5}, "d.jsonl:2: a text of 6 characters"),
        ('{"txt": "a"}', {"columns": {"text": "text"}}, "d.jsonl:2: no column 'text'; the columns are 'txt'. Did you mean 'txt'?"),
    ],
)  # fmt: skip
def test_jsonl_errors_name_the_line(place, line, options, message):
    assert refusal(read_jsonl, place('{"text": "ok"}\n' + line + "\n", "d.jsonl"), **options).startswith(message)


@pytest.mark.parametrize(
    ("content", "lines"),
    [
        ('[{"text": "a"},\n\n {"text":\n "b"}\n, {"text": "c"}]\n', [1, 3, 5]),
        ('{"version": 1, "data": [{"text": "a"}, {"text": "b"}, {"text": "c"}]}', None),
        ('{"text": ["a", "b", "c"]}', None),
    ],
)
def test_json_in_three_shapes(place, content, lines):
    examples = read(place(content, "d.json"))
    assert examples == [{"text": "a"}, {"text": "b"}, {"text": "c"}]
    assert examples.lines == lines
    assert examples.where(2) == ("d.json:5" if lines else "row 3 of d.json")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "d.json:1: not valid JSON (Expecting value at column 1)"),
        ("[]", "d.json: there are no rows in it"),
        ("3", "d.json: expected a list of objects"),
        ("{}", "d.json: expected a list of objects"),
        ('{"text": "a"}', "d.json: expected a list of objects"),
        ('{"text": ["a"], "label": [1, 2]}', "d.json: the columns have different lengths ('text' 1, 'label' 2)"),
        ('[{"a": 1},\n{"a": 1, "a": 2}]', "d.json:2: the key 'a' stands twice in one object"),
        ('[{"a": 1},\n{"a": NaN}]', "d.json:2: NaN is not a JSON number"),
        ('[{"a": 1}\n{"a": 2}]', "d.json:2: not valid JSON (Expecting ',' or ']' at column 1)"),
        ('[{"a": 1},\n]', "d.json:2: not valid JSON (Expecting value at column 1)"),
        ('[{"a": 1}]\n[]', "d.json:2: not valid JSON (Extra data at column 1)"),
        ('[{"a": 1},\n3]', "d.json:2: a row must be a dict"),
        ('[{"a": 1},\n {"label": ""}]', "d.json:2: the label is empty"),
        ('{"text": ["a", "b"], "label": [1, null]}', "row 2 of d.json: the label is empty"),
        ("[" * 100_000, "d.json:1: lists or objects nested too deeply"),
    ],
)
def test_json_errors_name_the_line(place, content, message):
    assert refusal(read_json, place(content, "d.json")).startswith(message)


# ---- lines, gzip, damage


def test_lines_keep_everything_but_the_line_end(place):
    examples = read_lines(place(" one \r\n\n\t\ntwo\rhalves\x85\n", "d.txt"), "line")
    assert examples == [{"line": " one "}, {"line": "two\rhalves\x85"}]
    assert examples.lines == [1, 4]
    assert refusal(read, place("\n \n", "d.txt")) == "d.txt: there are no rows in it"
    assert "no column 'body'; the columns are 'text'" in refusal(read, place("a", "d.txt"), columns={"text": "body"})


def test_gzip_whole_and_damaged(place):
    packed = gzip.compress(GOOD.encode())
    assert read(place(packed, "train.csv.gz")) == read(place(GOOD))
    for name, damaged in [("cut", packed[:-9]), ("none", GOOD.encode()), ("bad", packed[:15] + b"\0\0" + packed[17:])]:
        message = refusal(read, place(damaged, f"{name}.csv.gz"))
        assert message.startswith(f"{name}.csv.gz: damaged or cut-off gzip (")


def test_any_damage_gives_examples_or_a_clear_error(tmp_path):
    chance = random.Random(11)
    table = 'text,label\n"a, ""b""\nc",pos\ncafé 😀,neg\n'
    seeds = {
        ".csv": table.encode(),
        ".tsv": table.replace(",", "\t").encode(),
        ".jsonl": b'{"text": "a\\ud83d", "label": [1, 2.5e3]}\n{"text": "b", "label": null, "x": {"y": true}}\n',
        ".json": b'[{"text": "a", "label": 1},\n {"text": "b", "label": "n"}]',
        ".txt": b"one\r\n\ntwo\n",
        ".csv.gz": gzip.compress(table.encode()),
    }
    pieces = [
        b'"',
        b",",
        b"\n",
        b"\r",
        b"\t",
        b"\0",
        b"\xff",
        b"\xef\xbb\xbf",
        b"[" * 2000,
        b"{",
        b"}",
        b"1e999",
        b"NaN",
        b"\\u",
    ]
    outcomes = Counter()
    for number in range(300):
        suffix = chance.choice(sorted(seeds))
        content = bytearray(seeds[suffix])
        for _ in range(chance.randrange(1, 4)):
            start = chance.randrange(len(content) + 1)
            content[start : start + chance.choice([0, 0, 1, 5])] = chance.choice(
                [*pieces, bytes([chance.randrange(256)]), b""]
            )
        path = tmp_path / f"{number}{suffix}"
        path.write_bytes(bytes(content))
        try:
            examples = read(path, columns=chance.choice([None, None, {"text": "text"}]))
        except InputError as error:
            assert str(error).startswith((str(path), f"row 1 of {path}", f"row 2 of {path}"))
            outcomes["refused"] += 1
        else:
            assert len(examples) == len(examples.lines) >= 1
            json.dumps(examples, ensure_ascii=False).encode("utf-8")
            outcomes["read"] += 1
    assert min(outcomes["read"], outcomes["refused"]) > 50, outcomes
