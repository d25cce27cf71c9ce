"""Byte-level BPE as TensorFlow operations, against the Rust tokenizer: a vocabulary trained here, and those of GPT-2 and RoBERTa."""

from __future__ import annotations

import csv
import importlib.util
import json
import random
import zipfile
from pathlib import Path

import numpy as np
import pytest
import tokenizers
from tokenizers import pre_tokenizers, processors

from tfbert._compat import tf, transformers
from tfbert.errors import InputError
from tfbert.serving.hard_texts import HARD_TEXTS
from tfbert.serving.operations import unservable
from tfbert.tokenization import RustPieces, Vocabulary, encode, graph_tokenizer, load_tokenizer, merging

ROOT = Path(__file__).resolve().parents[1]
_SPEC = importlib.util.spec_from_file_location("parity", ROOT / "benchmarks" / "parity.py")
parity = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(parity)

SPECIALS = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
TEXTS = [
    *HARD_TEXTS,
    "'s 's's !'s I'll'd \n's 1's a'sb '' 'S we'v they'rexyz don't'",
    " a  b   c \n\n d\t e\u00a0f \u2003 g  ",
    "a'", "'l", "l", "'", "e've", "\ta", "a\t", "x  ", "<|endoftext|> <mask>", "\ufeffé\0 é",
]  # fmt: skip


@pytest.fixture(scope="module")
def trained() -> str:
    """A vocabulary of all bytes and some merges, of the bundled sentences and the hard texts, as tokenizer.json has it."""
    with (ROOT / "examples" / "data" / "delivery_train.csv").open(encoding="utf-8", newline="") as file:
        corpus = [row["text"] for row in csv.DictReader(file)] + 3 * TEXTS
    backend = tokenizers.Tokenizer(tokenizers.models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=900, special_tokens=SPECIALS, initial_alphabet=alphabet, show_progress=False
    )
    backend.train_from_iterator(corpus, trainer)
    backend.decoder = tokenizers.decoders.ByteLevel()
    return backend.to_str()


def made(trained: str, *, post=None, prefix: bool = False, **changes):
    """A tokenizer of this vocabulary; `changes` are of its model's settings."""
    settings = json.loads(trained)
    settings["model"] |= changes
    backend = tokenizers.Tokenizer.from_str(json.dumps(settings))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=prefix)
    if post is not None:
        backend.post_processor = post
    names = dict(zip(("bos_token", "pad_token", "eos_token", "unk_token", "mask_token"), SPECIALS, strict=True))
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=backend, cls_token="<s>", sep_token="</s>", split_special_tokens=True, **names
    )
    tokenizer.backend_tokenizer.encode_special_tokens = True
    return tokenizer


def roberta(trained: str, trim: bool = True, prefix: bool = False):
    post = processors.RobertaProcessing(("</s>", 2), ("<s>", 0), trim_offsets=trim, add_prefix_space=prefix)
    return made(trained, post=post, prefix=prefix)


def mixtures(count: int, seed: int) -> list[str]:
    """Strings in which any kind of character may follow any other."""
    chance = random.Random(seed)
    pools = ["'", " ", " \t\n\u00a0\u2003\x85", "stmdrevl", "abcSTé中ß", "019½٣", "!-_'\ufffd\u0301😀\u200b", "\0"]
    return ["".join(chance.choice(chance.choice(pools)) for _ in range(chance.randrange(1, 16))) for _ in range(count)]


# --- ids, offsets and words ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "prefix"),
    [("gpt2", True), ("trimmed", True), ("roberta", False), ("roberta", True), ("untrimmed", False), ("both", True)],
)
def test_everything_equals_the_rust_tokenizer(trained, kind, prefix):
    post = {
        "gpt2": processors.ByteLevel(trim_offsets=False),
        "trimmed": processors.ByteLevel(trim_offsets=True, add_prefix_space=not prefix),
        "both": processors.Sequence(
            [
                processors.ByteLevel(trim_offsets=True, add_prefix_space=prefix),
                processors.RobertaProcessing(("</s>", 2), ("<s>", 0), trim_offsets=True, add_prefix_space=False),
            ]
        ),
    }
    tokenizer = (
        made(trained, post=post[kind], prefix=prefix) if kind in post else roberta(trained, kind == "roberta", prefix)
    )
    assert parity.differing(graph_tokenizer(tokenizer), tokenizer, TEXTS + mixtures(3000, seed=len(kind))) == []


def test_every_kind_of_code_point(trained):
    """All of the first planes' letters and signs, each 64th of the rest; benchmarks/parity.py takes all."""
    tokenizer = roberta(trained)
    points = [c for c in (*range(0x3400), *range(0x3400, 0x110000, 61)) if not 0xD800 <= c <= 0xDFFF]
    assert parity.differing(graph_tokenizer(tokenizer), tokenizer, [f"a{chr(c)}b {chr(c)}1" for c in points]) == []


@pytest.mark.parametrize("prefix", [False, True])
def test_bytes_that_are_no_text_are_replacement_characters(trained, prefix):
    tokenizer, chance = roberta(trained, prefix=prefix), random.Random(3)
    pool = [0x20, 0x41, 0x80, 0xBF, 0xC0, 0xC3, 0xE2, 0xED, 0xA0, 0xF0, 0x9F, 0xF4, 0x90, 0xFF]
    raw = [bytes(chance.choice(pool) for _ in range(chance.randrange(1, 9))) for _ in range(3000)]
    found = tf.function(graph_tokenizer(tokenizer).ids_and_offsets)(tf.constant(raw))
    expected = RustPieces(tokenizer).ids_and_offsets(tf.constant(raw))
    for one, other in zip(found, expected, strict=True):
        assert one.to_list() == other.to_list()


def test_no_piece_of_a_loaded_tokenizer_begins_with_a_space(trained, tmp_path):
    """GPT-2's own offsets do; an entity or answer must not."""
    texts = ["Ada met  Grace", "a \n b", ""]
    for prefix in (False, True):
        tokenizer = made(trained, post=processors.ByteLevel(trim_offsets=False), prefix=prefix)
        tokenizer.save_pretrained(tmp_path)
        for _ in range(2):  # as it is, and as it was saved
            loaded = load_tokenizer(tmp_path)
            rows = loaded(texts, return_offsets_mapping=True)
            places = [text[start:end] for text, row in zip(texts, rows["offset_mapping"]) for start, end in row]
            assert "".join(places) == "AdametGracea\nb"
            assert rows["input_ids"] == tokenizer(texts)["input_ids"]
            assert loaded.backend_tokenizer.post_processor.num_special_tokens_to_add(False) == 0
            processors_now = json.loads(loaded.backend_tokenizer.to_str())["post_processor"]["processors"]
            assert [part["trim_offsets"] for part in processors_now] == [False, True]
            loaded.save_pretrained(tmp_path)
        assert parity.differing(graph_tokenizer(loaded), loaded, TEXTS) == []


def test_special_tokens_in_a_text_are_text(trained):
    tokenizer = roberta(trained)
    text = "<s> a</s><mask> <pad><unk> <|endoftext|>"
    found = graph_tokenizer(tokenizer).tokenize(tf.constant([text])).to_list()[0]
    assert not set(found) & set(range(5))
    assert tokenizer.backend_tokenizer.decode(found) == text


# --- merges ----------------------------------------------------------------------------------------------------------


def by_hand(merges: list[tuple[int, int, int]], ids: list[int]) -> list[int]:
    """The merge of the lowest rank, of equal ones the left, again and again."""
    ranks = {(a, b): (rank, c) for rank, (a, b, c) in enumerate(merges)}
    while found := [(ranks[pair][0], i) for i, pair in enumerate(zip(ids, ids[1:])) if pair in ranks]:
        _, i = min(found)
        ids = [*ids[:i], ranks[ids[i], ids[i + 1]][1], *ids[i + 2 :]]
    return ids


@pytest.mark.parametrize("seed", range(6))
def test_long_words_are_merged_in_parts(seed, monkeypatch):
    """Words of 1 to 90 symbols in parts of 3, by random merges: those that repeat themselves must be put right from end to end."""
    monkeypatch.setattr(merging, "_CHUNK", 3)
    chance = random.Random(seed)
    names, merges = ["a", "b", "c"][: 1 + seed % 3], []
    for _ in range(25):
        left, right = chance.choices(names, k=2)
        if left + right not in names:
            names.append(left + right)
            merges.append((names.index(left), names.index(right), len(names) - 1))
    letters = range(1 + seed % 3)
    words = [chance.choices(letters, k=chance.randrange(1, 91)) for _ in range(60)]
    words += [(chance.choices(letters, k=k % 8 + 1) * 90)[: 20 + k] for k in range(40)]
    splits = np.cumsum([0, *map(len, words)]).astype(np.int32)
    run = tf.function(merging.Merges(merges), input_signature=[tf.TensorSpec([None], tf.int32)] * 2)
    ids, place, found = run(tf.constant(sum(words, []), tf.int32), splits)
    expected = [by_hand(merges, word) for word in words]
    assert tf.RaggedTensor.from_row_splits(ids, found).to_list() == expected
    lengths = np.array([len(names[i]) for i in ids.numpy()])
    np.testing.assert_array_equal(place, np.cumsum(lengths) - lengths)


def test_words_of_many_thousand_characters(trained):
    tokenizer, chance = roberta(trained), random.Random(5)
    texts = [piece * (40_000 // len(piece)) for piece in ("a", " ", "ab", "the", "-=", "\0", "中文字")]
    texts += ["".join(chance.choices("etaoinshrdlu", k=40_000)) + "abc" * 10_000, "b", "é" * 99]
    assert parity.differing(graph_tokenizer(tokenizer), tokenizer, texts) == []


# --- rows ------------------------------------------------------------------------------------------------------------


def test_rows_and_pairs_equal_the_tokenizer(trained):
    tokenizer = roberta(trained)
    graph, texts = graph_tokenizer(tokenizer), ["", " ", "Where is my parcel?", "it's late", "中文 text"]
    first, second = [a for a in texts for _ in texts], [b for _ in texts for b in texts]
    for max_length in (5, 9):
        expected = tokenizer(first, second, padding=True, truncation="longest_first", max_length=max_length)
        found = tf.function(graph)(tf.constant(first), tf.constant(second), max_length=max_length)
        assert {name: tensor.numpy().tolist() for name, tensor in found.items()} == dict(expected)


def test_without_special_tokens_an_empty_text_is_an_empty_row(trained):
    tokenizer = made(trained, post=processors.ByteLevel(trim_offsets=False))
    graph = graph_tokenizer(tokenizer)
    rows = graph(tf.constant(["", "a b", ""]), max_length=8)
    assert rows["attention_mask"].numpy().tolist() == [[0, 0], [1, 1], [0, 0]]
    assert rows["input_ids"][1].numpy().tolist() == encode(tokenizer, ["a b"], max_length=8)["input_ids"][0].tolist()
    for texts in ([], [""], ["", ""]):
        rows = graph(tf.constant(texts, tf.string), max_length=8)
        assert rows["attention_mask"].numpy().tolist() == [[0]] * len(texts)
        assert graph.ids_and_offsets(tf.constant(texts, tf.string)).word.to_list() == [[]] * len(texts)


# --- what is refused -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"dropout": 0.1}, "its model has dropout = 0.1"),
        ({"ignore_merges": True}, "its model has ignore_merges = True"),
        ({"end_of_word_suffix": "</w>"}, "its model has end_of_word_suffix = '</w>'"),
        ({"normalizer": tokenizers.normalizers.NFC()}, "its normalizer is NFC; a byte-level BPE's may have none"),
        ({"pre_tokenizer": pre_tokenizers.ByteLevel(use_regex=False)}, 'its pre-tokenizer is {"type": "ByteLevel", '),
        (
            {"pre_tokenizer": pre_tokenizers.Sequence([pre_tokenizers.Digits(), pre_tokenizers.ByteLevel()])},
            'its pre-tokenizer is {"type": "Sequence", "pretokenizers": [{"type": "Digits", ',
        ),
    ],
)
def test_what_the_graph_cannot_repeat_is_refused(trained, changes, reason):
    tokenizer = made(trained, **{k: v for k, v in changes.items() if not k.endswith("izer")})
    for name in changes.keys() & {"normalizer", "pre_tokenizer"}:
        setattr(tokenizer.backend_tokenizer, name, changes[name])
    with pytest.raises(InputError) as error:
        graph_tokenizer(tokenizer)
    assert str(error.value).startswith(f"this tokenizer cannot be put in the graph exactly: {reason}")


def small(entries: list[str], merges: list[str], **options):
    """A byte-level tokenizer of a few entries."""
    vocabulary = {entry: i for i, entry in enumerate(entries)}
    model = tokenizers.models.BPE(vocabulary, [tuple(merge.split()) for merge in merges], **options)
    backend = tokenizers.Tokenizer(model)
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    return transformers.PreTrainedTokenizerFast(tokenizer_object=backend, pad_token="a", split_special_tokens=True)


def test_bytes_that_the_vocabulary_lacks(trained):
    """Each is the unknown token; one token for several, or none at all, is refused."""
    tokenizer = small(["a", "b", "ab", "?", "Ġ", "Ġa"], ["a b", "Ġ a"], unk_token="?")
    assert parity.differing(graph_tokenizer(tokenizer), tokenizer, [*TEXTS, "abcab  ab a"]) == []
    for options in ({}, {"unk_token": "?", "fuse_unk": True}):
        with pytest.raises(InputError, match=r"its vocabulary lacks 24\d bytes \(0x00, ...\) and has no plain unknown"):
            graph_tokenizer(small(["a", "b", "ab", "?"], ["a b"], **options))


def test_merges_out_of_order_are_refused(trained):
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    with pytest.raises(InputError, match="its merge 'ab' 'c' comes before one that makes a part of it"):
        graph_tokenizer(small([*alphabet, "ab", "abc"], ["ab c", "a b"]))
    with pytest.raises(InputError, match=r"it merges its unknown token, '\?'"):
        graph_tokenizer(small([*alphabet, "a?"], ["a ?"], unk_token="?"))


# --- ids to text -----------------------------------------------------------------------------------------------------


def test_ids_become_the_text_that_the_tokenizer_decodes(trained):
    """Any ids, special ones among them: characters cut in the middle become U+FFFD as in Rust."""
    tokenizer, chance = roberta(trained), random.Random(9)
    size = len(tokenizer)
    rows = [chance.choices(range(size), k=chance.randrange(12)) for _ in range(400)]
    rows += [chance.choices(range(5, 262), k=chance.randrange(12)) for _ in range(2000)]  # single bytes
    rows += [ids[i:-1] for ids in tokenizer(TEXTS)["input_ids"] for i in (0, 1, 2)]
    expected = [
        tokenizer.decode(row, skip_special_tokens=True, clean_up_tokenization_spaces=False).encode() for row in rows
    ]
    graph, ragged = graph_tokenizer(tokenizer), tf.ragged.constant(rows, dtype=tf.int32)
    assert graph.detokenize(ragged).numpy().tolist() == expected
    dense = ragged.to_tensor(-1)
    assert graph.detokenize(dense).numpy().tolist() == expected
    assert RustPieces(tokenizer).detokenize(dense).numpy().tolist() == expected
    assert graph.detokenize(tf.constant([[size, 10**6, -5]])).numpy().tolist() == [b""]
    assert any("\ufffd".encode() in text for text in expected)


def test_other_decoders(tiny):
    """WordPiece's takes spaces from before punctuation, Metaspace's none from before the first word; others are refused."""
    tokenizer, chance = load_tokenizer(tiny), random.Random(2)
    rows = [chance.choices(range(-1, len(tokenizer)), k=chance.randrange(9)) for _ in range(500)]
    expected = [
        tokenizer.decode([i for i in row if i >= 0], skip_special_tokens=True, clean_up_tokenization_spaces=False)
        for row in rows
    ]
    ids = tf.ragged.constant(rows, dtype=tf.int32)
    assert [text.decode() for text in graph_tokenizer(tokenizer).detokenize(ids).numpy()] == expected
    for decoder in (tokenizers.decoders.Metaspace(), None):
        backend = tokenizers.Tokenizer(tokenizers.models.WordLevel({"▁a": 0, "b": 1, "▁": 2, "c▁d": 3}, "b"))
        if decoder:
            backend.decoder = decoder
        tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=backend)
        rows = [[0, 0, 1], [1, 2, 3], [2, 2], [3, 0], []]
        expected = [tokenizer.decode(row, clean_up_tokenization_spaces=False).encode() for row in rows]
        ids = tf.ragged.constant(rows, dtype=tf.int32)
        assert Vocabulary(tokenizer).text(ids).numpy().tolist() == expected
    backend.decoder = tokenizers.decoders.BPEDecoder()
    with pytest.raises(InputError, match="the tokenizer's decoder is BPEDecoder, not ByteLevel"):
        Vocabulary(transformers.PreTrainedTokenizerFast(tokenizer_object=backend)).text(ids)


# --- the export, and real vocabularies ----------------------------------------------------------------------------------


def test_the_exported_graph_has_stock_operations_only(trained, tmp_path):
    tokenizer = roberta(trained)
    graph, module = graph_tokenizer(tokenizer), tf.Module()
    texts = tf.TensorSpec([None], tf.string, "text")
    module.rows = tf.function(lambda text: graph(text, max_length=12), input_signature=[texts])
    module.pieces = tf.function(lambda text: graph.ids_and_offsets(text)._asdict(), input_signature=[texts])
    module.text = tf.function(graph.detokenize, input_signature=[tf.TensorSpec([None, None], tf.int32)])
    tf.saved_model.save(module, str(tmp_path))
    assert unservable(tmp_path, "2.19") == unservable(tmp_path, "2.20") == []
    content = (tmp_path / "saved_model.pb").read_bytes()
    assert b"TFText" not in content and b"Wordpiece" not in content
    loaded = tf.saved_model.load(str(tmp_path))
    long = [*TEXTS, "abc" * 5000]
    found, pieces = loaded.pieces(tf.constant(long)), RustPieces(tokenizer)
    for name, expected in pieces.ids_and_offsets(long)._asdict().items():
        assert found[name].to_list() == expected.to_list()
    ids = loaded.rows(tf.constant(long))["input_ids"]
    assert ids.numpy().tolist() == tokenizer(long, padding=True, truncation=True, max_length=12)["input_ids"]
    assert loaded.text(ids).numpy().tolist() == pieces.detokenize(ids).numpy().tolist()


@pytest.mark.data
@pytest.mark.parametrize("name", ["gpt2", "roberta-base"])
def test_real_vocabularies(data, name):
    tokenizer = parity.load(data / "tokenizers" / name)
    texts = (data / "unicode" / "emoji-test.txt").read_text(encoding="utf-8").splitlines()[::10]
    texts += json.loads((data / "unicode" / "blns.json").read_text(encoding="utf-8"))
    texts += (data / "wikitext2" / "valid.txt").read_text(encoding="utf-8").splitlines()[:600]
    for place in sorted((data / "udhr").glob("*.zip")):
        with zipfile.ZipFile(place) as archive:
            for member in archive.namelist():
                texts += archive.read(member).decode("utf-8", "replace").splitlines()[6:8]
    assert len(texts) > 1500
    graph = graph_tokenizer(tokenizer)
    assert parity.differing(graph, tokenizer, texts) == []
    ids = RustPieces(tokenizer).ids_and_offsets(texts).ids
    clean = [text.encode("utf-8", "surrogatepass").decode("utf-8", "replace").encode() for text in texts]
    assert graph.detokenize(ids).numpy().tolist() == clean
