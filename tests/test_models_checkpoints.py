"""Checkpoint folders: shards, damaged and malicious files, tokenizers that do not fit, descriptions."""

from __future__ import annotations

import json
import pickle

import numpy as np
import pytest
from numpy_bert import HIDDEN, classifier, with_head, write
from safetensors.numpy import save_file

from tfbert import models
from tfbert.errors import InputError
from tfbert.models.configuration import read_config
from tfbert.models.families import BERT
from tfbert.models.weights import list_weights, read_weights


def shard(folder, weights):
    """Splits a checkpoint in two files with an index."""
    names = sorted(weights)
    parts = {"a.safetensors": names[::2], "b.safetensors": names[1::2]}
    for file, part in parts.items():
        save_file({name: weights[name] for name in part}, folder / file)
    (folder / "model.safetensors").unlink(missing_ok=True)
    index = {"metadata": {}, "weight_map": {name: file for file, part in parts.items() for name in part}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return index


def test_shards_give_the_same_weights(tmp_path):
    folder = classifier(tmp_path / "shards")
    shard(folder, with_head())
    read = dict(read_weights(list_weights(folder, BERT)))
    expected = {name.removeprefix("bert."): value for name, value in with_head().items()}
    assert read.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_array_equal(read[name], value)


def test_hub_cache_links_are_followed(tmp_path):
    snapshot, blobs = tmp_path / "models--x" / "snapshots" / "1", tmp_path / "models--x" / "blobs"
    blobs.mkdir(parents=True)
    shard(classifier(snapshot), with_head())
    (snapshot / "a.safetensors").rename(blobs / "123")
    (snapshot / "a.safetensors").symlink_to("../../blobs/123")
    assert len(list_weights(snapshot, BERT)) == len(with_head())


# Damaged and malicious checkpoints


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ((2**63).to_bytes(8, "little") + b"{}", "not a whole safetensors file .*header too large"),
        (pickle.dumps({"weights": [1, 2, 3]}), "not a whole safetensors file"),
        (b"", "not a whole safetensors file"),
    ],
    ids=["header of 2**63 bytes", "pickle", "empty"],
)
def test_a_file_that_is_no_safetensors(tmp_path, content, message):
    folder = classifier(tmp_path / "bad")
    (folder / "model.safetensors").write_bytes(content)
    with pytest.raises(InputError, match=rf"model\.safetensors is {message}"):
        models.load(folder, "sequence-classification")
    with pytest.raises(InputError, match=message):
        models.describe(folder)


def test_every_truncation_is_found(tmp_path):
    folder = classifier(tmp_path / "short")
    whole = (folder / "model.safetensors").read_bytes()
    for length in (4, 8, 100, len(whole) // 2, len(whole) - 1):
        (folder / "model.safetensors").write_bytes(whole[:length])
        with pytest.raises(InputError, match="not a whole safetensors file"):
            models.load(folder, "sequence-classification")


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_weights_that_are_not_finite_are_named(tmp_path, value):
    weights = with_head()
    weights["bert.encoder.layer.0.output.dense.weight"][3, 4] = value
    with pytest.raises(
        InputError, match=r"tensor bert.encoder.layer.0.output.dense.weight holds 1 values that are not finite"
    ):
        models.load(write(tmp_path / "nan", weights), "sequence-classification")


def test_quantized_tensors_are_refused(tmp_path):
    weights = with_head()
    weights["classifier.weight"] = weights["classifier.weight"].astype(np.int8)
    with pytest.raises(InputError, match=r"tensor classifier.weight has the type I8; tfbert reads F64, F32, F16, BF16"):
        models.load(write(tmp_path / "int8", weights), "sequence-classification")


@pytest.mark.parametrize(
    "name",
    ["../a.safetensors", "/etc/a.safetensors", "sub/a.safetensors", "..\\a.safetensors", "a.bin", ".safetensors"],
)
def test_an_index_cannot_lead_out_of_its_folder(tmp_path, name):
    folder = classifier(tmp_path / "inside")
    index = shard(folder, with_head())
    (folder / "a.safetensors").rename(tmp_path / "a.safetensors")
    index["weight_map"] = {key: name if file == "a.safetensors" else file for key, file in index["weight_map"].items()}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(InputError, match="index.json: names the file .*expected the plain name"):
        models.load(folder, "sequence-classification")


def test_an_index_cannot_lead_out_by_a_link_or_disagree_with_its_files(tmp_path):
    folder = classifier(tmp_path / "inside")
    index = shard(folder, with_head())
    (folder / "a.safetensors").rename(tmp_path / "a.safetensors")
    with pytest.raises(InputError, match="'a.safetensors' is missing"):
        models.load(folder, "sequence-classification")
    (folder / "a.safetensors").symlink_to(tmp_path / "a.safetensors")
    with pytest.raises(InputError, match="'a.safetensors' is a link that leads out of the folder"):
        models.load(folder, "sequence-classification")
    shard(folder, with_head())
    index["weight_map"].pop("classifier.bias")
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(InputError, match="tensor classifier.bias is in b.safetensors, unlike the index says"):
        models.load(folder, "sequence-classification")


@pytest.mark.parametrize(
    ("file", "message"),
    [
        ("pytorch_model.bin", "is a pickle, which can run code"),
        ("tf_model.h5", "is not a whole HDF5 file"),
        ("x.txt", "has no model.safe"),
    ],
)
def test_other_weight_files_are_refused_by_name(tmp_path, file, message):
    folder = classifier(tmp_path / "old")
    (folder / "model.safetensors").rename(folder / file)
    with pytest.raises(InputError, match=message):
        models.load(folder, "sequence-classification")


def test_a_name_given_twice_is_refused(tmp_path):
    weights = with_head()
    weights["pooler.dense.bias"] = np.ones(HIDDEN, np.float32)
    with pytest.raises(InputError, match="is there twice"):
        models.load(write(tmp_path / "twice", weights), "sequence-classification")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"hidden_size": 2**31}, "hidden_size is 2147483648; expected a whole number from 1 to 16384"),
        (
            {"hidden_size": 16384},
            r"embeddings.word_embeddings.weight is \[100, 32\] in the weights, but config.json .* says \[100, 16384\]",
        ),
        ({"vocab_size": 2_000_000}, r"is \[100, 32\] in the weights, but config.json .* says \[2000000, 32\]"),
        ({"num_hidden_layers": 3}, "the weights have no encoder.layer.2.intermediate.dense.weight"),
        ({"num_hidden_layers": 1}, "no place for encoder.layer.1"),
        ({"num_hidden_layers": -1}, "num_hidden_layers is -1"),
        ({"intermediate_size": 100_000}, r"config.json .* says \[100000, 32\]"),
        ({"vocab_size": 100.0}, "vocab_size is 100.0; expected a whole number"),
        ({"num_attention_heads": 5}, "hidden_size 32 is not a multiple of num_attention_heads 5"),
        ({"hidden_dropout_prob": "0.1"}, "hidden_dropout_prob is '0.1'"),
        ({"hidden_act": "geglu"}, "hidden_act is 'geglu'; tfbert knows gelu"),
        ({"position_embedding_type": "relative_key"}, "position_embedding_type is 'relative_key'"),
        ({"quantization_config": {"bits": 4}}, "has a quantization_config"),
        ({"vocab_size": None}, "config.json: has no vocab_size"),
        ({"model_type": "llama"}, "config.json: model_type is 'llama'; tfbert knows bert"),
        ({"id2label": {"0": "a", "2": "b"}}, "expected the numbers 0 to 1"),
        ({"id2label": {"0": "a", "x": "b"}}, "id2label has the keys"),
        ({"id2label": ["a", "b"]}, "id2label is"),
        ({"architectures": "BertModel"}, "architectures is 'BertModel'"),
    ],
    ids=lambda value: str(value)[:40] if isinstance(value, dict) else "",
)
def test_a_config_that_is_wrong_is_refused_before_memory_is_taken(tmp_path, change, message):
    with pytest.raises(InputError, match=message):
        models.load(write(tmp_path / "config", with_head(), **change), "sequence-classification")


def test_what_a_config_names_to_run_is_left_out(tmp_path):
    evil = {
        "auto_map": {"AutoModel": "evil.Model"},
        "_attn_implementation": "evil/kernel",
        "_attn_implementation_internal": "evil/kernel",
        "experts_implementation": "evil",
        "_experimental": 1,
        "return_dict": False,
        "to_dict": "x",
    }
    folder = classifier(tmp_path / "evil", **evil)
    assert not set(evil) & set(read_config(folder))
    model = models.load(folder, "sequence-classification")
    models.save(model, tmp_path / "saved")
    written = json.loads((tmp_path / "saved" / "config.json").read_text())
    assert not set(evil) & set(written) and str(tmp_path) not in json.dumps(written)


def test_config_json_that_is_cut_off_or_missing(tmp_path):
    folder = classifier(tmp_path / "cut")
    (folder / "config.json").write_text('{"model_type": "be')
    with pytest.raises(InputError, match="config.json is not valid JSON"):
        models.load(folder, "sequence-classification")
    (folder / "config.json").write_text("[1]")
    with pytest.raises(InputError, match="config.json: expected an object of settings, found list"):
        models.load(folder, "sequence-classification")
    (folder / "config.json").unlink()
    with pytest.raises(InputError, match="cannot read .*config.json"):
        models.load(folder, "sequence-classification")


def test_arguments_that_do_not_exist(tmp_path):
    tuned = classifier(tmp_path / "tuned")
    with pytest.raises(InputError, match="no head 'sequence-clasification'.* Did you mean 'sequence-classification'"):
        models.load(tuned, "sequence-clasification")
    with pytest.raises(InputError, match="no setting 'hidden_droput_prob'.* Did you mean 'hidden_dropout_prob'"):
        models.load(tuned, "sequence-classification", hidden_droput_prob=0.2)
    with pytest.raises(InputError, match="num_labels is 4, but id2label names 2"):
        models.load(tuned, "sequence-classification", num_labels=4, id2label={0: "a", 1: "b"})
    with pytest.raises(InputError, match="seed is -1"):
        models.load(tuned, "sequence-classification", seed=-1)
    assert models.load(tuned, "sequence-classification", hidden_dropout_prob=0.25).config.hidden_dropout_prob == 0.25


# Tokenizers and descriptions

VOCABULARY = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "b", "\u2028"]


class Tokenizer:
    """As much of a Transformers tokenizer as the check looks at."""

    def __init__(self, tokens, pad=0):
        self.tokens, self.pad_token_id = list(tokens), pad
        self.unk_token_id, self.cls_token_id, self.sep_token_id, self.mask_token_id = 1, 2, 3, 4
        self.name_or_path = "words"

    def __len__(self):
        return len(self.tokens)

    def get_vocab(self):
        return {token: i for i, token in enumerate(self.tokens)}


@pytest.mark.parametrize(
    ("tokens", "pad", "options", "message"),
    [
        ([*VOCABULARY, *(f"w{i}" for i in range(93))], 0, {}, "words has 101 tokens, but .* has embeddings for 100"),
        (VOCABULARY, 100, {}, "the pad token has id 100, but .* has ids 0 to 99"),
        (VOCABULARY, 5, {}, "the pad token has id 5, but .*says pad_token_id 0"),
        (VOCABULARY, 0, {"max_length": 41}, "max_length is 41, but .* has 40 positions"),
        (
            ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "b", "a", "\u2028"],
            0,
            {},
            "gives 'b' the id 5, but .*own tokenizer 6",
        ),
        (VOCABULARY[:6], 0, {}, "words lacks 2 tokens of .*own tokenizer, 'b' among them"),
    ],
)
def test_a_tokenizer_that_does_not_fit(tmp_path, tokens, pad, options, message):
    folder = classifier(tmp_path / "own")
    (folder / "vocab.txt").write_text("\n".join(VOCABULARY) + "\n", encoding="utf-8")
    model = models.load(folder, "sequence-classification")
    models.check_tokenizer(model, Tokenizer(VOCABULARY), max_length=40, pair=True)
    models.check_tokenizer(model.config, Tokenizer([*VOCABULARY, "added"]), max_length=1)
    with pytest.raises(InputError, match=message):
        models.check_tokenizer(model, Tokenizer(tokens, pad), **{"max_length": 40, **options})


def test_pairs_need_two_type_ids(tmp_path):
    weights = with_head()
    weights["bert.embeddings.token_type_embeddings.weight"] = np.ones((1, HIDDEN), np.float32)
    model = models.load(write(tmp_path / "one", weights, type_vocab_size=1), "sequence-classification")
    with pytest.raises(InputError, match="type_vocab_size 1; pairs need 2"):
        models.check_tokenizer(model, Tokenizer(VOCABULARY), max_length=8, pair=True)


def test_describe_counts_by_group_without_tensorflow(tmp_path):
    folder = classifier(tmp_path / "about")
    (folder / "vocab.txt").write_text("\n".join(VOCABULARY) + "\n", encoding="utf-8")
    (folder / "special_tokens_map.json").write_text('{"mask_token": "[MASK]", "pad_token": {"content": "[PAD]"}}')
    about = models.describe(folder)
    layer = 4 * (32 * 32 + 32) + (48 * 32 + 48) + (32 * 48 + 32) + 4 * 32
    assert about["parameters"] == {
        "embeddings": (100 + 40 + 2 + 2) * 32,
        "layers": [layer, layer],
        "pooler": 32 * 32 + 32,
        "head": 3 * 32 + 3,
        "total": (100 + 40 + 2 + 2) * 32 + 2 * layer + 32 * 32 + 32 + 3 * 32 + 3,
    }
    assert about["special_tokens"] == {"mask": {"token": "[MASK]", "id": 4}, "pad": {"token": "[PAD]", "id": 0}}
    assert (about["positions"], about["type_ids"], about["labels"]) == (40, 2, ["name-0", "name-1", "name-2"])
    assert json.loads(json.dumps(about)) == about
