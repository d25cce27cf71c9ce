"""Questions from SQuAD's files, and the scores of their answers against the official ones."""

from __future__ import annotations

import copy
import gzip
import json
import re

import numpy as np
import pytest
from transformers.data.metrics import squad_metrics

import tfbert
from tfbert import metrics
from tfbert.errors import InputError

CONTEXT = "Zoë 🙂 lives in Rome. Rome is old."
DOCUMENT = {
    "version": "v2.0",
    "data": [
        {
            "title": "Zoë",
            "paragraphs": [
                {
                    "context": CONTEXT,
                    "qas": [
                        {"id": "a", "question": "Where?", "answers": [{"text": "Rome", "answer_start": 15}]},
                        {
                            "id": "b",
                            "question": "When?",
                            "answers": [],
                            "is_impossible": True,
                            "plausible_answers": [1],
                        },
                    ],
                }
            ],
        }
    ],
}
ROWS = [
    {"context": CONTEXT, "title": "Zoë", "id": "a", "question": "Where?", "answers": [{"text": "Rome", "start": 15}]},
    {"context": CONTEXT, "title": "Zoë", "id": "b", "question": "When?", "answers": []},
]


def write(folder, value, name="train.json"):
    (folder / name).write_text(json.dumps(value), encoding="utf-8")
    return folder / name


def test_squad_files_are_read_from_any_form(tmp_path):
    place = write(tmp_path, DOCUMENT)
    examples = tfbert.read_squad(place)
    assert examples == ROWS and tfbert.read(place) == ROWS
    assert examples.where(1) == f"{place}:data[0].paragraphs[0].qas[1]"
    (tmp_path / "a.json.gz").write_bytes(gzip.compress(place.read_bytes()))
    assert tfbert.read(tmp_path / "a.json.gz") == ROWS
    lines = [
        {"question": "Where?", "context": CONTEXT, "answers": {"text": ["Rome"], "answer_start": [15]}},
        {"question": "When?", "context": CONTEXT, "answers": []},
    ]
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, lines)))
    got = tfbert.read_squad(tmp_path / "a.jsonl")
    assert [row["answers"] for row in got] == [row["answers"] for row in ROWS] and got.where(1).endswith("a.jsonl:2")


def test_an_answer_elsewhere_can_be_moved_and_is_counted(tmp_path):
    document = copy.deepcopy(DOCUMENT)
    question = document["data"][0]["paragraphs"][0]["qas"][0]
    for shifted, nearest in ((14, 15), (20, 21), (-3, 15), (500, 21)):
        question["answers"][0]["answer_start"] = shifted
        place = write(tmp_path, document)
        with pytest.raises(InputError, match=re.escape(f"qas[0]: answer 1 is 'Rome' at {shifted}, but there stands")):
            tfbert.read_squad(place)
        examples = tfbert.read_squad(place, repair=True)
        assert examples[0]["answers"] == [{"text": "Rome", "start": nearest}]
        assert examples.notes == [f"{place}: 1 answer moved to where it stands in its context"]


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda q, p: q.update(question=" "), "qas[0]: the question is empty"),
        (lambda q, p: p.update(context=""), "qas[0]: the context is empty"),
        (lambda q, p: q.update(id="b"), "qas[1]: the id 'b' is that of"),
        (lambda q, p: q.update(answers=[]), None),
        (lambda q, p: q.pop("answers"), 'qas[0]: there are no answers; give them, or say "is_impossible": true'),
        (lambda q, p: q.update(is_impossible=True), "qas[0] is_impossible, yet it has answers"),
        (
            lambda q, p: q.update(answers=[{"text": "Paris", "answer_start": 1}]),
            "qas[0]: answer 1, 'Paris', does not stand in its context",
        ),
        (
            lambda q, p: q.update(answers=[{"text": "", "answer_start": 1}]),
            "expected a text that is not empty, and its start",
        ),
        (lambda q, p: q.update(answers=[{"text": "Rome", "answer_start": "15"}]), "and its start, a whole number"),
        (lambda q, p: p.pop("qas"), "data[0].paragraphs[0]: expected an object with a list 'qas'"),
    ],
)
def test_faults_are_told_with_the_questions_place(tmp_path, change, message):
    document = copy.deepcopy(DOCUMENT)
    paragraph = document["data"][0]["paragraphs"][0]
    change(paragraph["qas"][0], paragraph)
    place = write(tmp_path, document)
    if message is None:
        assert tfbert.read_squad(place)[0]["answers"] == []
        return
    with pytest.raises(InputError, match=re.escape(f"{place}:") + ".*" + re.escape(message)):
        tfbert.read_squad(place, repair=True)


def test_questions_of_one_text_stay_together_in_a_split():
    rows = [{"question": f"q{i}", "context": f"text {i // 4}", "answers": []} for i in range(80)]
    rest, held_out = tfbert.split(rows, 0.2, group="context", seed=2)
    assert (len(rest), len(held_out)) == (64, 16)
    assert not {row["context"] for row in rest} & {row["context"] for row in held_out}
    assert [row["question"] for row in tfbert.split(rows, 0.2, group="context", seed=2)[1]] == [
        row["question"] for row in held_out
    ]
    with pytest.raises(InputError, match="row 1 of examples: no field 'titel', by which rows are grouped"):
        tfbert.split(rows, 0.2, group="titel")


WORDS = (
    "the a an Ada lovelace Rome, rome. U.S. US 12 12% ½ Straße STRASSE İstanbul naïve “quoted” ... ¿ the-end an".split()
)


def random_answers(count: int, seed: int):
    rng = np.random.default_rng(seed)
    texts = [" ".join(rng.choice(WORDS, rng.integers(0, 5))) for _ in range(4 * count)]
    references = [texts[4 * i : 4 * i + rng.integers(0, 4)] for i in range(count)]
    answers = [texts[4 * i + 3] if rng.random() < 0.6 or not refs else refs[0] for i, refs in enumerate(references)]
    return references, answers, rng.normal(size=count).round(1)


class Example:
    def __init__(self, number: int, texts: list[str]):
        self.qas_id, self.answers = number, [{"text": text} for text in texts]


def test_scores_are_the_official_ones_on_5000_answers():
    references, answers, _ = random_answers(5000, 1)
    exact, f1 = squad_metrics.get_raw_scores(
        [Example(i, texts) for i, texts in enumerate(references)], answers_by(answers)
    )
    for i in range(5000):
        assert metrics.squad(references[i : i + 1], answers[i : i + 1]) == {"exact_match": exact[i], "f1": f1[i]}
    found = metrics.squad(references, answers)
    has = [any(squad_metrics.normalize_answer(text) for text in texts) for texts in references]
    assert found["exact_match"] == pytest.approx(np.mean(list(exact.values())), abs=1e-12)
    assert found["has_answer_f1"] == pytest.approx(np.mean([f1[i] for i in range(5000) if has[i]]), abs=1e-12)
    assert found["no_answer_exact_match"] == pytest.approx(
        np.mean([exact[i] for i in range(5000) if not has[i]]), abs=1e-12
    )


def answers_by(answers: list[str]) -> dict[int, str]:
    return dict(enumerate(answers))


def test_the_threshold_is_the_official_one():
    for seed in range(40):
        references, answers, scores = random_answers(60, seed)
        _, f1 = squad_metrics.get_raw_scores(
            [Example(i, texts) for i, texts in enumerate(references)], answers_by(answers)
        )
        has = {i: any(map(squad_metrics.normalize_answer, texts)) for i, texts in enumerate(references)}
        best, threshold = squad_metrics.find_best_thresh(answers_by(answers), f1, dict(enumerate(scores)), has)
        ours = metrics.squad_threshold(references, answers, scores)
        if threshold != 0.0 or ours == 0.0:
            assert ours == threshold
        else:  # the official 0 for "never answer" means scores from 0 to 1
            assert ours < scores.min() and best == pytest.approx(100 * (1 - np.mean(list(has.values()))))


@pytest.mark.data
def test_every_language_of_xquad_has_true_offsets(data):
    for place in sorted((data / "xquad").glob("*.json")):
        examples = tfbert.read_squad(place)
        assert len(examples) == 1190
        for row in examples:
            for answer in row["answers"]:
                assert row["context"][answer["start"] : answer["start"] + len(answer["text"])] == answer["text"]
