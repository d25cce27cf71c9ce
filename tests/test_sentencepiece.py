"""SentencePiece tokenizers as TensorFlow ops, against the Rust tokenizers, on models trained here."""

from __future__ import annotations

import io
import json
import random

import numpy as np
import pytest
import sentencepiece
import tokenizers

from tfbert import tasks
from tfbert._compat import tf, transformers
from tfbert.errors import InputError
from tfbert.serving.operations import unservable
from tfbert.sources import from_iterable
from tfbert.tokenization import RustPieces, graph_tokenizer, graphemes, load_tokenizer

SENTENCES = """the great film was not a bad film and the plot is lovely (very lovely) - said the actor.
un grand film n'est pas un petit film : le garçon a été là-bas, où l'acteur « jouait » déjà
der große Schauspieler spielt in Zürich; 12,000 Leute kosten 3.50 € oder £4
映画は素晴らしい 俳優 ｶﾀｶﾅ ２００ 각 한국어 영화 हिन्दी की फ़िल्म ภาพยนตร์ดีมาก
aaa aaaa bbbb --- ... "quoted" and (bracketed) words, ﬁne ½ ™ … — the end""".splitlines()
TEXTS = [
    "the great film",
    "",
    " ",
    " \t\n ",
    "  two  spaces   here  ",
    "``quoted'' '''x''' ``` ''''",
    "<unk></s>[SEP] a<mask>b<s>x</s> [MASK] <extra_id_0> <sep",
    "▁the▁film ▁ ▁▁",
    "n'était—là… 3.50€ (a)-(b) -- . .. \"",
    "e\u0301 e\u0301\u0323 o\u0323\u0302 \u0344 \u1e9b\u0323 a\u20dd ｶ\u3099 \u00a8\u0301",
    "\u0301x \x01\x02a\x03 \x01e\u0301 ™\u0301 \u2122\x02g",
    "각 \u1100\u1161\u11a8 \u1100\uac00\u11a8 क्\u200dष क\u093c \u0958\u0300 คำ",
    "©\u200d©\u0301 👩\u200d👩\u200d👧 🇩🇪🇫🇷 👍🏽 \ufe0f \u200b\u00ad\ufeff",
    "\r\n a\rb \u0600a \u0600\u0301 \ufdfa \ufb01 ½ ㌀ \u3000 \u00a0 \u2003",
    "nul\0 \ufffd \ue000 \U000f0000 \U0010ffff",
    "x" * 300 + "a" * 300 + "漢字" * 100,
    "HELLO İstanbul ΣΑΣ ẞ Ǆ",
]


def random_texts(seed: int, count: int) -> list[str]:
    """Strings of what is difficult, of letters, and of any code points."""
    chance = random.Random(seed)
    pools = [
        *[list(map(ord, "the film actor ab"))] * 4,
        *[list(range(0x20, 0x7F))] * 3,
        list(range(0x80, 0x400)),
        list(range(0x300, 0x370)),
        [0x20],
        list(map(ord, "`'.-(\"€▁")),
        [0xA0, 0x3000, 0x2002, 9, 10, 13, *range(0x20)],
        [*range(0x900, 0x980), *range(0x1100, 0x1200), *range(0xAC00, 0xAC40)],
        [0x200D, 0xFE0F, 0x200B, 0xAD, 0xFEFF, 0xFDFA, 0x2122, 0xB4, 0x344, 0x1E9B, 0x323],
        [*range(0x1F300, 0x1F650), *range(0x600, 0x660), *range(0xFF00, 0xFFEF)],
        [c for c in range(0x110000) if not 0xD800 <= c <= 0xDFFF],
    ]
    strings = ["</s>", "<unk>", "[SEP]", "<extra_id_1>", "the ", "  ", "<b>"]
    return [
        "".join(
            chr(chance.choice(chance.choice(pools))) if chance.random() < 0.95 else chance.choice(strings)
            for _ in range(chance.randrange(1, 13))
        )
        for _ in range(count)
    ]


def differences(graph, backend, texts: list[str]) -> list[str]:
    """The texts whose ids, offsets or word numbers the graph gives differently, but for the white space that a piece begins with."""
    call = tf.function(graph.ids_and_offsets, input_signature=[tf.TensorSpec([None], tf.string)])
    rows = zip(*(part.to_list() for part in call(tf.constant(texts))), strict=True)
    wrong = []
    for text, row, expected in zip(texts, rows, backend.encode_batch(texts, add_special_tokens=False), strict=True):
        starts, ends = (
            [end - len(text[start:end].lstrip()) for start, end in expected.offsets],
            [end for _, end in expected.offsets],
        )
        if row != (expected.ids, starts, ends, expected.word_ids):
            wrong.append(text)
    return wrong


@pytest.fixture(scope="module")
def proto() -> bytes:
    """A SentencePiece model with the rules of nmt_nfkc and symbols of its own."""
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(SENTENCES * 4),
        model_writer=model,
        vocab_size=230,
        character_coverage=1.0,
        user_defined_symbols=["-", ".", "<b>", "€"],
        control_symbols=["[CLS]", "[SEP]", "[MASK]"],
        pad_id=3,
        hard_vocab_limit=False,
        minloglevel=2,
    )
    return model.getvalue()


FILES = {
    "albert": "spiece.model",
    "xlnet": "spiece.model",
    "t5": "spiece.model",
    "xlm-roberta": "sentencepiece.bpe.model",
    "deberta-v2": "spm.model",
}


@pytest.fixture(scope="module", params=FILES)
def tokenizer(request, proto, tmp_path_factory):
    """The tokenizer of each model type, made of the same SentencePiece model."""
    folder = tmp_path_factory.mktemp(request.param)
    (folder / FILES[request.param]).write_bytes(proto)
    (folder / "config.json").write_text(json.dumps({"model_type": request.param}), encoding="utf-8")
    return load_tokenizer(folder)


def made(model, pre_tokenizer, normalizer=None, **settings):
    """A fast tokenizer of parts."""
    backend = tokenizers.Tokenizer(model)
    backend.pre_tokenizer, backend.decoder = pre_tokenizer, tokenizers.decoders.Metaspace()
    if normalizer:
        backend.normalizer = normalizer
    backend.encode_special_tokens = True
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=backend, unk_token="<unk>", split_special_tokens=True, **settings
    )
    tokenizer.backend_tokenizer.encode_special_tokens = True
    return tokenizer


def test_difficult_and_any_other_strings(tokenizer):
    graph = graph_tokenizer(tokenizer)
    assert differences(graph, tokenizer.backend_tokenizer, TEXTS + SENTENCES) == []
    assert differences(graph, tokenizer.backend_tokenizer, random_texts(1, 3000)) == []


@pytest.mark.parametrize("tokenizer", ["albert"], indirect=True)
def test_every_code_point_that_is_not_like_its_neighbours(tokenizer):
    """Of those that are normalized or take part in graphemes, 2,500, beside a letter, a space, and each other."""
    normalize, properties = tokenizer.backend_tokenizer.normalizer.normalize_str, graphemes.grapheme_properties()
    points = [c for c in (*range(0xAC00), *range(0xF900, 0x20000)) if properties[c] or normalize(chr(c)) != chr(c)]
    texts = [f"{chr(c)}a{chr(c)} {chr(c)}{chr(c)}" for c in random.Random(4).sample(points, 2500)]
    assert differences(graph_tokenizer(tokenizer), tokenizer.backend_tokenizer, texts) == []


def test_graphemes_end_where_the_rust_tokenizers_have_them_end():
    chance, properties = random.Random(3), graphemes.grapheme_properties()[:0x110000]
    kinds = [np.flatnonzero(properties & 1 << bit).tolist() for bit in range(16)]
    pools = [[c for c in kind if c not in (0, 10, 13)] for kind in kinds]
    pools = [pool for pool in pools if pool] + [[0x61, 0x300], [0x1F1E6], [0x903]]
    texts = [
        "".join(chr(chance.choice(chance.choice(pools))) for _ in range(chance.randrange(1, 9))) for _ in range(9000)
    ]
    codes = tf.constant([c for text in texts for c in (0x110000, *map(ord, text))])
    begins = graphemes.grapheme_begins(graphemes.property_table()(codes)).numpy()
    number = np.cumsum(begins) - 1
    size = np.array([len(chr(c).encode()) if c < 0x110000 else 0 for c in codes.numpy()])
    marks = np.where(np.bincount(number, size) < 6, 1, np.bincount(number)) * (np.bincount(number, size) > 0)
    text = (np.cumsum(codes.numpy() == 0x110000) - 1)[begins]
    assert np.bincount(text, marks).astype(int).tolist() == graphemes._counts(texts).tolist()


def test_sums_that_are_equal_but_for_rounding():
    """Runs of one letter: pieces in any order spell the same, and only the last digits of float64 sums tell which way is taken."""
    chance = random.Random(5)
    pieces = {"a": -3.1, "aa": -5.3, "aaa": -7.7, "ab": -6.4, "ba": -6.4, "b": -3.3, "▁": -2.0, "▁a": -5.2, "aab": -8.4}
    vocabulary = [("<unk>", 0.0), *pieces.items()]
    tokenizer = made(tokenizers.models.Unigram(vocabulary, 0), tokenizers.pre_tokenizers.Metaspace())
    texts = ["a" * n for n in range(1, 60)] + ["a" * n + "b" * 3 + "a" * 200 for n in (127, 128, 129, 600)]
    texts += ["".join(chance.choice("aaab c") for _ in range(chance.randrange(1, 70))) for _ in range(1000)]
    assert differences(graph_tokenizer(tokenizer), tokenizer.backend_tokenizer, texts) == []


@pytest.mark.parametrize(
    ("white", "scheme", "split"),
    [(True, "first", True), (True, "always", True), (False, "never", True), (False, "first", False)],
)
def test_ways_to_cut_words(white, scheme, split):
    parts = tokenizers.pre_tokenizers
    cut = parts.Metaspace("▁", scheme, split)
    trained = tokenizers.Tokenizer(tokenizers.models.Unigram())
    trained.pre_tokenizer = cut
    trainer = tokenizers.trainers.UnigramTrainer(
        vocab_size=150, unk_token="<unk>", special_tokens=["<unk>", "<pad>"], show_progress=False
    )
    trained.train_from_iterator(SENTENCES, trainer)
    lower = tokenizers.normalizers.Sequence([tokenizers.normalizers.NFKD(), tokenizers.normalizers.Lowercase()])
    tokenizer = made(trained.model, parts.Sequence([parts.WhitespaceSplit(), cut]) if white else cut, lower)
    tokenizer.add_tokens([tokenizers.AddedToken("<b>", normalized=False), tokenizers.AddedToken(".", normalized=False)])
    graph = graph_tokenizer(tokenizer)
    assert differences(graph, tokenizer.backend_tokenizer, TEXTS + SENTENCES + random_texts(2, 1000)) == []


@pytest.mark.parametrize("tokenizer", ["t5", "xlnet"], indirect=True)
def test_rows_ids_and_texts_are_those_of_the_tokenizer(tokenizer):
    graph, twin = graph_tokenizer(tokenizer), RustPieces(tokenizer)
    texts = [text for text in TEXTS if len(text) < 100]
    for max_length in (6, 30):
        expected = tokenizer(texts, texts[::-1], padding=True, truncation="longest_first", max_length=max_length)
        found = graph(tf.constant(texts), tf.constant(texts[::-1]), max_length=max_length)
        right = (
            tokenizer.padding_side == "right"
        )  # XLNet's is left; the rows of the graph are always filled up on the right
        for row, ids, mask in zip(
            found["input_ids"].numpy(), expected["input_ids"], expected["attention_mask"], strict=True
        ):
            assert row[: sum(mask)].tolist() == [i for i, there in zip(ids, mask, strict=True) if there]
        assert not right or found["input_ids"].numpy().tolist() == expected["input_ids"]
    ids = graph(tf.constant(texts), max_length=64)["input_ids"]
    expected = tokenizer.batch_decode(ids.numpy(), skip_special_tokens=True, clean_up_tokenization_spaces=False)
    assert [text.decode() for text in graph.detokenize(ids).numpy()] == expected
    assert twin.detokenize(ids).numpy().tolist() == graph.detokenize(ids).numpy().tolist()


@pytest.mark.parametrize("tokenizer", ["t5"], indirect=True)
def test_bytes_that_are_no_text_and_batches_without_any(tokenizer):
    graph, twin = graph_tokenizer(tokenizer), RustPieces(tokenizer)
    raw = tf.constant(
        [b"a\xff b", b"\xc3", b"a \xed\xa0\x80b", b"\xf0\x9f\x99 a", b"\x80\x80", b"\xf4\x90\x80\x80a", b""]
    )
    found, expected = graph.ids_and_offsets(raw), twin.ids_and_offsets(raw)
    assert [part.to_list() for part in found] == [part.to_list() for part in expected]
    assert graph.ids_and_offsets(tf.zeros([0], tf.string)).word.to_list() == []
    assert graph(tf.constant(["", " "]), max_length=8)["input_ids"].numpy().tolist() == [[tokenizer.eos_token_id]] * 2


@pytest.mark.parametrize("tokenizer", ["albert"], indirect=True)
def test_the_graph_has_only_operations_of_tensorflow_serving(tokenizer, tmp_path):
    graph, module = graph_tokenizer(tokenizer), tf.Module()
    module.pieces = tf.function(
        lambda text: graph.ids_and_offsets(text)._asdict(),
        input_signature=[tf.TensorSpec([None], tf.string, "text")],
    )
    module.text = tf.function(graph.detokenize, input_signature=[tf.TensorSpec([None, None], tf.int32, "ids")])
    tf.saved_model.save(module, str(tmp_path))
    assert [unservable(tmp_path, target) for target in ("2.19", "2.20")] == [[], []]
    found = tf.saved_model.load(str(tmp_path)).pieces(tf.constant(TEXTS))
    expected = tokenizer.backend_tokenizer.encode_batch(TEXTS, add_special_tokens=False)
    assert found["ids"].to_list() == [row.ids for row in expected]


def test_what_the_graph_cannot_repeat_is_refused():
    vocabulary, parts = [("<unk>", 0.0), ("a", -1.0)], tokenizers.pre_tokenizers
    model, cut = tokenizers.models.Unigram(vocabulary, 0), parts.Metaspace()

    def reason(tokenizer):
        with pytest.raises(InputError, match="^this tokenizer cannot be put in the graph exactly: ") as error:
            graph_tokenizer(tokenizer)
        return str(error.value).split("exactly: ")[1].split("; train without")[0]

    assert reason(made(tokenizers.models.Unigram(vocabulary, None), cut)) == "it has no unknown token"
    assert reason(made(tokenizers.models.Unigram(vocabulary, 0, True), cut)) == "it turns unknown characters into bytes"
    assert reason(made(tokenizers.models.Unigram([("<unk>", 20.0)], 0), cut)) == "all its scores are above 10"
    assert reason(made(model, parts.Digits())) == "it cuts words with Digits, not with Metaspace"
    assert reason(made(model, parts.Sequence([cut, parts.Split("b", "isolated")]))) == (
        "it cuts words with the pattern {'String': 'b'}"
    )
    assert reason(made(model, cut, tokenizers.normalizers.NFKC())) == "it normalizes with NFKC"
    replace = tokenizers.normalizers.Replace(tokenizers.Regex("x+"), "y")
    assert reason(made(model, cut, replace)) == "it replaces 'x+' by 'y'"
    tokenizer = made(model, cut)
    tokenizer.add_tokens([tokenizers.AddedToken("ab", normalized=False), tokenizers.AddedToken("ba", normalized=False)])
    assert reason(tokenizer) == "it has the added tokens 'ab' and 'ba', which may overlap"
    tokenizer = made(model, cut)
    tokenizer.add_tokens(["covid"])
    assert reason(tokenizer) == (
        "it has the added token 'covid', which is looked for in normalized text, with the spaces beside it or as a word"
    )


def test_a_word_with_the_space_before_it_in_its_piece_gets_its_target(tokenizer):
    """In training and in scoring: a word begins where its piece does, which SentencePiece begins with the space."""
    words = ["the", "house", "was", "small", "-"]
    rows = [{"words": words, "tags": ["O", "B-LOC", "O", "B-ADJ", "O"]}]
    task = tasks.TokenClassification(max_length=32).from_data(from_iterable(rows))
    features = task.features(tokenizer, from_iterable(rows))
    labels, _ = features.targets
    assert [task.labels[i] for i in labels if i >= 0] == rows[0]["tags"]
    found = RustPieces(tokenizer).ids_and_offsets([" ".join(words)])
    starts, ends = found.start.to_list()[0], found.end.to_list()[0]
    assert {start for start, end in zip(starts, ends) if start < end} >= {0, 4, 10, 14, 20}


def test_the_scores_that_a_task_reads_are_those_of_the_graph(tokenizer):
    scores = [score for _, score in json.loads(tokenizer.backend_tokenizer.to_str())["model"]["vocab"]]
    again = tokenizers.Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    assert [score for _, score in json.loads(again.to_str())["model"]["vocab"]] == scores
