"""Translation language modelling: rows of two texts with masks in both, beside documents; parallel files; corpora in several files."""

from __future__ import annotations

import numpy as np
import pytest

import tfbert
from tfbert import tasks, tokenization
from tfbert.errors import InputError
from tfbert.features import merged
from tfbert.losses import IGNORED
from tfbert.sources import from_iterable

PAIRS = [
    {"text": "the film is good", "text_pair": "it was not bad"},
    {"text": "a document by itself , which is cut into rows since it is very long and goes on and on"},
    {"text": "a very long and dull plot , and then a scene of the actor", "text_pair": "boring"},
    {"text": "good", "text_pair": ""},
    {"text": "short"},
]


def rows_of(features, name: str) -> list[list[int]]:
    values, splits = {**features.ragged, **features.aligned}[name]
    return [part.tolist() for part in np.split(values, splits[1:-1])]


def test_a_pair_is_a_row_and_documents_stand_between(tiny):
    tokenizer = tokenization.load_tokenizer(tiny)
    features = tasks.MaskedLM(max_length=14).features(tokenizer, from_iterable(PAIRS))
    rows, types, words = (rows_of(features, name) for name in ("input_ids", "token_type_ids", "word"))
    assert np.diff(features.examples)[[0, 2, 3, 4]].tolist() == [1, 1, 1, 1] and np.diff(features.examples)[1] > 1
    for i, row in enumerate(PAIRS):
        own = slice(features.examples[i], features.examples[i + 1])
        if "text_pair" not in row:
            whole = [token for ids in rows[own] for token in ids[1:-1]]
            assert whole == tokenizer(row["text"], add_special_tokens=False)["input_ids"]
            assert not any(sum(types[own], []))
            continue
        expected = tokenizer([row["text"]], [row["text_pair"]], max_length=14, truncation="longest_first")
        assert rows[own] == expected["input_ids"] and types[own] == expected["token_type_ids"]
        ids = expected.word_ids(0)
        assert [number for number in words[own][0] if number >= 0] == [number for number in ids if number is not None]
        assert [number < 0 for number in words[own][0]] == [number is None for number in ids]


def test_tokens_of_both_texts_are_masked_and_it_is_scored(tiny):
    tokenizer, task = tokenization.load_tokenizer(tiny), tasks.MaskedLM(max_length=24, masking="whole-word")
    examples = [{"text": "a great film", "text_pair": "the scene was bright"}] * 40
    dataset = tfbert.make_dataset(task, tokenizer, examples, batch_size=40, training=True)
    (inputs, targets, _), *_ = dataset
    guessed, types = targets.numpy() != IGNORED, inputs["token_type_ids"].numpy()
    assert (guessed & (types == 0)).any() and (guessed & (types == 1)).any()
    assert set(tfbert.evaluate(task, task.build(tiny), tokenizer, examples)) == {"loss", "perplexity", "accuracy"}
    with pytest.raises(InputError, match="row 1 of examples: 'text_pair' is 3, not text"):
        task.check(from_iterable([{"text": "a", "text_pair": 3}]))


def test_parts_of_a_data_set_are_put_together_in_the_order_of_its_examples():
    rng, parts, expected = np.random.default_rng(0), [], {}
    for numbers in ([0, 3, 4], [1, 2, 5]):
        rows = {
            i: [rng.integers(0, 99, rng.integers(1, 6)).tolist() for _ in range(rng.integers(1, 4))] for i in numbers
        }
        expected |= rows
        flat = [row for own in rows.values() for row in own]
        table = (np.concatenate(flat), np.cumsum([0, *map(len, flat)]))
        examples = np.cumsum([0, *(len(own) for own in rows.values())])
        parts.append((np.array(numbers), {"padding": {}, "ragged": {"a": table}, "aligned": {}, "examples": examples}))
    found = merged(parts)
    values, splits = found["ragged"]["a"]
    assert [row.tolist() for row in np.split(values, splits[1:-1])] == [row for i in range(6) for row in expected[i]]
    assert np.diff(found["examples"]).tolist() == [len(expected[i]) for i in range(6)]


def test_parallel_files_have_as_many_lines(tmp_path):
    english, german = tmp_path / "a.en", tmp_path / "a.de"
    english.write_text("A dog.\r\n\r\nTwo cats.\r\nThree.\r\n")
    german.write_text("Ein Hund.\n\nZwei Katzen.\n \n")
    found = tfbert.read_parallel(english, german)
    assert found == [{"text": "A dog.", "text_pair": "Ein Hund."}, {"text": "Two cats.", "text_pair": "Zwei Katzen."}]
    assert found.where(1) == f"{english}:3"
    assert tfbert.read_parallel(english, german, names=("text", "target"))[1]["target"] == "Zwei Katzen."
    assert found.notes == [f"{english}: 2 lines left out that are blank, or whose translations are"]
    german.write_text("Ein Hund.\nZwei Katzen.\n")
    with pytest.raises(InputError, match=r"a.en has 4 lines and .*a.de has 2; each line must be the translation"):
        tfbert.read_parallel(english, german)


def test_documents_are_read_from_several_files_and_patterns(tmp_path):
    for name, text in (("b-2", "two\n"), ("b-1", "one\nmore\n\nlast\n"), ("a", "first\n")):
        (tmp_path / f"{name}.txt").write_text(text)
    found = tfbert.read_documents([tmp_path / "b-*.txt", tmp_path / "a.txt"])
    assert [row["text"] for row in found] == ["one\nmore", "last", "two", "first"]
    assert found.where(1).endswith(f"{tmp_path / 'b-1.txt'}:4")
    with pytest.raises(InputError, match="there is no file .*c-\\*.txt; check the pattern"):
        tfbert.read_documents([tmp_path / "a.txt", tmp_path / "c-*.txt"])
    with pytest.raises(InputError, match="empty list of files"):
        tfbert.read_documents([])
