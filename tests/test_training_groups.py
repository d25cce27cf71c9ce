"""fine_tune with frozen groups and rates of their own: equal to plain Keras, and told in metrics.json."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from test_training import OPTIONS, TASK, TRAIN, VALIDATION

import tfbert
from tfbert import models, report, training
from tfbert._compat import keras
from tfbert.errors import InputError


def fine_tune(tiny, place, **options):
    return training.fine_tune(
        TASK,
        tiny,
        TRAIN,
        VALIDATION,
        directory=place,
        export=False,
        **{**OPTIONS, "epochs": 1, "report": False, **options},
    )


@pytest.fixture(scope="module")
def tuned(tiny, tmp_path_factory):
    return fine_tune(tiny, tmp_path_factory.mktemp("runs") / "frozen", freeze="embeddings,layers[:1]", layer_decay=0.5)


def test_what_is_frozen_is_saved_as_it_was_and_counted(tuned, tiny):
    before, after = (load_file(folder / "model.safetensors") for folder in (tiny, tuned.directory / "checkpoint"))
    same = {name for name, value in after.items() if np.array_equal(value, before.get(name.removeprefix("bert."), ()))}
    assert same == {name for name in after if "embeddings" in name or "layer.0" in name}
    stored = json.loads((tuned.directory / "metrics.json").read_text())
    learned = sum(value.size for name, value in after.items() if name not in same)
    assert stored["trainable_parameters"] == learned < stored["parameters"]
    assert {name: group["rate"] for name, group in stored["layer_groups"].items()} == {
        "embeddings": 0,
        "layers[0]": 0,
        "layers[1]": 0.25,
        "pooler": 0.5,
        "head": 1,
    }
    assert stored["settings"]["freeze"] == "embeddings,layers[:1]" and stored["settings"]["layer_decay"] == 0.5
    assert all(count["trainable"] == count["total"] for count in models.count_parameters(tuned.model).values())


def test_plain_keras_gives_the_same_bits(tuned, tiny):
    task = TASK.from_data(tfbert.sources.from_iterable(TRAIN, "train"))
    keras.utils.set_random_seed(0)
    model = task.build(tiny, seed=0)
    dataset = tfbert.make_dataset(task, tfbert.load_tokenizer(tiny), TRAIN, batch_size=8, training=True)
    keras.utils.set_random_seed(0)
    models.freeze(model, "embeddings", "layers[0]")
    rate = tfbert.WarmupLinear(5e-3, total_steps=len(dataset), warmup_fraction=0.1)
    model.compile(tfbert.AdamW(rate, layer_decay=0.5), loss=task.loss())
    model.fit(dataset, epochs=1, verbose=0)
    models.unfreeze(model)
    for mine, expected in zip(tuned.model.weights, model.weights, strict=True):
        np.testing.assert_array_equal(mine.numpy(), expected.numpy(), err_msg=mine.name)


def test_the_rates_of_the_report_s_picture(tuned):
    rates = report._rates(tuned.metrics, 1)
    assert list(rates) == ["layers[1]", "pooler", "head"]
    steps = len(TRAIN) // 8
    warmup = 2  # a tenth of 12 steps, rounded up
    t = np.arange(steps)
    expected = 5e-3 * np.where(t < warmup, t / warmup, (steps - t) / (steps - warmup))
    for name, share in (("layers[1]", 0.25), ("pooler", 0.5), ("head", 1)):
        np.testing.assert_allclose(rates[name], share * expected, rtol=1e-6)


def test_a_frozen_model_in_another_precision_keeps_its_weights_in_their_places(tiny, tmp_path):
    tuned = fine_tune(tiny, tmp_path / "half", freeze="encoder", precision="bfloat16")
    before = load_file(tiny / "model.safetensors")
    after = load_file(tmp_path / "half" / "checkpoint" / "model.safetensors")
    for name, value in before.items():
        np.testing.assert_array_equal(after[f"bert.{name}"], value, err_msg=name)
    assert tuned.metrics["trainable_parameters"] == 2 * 32 + 2


def test_lora_leaves_an_ordinary_checkpoint(tiny, tmp_path):
    tuned = fine_tune(tiny, tmp_path / "lora", lora=4, learning_rate=2e-2)
    before, after = (load_file(folder / "model.safetensors") for folder in (tiny, tmp_path / "lora" / "checkpoint"))
    changed = {name for name, value in before.items() if not np.array_equal(after[f"bert.{name}"], value)}
    assert changed == {
        f"encoder.layer.{i}.attention.self.{part}.weight" for i in range(2) for part in ("query", "value")
    }
    for name in changed:  # of rank 4
        sizes = np.linalg.svd(after[f"bert.{name}"] - before[name], compute_uv=False)
        assert sizes[3] > 1e-4 and sizes[4] < 1e-5
    assert after.keys() == {f"bert.{name}" for name in before} | {"classifier.weight", "classifier.bias"}
    assert tuned.metrics["trainable_parameters"] == 4 * (32 * 4 + 4 * 32) + 2 * 32 + 2
    answers = [
        tfbert.predict(each.task, each.model, each.tokenizer, ["good film"])
        for each in (tuned, tfbert.load(tmp_path / "lora"))
    ]
    np.testing.assert_allclose(answers[0][0]["scores"], answers[1][0]["scores"], atol=1e-5)


def test_what_the_checkpoint_lacks_learns_beside_what_is_frozen(tiny, tmp_path):
    """A pooler that was drawn and would stay so: a checkpoint that a masked LM has left, say."""
    shutil.copytree(tiny, tmp_path / "base")
    weights = load_file(tiny / "model.safetensors")
    kept = {name: value for name, value in weights.items() if "pooler" not in name}
    assert len(kept) == len(weights) - 2
    save_file(kept, tmp_path / "base" / "model.safetensors", metadata={"format": "pt"})
    for name, options, learning in (("lora", {"lora": 2}, 2 * 2 * 2 * (2 * 32)), ("head", {"freeze": "encoder"}, 0)):
        tuned = fine_tune(tmp_path / "base", tmp_path / name, learning_rate=1e-2, **options)
        assert tuned.metrics["trainable_parameters"] == learning + (32 * 32 + 32) + (2 * 32 + 2)
        assert tuned.metrics["layer_groups"]["pooler"]["trainable"] == 32 * 32 + 32
    adapter = load_file(tmp_path / "lora" / "adapter" / "adapter_model.safetensors")
    saved = load_file(tmp_path / "lora" / "checkpoint" / "model.safetensors")
    (name,) = (name for name in adapter if name.endswith("pooler.dense.weight"))
    np.testing.assert_array_equal(adapter[name], saved["bert.pooler.dense.weight"])


def test_mistakes_are_told(tiny, tmp_path):
    for options, message in (
        ({"freeze": "encodr"}, "there is no group 'encodr'; Did you mean 'encoder'"),
        ({"freeze": "encoder,head"}, "freeze is 'encoder,head', which leaves nothing to learn"),
        ({"layer_decay": 0}, "layer_decay is 0; it must be positive"),
        ({"lora": 2, "freeze": "weights"}, "freeze is 'weights', which leaves nothing of lora to learn"),
        ({"lora": 2, "reinitialize": 1}, "lora freezes the layers that reinitialize draws anew"),
        (
            {"reinitialize": 1, "freeze": "encoder"},
            r"freeze is 'encoder', with which layers\[1\] would stay as reinitialize draws",
        ),
        ({"reinitialize": 1, "freeze": "weights"}, "would stay as reinitialize draws it; leave one of the two out"),
        ({"schedule": "warmup-liner"}, "there is no schedule 'warmup-liner'; Did you mean 'warmup-linear'"),
        ({"warmup_fraction": 1.5}, "warmup_fraction is 1.5"),
        ({"weight_decay": -1}, "weight_decay is -1; it must be at least 0"),
        ({"clip_norm": -1.0}, "clip_norm is -1.0; it must be at least 0"),
        ({"patience": 0}, "patience is 0; it must be at least 1"),
        ({"seed": -1}, "seed is -1; each seed must be at least 0"),
        ({"seed": 2**32 - 1, "seeds": 2}, "seed is 4294967295; each seed must be at least 0 and below"),
        ({"monitor": "f1"}, "no score is called 'f1'; there are accuracy, f1_macro, "),
    ):
        with pytest.raises(InputError, match=message):
            fine_tune(tiny, tmp_path / "wrong", **options)
    assert not (tmp_path / "wrong").exists()
