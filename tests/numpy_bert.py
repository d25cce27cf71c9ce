"""An independent BERT (Devlin et al. 2019) in NumPy, and tiny checkpoints in PyTorch's names made without any library's model code."""

from __future__ import annotations

import json
import math

import numpy as np
from safetensors.numpy import save_file

CONFIG = {
    "model_type": "bert",
    "vocab_size": 100,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "max_position_embeddings": 40,
    "type_vocab_size": 2,
    "hidden_act": "gelu",
    "hidden_dropout_prob": 0.1,
    "attention_probs_dropout_prob": 0.1,
    "initializer_range": 0.02,
    "layer_norm_eps": 1e-12,
    "pad_token_id": 0,
}
HIDDEN, INNER = CONFIG["hidden_size"], CONFIG["intermediate_size"]


def bert_weights(seed=0) -> dict[str, np.ndarray]:
    """A bare BERT in PyTorch's names and layout, every value different."""
    draw = np.random.default_rng(seed)
    shapes = {
        "embeddings.word_embeddings.weight": (CONFIG["vocab_size"], HIDDEN),
        "embeddings.position_embeddings.weight": (CONFIG["max_position_embeddings"], HIDDEN),
        "embeddings.token_type_embeddings.weight": (2, HIDDEN),
        "embeddings.LayerNorm.weight": (HIDDEN,),
        "embeddings.LayerNorm.bias": (HIDDEN,),
        "pooler.dense.weight": (HIDDEN, HIDDEN),
        "pooler.dense.bias": (HIDDEN,),
    }
    for i in range(CONFIG["num_hidden_layers"]):
        for name, rows, columns in (
            ("attention.self.query", HIDDEN, HIDDEN),
            ("attention.self.key", HIDDEN, HIDDEN),
            ("attention.self.value", HIDDEN, HIDDEN),
            ("attention.output.dense", HIDDEN, HIDDEN),
            ("intermediate.dense", INNER, HIDDEN),
            ("output.dense", HIDDEN, INNER),
        ):
            shapes[f"encoder.layer.{i}.{name}.weight"] = (rows, columns)
            shapes[f"encoder.layer.{i}.{name}.bias"] = (rows,)
        for name in ("attention.output", "output"):
            shapes[f"encoder.layer.{i}.{name}.LayerNorm.weight"] = (HIDDEN,)
            shapes[f"encoder.layer.{i}.{name}.LayerNorm.bias"] = (HIDDEN,)
    return {
        name: (draw.normal(1 if "LayerNorm.weight" in name else 0, 0.2, shape)).astype(np.float32)
        for name, shape in shapes.items()
    }


def with_head(seed=0, labels=3, name="classifier") -> dict[str, np.ndarray]:
    draw = np.random.default_rng(seed + 100)
    weights = {f"bert.{key}": value for key, value in bert_weights(seed).items()}
    weights[f"{name}.weight"] = draw.normal(0, 0.5, (labels, HIDDEN)).astype(np.float32)
    weights[f"{name}.bias"] = draw.normal(0, 0.5, labels).astype(np.float32)
    return weights


def write(folder, weights, **config):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps({**CONFIG, **config}))
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def classifier(folder, labels=3, seed=0, **config):
    names = {str(i): f"name-{i}" for i in range(labels)}
    return write(
        folder, with_head(seed, labels), architectures=["BertForSequenceClassification"], id2label=names, **config
    )


def batch():
    draw = np.random.default_rng(5)
    ids = draw.integers(1, CONFIG["vocab_size"], (4, 11)).astype(np.int32)
    mask = (np.arange(11) < np.array([[11], [7], [3], [9]])).astype(np.int32)
    types_ = (np.arange(11) >= np.array([[5], [4], [2], [11]])).astype(np.int32)
    return {"input_ids": ids * mask, "attention_mask": mask, "token_type_ids": types_ * mask}


def norm(x, weight, bias):
    return (x - x.mean(-1, keepdims=True)) / np.sqrt(
        x.var(-1, keepdims=True) + CONFIG["layer_norm_eps"]
    ) * weight + bias


def numpy_bert(weights, inputs):
    w = {name.removeprefix("bert."): value.astype(np.float64) for name, value in weights.items()}
    count, length = inputs["input_ids"].shape
    x = (
        w["embeddings.word_embeddings.weight"][inputs["input_ids"]]
        + w["embeddings.position_embeddings.weight"][:length]
    )
    x = norm(
        x + w["embeddings.token_type_embeddings.weight"][inputs["token_type_ids"]],
        w["embeddings.LayerNorm.weight"],
        w["embeddings.LayerNorm.bias"],
    )
    heads, erf = CONFIG["num_attention_heads"], np.vectorize(math.erf)
    for i in range(CONFIG["num_hidden_layers"]):
        layer = {
            name.removeprefix(f"encoder.layer.{i}."): value
            for name, value in w.items()
            if name.startswith(f"encoder.layer.{i}.")
        }

        def dense(name, value, layer=layer):
            return value @ layer[f"{name}.weight"].T + layer[f"{name}.bias"]

        def parted(value):
            return value.reshape(count, length, heads, HIDDEN // heads).transpose(0, 2, 1, 3)

        query, key, value = (parted(dense(f"attention.self.{name}", x)) for name in ("query", "key", "value"))
        scores = query @ key.transpose(0, 1, 3, 2) / math.sqrt(HIDDEN // heads)
        scores = np.where(inputs["attention_mask"][:, None, None, :] > 0, scores, -np.inf)
        scores = np.exp(scores - scores.max(-1, keepdims=True))
        mixed = (scores / scores.sum(-1, keepdims=True) @ value).transpose(0, 2, 1, 3).reshape(count, length, HIDDEN)
        x = norm(
            x + dense("attention.output.dense", mixed),
            layer["attention.output.LayerNorm.weight"],
            layer["attention.output.LayerNorm.bias"],
        )
        inner = dense("intermediate.dense", x)
        inner = inner * 0.5 * (1 + erf(inner / math.sqrt(2)))
        x = norm(x + dense("output.dense", inner), layer["output.LayerNorm.weight"], layer["output.LayerNorm.bias"])
    pooled = np.tanh(x[:, 0] @ w["pooler.dense.weight"].T + w["pooler.dense.bias"])
    return x, pooled


def logits_of(weights, inputs, name="classifier"):
    return numpy_bert(weights, inputs)[1] @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]
