"""Pairs of segments: how documents become rows, every drawn row against NumPy's own construction, and how often what is drawn."""

from __future__ import annotations

import numpy as np
import pytest

from tfbert import tokenization
from tfbert._compat import tf
from tfbert.errors import InputError
from tfbert.masking import draws_by_row
from tfbert.pairing import ORDERS, Pairing, pair_up
from tfbert.tokenization import Pieces
from tfbert.tokenization.template import Segment, Template

CLS, SEP = 2, 3
TEMPLATE = Template(
    (),
    (
        Segment((CLS,), 0, None),
        Segment((), 0, 0),
        Segment((SEP,), 0, None),
        Segment((), 1, 1),
        Segment((SEP,), 1, None),
    ),
    pad_id=0,
)
MAX_LENGTH, ROOM = 23, 20


def made(documents: list[list[int]], order: str = "next-sentence", seed: int = 0) -> tuple[Pairing, np.ndarray]:
    """Documents of lines of so many tokens: token i of the whole text has the id 100 + i; words of 1 to 3 tokens."""
    rng, lengths = np.random.default_rng(seed), [length for lines in documents for length in lines]
    words = [np.sort(rng.integers(0, max(1, length // 2), length)) for length in lengths]
    total = sum(lengths)

    def ragged(values):
        return tf.RaggedTensor.from_row_lengths(tf.cast(values, tf.int32), lengths)

    lines = Pieces(ragged(np.arange(100, 100 + total)), *[ragged(np.zeros(total))] * 2, ragged(np.concatenate(words)))
    return pair_up(order, TEMPLATE, lines, np.cumsum([0, *map(len, documents)]), max_length=MAX_LENGTH)


def corpus(count: int = 40, seed: int = 1) -> list[list[int]]:
    rng = np.random.default_rng(seed)
    return [rng.integers(1, 18, rng.integers(1, 9)).tolist() for _ in range(count)]


DOCUMENTS = [*corpus(), [], [0, 0], [1], [2], [1, 1]]


def test_rows_are_full_until_their_document_ends_and_lose_no_token():
    pairing, splits = made(DOCUMENTS)
    begins, lengths = pairing.begins.numpy(), pairing.lengths.numpy()
    ends = np.cumsum([sum(lines) for lines in DOCUMENTS])
    assert len(splits) == len(DOCUMENTS) + 1 and splits[-1] == len(begins)
    for i, end in enumerate(ends):
        rows = slice(splits[i], splits[i + 1])
        assert begins[rows][0] == end - sum(DOCUMENTS[i]) and (begins[rows] + lengths[rows])[-1] == end
        np.testing.assert_array_equal(begins[rows][1:], (begins[rows] + lengths[rows])[:-1])
    many, splits = made(corpus(2000))
    begins, lengths = many.begins.numpy(), many.lengths.numpy()
    ends = np.repeat((begins + lengths)[splits[1:] - 1], np.diff(splits))
    lengths = lengths[ends - begins > ROOM]  # of the other rows the end of the document decides
    assert lengths.min() >= 2 and lengths.max() == ROOM and len(lengths) > 2000
    # A tenth is short; of these one in 19 has the full length by chance.
    assert (lengths < ROOM).mean() == pytest.approx(0.1 * 18 / 19, abs=0.015)
    short = lengths[lengths < ROOM]
    assert short.mean() == pytest.approx(10.5, abs=0.8)  # each of 2 to 19 as likely


def test_sentences_are_lines_and_the_halves_of_long_ones():
    """Lines of 4, 25 and 12 tokens; a sentence has at most 10, and ends with a word."""
    pairing, _ = made([[4, 25], [12]])
    words, sentences = pairing.words.numpy(), pairing.sentences.numpy()
    assert {0, 4, 29} <= set(sentences)
    assert np.diff([*sentences, 41]).max() <= 10 and len(sentences) in (6, 7, 8)
    assert all(words[place] != words[place - 1] for place in sentences[1:])
    np.testing.assert_array_equal(pairing.sentence_splits, np.searchsorted(sentences, [0, 29, 41]))


def expected(pairing: Pairing, row: int, draws: np.ndarray) -> tuple[list[int], list[int], int, list[int]]:
    """Ids, types and label of a row, and the places of its text, by the paper: in plain Python from the four numbers drawn."""
    tables = {name: getattr(pairing, name).numpy() for name in ("begins", "lengths", "parts", "part_splits", "own")}
    begin, length = int(tables["begins"][row]), int(tables["lengths"][row])
    places = tables["parts"][tables["part_splits"][row] : tables["part_splits"][row + 1]]
    text = list(range(begin, begin + length))
    if len(places) == 0:
        first, second, label = text, [], 0
    else:
        place = int(places[int(draws[0] * len(places))])
        first, second, label = text[: place - begin], text[place - begin :], int(draws[1] < 0.5)
    if label and pairing.order == "sentence-order":
        first, second = second, first
    elif label:
        ends, sentences = pairing.ends.numpy(), pairing.sentences.numpy()
        others = [document for document in range(len(ends)) if document != tables["own"][row]]
        other = others[int(draws[2] * len(others))]
        starts = sentences[(sentences < ends[other]) & (sentences >= (ends[other - 1] if other else 0))]
        start = int(starts[int(draws[3] * len(starts))])
        second = list(range(start, int(ends[other])))[: len(second)]
    ids = [CLS, *(100 + i for i in first), SEP, *(100 + i for i in second), SEP]
    return ids, [0] * (len(first) + 2) + [1] * (len(second) + 1), label, [-1, *first, -1, *second, -1]


@pytest.mark.parametrize("order", ORDERS)
def test_every_row_is_what_numpy_makes_of_the_numbers_drawn(order):
    pairing, splits = made(DOCUMENTS, order)
    rows = tf.range(splits[-1], dtype=tf.int64)
    labels = []
    for epoch in (0, 5):
        epoch = tf.constant(epoch, tf.int64)
        draws = draws_by_row(rows, epoch, pairing.begins.shape[0], [4], 7 + 2**33).numpy()
        laid, words, label, parted = (
            tf.nest.map_structure(lambda x: x.numpy(), x) for x in pairing(rows, epoch, seed=7)
        )
        for row in range(splits[-1]):
            ids, types, right, at = expected(pairing, row, draws[row])
            there = laid["attention_mask"][row] > 0
            assert (
                laid["input_ids"][row][there].tolist() == ids and laid["token_type_ids"][row][there].tolist() == types
            )
            assert label[row] == right and (laid["input_ids"][row][~there] == 0).all()
            own = np.where(np.array(at) < 0, -1, pairing.words.numpy()[at])
            assert words[row][there].tolist() == own.tolist() and (words[row][~there] == -1).all()
            assert parted[row] == (len(set(pairing.words.numpy()[np.array(at)[np.array(at) >= 0]])) > 1 or right == 1)
        assert (~parted).sum() >= 3
        labels.append(label)
    assert (labels[0] != labels[1]).any()


def test_halves_are_changed_and_places_documents_and_sentences_are_drawn_evenly():
    pairing, _ = made([[3, 3, 3, 3, 3, 3], [4, 4], [1, 1, 1, 1], [5]])
    epochs = 6000
    labels, firsts, others = [], [], []
    rows, at = tf.zeros([epochs], tf.int64), tf.range(epochs, dtype=tf.int64)
    laid, _, label, _ = tf.function(lambda at: pairing(rows, at, seed=3))(at)  # the first row in each epoch
    ids, types = laid["input_ids"].numpy(), laid["token_type_ids"].numpy()
    labels = label.numpy()
    firsts = (types == 0).sum(1) - 2 - (ids == 0).sum(1)
    others = ids[np.arange(epochs), firsts + 2] - 100
    assert labels.mean() == pytest.approx(0.5, abs=4 * 0.5 / epochs**0.5)
    places = pairing.parts.numpy()[: pairing.part_splits.numpy()[1]]
    for place in places:
        assert (firsts == place).mean() == pytest.approx(1 / len(places), abs=0.025)
    np.testing.assert_array_equal(others[labels == 0], firsts[labels == 0])
    changed = others[labels == 1]
    ends = pairing.ends.numpy()
    for other in (1, 2, 3):  # documents as often as each other, and in them each sentence
        of_it = changed[(changed >= ends[other - 1]) & (changed < ends[other])]
        assert len(of_it) / len(changed) == pytest.approx(1 / 3, abs=0.04)
        counts = np.unique(of_it, return_counts=True)[1] / len(of_it)
        number = np.diff(pairing.sentence_splits.numpy())[other]
        assert len(counts) == number and np.abs(counts - 1 / number).max() < 0.06


@pytest.mark.parametrize("order", ORDERS)
def test_seed_epoch_and_row_alone_decide(order):
    pairing, _ = made(DOCUMENTS, order)
    rows, epoch = tf.constant([3, 17, 29], tf.int64), tf.constant(4, tf.int64)
    first = pairing(rows, epoch, seed=1)
    for one, other in zip(tf.nest.flatten(first), tf.nest.flatten(pairing(rows[::-1], epoch, seed=1)), strict=True):
        np.testing.assert_array_equal(one, other[::-1])
    many = tf.range(40, dtype=tf.int64)
    for changes in ({"epoch": epoch + 1, "seed": 1}, {"epoch": epoch, "seed": 2}):
        assert (pairing(many, **changes)[2] != pairing(many, epoch, seed=1)[2]).numpy().any()


def test_what_cannot_be_paired_is_told():
    with pytest.raises(InputError, match="there are 1 with text; part the text by blank lines, or take the order"):
        made([[5, 5], []])
    assert made([[5, 5], []], "sentence-order")[1].tolist() == [0, 1, 2]
    pieces = Pieces(*[tf.ragged.constant([[7, 8]], dtype=tf.int32)] * 4)
    with pytest.raises(InputError, match="max_length is 4; the special tokens and two segments need at least 5"):
        pair_up("sentence-order", TEMPLATE, pieces, np.array([0, 1]), max_length=4)


def test_the_template_of_a_tokenizer_surrounds_the_pairs(tiny):
    pieces = tokenization.RustPieces(tokenization.load_tokenizer(tiny))
    lines = pieces.ids_and_offsets(["good film", "dull plot"])
    pairing, _ = pair_up("sentence-order", pieces.template, lines, np.array([0, 2]), max_length=16)
    found = {
        tuple(pairing(tf.constant([0], tf.int64), tf.constant(epoch, tf.int64), seed=0)[0]["input_ids"].numpy()[0])
        for epoch in range(20)
    }
    one, two = (row.numpy().tolist() for row in lines.ids)
    cls, sep = pieces.template.pair[0].ids[0], pieces.template.pair[2].ids[0]
    assert found == {(cls, *one, sep, *two, sep), (cls, *two, sep, *one, sep)}
