"""What LoRA learned as a folder of its own: PEFT's names and numbers, the same model again, and no other model."""

from __future__ import annotations

import json

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from test_groups import build
from test_lora import NO_DROPOUT, learned, logits, named
from test_training_groups import fine_tune

import tfbert
from tfbert import models
from tfbert.errors import InputError


@pytest.fixture
def folder(tmp_path):
    models.adapter_of(learned()).save(tmp_path / "adapter")
    return tmp_path / "adapter"


def test_names_and_numbers_are_those_of_peft(folder):
    model = learned()  # the same again
    found = load_file(folder / "adapter_model.safetensors")
    config = json.loads((folder / "adapter_config.json").read_text())
    modules = [f"bert.encoder.layer.{i}.attention.self.{part}" for i in range(2) for part in ("query", "value")]
    assert config["target_modules"] == modules and config["modules_to_save"] == ["classifier"]
    assert (config["peft_type"], config["task_type"], config["r"], config["lora_alpha"]) == ("LORA", "SEQ_CLS", 2, 6)
    expected = {f"base_model.model.{module}.lora_{part}.weight" for module in modules for part in "AB"}
    assert found.keys() == expected | {f"base_model.model.classifier.{part}" for part in ("weight", "bias")}
    values = named(model)
    place = "bert/encoder/layer_._1/attention/self/value"
    prefix = "base_model.model.bert.encoder.layer.1.attention.self.value.lora_"
    np.testing.assert_array_equal(found[f"{prefix}A.weight"], values[f"{place}/lora_down"].numpy().T)
    np.testing.assert_array_equal(found[f"{prefix}B.weight"], values[f"{place}/lora_up"].numpy().T)
    np.testing.assert_array_equal(found["base_model.model.classifier.weight"], values["classifier/kernel"].numpy().T)


def test_put_on_the_same_checkpoint_it_is_the_same_model(tmp_path):
    targets = ("query", "down", "output")
    model = learned(targets=targets)
    models.adapter_of(model).save(tmp_path / "adapter")
    other = build(lean=True, **NO_DROPOUT)  # its random weights are those that the first began with
    assert np.abs(logits(other) - logits(model)).max() > 1e-3
    models.read_adapter(tmp_path / "adapter").put_on(other)
    np.testing.assert_array_equal(logits(other), logits(model))
    assert models.count_parameters(other)["all"] == models.count_parameters(model)["all"]
    models.merge_lora(other)
    np.testing.assert_allclose(logits(other), logits(model), atol=1e-5)


def test_fine_tune_writes_it_beside_the_checkpoint_and_load_reads_it(tiny, tmp_path):
    tuned = fine_tune(tiny, tmp_path / "lora", lora=4, learning_rate=2e-2)
    model = tuned.task.build(tiny, seed=3)
    tfbert.load(tmp_path / "lora").adapter.put_on(model)
    expected = tfbert.predict(tuned.task, tuned.model, tuned.tokenizer, ["a good film", "dull"])
    found = tfbert.predict(tuned.task, model, tuned.tokenizer, ["a good film", "dull"])
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one["scores"], other["scores"], atol=1e-5)
    sizes = [
        sum(file.stat().st_size for file in (tmp_path / "lora" / part).glob("*.safetensors"))
        for part in ("adapter", "checkpoint")
    ]
    assert sizes[0] < sizes[1] / 4


def changed(folder, **settings):
    config = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps({**config, **settings}))


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"peft_type": "IA3"}, "expected peft_type LORA, got 'IA3'"),
        ({"use_dora": True}, "use_dora is True, which tfbert does not know"),
        ({"rank_pattern": {"query": 4}}, "rank_pattern is"),
        ({"lora_alpha": "16"}, "lora_alpha is '16'; expected a number"),
    ],
)
def test_what_is_not_lora_as_published_is_refused(folder, settings, message):
    changed(folder, **settings)
    with pytest.raises(InputError, match=message):
        models.read_adapter(folder)


def test_an_adapter_of_another_model_is_refused_and_changes_nothing(folder):
    adapter = models.read_adapter(folder)
    for options, message in (
        ({**NO_DROPOUT, "num_hidden_layers": 1}, r"has no place for the adapter's encoder\.layer\.1\.attention"),
        ({**NO_DROPOUT, "num_labels": 2}, r"classifier\.bias is \[3\], the model's \[2\]"),
    ):
        model = build(**options)
        before = logits(model)
        with pytest.raises(InputError, match=message):
            adapter.put_on(model)
        np.testing.assert_array_equal(logits(model), before)
        assert len(model.trainable_weights) == len(model.weights)
    model = learned()
    with pytest.raises(InputError, match="has LoRA already"):
        adapter.put_on(model)
    with pytest.raises(InputError, match="the model has no LoRA"):
        models.adapter_of(build(**NO_DROPOUT))


def test_damage_is_told(folder):
    file = folder / "adapter_model.safetensors"
    arrays = load_file(file)
    name = next(name for name in arrays if "lora_B" in name)
    save_file({**arrays, name: np.full_like(arrays[name], np.nan)}, file)
    with pytest.raises(InputError, match="holds values that are not finite"):
        models.read_adapter(folder)
    save_file({key: value for key, value in arrays.items() if key != name}, file)
    with pytest.raises(InputError, match="lacks one of its two matrices"):
        models.read_adapter(folder).put_on(build(**NO_DROPOUT))
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(InputError, match="is not a whole safetensors file"):
        models.read_adapter(folder)
