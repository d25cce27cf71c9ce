"""Every family with every head: saved and reloaded to the bit, trained to a lower loss and again to the same bits, exported and served."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import test_contract as contract
from safetensors.numpy import load_file, save_file
from tiny_families import CELLS, ENCODERS, EXPORTED, PRETRAINING, TASKS, case, shake, table, write

import tfbert
from tfbert import models, serving
from tfbert._compat import keras, tf
from tfbert.errors import InputError
from tfbert.models.families import family_of
from tfbert.models.frozen import frozen_rung
from tfbert.models.parts import PARTS
from tfbert.models.randomness import random_state
from tfbert.sources import from_iterable

README = (Path(__file__).resolve().parents[1] / "README.md").read_text(encoding="utf-8")
LEAN = [name for name in ENCODERS if name in PARTS]
OTHERS = [name for name in ENCODERS if name not in PARTS]


@pytest.fixture(scope="module")
def folder(tiny, tmp_path_factory):
    """Gives the checkpoint folder of a family: tiny, random, with the tokenizer of the tiny BERT; `layers` are 1 where one will do."""
    place, tokenizer, made = tmp_path_factory.mktemp("families"), tfbert.load_tokenizer(tiny), {}

    def find(model_type: str, layers: int = 2) -> Path:
        key = (model_type, layers)
        if key not in made:
            made[key] = write(model_type, place / f"{model_type}-{layers}", tokenizer, layers)
        return made[key]

    return find


def with_head(base: Path, head: str | None):
    fixed = head in (None, *PRETRAINING) or family_of("bert").heads[head].labels
    labels = {} if fixed else {"num_labels": 3}
    model = models.load(base, head, **labels)
    shake(model, np.random.default_rng(4))
    return model


# The cells


@pytest.mark.parametrize(("name", "head"), CELLS)
def test_a_head_is_saved_and_reloaded_to_the_bit(name, head, folder, tmp_path):
    family, model = family_of(name), with_head(folder(name), head)
    models.save(model, tmp_path / "one")
    again = models.load(tmp_path / "one", head)
    report = again.load_report
    assert report.missing == report.unexpected == report.mismatched == ()
    for before, after in zip(model.weights, again.weights, strict=True):
        assert before.name.split("/", 1)[1] == after.name.split("/", 1)[1]
        np.testing.assert_array_equal(before, after)
    models.save(again, tmp_path / "other")
    one, other = ((tmp_path / place / "model.safetensors").read_bytes() for place in ("one", "other"))
    assert one == other
    stored = load_file(tmp_path / "one" / "model.safetensors")
    kind = family.heads[head]
    begins = (family.encoder, *kind.weights) if head else ()
    assert all(key.startswith(begins) for key in stored) or head is None
    assert not set(kind.tied) & set(stored)
    config = json.loads((tmp_path / "one" / "config.json").read_text())
    assert config["architectures"] == [kind.pytorch_class] and config["model_type"] == name
    assert all(family.names.get(size, size) in config for size in ("hidden_size", "num_hidden_layers"))


@pytest.mark.parametrize(("name", "head"), CELLS)
def test_a_head_learns_and_learns_the_same_again(name, head, folder, caplog):
    """All that is random in a step of training is in `random_state`: put back, the same bits come out."""
    task, examples = case(head)
    examples = from_iterable(examples[:8], "made.csv")
    task = task.from_data(examples)
    keras.utils.set_random_seed(5)
    model, tokenizer = task.build(folder(name, 1), seed=1), tfbert.load_tokenizer(folder(name, 1))
    dataset = tfbert.make_dataset(task, tokenizer, examples, batch_size=8, training=True).take(1).cache()
    ((inputs, targets, _),) = dataset
    model.compile(optimizer=tfbert.AdamW(2e-3), loss=task.loss())
    model.optimizer.build(model.trainable_variables)

    def loss() -> float:
        outputs = model(inputs)
        right, of = (x if isinstance(x, dict) else dict.fromkeys(outputs, x) for x in (targets, task.loss()))
        return float(sum(tf.reduce_mean(of[key](right[key], output)) for key, output in outputs.items()))

    random, others = random_state(model), [*model.weights, *model.optimizer.variables]
    begin = [variable.numpy() for variable in (*random, *others)]

    def train() -> tuple[list[float], list[np.ndarray]]:
        for variable, value in zip(others, begin[len(random) :], strict=True):
            variable.assign(value)
        return model.fit(dataset, epochs=2, verbose=0).history["loss"], [variable.numpy() for variable in model.weights]

    before = loss()
    first, after = train()
    assert loss() < before
    assert any((variable.numpy() != value).any() for variable, value in zip(random, begin))
    assert train()[0][0] != first[0]  # other masks
    for variable, value in zip(random, begin):
        variable.assign(value)
    second, again = train()
    assert second == first
    for one, other in zip(after, again, strict=True):
        np.testing.assert_array_equal(one, other)
    assert "Gradients do not exist" not in caplog.text


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "head"),
    [(name, head) for name, heads in EXPORTED.items() for head in heads if name not in ("bert", "longformer")],
)
def test_an_export_answers_as_the_model_does(name, head, folder, tmp_path):
    task, examples = case(head)
    task = task.from_data(from_iterable(examples, "made.csv"))
    model, tokenizer = task.build(folder(name, 1), seed=1), tfbert.load_tokenizer(folder(name, 1))
    place = serving.export(task, model, tokenizer, tmp_path)
    texts = contract.texts_for(task)
    contract.close(tfbert.predict(task, model, tokenizer, texts), tfbert.Predictor(place)(texts), 1e-5)


def test_readme_s_table_says_what_is_tested_here():
    assert table() in README
    assert EXPORTED.keys() == ENCODERS.keys() and all(EXPORTED.values())
    served = [head for heads in EXPORTED.values() for head in heads]
    assert all(served.count(head) >= 2 for head in TASKS)
    assert all(set(EXPORTED[name]) <= set(family.heads) for name, family in ENCODERS.items())


# Layers: counted, frozen, left out


@pytest.mark.parametrize("name", ENCODERS)
def test_parameters_are_counted_alike_from_the_file_and_from_the_model(name, folder):
    model = models.load(folder(name), "sequence-classification")
    frozen = "embeddings,layers[:1]" if name != "albert" else "embeddings,layers"
    models.freeze(model, frozen)
    counts = {key: value for key, value in models.count_parameters(model).items() if key not in ("head", "all")}
    about = models.describe(folder(name), freeze=frozen)
    for kind, place in (("total", "parameters"), ("trainable", "trainable_parameters")):
        stored = about[place]
        found = [stored["embeddings"], *stored["layers"], stored["pooler"]]
        expected = [count[kind] for key, count in counts.items() if key != "pooler"]
        pooler = counts["pooler"][kind] if "pooler" in counts and "pooler" not in missing_groups(model) else found[-1]
        assert found == [*expected, pooler]
    assert all(
        count["trainable"] == 0 for key, count in counts.items() if key in ("embeddings", "layers[0]", "layers[0:2]")
    )


def missing_groups(model) -> set[str]:
    return {name.split(".")[0] for name in model.load_report.missing}


@pytest.mark.parametrize("name", ENCODERS)
def test_layers_are_left_out_or_it_is_told_that_they_are_shared(name, folder):
    if family_of(name).shared:
        with pytest.raises(InputError, match="not each of the 2 layers has weights of its own.*drop keep_layers"):
            models.load(folder(name), None, keep_layers="1")
        return
    whole, half = (models.load(folder(name), None, keep_layers=kept) for kept in (None, "1"))
    groups, fewer = models.layer_groups(whole), models.layer_groups(half)
    assert "layers[1]" not in fewer
    for one, other in zip(groups["layers[1]"], fewer["layers[0]"], strict=True):
        np.testing.assert_array_equal(one, other)
    assert np.isfinite(half(np.array([[2, 9, 7, 3]], np.int32))[0]).all()


@pytest.mark.parametrize("name", LEAN)
def test_lora_and_gradient_checkpointing_fit_the_lean_encoder(name, folder, tmp_path):
    model = models.load(folder(name), "sequence-classification", gradient_checkpointing=True)
    models.add_lora(model, rank=2, targets=("query", "output", "up"))
    for projection in model._flatten_layers():
        if hasattr(getattr(projection, "kernel", None), "up"):
            projection.kernel.up.assign(tf.ones_like(projection.kernel.up))
    ids = np.array([[2, 9, 7, 3], [2, 8, 3, 0]], np.int32)
    inputs = {"input_ids": ids, "attention_mask": (ids > 0).astype(np.int32)}
    before = model(inputs).logits.numpy()
    models.save(model, tmp_path / "saved")
    again = models.load(tmp_path / "saved", "sequence-classification")
    np.testing.assert_allclose(again(inputs).logits, before, atol=1e-5)
    plain = models.load(folder(name), "sequence-classification")
    assert np.abs(plain(inputs).logits.numpy() - before).max() > 1e-3


@pytest.mark.parametrize("name", OTHERS)
def test_lora_and_gradient_checkpointing_are_refused_without_it(name, folder):
    with pytest.raises(InputError, match=f"gradient_checkpointing is the lean encoder's, which {name} does not have"):
        models.load(folder(name), "sequence-classification", gradient_checkpointing=True)
    model = models.load(folder(name), "sequence-classification")
    with pytest.raises(InputError, match="LoRA knows the layers of bert, electra, .*; the model is none of these"):
        models.add_lora(model, rank=2)
    with pytest.raises(InputError, match="precision is 'bfloat16', which needs the lean encoder"):
        models.for_answers(model, "bfloat16")


# Checkpoints as they are published


def edited(base: Path, place: Path, change, **settings) -> Path:
    """A copy of a checkpoint whose tensors {name: values} went through a function and whose config.json has other settings."""
    place.mkdir()
    config = json.loads((base / "config.json").read_text()) | settings
    (place / "config.json").write_text(json.dumps({key: value for key, value in config.items() if value is not None}))
    save_file(change(load_file(base / "model.safetensors")), place / "model.safetensors", metadata={"format": "pt"})
    return place


@pytest.mark.parametrize("name", ENCODERS)
def test_pretraining_heads_and_buffers_are_dropped_and_named(name, folder, tmp_path):
    family = family_of(name)

    def published(tensors):
        own = {family.encoder + key: values for key, values in tensors.items()}
        extra = {f"{prefix}dense.weight": np.ones((3, 4), np.float32) for prefix in family.pretraining}
        return own | extra | {f"{family.encoder}{buffer}": np.arange(64)[np.newaxis] for buffer in family.buffers}

    place = edited(folder(name), tmp_path / "published", published, architectures=["PreTraining"])
    model, bare = models.load(place, "token-classification", num_labels=3), models.load(folder(name), None)
    assert set(model.load_report.unexpected) >= {
        *(f"{prefix}dense.weight" for prefix in family.pretraining),
        *family.buffers,
    }
    assert model.load_report.missing == ("classifier.bias", "classifier.weight")
    one, other = (models.layer_groups(each)["embeddings"] for each in (model, bare))
    for mine, theirs in zip(one, other, strict=True):
        np.testing.assert_array_equal(mine, theirs)


def test_an_electra_discriminator_becomes_a_classifier(folder, tmp_path):
    """The layout of google/electra-small-discriminator: the encoder's names with prefix, and two heads that are dropped."""
    heads = {
        "discriminator_predictions.dense.weight": np.ones((32, 32), np.float32),
        "discriminator_predictions.dense.bias": np.ones(32, np.float32),
        "discriminator_predictions.dense_prediction.weight": np.ones((1, 32), np.float32),
        "discriminator_predictions.dense_prediction.bias": np.ones(1, np.float32),
    }
    place = edited(
        folder("electra"),
        tmp_path / "electra-small-discriminator",
        lambda tensors: {f"electra.{key}": value for key, value in tensors.items()} | heads,
        architectures=["ElectraForPreTraining"],
    )
    model = models.load(place, "sequence-classification", num_labels=2)
    assert model.load_report.unexpected == tuple(sorted(heads))
    new = ("classifier.dense.bias", "classifier.dense.weight", "classifier.out_proj.bias", "classifier.out_proj.weight")
    assert model.load_report.missing == new
    assert models.load(place, "masked-lm").load_report.missing == (
        *(f"generator_lm_head.{part}" for part in ("bias",)),
        *(
            f"generator_predictions.{part}"
            for part in ("LayerNorm.bias", "LayerNorm.weight", "dense.bias", "dense.weight")
        ),
    )


@pytest.mark.parametrize(
    "name", [name for name, family in ENCODERS.items() if (head := family.heads.get("masked-lm")) and head.tied]
)
def test_copies_of_tied_weights_are_taken_away_and_others_refused(name, folder, tmp_path):
    family = family_of(name)
    tied = family.heads["masked-lm"].tied
    models.save(with_head(folder(name), "masked-lm"), tmp_path / "own")

    def copied(tensors):
        copies = {copy: tensors.get(own, tensors.get(family.encoder + own)) for copy, own in tied.items()}
        return tensors | copies

    place = edited(tmp_path / "own", tmp_path / "copied", copied)
    model = models.load(place, "masked-lm")
    assert model.load_report.missing == model.load_report.unexpected == ()
    expected = models.load(tmp_path / "own", "masked-lm")
    ids = np.array([[2, 9, 7, 3]], np.int32)
    np.testing.assert_array_equal(model(ids).logits, expected(ids).logits)
    copy = next(iter(tied))
    other = edited(place, tmp_path / "other", lambda tensors: tensors | {copy: tensors[copy] + 1})
    with pytest.raises(InputError, match=f"{re.escape(copy)} differs from .*; choose a checkpoint that ties them"):
        models.load(other, "masked-lm")


def test_a_checkpoint_in_shards_is_whole(folder, tmp_path):
    tensors = load_file(folder("deberta-v2") / "model.safetensors")
    place = edited(folder("deberta-v2"), tmp_path / "shards", lambda all: all)
    (place / "model.safetensors").unlink()
    names = {name: f"model-0000{1 + i % 2}-of-00002.safetensors" for i, name in enumerate(tensors)}
    for file in set(names.values()):
        part = {name: values for name, values in tensors.items() if names[name] == file}
        save_file(part, place / file, metadata={"format": "pt"})
    index = {"metadata": {"total_size": 1}, "weight_map": names}
    (place / "model.safetensors.index.json").write_text(json.dumps(index))
    ids = np.array([[2, 9, 7, 3]], np.int32)
    one, other = (models.load(where, None)(ids)[0] for where in (place, folder("deberta-v2")))
    np.testing.assert_array_equal(one, other)


def test_albert_s_names_of_settings_and_distilbert_s_are_their_own(folder):
    changes = {**models.dropout(0.3), "num_labels": 3}
    albert = models.load(folder("albert"), "sequence-classification", **changes)
    assert albert.config.classifier_dropout_prob == albert.config.hidden_dropout_prob == 0.3
    distilbert = models.load(folder("distilbert"), "sequence-classification", **changes)
    rates = (distilbert.config.dropout, distilbert.config.attention_dropout, distilbert.config.seq_classif_dropout)
    assert rates == (0.3, 0.3, 0.3) and distilbert.config.qa_dropout == 0.3
    electra = models.load(folder("electra"), "multiple-choice", **models.dropout(0.3))
    assert electra.sequence_summary.last_dropout.rate == 0.3
    with pytest.raises(InputError, match="no setting 'embeding_size' .* Did you mean 'embedding_size'"):
        models.load(folder("electra"), None, embeding_size=4)


# Mistakes

SETTINGS = {
    "electra": ({"embedding_size": None}, "has no embedding_size; restore the checkpoint's config.json"),
    "albert": (
        {"num_hidden_groups": 3},
        "num_hidden_groups is 3; expected a whole number from 1 to num_hidden_layers, 2",
    ),
    "distilbert": ({"n_heads": 1.5}, "n_heads is 1.5; expected a whole number from 1 to"),
    "deberta": (
        {"pos_att_type": ["c2c"]},
        r'pos_att_type is \[.c2c.\]; expected c2p, p2c or both, as "c2p|p2c" or a list',
    ),
    "deberta-v2": ({"conv_groups": 2}, "conv_groups is 2; expected 1"),
    "mobilebert": ({"use_bottleneck": False}, "use_bottleneck is False; expected True"),
    "convbert": ({"head_ratio": 3}, "head_ratio is 3; expected .* that num_attention_heads, 4, is a multiple of"),
    "roformer": ({"rotary_value": 1}, "rotary_value is 1; expected True or False"),
    "rembert": (
        {"input_embedding_size": 8},
        "word_embeddings.weight is .* but config.json .*input_embedding_size. says",
    ),
    "mpnet": (
        {"relative_attention_num_buckets": 0},
        "relative_attention_num_buckets is 0; expected a whole number from 2",
    ),
}


@pytest.mark.parametrize("name", SETTINGS)
def test_a_wrong_setting_is_told(name, folder, tmp_path):
    settings, message = SETTINGS[name]
    with pytest.raises(InputError, match=message):
        models.load(edited(folder(name), tmp_path / "wrong", lambda tensors: tensors, **settings), None)


def test_an_architecture_or_a_head_that_is_not_there_is_told(folder, tmp_path):
    place = edited(folder("bert"), tmp_path / "gpt", lambda tensors: tensors, model_type="gptj")
    with pytest.raises(InputError, match="model_type is 'gptj'; tfbert knows bert, roberta, .*, longformer"):
        models.load(place, None)
    task = contract.CASES["choices"][0]
    with pytest.raises(InputError, match="no head 'multiple-choice' for model type deberta; it has sequence-class"):
        task.build(folder("deberta"))


def test_a_tokenizer_of_another_family_is_told(folder, tiny):
    """A vocabulary larger than the embeddings, and another id for padding: both silent in TensorFlow on a GPU."""
    tokenizer = tfbert.load_tokenizer(tiny)
    small = write("roberta", folder("roberta").parent / "small")
    with pytest.raises(InputError, match="has 1.. tokens, but .*small has embeddings for 60; use the model's own"):
        models.check_tokenizer(models.load(small, None), tokenizer, max_length=16)
    other = models.load(folder("roberta"), None, pad_token_id=1)
    with pytest.raises(InputError, match="the pad token has id 0, but .* says pad_token_id 1"):
        models.check_tokenizer(other, tokenizer, max_length=16)


def test_what_a_family_cannot_do_is_told_before_the_training(folder, tmp_path):
    task, examples = contract.CASES["single"]
    for settings, message in (
        ({"lora": 2}, "LoRA knows the layers of bert"),
        ({"gradient_checkpointing": True}, "which convbert does not have"),
        ({"freeze": "layers[7]"}, "is no layer"),
    ):
        with pytest.raises(InputError, match=message):
            tfbert.fine_tune(
                task, folder("convbert", 1), examples, directory=tmp_path / "run", epochs=1, report=False, **settings
            )
        assert not (tmp_path / "run").exists()


def test_mobilebert_is_not_trained_in_float16(folder):
    keras.mixed_precision.set_global_policy("mixed_float16")
    try:
        with pytest.raises(InputError, match="the states of mobilebert grow beyond float16's range; take precision bf"):
            models.load(folder("mobilebert"), None)
        ids = np.array([[2, 9, 7, 3]], np.int32)
        for name in (name for name, family in ENCODERS.items() if family.float16):
            assert np.isfinite(models.load(folder(name), None)(ids)[0]).all(), name
    finally:
        keras.mixed_precision.set_global_policy("float32")


def test_albert_s_layers_learn_at_one_rate_and_freeze_together(folder, tmp_path):
    """One group of layers for both: a name, a rate, and a frozen bottom that is all of the encoder or none."""
    task, examples = contract.CASES["single"]
    settings = {"epochs": 1, "batch_size": 24, "report": False, "export": False}
    tuned = tfbert.fine_tune(
        task, folder("albert"), examples, directory=tmp_path / "run", layer_decay=0.5, freeze="embeddings", **settings
    )
    rates = {name: group["rate"] for name, group in tuned.metrics["layer_groups"].items()}
    assert rates == {"embeddings": 0.0, "layers[0:2]": 0.25, "pooler": 0.5, "head": 1.0}
    model = models.load(folder("albert"), "sequence-classification")
    with pytest.raises(InputError, match=r"layers\[:1\]: the layers of layers\[0:2\] share their variables; name all"):
        models.freeze(model, "layers[:1]")
    models.freeze(model, "embeddings,layers")
    assert frozen_rung(model) == 3


@pytest.mark.parametrize("name", ENCODERS)
def test_the_bias_of_a_new_head_begins_where_it_is_told(name, folder):
    task = tfbert.SequenceClassification(kind="multi", labels=("a", "b", "c"), head_bias=(1.5, -2.5, 0.5), pair=False)
    model = models.transformer_of(task.build(folder(name, 1)))
    (found,) = (v.numpy() for v in models.layer_groups(model)["head"] if v.shape == [3])
    np.testing.assert_array_equal(found, task.head_bias)


def test_mobilebert_s_scales_begin_at_1(folder):
    model = models.load(folder("mobilebert"), "sequence-classification", num_labels=2)
    models.reinitialize(model, 1)
    scales = [v.numpy() for v in models.layer_groups(model)["layers[1]"] if v.name.endswith("LayerNorm/weight:0")]
    assert len(scales) > 5 and all((scale == 1).all() for scale in scales)
