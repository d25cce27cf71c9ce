"""A model with some of a checkpoint's layers, against the BERT in NumPy of those layers alone."""

from __future__ import annotations

import json

import numpy as np
import pytest
from numpy_bert import CONFIG, batch, classifier, logits_of, with_head

from tfbert import models
from tfbert.errors import InputError
from tfbert.models.families import LONGFORMER
from tfbert.models.fewer_layers import fewer_layers


@pytest.fixture
def four(tmp_path, monkeypatch):
    """A classifier of four layers, no two of which are equal."""
    monkeypatch.setitem(CONFIG, "num_hidden_layers", 4)
    return classifier(tmp_path / "four")


@pytest.mark.parametrize(
    ("chosen", "kept"), [("::2", [0, 2]), ("1::2", [1, 3]), ("3,0,1", [0, 1, 3]), ("-1", [3]), (":", [0, 1, 2, 3])]
)
def test_it_computes_what_the_layers_that_stay_compute(four, monkeypatch, chosen, kept):
    model = models.load(four, "sequence-classification", keep_layers=chosen)
    weights = {name: value for name, value in with_head().items() if ".layer." not in name}
    for place, old in enumerate(kept):
        prefix = f"bert.encoder.layer.{old}."
        layer = {name: value for name, value in with_head().items() if name.startswith(prefix)}
        assert len(layer) == 16
        weights |= {f"bert.encoder.layer.{place}.{name.removeprefix(prefix)}": layer[name] for name in layer}
    monkeypatch.setitem(CONFIG, "num_hidden_layers", len(kept))
    np.testing.assert_allclose(model(batch()).logits.numpy(), logits_of(weights, batch()), atol=1e-5)
    assert model.config.num_hidden_layers == len(kept) and not model.load_report.unexpected


def test_what_is_saved_is_a_checkpoint_of_its_own(four, tmp_path):
    model = models.load(four, "sequence-classification", keep_layers="1::2")
    models.save(model, tmp_path / "two")
    assert json.loads((tmp_path / "two" / "config.json").read_text())["num_hidden_layers"] == 2
    again = models.load(tmp_path / "two", "sequence-classification")
    np.testing.assert_array_equal(again(batch()).logits, model(batch()).logits)


def test_settings_of_each_layer_stay_with_theirs():
    tensors = {f"encoder.layer.{i}.output.dense.weight": i for i in range(3)}
    config = {"num_hidden_layers": 3, "attention_window": [4, 8, 16]}
    kept, changed = fewer_layers(tensors, config, LONGFORMER, "0,2", "here")
    assert kept == {"encoder.layer.0.output.dense.weight": 0, "encoder.layer.1.output.dense.weight": 2}
    assert changed == {"num_hidden_layers": 2, "attention_window": [4, 16]}
    assert config == {"num_hidden_layers": 3, "attention_window": [4, 8, 16]}


def test_layers_that_share_their_weights_cannot_be_left_out():
    shared = {"encoder.albert_layer_groups.0.albert_layers.0.ffn.weight": 0}
    with pytest.raises(InputError, match="here: not each of the 3 layers has weights of its own"):
        fewer_layers(shared, {"num_hidden_layers": 3}, LONGFORMER, "::2", "here")


@pytest.mark.parametrize(
    ("chosen", "message"),
    [
        ("0,4", r"keep_layers is '0,4'; .*layers\[4\] is no layer; the model has layers\[0\] to layers\[3\]"),
        ("9:", r"layers\[9:\] is no layer"),
        ("every", "keep_layers is 'every'; write ::2, :3 or 0,2,5, as Python slices: cannot read"),
        ("", "keep_layers is ''"),
    ],
)
def test_each_mistake_is_told(four, chosen, message):
    with pytest.raises(InputError, match=message):
        models.load(four, "sequence-classification", keep_layers=chosen)
