"""Long texts: windows as the Hugging Face tokenizers cut them, each piece owned once, heads and tails counted by hand."""

from __future__ import annotations

import json

import numpy as np
import pytest

from tfbert import tokenization
from tfbert._compat import tf
from tfbert.errors import InputError
from tfbert.serving.hard_texts import HARD_TEXTS

WORDS = "good bad fine great awful film plot actor scene boring lovely dull bright the of unbelievable".split()


@pytest.fixture(scope="module")
def tokenizer(tiny):
    return tokenization.load_tokenizer(tiny)


@pytest.fixture(scope="module")
def graph(tokenizer):
    return tokenization.graph_tokenizer(tokenizer)


def texts(count: int, seed: int, most: int = 30) -> list[str]:
    rng = np.random.default_rng(seed)
    return [" ".join(rng.choice(WORDS, size)) for size in rng.integers(0, most, count)]


def dense(rows: tokenization.Rows, name: str) -> list[list[int]]:
    mask = rows.ids["attention_mask"].numpy() > 0
    return [row[kept].tolist() for row, kept in zip(rows.ids[name].numpy(), mask)]


@pytest.mark.parametrize("max_length, stride", [(8, 0), (8, 1), (8, 5), (9, 3), (16, 8), (16, 13), (64, 20)])
def test_windows_of_one_text_are_those_of_hugging_face(tokenizer, max_length, stride):
    given = [*texts(40, 1), *HARD_TEXTS[:30]]
    expected = tokenizer(
        given,
        truncation=True,
        max_length=max_length,
        stride=stride,
        return_overflowing_tokens=True,
        split_special_tokens=True,
    )
    pieces = tokenization.RustPieces(tokenizer)
    rows = tokenization.windows(pieces.template, pieces.ids_and_offsets(given), max_length=max_length, stride=stride)
    assert rows.example.numpy().tolist() == expected["overflow_to_sample_mapping"]
    assert dense(rows, "input_ids") == expected["input_ids"] and int(rows.count) == len(given)
    assert dense(rows, "token_type_ids") == expected["token_type_ids"]


@pytest.mark.parametrize("max_length, stride", [(16, 0), (16, 3), (20, 6), (40, 10)])
def test_windows_beside_a_fixed_text_are_those_of_hugging_face(tokenizer, max_length, stride):
    fixed, sliding = texts(60, 2, most=6), texts(60, 3)
    pieces = tokenization.RustPieces(tokenizer)
    cut = tokenization.keep(pieces.ids_and_offsets(fixed).ids, 5, "head")
    fixed = [text for text, ids in zip(fixed, pieces.ids_and_offsets(fixed).ids.to_list()) if len(ids) <= 5]
    sliding, cut = sliding[: len(fixed)], pieces.ids_and_offsets(fixed).ids
    expected = tokenizer(
        fixed, sliding, truncation="only_second", max_length=max_length, stride=stride, return_overflowing_tokens=True
    )
    rows = tokenization.windows(
        pieces.template, pieces.ids_and_offsets(sliding), cut, max_length=max_length, stride=stride
    )
    assert rows.example.numpy().tolist() == expected["overflow_to_sample_mapping"]
    assert dense(rows, "input_ids") == expected["input_ids"]
    assert dense(rows, "token_type_ids") == expected["token_type_ids"]


@pytest.mark.parametrize("max_length", [3, 4, 7, 16])
def test_every_length_and_stride_is_cut_as_hugging_face_does(tokenizer, max_length):
    given = [" ".join(WORDS[k % len(WORDS)] for k in range(length)) for length in range(20)]
    pieces = tokenization.RustPieces(tokenizer)
    found = pieces.ids_and_offsets(given)
    for stride in range(max_length - 2):
        expected = tokenizer(
            given, truncation="only_first", max_length=max_length, stride=stride, return_overflowing_tokens=True
        )
        rows = tokenization.windows(pieces.template, found, max_length=max_length, stride=stride)
        assert rows.example.numpy().tolist() == expected["overflow_to_sample_mapping"]
        assert dense(rows, "input_ids") == expected["input_ids"]


def test_each_piece_is_owned_once_where_it_stands_farthest_from_the_ends(tokenizer):
    given = [*texts(50, 4), *HARD_TEXTS]
    pieces = tokenization.RustPieces(tokenizer)
    found = pieces.ids_and_offsets(given)
    for max_length, stride in ((8, 0), (8, 3), (9, 6), (16, 5), (32, 28)):
        rows = tokenization.windows(pieces.template, found, max_length=max_length, stride=stride)
        for name in ("start", "end", "word"):
            owned = tf.boolean_mask(getattr(rows, name), rows.owned)
            np.testing.assert_array_equal(owned, getattr(found, name).values)
        np.testing.assert_array_equal(tf.boolean_mask(rows.ids["input_ids"], rows.owned), found.ids.values)
        piece, owned, example = rows.piece.numpy(), rows.owned.numpy(), rows.example.numpy()
        best: dict[tuple[int, int], int] = {}
        mine: dict[tuple[int, int], int] = {}
        for row, number in enumerate(example):
            places = np.flatnonzero(piece[row] >= 0)
            for left, place in enumerate(places):
                key, context = (number, piece[row, place]), min(left, len(places) - 1 - left)
                best[key] = max(best.get(key, 0), context)
                if owned[row, place]:
                    mine[key] = context
        assert mine == best


@pytest.mark.parametrize("max_length, stride", [(8, 2), (16, 0), (40, 13)])
def test_the_graph_gives_the_same_rows(tokenizer, graph, max_length, stride):
    pieces = tokenization.RustPieces(tokenizer)
    assert graph.template == pieces.template

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string)] * 2)
    def run(fixed, sliding):
        alone = tokenization.windows(
            graph.template, graph.ids_and_offsets(sliding), max_length=max_length, stride=stride
        )
        cut = tokenization.keep(graph.ids_and_offsets(fixed).ids, 3, "head")
        beside = tokenization.windows(
            graph.template, graph.ids_and_offsets(sliding), cut, max_length=max_length, stride=stride
        )
        return alone, beside

    sliding = [*HARD_TEXTS, *texts(20, 5)]
    fixed = sliding[::-1]
    cut = tokenization.keep(pieces.ids_and_offsets(fixed).ids, 3, "head")
    found = pieces.ids_and_offsets(sliding)
    expected = (
        tokenization.windows(pieces.template, found, max_length=max_length, stride=stride),
        tokenization.windows(pieces.template, found, cut, max_length=max_length, stride=stride),
    )
    for one, other in zip(tf.nest.flatten(run(fixed, sliding)), tf.nest.flatten(expected), strict=True):
        np.testing.assert_array_equal(one, other)
    for rows in run(tf.constant([], tf.string), tf.constant([], tf.string)):
        assert rows.example.shape == (0,) and int(rows.count) == 0


def test_a_text_without_pieces_is_a_row_of_special_tokens(tokenizer):
    pieces = tokenization.RustPieces(tokenizer)
    rows = tokenization.windows(pieces.template, pieces.ids_and_offsets(["", "good"]), max_length=8)
    assert dense(rows, "input_ids")[0] == [tokenizer.cls_token_id, tokenizer.sep_token_id]
    assert rows.owned.numpy().tolist() == [[False, False, False], [False, True, False]]
    assert rows.piece.numpy().tolist() == [[-1, -1, -1], [-1, 0, -1]]


def test_a_fixed_text_that_leaves_less_room_than_the_stride_makes_the_overlap_one_less_than_the_room(tokenizer):
    pieces = tokenization.RustPieces(tokenizer)
    fixed = pieces.ids_and_offsets(["good bad fine", ""]).ids  # of max_length 8, they leave a room of 2 and of 5
    sliding = pieces.ids_and_offsets(["film plot actor scene", "film plot actor scene boring lovely"])
    rows = tokenization.windows(pieces.template, sliding, fixed, max_length=8, stride=3)
    windows = [[k for k in row if k >= 0] for row in rows.piece.numpy().tolist()]
    assert windows == [[0, 1], [1, 2], [2, 3], [0, 1, 2, 3, 4], [2, 3, 4, 5]]
    assert rows.example.numpy().tolist() == [0, 0, 0, 1, 1]


def test_a_stride_as_long_as_the_room_is_told(tokenizer):
    pieces = tokenization.RustPieces(tokenizer)
    with pytest.raises(
        InputError, match="stride is 6; it must be at least 0 and less than the 6 tokens that max_length 8"
    ):
        tokenization.windows(pieces.template, pieces.ids_and_offsets(["good"]), max_length=8, stride=6)


def test_head_and_tail_of_512_are_128_and_382():
    ids = tf.RaggedTensor.from_row_lengths(tf.range(1510), [1000, 510])
    first, second = tokenization.keep(ids, 510, "head+tail").to_list()
    assert first == [*range(128), *range(1000 - 382, 1000)] and second == list(range(1000, 1510))
    assert tokenization.keep(ids, 3, "tail").to_list() == [[997, 998, 999], [1507, 1508, 1509]]
    assert tokenization.keep(ids, tf.constant([2, 0]), "tail").to_list() == [[998, 999], []]
    with pytest.raises(InputError, match="way is 'middle'"):
        tokenization.keep(ids, 3, "middle")


def test_the_tail_of_a_pair_is_cut_to_the_lengths_of_longest_first(tokenizer):
    pieces = tokenization.RustPieces(tokenizer)
    first, second = (pieces.ids_and_offsets(texts(30, seed)).ids for seed in (6, 7))
    head = pieces.template.assemble(first, second, max_length=16)
    tail = pieces.template.assemble(first, second, max_length=16, way="tail")
    np.testing.assert_array_equal(head["attention_mask"], tail["attention_mask"])
    np.testing.assert_array_equal(head["token_type_ids"], tail["token_type_ids"])
    room, lengths = 13, [row.shape[0] for row in first]
    for row, (one, other) in enumerate(zip(first.to_list(), second.to_list())):
        types, mask = tail["token_type_ids"][row].numpy(), tail["attention_mask"][row].numpy()
        kept = int((types[mask > 0] == 0).sum()) - 2, int(types.sum()) - 1
        assert sum(kept) == min(room, len(one) + len(other)) and lengths[row] == len(one)
        expected = [*one[len(one) - kept[0] :], tokenizer.sep_token_id, *other[len(other) - kept[1] :]]
        assert tail["input_ids"][row].numpy()[1 : len(expected) + 1].tolist() == expected


def same(one: tokenization.Pieces, other: tokenization.Pieces) -> None:
    for name in tokenization.Pieces._fields:
        np.testing.assert_array_equal(getattr(one, name).values, getattr(other, name).values)
        np.testing.assert_array_equal(getattr(one, name).row_splits, getattr(other, name).row_splits)


def test_rust_and_graph_give_the_same_pieces_of_hard_texts_and_of_bytes_that_are_no_text(tokenizer, graph):
    pieces = tokenization.RustPieces(tokenizer)
    same(pieces.ids_and_offsets(HARD_TEXTS), graph.ids_and_offsets(tf.constant(HARD_TEXTS)))
    rng = np.random.default_rng(8)
    alphabet = np.frombuffer(b" ab\x80\x9f\xa0\xbf\xc3\xe2\xed\xf0\xf4\xff", np.uint8)
    broken = tf.constant(
        [b"\xf0\x9f\x98 x", b"a\xed\xa0\x80b", *(rng.choice(alphabet, 12).tobytes() for _ in range(500))]
    )
    same(pieces.ids_and_offsets(broken), graph.ids_and_offsets(broken))


def test_more_texts_than_are_encoded_at_a_time_keep_their_order(tokenizer):
    given = texts(2500, 9, most=4)
    found = tokenization.RustPieces(tokenizer).ids_and_offsets(given)
    expected = tokenizer(given, add_special_tokens=False, return_offsets_mapping=True)
    assert found.ids.to_list() == expected["input_ids"]
    offsets = [list(zip(*row)) for row in zip(found.start.to_list(), found.end.to_list())]
    assert offsets == expected["offset_mapping"]


@pytest.mark.data
@pytest.mark.parametrize("name", ["bert-base-uncased", "bert-base-multilingual-cased"])
def test_rust_and_graph_give_the_same_pieces_of_real_lines(data, name):
    lines = (data / "wikitext2" / "valid.txt").read_text("utf-8").split("\n")[:1000]
    for file in sorted((data / "xquad").glob("*.json")):
        for article in json.loads(file.read_text("utf-8"))["data"][:12]:
            for paragraph in article["paragraphs"]:
                lines += [paragraph["context"], *(row["question"] for row in paragraph["qas"])]
    assert len(lines) > 3000
    tokenizer = tokenization.load_tokenizer(data / "tokenizers" / name)
    graph = tokenization.graph_tokenizer(tokenizer)
    same(tokenization.RustPieces(tokenizer).ids_and_offsets(lines), graph.ids_and_offsets(tf.constant(lines)))
