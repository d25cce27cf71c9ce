"""Places in texts of every kind: what the graph calls an entity or an answer is what stands there, and Python says the same."""

from __future__ import annotations

import json
import os
import zipfile
from pathlib import Path

import numpy as np
import pytest

import tfbert
from tfbert import models, serving, tokenization
from tfbert._compat import keras, transformers
from tfbert.evaluation import predict
from tfbert.models.loading import quiet

# TFBERT_LINES=10000 pytest tests/test_places.py compares as many lines, in twenty times the time.
LINES = int(os.environ.get("TFBERT_LINES", "500"))


@pytest.fixture(scope="module")
def lines(data) -> list[str]:
    """Lines of all the languages of the Declaration of Human Rights, and the naughty strings."""
    found: list[str] = []
    with zipfile.ZipFile(next((data / "udhr").glob("*.zip"))) as archive:
        for name in sorted(archive.namelist()):
            if name.endswith(".txt"):
                text = archive.read(name).decode("utf-8", "ignore").replace("\0", "")
                found += [line for line in text.split("\n") if len(line) > 20][3:40]
    chosen = np.random.default_rng(0).choice(len(found), LINES, replace=False)
    naughty = [line for line in json.loads((data / "unicode" / "blns.json").read_text("utf-8")) if line.strip()]
    return [*(found[i] for i in sorted(chosen)), *naughty]


def with_vocabulary(place: Path, lower: bool, folder: Path) -> Path:
    """Random weights under a real vocabulary."""
    tokenizer = transformers.BertTokenizerFast(str(place / "vocab.txt"), do_lower_case=lower)
    config = transformers.BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        max_position_embeddings=64,
        initializer_range=0.5,
    )
    keras.utils.set_random_seed(3)
    with quiet():
        model = transformers.TFBertModel(config)
        model.build_in_name_scope()
    models.save(model, folder / "checkpoint", tokenizer)
    return folder / "checkpoint"


@pytest.fixture(scope="module")
def checkpoint(data, tmp_path_factory) -> Path:
    """The multilingual vocabulary, whose normalizer keeps case and accents."""
    place = data / "tokenizers" / "bert-base-multilingual-cased"
    return with_vocabulary(place, False, tmp_path_factory.mktemp("cased"))


@pytest.fixture(scope="module")
def lower(data, tmp_path_factory) -> Path:
    """The uncased vocabulary, whose normalizer lowers case and strips accents."""
    return with_vocabulary(data / "tokenizers" / "bert-base-uncased", True, tmp_path_factory.mktemp("uncased"))


def both(task, checkpoint, rows, tmp_path) -> tuple[list, list]:
    """The answers of the export, and those of the Keras model."""
    model, tokenizer = task.build(checkpoint, seed=5), tokenization.load_tokenizer(checkpoint)
    # Scores of a new head are nearly equal; larger weights part them.
    head = models.transformer_of(model).layers[-1]
    head.set_weights([5 * weight for weight in head.get_weights()])
    place = serving.export(task, model, tokenizer, tmp_path)
    return tfbert.Predictor(place)(rows), predict(task, model, tokenizer, rows)


def same(served: list[dict], ours: list[dict], rows: list) -> None:
    for one, other, row in zip(served, ours, rows, strict=True):
        for name, value in one.items():
            if name in ("score", "no_answer_score"):
                np.testing.assert_allclose(value, other[name], rtol=1e-4, atol=1e-4)
            else:
                assert value == other[name], row


@pytest.mark.data
@pytest.mark.slow
@pytest.mark.parametrize("vocabulary", ["checkpoint", "lower"])
def test_an_entity_is_what_stands_between_its_places(vocabulary, lines, request, tmp_path):
    labels = ("O", "B-PER", "I-PER", "B-LOC", "I-LOC")
    task = tfbert.TokenClassification(labels=labels, max_length=32, stride=8)
    served, ours = both(task, request.getfixturevalue(vocabulary), lines, tmp_path)
    same(served, ours, lines)
    found = 0
    for text, answer in zip(lines, served, strict=True):
        assert answer["count"] == len(answer["entity"])
        for entity, start, end in zip(answer["entity"], answer["start"], answer["end"], strict=True):
            assert 0 <= start < end <= len(text) and text[start:end] == entity
            found += 1
    assert found > LINES


@pytest.mark.data
@pytest.mark.slow
def test_an_answer_is_what_stands_between_its_places(lines, checkpoint, tmp_path):
    task = tfbert.QuestionAnswering(no_answer=False, max_length=48, stride=8, max_question_length=16)
    rows = [
        {"question": question, "context": context} for question, context in zip(reversed(lines), lines, strict=True)
    ]
    served, ours = both(task, checkpoint, rows, tmp_path)
    same(served, ours, rows)
    for row, answer in zip(rows, served, strict=True):
        assert row["context"][answer["start"] : answer["end"]] == answer["answer"]
    assert np.mean([bool(answer["answer"]) for answer in served]) > 0.95


@pytest.mark.data
@pytest.mark.slow
def test_the_answer_in_a_context_of_10000_words_is_found_where_it_stands(checkpoint, tmp_path):
    words = ["word"] * 10_000
    words[7_000] = "Zürich"
    row = {"question": "where", "context": " ".join(words)}
    task = tfbert.QuestionAnswering(no_answer=False, max_length=64, stride=16, max_answer_length=2)
    served, ours = both(task, checkpoint, [row, {"question": "?", "context": "one word"}], tmp_path)
    same(served, ours, [row, row])
    assert row["context"][served[0]["start"] : served[0]["end"]] == served[0]["answer"]
