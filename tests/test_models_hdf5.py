"""tf_model.h5: the weights that Transformers' TensorFlow models wrote come back bit for bit, and nothing else of HDF5 is done."""

from __future__ import annotations

import re
import shutil

import h5py
import numpy as np
import pytest

from tfbert import models
from tfbert._compat import keras, transformers
from tfbert.errors import InputError
from tfbert.models.loading import quiet

KERNEL = "tf_bert_for_sequence_classification/bert/encoder/layer_._1/attention/self/query/kernel:0"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A fine-tuned model as people have it on their disks."""
    config = transformers.BertConfig(
        vocab_size=40,
        hidden_size=8,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=12,
        max_position_embeddings=16,
        num_labels=3,
    )
    keras.utils.set_random_seed(6)
    place = tmp_path_factory.mktemp("hdf5") / "old"
    with quiet():
        # Named, since Keras numbers the models of one process, and KERNEL tells where in the file the name stands.
        model = transformers.TFBertForSequenceClassification(config, name=KERNEL.split("/")[0])
        model.build_in_name_scope()
        for variable in model.weights:
            variable.assign(np.random.default_rng(len(variable.name)).normal(size=variable.shape))
        model.save_pretrained(place, safe_serialization=False)
    assert (place / "tf_model.h5").is_file() and not (place / "model.safetensors").exists()
    return place, {variable.name.split("/", 1)[1]: variable.numpy() for variable in model.weights}


def test_the_weights_come_back_bit_for_bit(folder):
    place, expected = folder
    model = models.load(place, "sequence-classification", num_labels=3)
    got = {variable.name.split("/", 1)[1]: variable.numpy() for variable in model.weights}
    assert got.keys() == expected.keys() and not model.load_report.missing
    for name, values in expected.items():
        np.testing.assert_array_equal(got[name], values)


def test_safetensors_is_taken_where_both_are(folder, tmp_path):
    place, expected = folder
    shutil.copytree(place, tmp_path / "both")
    model = models.load(place, "sequence-classification", num_labels=3)
    model.weights[0].assign_add([[1.0]] * 40 * np.ones((40, 8), np.float32))
    models.save(model, tmp_path / "saved")
    shutil.copy(tmp_path / "saved" / "model.safetensors", tmp_path / "both")
    again = models.load(tmp_path / "both", "sequence-classification", num_labels=3)
    np.testing.assert_array_equal(again.weights[0].numpy(), model.weights[0].numpy())


def truncated(file):
    file.write_bytes(file.read_bytes()[:3000])


def changed(change):
    def apply(file):
        with h5py.File(file, "r+") as source:
            change(source["bert"])

    return apply


def replace(make):
    def apply(group):
        values = group[KERNEL][()]
        del group[KERNEL]
        make(group, values)

    return changed(apply)


@pytest.mark.parametrize(
    "spoil, message",
    [
        (truncated, "tf_model.h5 is not a whole HDF5 file"),
        (lambda file: file.write_bytes(b"no HDF5"), "tf_model.h5 is not a whole HDF5 file"),
        (replace(lambda g, v: None), "kernel:0' is named, but not there"),
        (
            replace(lambda g, v: g.__setitem__(KERNEL, h5py.ExternalLink("/etc/passwd", "/x"))),
            "is a link to another place",
        ),
        (replace(lambda g, v: g.__setitem__(KERNEL, h5py.SoftLink("/classifier"))), "is a link to another place"),
        (
            replace(lambda g, v: g.create_dataset(KERNEL, v.shape, "f4", external=[("/etc/passwd", 0, 256)])),
            "lies in another file",
        ),
        (replace(lambda g, v: g.create_dataset(KERNEL, data=v, compression="lzf")), "is packed with the filter 32000"),
        (replace(lambda g, v: g.create_dataset(KERNEL, data=v.astype("S4"))), "has the type |S4"),
        (
            replace(lambda g, v: g.create_dataset(KERNEL, data=v[:4])),
            "has in another shape encoder.layer.1.attention.self.query.weight",
        ),
        (replace(lambda g, v: g.create_dataset(KERNEL, data=v * np.nan)), "holds 64 values that are not finite"),
    ],
)
def test_what_is_not_plain_numbers_is_refused(folder, tmp_path, spoil, message):
    shutil.copytree(folder[0], tmp_path / "bad")
    spoil(tmp_path / "bad" / "tf_model.h5")
    with pytest.raises(InputError, match=re.escape(message)):
        models.load(tmp_path / "bad", "sequence-classification", num_labels=3)


def test_gzip_is_read(folder, tmp_path):
    shutil.copytree(folder[0], tmp_path / "packed")
    replace(lambda g, v: g.create_dataset(KERNEL, data=v, compression="gzip", shuffle=True))(
        tmp_path / "packed" / "tf_model.h5"
    )
    model = models.load(tmp_path / "packed", "sequence-classification", num_labels=3)
    got = {variable.name.split("/", 1)[1]: variable.numpy() for variable in model.weights}
    np.testing.assert_array_equal(got[KERNEL.split("/", 1)[1]], folder[1][KERNEL.split("/", 1)[1]])
