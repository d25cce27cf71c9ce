"""The way out to KerasHub: it opens what tfbert saved and computes the same hidden states, with Keras 3 in a process of its own."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys

import numpy as np
import pytest
from tiny_families import write

from tfbert import models
from tfbert._compat import tf
from tfbert.models.families import family_of

LIKE_ROBERTA = {"pad_token_id": 1, "layer_norm_eps": 1e-5}
# KerasHub computes GELU by its tanh form in these two, as published ALBERTs do, whatever config.json says.
TANH = {"hidden_act": "gelu_new"}
FAMILIES = {"bert": TANH, "roberta": LIKE_ROBERTA, "xlm-roberta": LIKE_ROBERTA, "distilbert": {}, "albert": TANH}
PROGRAM = """
import sys
import keras_hub
import numpy as np
for folder in sys.argv[1:]:
    model = keras_hub.models.Backbone.from_preset(folder)
    ids = np.load(folder + ".npz")
    names = {"token_ids": "input_ids", "padding_mask": "attention_mask", "segment_ids": "token_type_ids"}
    outputs = model({tensor.name: ids[names[tensor.name]] for tensor in model.inputs})
    np.save(folder + ".npy", outputs["sequence_output"] if isinstance(outputs, dict) else outputs)
"""


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("keras_hub") is None, reason="keras_hub is not installed")
def test_kerashub_opens_what_was_saved_and_computes_the_same(tmp_path):
    there = np.arange(12) < np.array([12, 9, 5])[:, np.newaxis]
    rng, states = np.random.default_rng(0), {}
    for name, settings in FAMILIES.items():
        base = write(name, tmp_path / f"made-{name}", **settings)
        # A head that has all of the encoder's weights; and every token's state, not the first one's alone.
        model = models.load(base, "multiple-choice", encoder="transformers")
        if name == "roberta":  # its one type embedding, which is 0 as published, has no place in KerasHub's
            model.roberta.embeddings.token_type_embeddings.assign(tf.zeros([1, 32]))
        ids = np.where(there, rng.integers(5, 60, there.shape), model.config.pad_token_id)
        types = (np.arange(12) > 3) & there
        features = {"input_ids": ids, "attention_mask": there, "token_type_ids": types}
        features = {key: values.astype(np.int32) for key, values in features.items()}
        models.save(model, tmp_path / name)
        np.savez(tmp_path / f"{name}.npz", **features)
        inputs = {key: tf.constant(features[key]) for key in family_of(name).inputs}
        states[name] = getattr(model, model.base_model_prefix)(inputs)[0].numpy()
    environment = {key: value for key, value in os.environ.items() if key != "TF_USE_LEGACY_KERAS"}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *(str(tmp_path / name) for name in FAMILIES)],
        env={**environment, "KERAS_BACKEND": "tensorflow"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    for name, expected in states.items():
        got = np.load(tmp_path / f"{name}.npy")
        np.testing.assert_allclose(got[there], expected[there], atol=1e-4, rtol=0, err_msg=name)
        assert np.abs(got[there]).max() > 1
