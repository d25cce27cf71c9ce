"""Span corruption: rows are what they were, numbers are the paper's, cuts are even, sentinels in texts and answers are Hugging Face's."""

from __future__ import annotations

import collections
import itertools
import math

import numpy as np
import pytest
import tiny_writers

import tfbert
from tfbert import corruption, losses, tasks, tokenization
from tfbert._compat import tf, transformers
from tfbert.errors import InputError
from tfbert.masking import FIXED

LEAD, END, FIRST = 7, 1, 900
TEXTS = [
    "the plot <extra_id_0> dull",
    "<extra_id_3>",
    "good<extra_id_1><extra_id_0>film",
    "no gap",
    "",
    " <extra_id_7>  the actor",
]


def drawn(lengths, *, share=0.15, mean=3.0, sentinels=20, epoch=3, seed=1):
    """Rows of these lengths, and of each what the encoder reads, what the decoder reads, and what it writes."""
    lengths = np.asarray(lengths)
    width = int(lengths.max())
    ids = np.random.default_rng(0).integers(100, 200, (len(lengths), width)).astype(np.int32)
    mask = (np.arange(width) < lengths[:, np.newaxis]).astype(np.int32)
    made = corruption.Corruption(
        share=share,
        mean=mean,
        sentinels=tuple(range(FIRST, FIRST + sentinels)),
        lead=(LEAD,),
        end=END,
        longest=width,
        rows=len(lengths),
    )
    numbers = tf.range(len(lengths), dtype=tf.int64)
    inputs, targets = made(tf.constant(ids), tf.constant(mask), numbers, tf.constant(epoch, tf.int64), seed=seed)
    ids = [row[:n].tolist() for row, n in zip(ids, lengths)]
    sides = []
    for read, second, there, target in zip(*(inputs[name].numpy() for name in inputs), targets.numpy(), strict=True):
        assert ((target != losses.IGNORED) == (second > 0)).all()
        sides.append(
            [side.tolist() for side in (read[(there > 0) & (second == 0)], read[second > 0], target[second > 0])]
        )
    return ids, sides


def spans(target: list[int]) -> dict[int, list[int]]:
    """Sentinel -> what the decoder writes behind it."""
    found: dict[int, list[int]] = {}
    for token in target[1:-1]:
        if token >= FIRST:
            found[token] = []
        else:
            found[next(reversed(found))].append(token)
    return found


def test_both_sides_together_are_the_row():
    rows, sides = drawn(np.random.default_rng(1).integers(1, 60, 400))
    for ids, (read, decoder, target) in zip(rows, sides, strict=True):
        assert (read[0], read[-1], target[0], target[-1]) == (LEAD, END, LEAD, END) and decoder == [END, *target[:-1]]
        found = spans(target)
        assert list(found) == list(range(FIRST, FIRST + len(found))) and all(found.values())
        assert list(itertools.chain.from_iterable(found.get(token, [token]) for token in read[1:-1])) == ids


@pytest.mark.parametrize(("share", "mean"), [(0.15, 3.0), (0.5, 8.0)])
def test_each_row_loses_as_many_tokens_in_as_many_spans_as_the_paper_says(share, mean):
    length, rows = 500, 100
    _, sides = drawn([length] * rows, share=share, mean=mean, sentinels=100)
    lost = [sum(map(len, spans(target).values())) for *_, target in sides]
    number = [len(spans(target)) for *_, target in sides]
    assert set(lost) == {round(length * share)} and set(number) == {round(length * share / mean)}


def test_a_row_without_text_has_nothing_to_write():
    _, sides = drawn([0, 1, 5])
    assert sides[0] == [[LEAD, END], [], []]
    assert sides[1][0] == [LEAD, FIRST, END] and len(sides[1][2]) == 4  # of one token nothing can be left


def test_every_cut_is_as_likely():
    count, items, parts = 20_000, 7, 3
    draws = tf.random.stateless_uniform([count, 9], [1, 2])
    found = corruption.cut(draws, tf.fill([count], items), tf.fill([count], parts)).numpy()
    assert (found.sum(1) == items).all() and (found[:, :parts] > 0).all() and (found[:, parts:] == 0).all()
    kinds = collections.Counter(map(tuple, found[:, :parts].tolist()))
    assert len(kinds) == math.comb(items - 1, parts - 1)
    expected = count / len(kinds)
    assert sum((n - expected) ** 2 / expected for n in kinds.values()) < 36  # chi squared of 14, p = 0.001


def test_draws_differ_by_epoch_row_and_seed_alone():
    once, again = drawn([50] * 4), drawn([50] * 4)
    assert once == again
    assert once[1] != drawn([50] * 4, epoch=4)[1] and once[1] != drawn([50] * 4, seed=2)[1]
    alone = drawn([50] * 3 + [30])[1]
    assert alone[:3] == once[1][:3] and drawn([50], epoch=FIXED)[1] == drawn([50], epoch=FIXED)[1]


def test_rows_fill_the_encoder(tiny_t5):
    task, tokenizer = tasks.SpanCorruption(max_length=24), tokenization.load_tokenizer(tiny_t5)
    text = "the plot of it was very dull and the actor " * 12
    examples = tfbert.Examples([{"text": text, "weight": 2.0}, {"text": ""}, {"text": "good"}], source="made")
    features = task.features(tokenizer, examples)
    count = len(tokenizer(text, add_special_tokens=False)["input_ids"])
    longest = next(n for n in range(40, 0, -1) if n - round(n * 0.15) + max(1, round(round(n * 0.15) / 3)) + 1 <= 24)
    rows = math.ceil(count / longest)
    assert np.diff(features.example_splits).tolist() == [rows, 1, 1]
    assert features.lengths.tolist() == [longest] * (rows - 1) + [count - (rows - 1) * longest, 0, 1]
    assert features.weights.tolist() == [2.0] * rows + [1.0, 1.0]
    inputs, targets, weights = next(iter(tfbert.make_dataset(task, tokenizer, examples, batch_size=8)))
    per_row = (targets.numpy() != losses.IGNORED).sum(1)
    weighted = per_row * features.weights
    np.testing.assert_allclose(weights, weighted / weighted.mean(), rtol=1e-6)
    width = (inputs["attention_mask"].numpy() * (1 - inputs["is_target"].numpy())).sum(1)
    assert width.max() == 24 and per_row[rows] == 0


def of_transformers(folder, text: str) -> list[int]:
    return transformers.AutoTokenizer.from_pretrained(folder)(text, max_length=16, truncation=True)["input_ids"]


def test_sentinels_in_a_text_are_those_of_transformers(tiny_t5):
    task, tokenizer = tasks.SpanCorruption(max_length=16), tokenization.load_tokenizer(tiny_t5)
    texts = [*TEXTS, "a <extra_id_8> b", "<extra_id_00>"]
    for pieces in (tokenization.RustPieces(tokenizer), tokenization.graph_tokenizer(tokenizer)):
        rows = task.rows(pieces, {"text": tf.constant(texts)}).ids
        found = [ids[mask > 0].tolist() for ids, mask in zip(rows["input_ids"].numpy(), rows["attention_mask"].numpy())]
        assert found[: len(TEXTS)] == [of_transformers(tiny_t5, text) for text in TEXTS]
        assert found[len(TEXTS) :] == [
            tokenizer(text)["input_ids"] for text in texts[len(TEXTS) :]
        ]  # no sentinels of it


def test_sentinels_in_a_text_are_those_of_a_real_t5(data):
    task = tasks.SpanCorruption(max_length=16)
    folder = data / "tokenizers" / "legal_t5_small_fr_en"
    tokenizer = tokenization.load_tokenizer(folder)
    texts = [*TEXTS, "Le <extra_id_0> se promène dans <extra_id_99> parc."]
    for pieces in (tokenization.RustPieces(tokenizer), tokenization.graph_tokenizer(tokenizer)):
        rows = task.rows(pieces, {"text": tf.constant(texts)}).ids
        for text, ids, mask in zip(texts, rows["input_ids"].numpy(), rows["attention_mask"].numpy(), strict=True):
            assert ids[mask > 0].tolist() == of_transformers(folder, text), text


def test_an_answer_names_the_sentinels(tiny_t5):
    task, tokenizer = tasks.SpanCorruption(), tokenization.load_tokenizer(tiny_t5)

    def ids(text: str) -> list[int]:
        return of_transformers(tiny_t5, text)[:-1]

    written = [
        ids("<extra_id_0> very dull <extra_id_1> film"),
        ids("good <extra_id_2><extra_id_0>"),
        [],
        ids("the plot"),
    ]
    width = max(map(len, written)) + 1
    generated = tf.constant([[*row, *[-1] * (width - len(row))] for row in written], tf.int32)
    expected = ["<extra_id_0> very dull <extra_id_1> film", "good <extra_id_2> <extra_id_0>", "", "the plot"]
    for pieces in (tokenization.RustPieces(tokenizer), tokenization.graph_tokenizer(tokenizer)):
        found = task.answer({"generated": generated}, {}, pieces)["generated_text"].numpy()
        assert [text.decode() for text in found] == expected


def test_it_learns_and_its_checkpoint_is_a_t5(tiny_t5, tmp_path):
    rows = [{"text": "the plot was very dull and the film was very good"}, {"text": "it was lovely and bright"}] * 12
    task = tasks.SpanCorruption(max_length=12, max_new_tokens=6)
    options = {"epochs": 4, "learning_rate": 1e-2, "batch_size": 8, "export": False, "report": False}
    tuned = tfbert.fine_tune(task, tiny_t5, rows, rows[:4], directory=tmp_path / "out", **options)
    assert tuned.history[-1]["val_perplexity"] < 0.5 * tuned.history[0]["val_perplexity"]
    again = tfbert.load(tmp_path / "out")
    for before, after in zip(tuned.model.get_weights(), again.model.get_weights(), strict=True):
        np.testing.assert_array_equal(before, after)
    assert not tasks.Seq2Seq().build(tmp_path / "out" / "checkpoint").transformer.load_report.missing


def test_mistakes_are_told(tiny, tmp_path):
    for field, value, message in (
        ("share", 1.0, "share is 1.0; it must be between 0 and 1"),
        ("mean_span", 0.5, "mean_span is 0.5; it must be at least 1"),
        ("scores", ("bleu",), "scores has bleu, but gaps are filled in many ways; leave it out"),
    ):
        with pytest.raises(InputError, match=message):
            tasks.SpanCorruption(**{field: value})
    bart = tokenization.load_tokenizer(tiny_writers.bart(tiny, tmp_path / "bart"))
    with pytest.raises(InputError, match=r"the tokenizer has no sentinels \(<extra_id_0>, ...\); choose a T5"):
        tasks.SpanCorruption().features(bart, tfbert.Examples([{"text": "a"}], source="made"))
    t5 = tokenization.load_tokenizer(tiny_writers.t5(tiny, tmp_path / "t5"))
    with pytest.raises(InputError, match="max_length is 2, which has no room for two tokens of text and a gap"):
        tasks.SpanCorruption(max_length=2).features(t5, tfbert.Examples([{"text": "a"}], source="made"))
    with pytest.raises(InputError, match="made: there is no token of text in it"):
        tasks.SpanCorruption().features(t5, tfbert.Examples([{"text": " "}], source="made"))
