"""Decoding of token classification against the Hugging Face pipeline's own methods, brute force, NumPy, and Python's slices."""

from __future__ import annotations

import itertools
import types

import numpy as np
import pytest

from tfbert._compat import tf, transformers
from tfbert.decoding import entities
from tfbert.decoding.entities import STRATEGIES, Units
from tfbert.decoding.substrings import substrings
from tfbert.decoding.viterbi import allowed, viterbi
from tfbert.errors import InputError
from tfbert.serving.hard_texts import HARD_TEXTS
from tfbert.serving.operations import unservable

BIO = ("O", "B-PER", "I-PER", "B-LOC", "I-LOC")
LABELS = {
    "bio": BIO,
    "bio in disorder": ("I-LOC", "B-PER", "O", "B-LOC", "I-PER"),
    "without prefixes": ("LOC", "O", "PER"),
    "dashes": ("B-PART-OF", "I-PART-OF", "NOUN-X", "NOUN-Y", "S-X", "X", "O", "B-O"),
    "one": ("NOUN",),
}
SEQUENCES = 450  # for each set of labels and each strategy: 2,250 for each strategy, 11,250 in all


class Sequence(types.SimpleNamespace):
    """One text: its pieces' names, scores [P, L], places, and the number of the word of each."""


def random_sequence(random, labels) -> Sequence:
    """Words of 1 to 4 pieces, one space between words; a quarter of the sequences have scores with many ties, some have no piece."""
    pieces, word, start, end, text = [], [], [], [], ""
    for number in range(random.integers(0, 9)):
        text += " " if number else ""
        for part in range(random.integers(1, 5)):
            letters = "".join("abcé中🙂"[i] for i in random.integers(0, 6, random.integers(1, 4)))
            pieces.append(("##" if part else "") + letters)
            start.append(len(text))
            text += letters
            end.append(len(text))
            word.append(number)
    logits = random.normal(0, 2, (len(pieces), len(labels)))
    scores = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    if random.random() < 0.25:
        scores = random.integers(0, 4, scores.shape) / 8
    return Sequence(
        text=text, pieces=pieces, word=np.array(word, np.int32), scores=scores.astype(np.float32), start=start, end=end
    )


def join(sequences, labels) -> tuple:
    """(pieces, word, count) of a batch."""
    example = np.repeat(np.arange(len(sequences)), [len(one.pieces) for one in sequences])
    flat = {
        name: np.concatenate([np.zeros(0), *(getattr(one, name) for one in sequences)]).astype(np.int32)
        for name in ("word", "start", "end")
    }
    scores = np.concatenate([np.zeros((0, len(labels)), np.float32), *(one.scores for one in sequences)])
    pieces = Units(tf.constant(scores), *map(tf.constant, (example.astype(np.int32), flat["start"], flat["end"])))
    return pieces, tf.constant(flat["word"]), tf.constant(len(sequences))


def decode(pieces, word, count, labels, strategy):
    words = entities.units(pieces, word, strategy=strategy)
    return entities.group(words, *entities.best(words.scores), count, labels=labels, strategy=strategy)


def rows(found, texts) -> list[list[tuple]]:
    """Entities of each text as (label, word, start, end, score); checks the padding."""
    words = substrings(tf.constant(texts, tf.string), found["start"], found["end"]).numpy()
    found = {name: values.numpy() for name, values in found.items()}
    longest = max(found["count"], default=0)
    result = []
    for i, count in enumerate(found["count"]):
        assert found["label"].shape == found["score"].shape == words.shape == (len(texts), longest)
        for name in ("label", "score", "start", "end"):
            assert not any(found[name][i, count:])
        columns = [found[name][i, :count] for name in ("label", "start", "end", "score")]
        result.append(
            [(label.decode(), w.decode(), s, e, score) for (label, s, e, score), w in zip(zip(*columns), words[i])]
        )
    return result


def pipeline(labels):
    """The pipeline's post-processing, without model and tokenizer."""
    it = object.__new__(transformers.pipelines.token_classification.TokenClassificationPipeline)
    it.model = types.SimpleNamespace(config=types.SimpleNamespace(id2label=dict(enumerate(labels))))
    it.tokenizer = types.SimpleNamespace(convert_tokens_to_string=lambda tokens: " ".join(tokens).replace(" ##", ""))
    return it


def by_pipeline(it, one: Sequence, strategy: str) -> list[tuple]:
    subword = [False, *(one.word[1:] == one.word[:-1])]
    before = [
        {"word": w, "scores": scores, "start": s, "end": e, "index": i, "is_subword": sub}
        for i, (w, scores, s, e, sub) in enumerate(zip(one.pieces, one.scores, one.start, one.end, subword))
    ]
    found = it.aggregate(before, transformers.pipelines.token_classification.AggregationStrategy(strategy))
    found = [(e.get("entity", e.get("entity_group")), e) for e in found]
    return [(name, e["word"].removeprefix("##"), e["start"], e["end"], e["score"]) for name, e in found if name != "O"]


@pytest.mark.parametrize("kind", LABELS)
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_entities_are_those_of_the_hugging_face_pipeline(strategy, kind):
    labels = LABELS[kind]
    random = np.random.default_rng([STRATEGIES.index(strategy), list(LABELS).index(kind)])
    it, compared = pipeline(labels), 0
    for size in (0, 1, 2, 7, 40, 100, 300):
        batch = [random_sequence(random, labels) for _ in range(size)]
        found = rows(decode(*join(batch, labels), labels, strategy), [one.text for one in batch])
        expected = [by_pipeline(it, one, strategy) for one in batch]
        assert [[e[:4] for e in row] for row in found] == [[e[:4] for e in row] for row in expected]
        scores = [[e[4] for row in side for e in row] for side in (found, expected)]
        np.testing.assert_allclose(*scores, rtol=0, atol=1e-6)
        compared += size
    assert compared == SEQUENCES


@pytest.mark.parametrize(
    ("strategy", "expected"),
    [
        ("none", [("B-PER", "mi", 0.5), ("I-LOC", "cro", 0.75), ("I-PER", "soft", 0.625), ("I-PER", "com", 0.75)]),
        ("simple", [("PER", "mi", 0.5), ("LOC", "cro", 0.75), ("PER", "soft com", 0.6875)]),
        ("first", [("PER", "microsoft company", 0.625)]),
        ("average", [("PER", "microsoft", 0.75 / 3)]),  # I-PER and I-LOC are equal; company is O with 0.5625
        ("max", [("LOC", "microsoft", 0.75)]),  # company is O with 1
    ],
)
def test_one_text_by_every_strategy_worked_out_by_hand(strategy, expected):
    scores = [  # O, B-PER, I-PER, B-LOC, I-LOC
        [0.25, 0.5, 0.125, 0.125, 0],  # mi
        [0, 0.125, 0, 0.125, 0.75],  # ##cro
        [0.375, 0, 0.625, 0, 0],  # ##soft
        [0.125, 0, 0.75, 0.125, 0],  # com
        [1, 0, 0, 0, 0],  # ##pany
    ]
    pieces = Units(*map(tf.constant, (scores, [0] * 5, [0, 2, 5, 10, 13], [2, 5, 9, 13, 17])))
    found = rows(decode(pieces, tf.constant([0, 0, 0, 1, 1]), 1, BIO, strategy), ["microsoft company"])[0]
    assert [e[:2] for e in found] == [e[:2] for e in expected]
    np.testing.assert_allclose([e[4] for e in found], [e[2] for e in expected], atol=1e-7)


def test_begin_and_the_end_of_a_text_part_entities_of_one_kind():
    label = tf.constant([2, 1, 2, 2, 2, 4])  # I-PER B-PER I-PER | I-PER I-PER I-LOC
    place = tf.constant([0, 2, 4, 0, 2, 4])
    words = Units(tf.one_hot(label, 5), tf.constant([0, 0, 0, 2, 2, 2]), place, place + 1)
    found = entities.group(words, *entities.best(words.scores), 4, labels=BIO, strategy="first")
    assert found["start"].numpy().tolist() == [[0, 2], [0, 0], [0, 4], [0, 0]]
    assert found["end"].numpy().tolist() == [[1, 5], [0, 0], [3, 5], [0, 0]]
    assert found["count"].numpy().tolist() == [2, 0, 2, 0]


def test_ignored_kinds_are_left_out_and_still_part_their_neighbours():
    words = Units(tf.one_hot([2, 3, 2, 0], 5), tf.zeros(4, tf.int32), tf.range(4), tf.range(1, 5))
    found = entities.group(words, *entities.best(words.scores), 1, labels=BIO, strategy="simple", ignore=("LOC",))
    assert found["label"].numpy().tolist() == [[b"PER", b"PER", b"O"]]
    found = entities.group(words, *entities.best(words.scores), 1, labels=BIO, strategy="none", ignore=("B-LOC", "O"))
    assert found["label"].numpy().tolist() == [[b"I-PER", b"I-PER"]]


def test_an_unknown_strategy_is_told_with_the_nearest():
    with pytest.raises(InputError, match="strategy is 'avrage'.*none, simple, first, average, max.*mean 'average'"):
        entities.units(None, None, strategy="avrage")
    with pytest.raises(InputError, match="strategy is None"):
        entities.group(None, None, None, None, labels=BIO, strategy=None)


def legal(labels, before, after) -> bool:
    """The BIO rule in words: I-X after B-X or I-X, if there is a B-X at all."""
    if not labels[after].startswith("I-") or "B-" + labels[after][2:] not in labels:
        return True
    return before is not None and labels[before][:2] in ("B-", "I-") and labels[before][2:] == labels[after][2:]


@pytest.mark.parametrize("labels", [*LABELS.values(), ("I-PER", "O", "I-LOC", "B-LOC"), ("O", "E-X", "B-X", "I-X")])
def test_what_may_follow_what(labels):
    numbers = range(len(labels))
    expected = [[legal(labels, a, b) for b in numbers] + [False] for a in [*numbers, None]]
    assert allowed(labels).tolist() == expected


def logarithms(scores):
    return np.log(np.maximum(scores.astype(np.float64), np.finfo(np.float32).tiny))


def viterbi_in_numpy(scores, labels) -> list[int]:
    logs = logarithms(scores)
    rule = np.array([[0.0 if legal(labels, a, b) else -np.inf for b in range(len(labels))] for a in range(len(labels))])
    total = logs[0] + [0.0 if legal(labels, None, b) else -np.inf for b in range(len(labels))]
    back = []
    for here in logs[1:]:
        ways = total[:, None] + rule
        back.append(ways.argmax(0))
        total = ways.max(0) + here
    path = [int(total.argmax())]
    for way in reversed(back):
        path.append(int(way[path[-1]]))
    return path[::-1]


def words_of(sequences, labels, order=None) -> tuple:
    """Scores as units, in the order given: (Units, count)."""
    order = range(len(sequences)) if order is None else order
    example = np.repeat(np.arange(len(order)), [len(sequences[i]) for i in order]).astype(np.int32)
    scores = np.concatenate([np.zeros((0, len(labels)), np.float32), *(sequences[i] for i in order)])
    place = np.arange(len(example), dtype=np.int32)
    return Units(*map(tf.constant, (scores, example, place, place + 1))), tf.constant(len(order))


def probabilities(random, length, labels):
    scores = np.exp(random.normal(0, 2, (length, len(labels))))
    scores *= random.random(scores.shape) > 0.1  # some are 0
    return (scores / np.maximum(scores.sum(-1, keepdims=True), 1e-9)).astype(np.float32)


def by_viterbi(sequences, labels) -> list[list[int]]:
    words, count = words_of(sequences, labels)
    label, score = (x.numpy() for x in viterbi(words.scores, words.example, count, labels=labels))
    np.testing.assert_array_equal(score, words.scores.numpy()[np.arange(len(label)), label])
    return [part.tolist() for part in np.split(label, np.cumsum([len(one) for one in sequences])[:-1])]


@pytest.mark.parametrize("labels", [BIO, LABELS["bio in disorder"], ("I-A", "B-A")])
def test_viterbi_finds_the_best_of_all_legal_sequences(labels):
    random = np.random.default_rng(17)
    sequences = [probabilities(random, random.integers(1, 6), labels) for _ in range(60)]
    for scores, found in zip(sequences, by_viterbi(sequences, labels)):
        logs = logarithms(scores)
        best, path = -np.inf, None
        for way in itertools.product(range(len(labels)), repeat=len(scores)):
            if all(legal(labels, a, b) for a, b in zip((None, *way), way)):
                total = sum(logs[i, label] for i, label in enumerate(way))
                best, path = max((best, path), (total, way), key=lambda pair: pair[0])
        assert sum(logs[i, label] for i, label in enumerate(found)) == pytest.approx(best, abs=1e-9)
        if scores.all():  # no two ways are equal
            assert found == list(path)


def test_viterbi_is_that_of_numpy_on_500_sequences():
    random = np.random.default_rng(5)
    changed = 0
    for labels in (BIO, LABELS["bio in disorder"], LABELS["dashes"], LABELS["without prefixes"], LABELS["one"]):
        sequences = [probabilities(random, random.integers(1, 40), labels) for _ in range(100)]
        expected = [viterbi_in_numpy(scores, labels) for scores in sequences]
        assert by_viterbi(sequences, labels) == expected
        changed += sum(path != scores.argmax(-1).tolist() for path, scores in zip(expected, sequences))
    assert changed > 150  # the rule had something to do


def test_viterbi_without_prefixes_is_the_likeliest_label_of_each():
    words, count = words_of([probabilities(np.random.default_rng(2), 50, "abc")], "abc")
    label, score = viterbi(words.scores, words.example, count, labels="abc")
    for found, expected in zip((label, score), entities.best(words.scores)):
        np.testing.assert_array_equal(found, expected)


def everything(labels, strategy):
    """The whole way as a server would run it."""

    def run(text, scores, example, start, end, word):
        words = entities.units(Units(scores, example, start, end), word, strategy=strategy)
        count = tf.size(text)
        label, score = viterbi(words.scores, words.example, count, labels=labels)
        found = entities.group(words, label, score, count, labels=labels, strategy=strategy)
        plain = entities.group(words, *entities.best(words.scores), count, labels=labels, strategy=strategy)
        entity = substrings(text, found["start"], found["end"])
        first = substrings(text, tf.zeros_like(found["count"]), found["count"])
        return {**found, "entity": entity, "first": first, **{f"plain_{name}": x for name, x in plain.items()}}

    return run


def arguments(batch, labels) -> dict:
    pieces, word, _ = join(batch, labels)
    return {**pieces._asdict(), "word": word, "text": tf.constant([one.text for one in batch], tf.string)}


def graph(labels, strategy):
    """The whole way as one graph that takes any number of texts."""
    flat = dict.fromkeys(("example", "start", "end", "word"), tf.TensorSpec([None], tf.int32))
    scores, text = tf.TensorSpec([None, len(labels)], tf.float32), tf.TensorSpec([None], tf.string)
    return tf.function(everything(labels, strategy), autograph=False).get_concrete_function(
        text=text, scores=scores, **flat
    )


@pytest.mark.parametrize("strategy", ["none", "average", "max"])
def test_a_saved_graph_of_unknown_shapes_gives_the_same_and_a_stock_server_has_its_operations(strategy, tmp_path):
    run, module = everything(BIO, strategy), tf.Module()
    tf.saved_model.save(module, str(tmp_path), signatures=graph(BIO, strategy))
    served = tf.saved_model.load(str(tmp_path)).signatures["serving_default"]
    random = np.random.default_rng(11)
    empty = Sequence(text="", pieces=[], word=np.zeros(0, int), scores=np.zeros((0, 5), np.float32), start=[], end=[])
    for batch in ([], [empty], [empty] * 3, *([random_sequence(random, BIO) for _ in range(n)] for n in (1, 9, 60))):
        eager, reloaded = run(**arguments(batch, BIO)), served(**arguments(batch, BIO))
        assert sorted(eager) == sorted(reloaded)
        for name, values in eager.items():
            np.testing.assert_array_equal(reloaded[name], values, err_msg=name)
            assert reloaded[name].shape[0] == len(batch)
    for target in ("2.19", "2.20"):
        assert unservable(tmp_path, target) == []


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_batch_mates_do_not_matter(strategy):
    random = np.random.default_rng(23)
    batch = [random_sequence(random, BIO) for _ in range(80)]
    order = random.permutation(len(batch))
    run = graph(BIO, strategy)
    straight = run(**arguments(batch, BIO))
    shuffled = run(**arguments([batch[i] for i in order], BIO))
    for name, values in straight.items():
        np.testing.assert_array_equal(values.numpy()[order], shuffled[name], err_msg=name)
    for i, one in enumerate(batch[:30]):
        for name, values in run(**arguments([one], BIO)).items():
            width = values.shape[1:]
            np.testing.assert_array_equal(straight[name][i][tuple(map(slice, width))], values[0], err_msg=name)


def test_substrings_are_pythons_slices():
    random = np.random.default_rng(29)
    texts = [text for text in HARD_TEXTS if len(text) < 3000]
    texts += ["", "\x00", "a\x00b", "\ufeffmark", "\U0010ffff\uffff", "👩‍👩‍👧‍👦", "e\u0301e\u0301"]
    places = np.array([random.integers(0, len(text) + 3, (6, 2)) for text in texts], np.int32)
    start, end = places.min(-1), places.max(-1)
    start[:, 0], end[:, 0] = 0, [len(text) for text in texts]
    found = substrings(tf.constant(texts), tf.constant(start), tf.constant(end))
    expected = [[text[s:e] for s, e in zip(*row)] for text, *row in zip(texts, start, end)]
    assert [[cut.decode() for cut in row] for row in found.numpy()] == expected
    one_each = substrings(tf.constant(texts), tf.constant(start[:, 3]), tf.constant(end[:, 3]))
    assert [cut.decode() for cut in one_each.numpy()] == [row[3] for row in expected]


def test_substrings_of_every_character():
    codes = [code for code in range(0x110000) if not 0xD800 <= code < 0xE000]
    text = "".join(map(chr, codes))
    start = tf.range(0, len(codes), 977)[tf.newaxis, :]
    found = substrings(tf.constant([text]), start, start + 977).numpy()[0]
    assert b"".join(found) == text.encode()
    assert found[3].decode() == text[3 * 977 : 4 * 977]


def test_substrings_of_what_is_no_text():
    broken = [b"a\xffb\xc3(", b"\xed\xa0\x80z", b"\xf0\x9f\x98", b""]
    codes = [list(map(chr, row)) for row in tf.strings.unicode_decode(broken, "UTF-8", errors="replace").to_list()]
    assert codes == [["a", "\ufffd", "b", "\ufffd", "("], ["\ufffd"] * 3 + ["z"], ["\ufffd"], []]
    start, end = tf.constant([[0, 1, 3, 5]] * 4), tf.constant([[9, 3, 4, 2]] * 4)
    found = substrings(tf.constant(broken), start, end).numpy()
    expected = [["".join(row[s:e]) for s, e in ((0, 9), (1, 3), (3, 4), (5, 2))] for row in codes]
    assert [[cut.decode() for cut in row] for row in found] == expected
