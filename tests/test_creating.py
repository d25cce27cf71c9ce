"""A checkpoint from nothing: the same bytes from the same text, weights as BERT draws them, tokens as the trainers give them."""

from __future__ import annotations

import json

import numpy as np
import pytest
from safetensors.numpy import load_file

import tfbert
from tfbert import models, tasks, tokenization
from tfbert._compat import transformers
from tfbert.errors import InputError
from tfbert.tokenization.training import STYLES

SPECIAL = [*STYLES["bert"].names.values()]
TEXTS = [
    "The quick brown fox jumps over the lazy dog . Ça va très bien ; 好 , said the fox ( α , β and γ ) .",
    "A dog and a fox were quick and lazy in turn ; the fox jumped , and the dog was jumped over .",
] * 3
SIZES = {"vocab_size": 100, "hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 3}


def sizes(kind: str) -> dict:
    return {**SIZES, "vocab_size": {"wordpiece": 92, "bpe": 290, "unigram": 48}[kind]}


@pytest.mark.parametrize(
    ("kind", "lowercase"),
    [("wordpiece", True), ("wordpiece", False), ("bpe", False), ("unigram", True), ("unigram", False)],
)
def test_the_same_text_gives_the_same_tokenizer(kind, lowercase):
    """The trainers alone do not: their hash tables have another order in each run."""
    size = sizes(kind)["vocab_size"]
    made = [tokenization.train_tokenizer(TEXTS, kind, vocab_size=size, lowercase=lowercase) for _ in range(4)]
    assert len({tokenizer.backend_tokenizer.to_str() for tokenizer in made}) == 1
    tokenizer = made[0]
    assert len(tokenizer) == size and tokenizer.all_special_ids == [1, 3, 0, 2, 4]
    assert tokenizer.convert_ids_to_tokens(range(5)) == SPECIAL
    words = "".join(tokenizer.tokenize("The A")).translate({ord(mark): None for mark in "#▁Ġ"})
    assert words == ("thea" if lowercase else "TheA")
    pair = tokenizer("a", "the dog")
    assert pair["input_ids"][0] == 2 and pair["input_ids"].count(3) == 2 and pair["input_ids"][-1] == 3
    first = pair["input_ids"].index(3) + 1
    assert pair["token_type_ids"] == [0] * first + [1] * (len(pair["input_ids"]) - first)


def test_word_pieces_are_merged_by_their_counts():
    """Of "ab" 9 times, "cb" twice and "b" once: the characters, and the one merge that the vocabulary has room for."""
    texts = ["ab " * 9 + "cb " * 2 + "b"]
    tokenizer = tokenization.train_tokenizer(texts, vocab_size=10)
    assert set(tokenizer.get_vocab()) - set(SPECIAL) == {"a", "b", "c", "##b", "ab"}
    with pytest.raises(InputError, match="1 line of 34 characters, has pieces for a vocabulary of 11 tokens only, and"):
        tokenization.train_tokenizer(texts, vocab_size=12)


def test_the_characters_that_unigram_has_no_piece_for_stand_in_their_order():
    pieces = [(token, 0.0) for token in SPECIAL]
    found = tokenization.training._in_order([*pieces, ("b", -1.0), ("ab", -1.0), ("d", -4.9998), ("c", -5.0)], 5)
    assert found[5:] == [("ab", -1.0), ("b", -1.0), ("d", -4.9999), ("c", -5.0)]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return models.create_checkpoint(tmp_path_factory.mktemp("made") / "small", TEXTS, seed=3, **SIZES)


def test_the_same_arguments_give_the_same_bytes_and_another_seed_other_weights(made, tmp_path):
    again = tfbert.create_checkpoint(tmp_path / "again", [{"text": text} for text in TEXTS], seed=3, **SIZES)
    other = tfbert.create_checkpoint(tmp_path / "other", TEXTS, seed=4, **SIZES)
    for file in made.iterdir():
        assert (again / file.name).read_bytes() == file.read_bytes(), file.name
        assert ((other / file.name).read_bytes() == file.read_bytes()) == (file.name != "model.safetensors")


def test_weights_are_drawn_as_bert_draws_them(made):
    weights = load_file(made / "model.safetensors")
    for name, values in weights.items():
        if name.endswith("bias"):
            assert (values == 0).all(), name
        elif "LayerNorm" in name:
            assert (values == 1).all(), name
        else:
            assert np.abs(values).max() <= 0.04 + 1e-6
    drawn = np.concatenate([values.ravel() for values in weights.values() if np.ptp(values)])
    # Of a normal distribution cut at two deviations 0.8796 of the deviation is left.
    assert len(drawn) > 18_000 and drawn.std() == pytest.approx(0.02 * 0.8796, rel=0.02)
    assert drawn.mean() == pytest.approx(0, abs=4e-4)
    assert weights["encoder.layer.1.intermediate.dense.weight"].shape == (96, 24)
    config = json.loads((made / "config.json").read_text())
    assert {name: config[name] for name in SIZES} == SIZES and config["architectures"] == ["BertModel"]


@pytest.mark.parametrize("kind", ["bpe", "unigram"])
def test_every_task_loads_it(kind, tmp_path):
    place = models.create_checkpoint(tmp_path / kind, TEXTS, tokenizer=kind, **sizes(kind))
    tokenizer = tfbert.load_tokenizer(place)
    assert len(tokenizer) == sizes(kind)["vocab_size"] and tokenizer.tokenize("[SEP]") != ["[SEP]"]
    task = tasks.SequenceClassification(labels=("a", "b"), max_length=32)
    (answer,) = tfbert.predict(task, task.build(place), tokenizer, ["the fox"])
    assert answer["label"] in ("a", "b")
    # And Transformers by itself.
    theirs = transformers.AutoTokenizer.from_pretrained(place)
    assert theirs("the fox")["input_ids"] == tokenizer("the fox")["input_ids"]


def test_a_roformer_keeps_its_sinusoids_and_a_longformer_its_separator(tmp_path):
    place = models.create_checkpoint(tmp_path / "roformer", TEXTS, model_type="roformer", **SIZES)
    table = load_file(place / "model.safetensors")["encoder.embed_positions.weight"]
    depth = SIZES["hidden_size"] // SIZES["num_attention_heads"]
    angles = np.arange(len(table))[:, None] / 10000 ** (2 * np.arange(depth // 2) / depth)
    np.testing.assert_allclose(table, np.concatenate([np.sin(angles), np.cos(angles)], 1), atol=1e-6)
    place = models.create_checkpoint(tmp_path / "longformer", TEXTS, model_type="longformer", **SIZES)
    tokenizer, task = tfbert.load_tokenizer(place), tasks.MaskedLM(max_length=16)
    assert json.loads((place / "config.json").read_text())["sep_token_id"] == tokenizer.sep_token_id == 3
    assert len(tfbert.predict(task, task.build(place), tokenizer, ["the [MASK] fox"])) == 1


def test_a_t5_has_its_special_tokens_and_its_deviations(tmp_path):
    place = models.create_checkpoint(tmp_path / "t5", TEXTS, model_type="t5", **{**SIZES, "vocab_size": 48})
    tokenizer = tfbert.load_tokenizer(place)
    assert len(tokenizer) == 148 and tokenizer.convert_ids_to_tokens([0, 1, 2]) == ["<pad>", "</s>", "<unk>"]
    assert tokenizer.convert_tokens_to_ids(["<extra_id_0>", "<extra_id_99>"]) == [147, 48]
    ids = tokenizer("The dog")["input_ids"]
    assert ids[-1] == 1 and tokenizer.decode(ids, skip_special_tokens=True) == "The dog"
    weights = load_file(place / "model.safetensors")
    deviations = {  # as transformers' T5 draws them, for states of 24, heads of 8 and 96 within
        "shared.weight": 1.0,
        "decoder.block.1.layer.1.EncDecAttention.q.weight": (24 * 8) ** -0.5,
        "encoder.block.0.layer.0.SelfAttention.k.weight": 24**-0.5,
        "encoder.block.0.layer.0.SelfAttention.o.weight": 24**-0.5,
        "encoder.block.1.layer.1.DenseReluDense.wi.weight": 24**-0.5,
        "encoder.block.1.layer.1.DenseReluDense.wo.weight": 96**-0.5,
    }
    for name, deviation in deviations.items():
        assert weights[name].std() == pytest.approx(0.8796 * deviation, rel=0.1), name
    assert all((values == 1).all() for name, values in weights.items() if "layer_norm" in name)
    task = tasks.SpanCorruption(max_length=16, max_new_tokens=4)
    scores = tfbert.evaluate(task, task.build(place), tokenizer, [{"text": text} for text in TEXTS])
    assert scores["loss"] < 3 * np.log(148)


def test_a_gpt2_has_one_special_token_and_its_deviations(tmp_path):
    place = models.create_checkpoint(tmp_path / "gpt2", TEXTS, model_type="gpt2", **{**SIZES, "vocab_size": 290})
    tokenizer = tfbert.load_tokenizer(place)
    assert len(tokenizer) == 290 and tokenizer.all_special_tokens == ["<|endoftext|>"] and tokenizer.eos_token_id == 0
    ids = tokenizer("The dog")["input_ids"]
    assert 0 not in ids and tokenizer.decode(ids) == "The dog"
    weights = load_file(place / "model.safetensors")
    for name, deviation in {"wte.weight": 0.02, "h.1.mlp.c_proj.weight": 0.01, "h.0.attn.c_attn.weight": 0.02}.items():
        assert weights[f"transformer.{name}"].std() == pytest.approx(0.8796 * deviation, rel=0.1), name
    assert (weights["transformer.ln_f.weight"] == 1).all() and (weights["transformer.h.0.ln_1.weight"] == 1).all()
    task = tasks.CausalLM(max_length=16, max_new_tokens=4)
    scores = tfbert.evaluate(task, task.build(place), tokenizer, [{"text": text} for text in TEXTS])
    assert scores["loss"] == pytest.approx(np.log(290), rel=0.05)


def test_what_cannot_be_created_is_told_and_leaves_nothing(made, tmp_path):
    (tmp_path / "one.txt").write_text("one line of text\n")
    out = tmp_path / "out"
    for text, options, message in (
        (tmp_path / "one.txt", {}, "the text, 1 line of 16 characters, has pieces for a vocabulary of 20 tokens only"),
        (TEXTS, {"vocab_size": 20}, "vocab_size is 20, but special tokens and the characters of the text are"),
        (TEXTS, {"num_attention_heads": 5}, "hidden_size 24 is not a multiple of num_attention_heads 5"),
        (TEXTS, {"hidden_size": 0}, "hidden_size is 0; expected a whole number from 1"),
        (TEXTS, {"model_type": "brt"}, "Did you mean 'bert'"),
        (TEXTS, {"model_type": "bart"}, "model_type is 'bart', which is none that can begin from nothing; choose bert"),
        (TEXTS, {"model_type": "gpt2", "tokenizer": "unigram"}, "tokenizer is 'unigram', which needs a token for what"),
        (TEXTS, {"tokenizer": "wordpice"}, "tokenizer is 'wordpice'; .* Did you mean 'wordpiece'"),
        (
            TEXTS,
            {"tokenizer": "bpe", "lowercase": True},
            "lowercase is for wordpiece and unigram; bpe, of bytes, reads",
        ),
        (TEXTS, {"model_type": "bert", "embedding_size": 8}, "bert's embeddings are hidden_size wide; leave it out"),
        (TEXTS, {"seed": -1}, "seed is -1"),
        ([{"txt": "a"}], {}, "row 1 of text: no text in the field 'text'; the row has 'txt'"),
    ):
        with pytest.raises(InputError, match=message):
            tfbert.create_checkpoint(out, text, **{**SIZES, **options})
        assert not list(tmp_path.glob("*out*"))
    with pytest.raises(InputError, match="exists already"):
        tfbert.create_checkpoint(made, TEXTS, **SIZES)
