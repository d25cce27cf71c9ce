"""Does PyTorch compute the same from what tfbert saved, for every family and head? Prints the largest differences as JSON.

    python benchmarks/family_parity.py --peer-python PATH_OF_A_PYTHON_WITH_TORCH_AND_TRANSFORMERS_5 [--case NAME ...]

The other Python makes small models with random weights and saves them with PyTorch's names. tfbert loads each, computes its outputs for
padded batches of pairs, and saves it again; the other Python loads that folder with the class of the same head and computes the outputs
of the real tokens again. Exit code 1 where they differ by more than 1e-4, or where PyTorch finds a weight missing or left over.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

HEADS = {
    None: "Model",
    "sequence-classification": "ForSequenceClassification",
    "token-classification": "ForTokenClassification",
    "question-answering": "ForQuestionAnswering",
    "multiple-choice": "ForMultipleChoice",
    "masked-lm": "ForMaskedLM",
}
SIZES = {
    "vocab_size": 100,
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "max_position_embeddings": 64,
}
LIKE_ROBERTA = {**SIZES, "type_vocab_size": 1, "pad_token_id": 1, "layer_norm_eps": 1e-5}
NARROW = {**SIZES, "embedding_size": 16}
APART = {
    **SIZES,
    "type_vocab_size": 0,
    "position_biased_input": False,
    "relative_attention": True,
    "pos_att_type": ["c2p", "p2c"],
    "pooler_hidden_size": 32,
}
XLNET = {
    "vocab_size": 100,
    "d_model": 32,
    "n_layer": 3,
    "n_head": 4,
    "d_inner": 48,
}
DISTILBERT = {
    "vocab_size": 100,
    "dim": 32,
    "n_layers": 3,
    "n_heads": 4,
    "hidden_dim": 48,
    "max_position_embeddings": 64,
}
MOBILEBERT = {**NARROW, "intra_bottleneck_size": 24, "num_feedforward_networks": 2}
# How the names of the classes begin, and the settings.
CASES = {
    "bert": ("Bert", SIZES),
    "roberta": ("Roberta", LIKE_ROBERTA),
    "roberta, padding is 0": ("Roberta", {**LIKE_ROBERTA, "pad_token_id": 0}),
    "xlm-roberta": ("XLMRoberta", LIKE_ROBERTA),
    "camembert": ("Camembert", LIKE_ROBERTA),
    "distilbert": ("DistilBert", DISTILBERT),
    "albert": ("Albert", {**NARROW, "hidden_act": "gelu_new"}),
    "albert, two groups of two": (
        "Albert",
        {**NARROW, "num_hidden_layers": 4, "num_hidden_groups": 2, "inner_group_num": 2},
    ),
    "electra": ("Electra", NARROW),
    "electra, one width": ("Electra", {**SIZES, "embedding_size": 32}),
    "mobilebert": ("MobileBert", MOBILEBERT),
    "mobilebert, other bottlenecks": (
        "MobileBert",
        {
            **MOBILEBERT,
            "key_query_shared_bottleneck": False,
            "use_bottleneck_attention": True,
            "trigram_input": False,
            "classifier_activation": False,
        },
    ),
    "mpnet": ("MPNet", {**SIZES, "pad_token_id": 1}),
    "deberta": ("Deberta", APART),
    "deberta, places and types": ("Deberta", {**SIZES, "type_vocab_size": 2, "pooler_hidden_size": 32}),
    "deberta-v2, as v3": (
        "DebertaV2",
        {**APART, "position_buckets": 16, "norm_rel_ebd": "layer_norm", "share_att_key": True},
    ),
    "deberta-v2, convolution": (
        "DebertaV2",
        {**APART, "share_att_key": False, "conv_kernel_size": 3, "conv_act": "gelu", "attention_head_size": 8},
    ),
    "convbert": ("ConvBert", {**NARROW, "conv_kernel_size": 5}),
    "roformer": ("RoFormer", NARROW),
    "roformer, rotary values": ("RoFormer", {**NARROW, "rotary_value": True}),
    "rembert": ("RemBert", {**SIZES, "input_embedding_size": 16, "output_embedding_size": 24}),
    "xlnet": ("XLNet", XLNET),
    "xlnet, distances cut": ("XLNet", {**XLNET, "clamp_len": 7}),
}
# Classes that are called otherwise.
CALLED = {"XLNetForQuestionAnswering": "XLNetForQuestionAnsweringSimple"}
LENGTHS = (13, 40)
TOLERANCE = 1e-4


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer-python", default=sys.executable)
    parser.add_argument("--case", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--peer", nargs=2, metavar=("make|compare", "FOLDER"), help="the half that runs in PyTorch")
    arguments = parser.parse_args()
    if arguments.peer:
        what, place = arguments.peer
        print(json.dumps({"make": make, "compare": compare}[what](Path(place), arguments.case)))
        return 0
    with tempfile.TemporaryDirectory() as place:
        for what in ("make", "compare"):
            command = [arguments.peer_python, __file__, "--case", *arguments.case, "--peer", what, place]
            done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
            if what == "make":
                in_tensorflow(Path(place), arguments.case)
        result = json.loads(done.stdout.splitlines()[-1])
    cells = [cell for heads in result["cases"].values() for cell in heads.values()]
    result["largest_difference"] = max(cell["max_difference"] for cell in cells)
    print(json.dumps(result | {"tolerance": TOLERANCE}, indent=1))
    return int(any(cell["max_difference"] > TOLERANCE or cell["missing"] or cell["unexpected"] for cell in cells))


def batches(pad: int) -> dict[str, np.ndarray]:
    """Rows of pairs of texts, each of another length, padded."""
    rng = np.random.default_rng(0)
    made = {}
    for longest in LENGTHS:
        lengths = np.array([longest, longest - 1, longest - 5, longest * 2 // 3])[:, np.newaxis]
        there = np.arange(longest) < lengths
        ids = np.where(there, rng.integers(5, SIZES["vocab_size"], there.shape), pad)
        types = (np.arange(longest) > lengths // 2) & there
        for name, values in (("input_ids", ids), ("attention_mask", there), ("token_type_ids", types)):
            made[f"{longest}/{name}"] = values.astype(np.int32)
    return made


def folder_of(place: Path, case: str, head: str | None) -> Path:
    return place / case / str(head)


def in_tensorflow(place: Path, cases: list[str]) -> None:
    """Loads what PyTorch saved, saves it again, and computes the outputs of each batch."""
    from tfbert import models

    for case in cases:
        for head in HEADS:
            folder = folder_of(place, case, head)
            if not folder.exists():
                continue
            loaded = models.load(folder / "pytorch", head)
            model = models.by_choice(loaded) if head == "multiple-choice" else models.as_keras(loaded)
            models.save(model, folder / "tfbert")
            stored, outputs = dict(np.load(folder / "batches.npz")), {}
            for length in LENGTHS:
                ids = {tensor.name: stored[f"{length}/{tensor.name}"] for tensor in model.inputs}
                outputs |= {f"{length}/{key}": value.numpy() for key, value in model(ids).items()}
            np.savez(folder / "outputs.npz", **outputs)


def make(place: Path, cases: list[str]) -> dict:
    """Saves a model for each case and head that PyTorch has a class for."""
    import torch
    import transformers

    torch.manual_seed(0)
    for case in cases:
        name, settings = CASES[case]
        for head, suffix in HEADS.items():
            kind = getattr(transformers, CALLED.get(name + suffix, name + suffix), None)
            if kind is None:
                continue
            labels = 2 if head == "question-answering" else 3
            model = kind(getattr(transformers, f"{name}Config")(**settings, num_labels=labels))
            with torch.no_grad():
                for parameter in model.parameters():  # far from 0, so that a difference would show
                    if parameter.requires_grad:
                        parameter.add_(torch.randn_like(parameter) * 0.1)
            model.save_pretrained(folder_of(place, case, head) / "pytorch")
            np.savez(folder_of(place, case, head) / "batches.npz", **batches(model.config.pad_token_id))
    return {}


def compare(place: Path, cases: list[str]) -> dict:
    """Loads what tfbert saved and compares PyTorch's outputs with those of tfbert, at the tokens that are there."""
    import torch
    import transformers

    result: dict = {case: {} for case in cases}
    for case in cases:
        for head, suffix in HEADS.items():
            folder = folder_of(place, case, head)
            if not folder.exists():
                continue
            name = CASES[case][0] + suffix
            model, info = getattr(transformers, CALLED.get(name, name)).from_pretrained(
                folder / "tfbert", output_loading_info=True, use_safetensors=True
            )
            model.eval()
            result[case][str(head)] = {
                **differences(model, head, folder),
                "missing": sorted(info["missing_keys"]),
                "unexpected": sorted(info["unexpected_keys"]),
            }
    return {"cases": result, "torch": torch.__version__, "transformers": transformers.__version__}


def on_the_right(rows: np.ndarray, there: np.ndarray) -> np.ndarray:
    """Moves what is there in each row to its end."""
    return np.stack([np.roll(row, len(row) - mask.sum()) for row, mask in zip(rows, there, strict=True)])


def differences(model, head: str | None, folder: Path) -> dict[str, float]:
    import torch

    stored, outputs = np.load(folder / "batches.npz"), np.load(folder / "outputs.npz")
    ends_with_cls = model.config.model_type == "xlnet"  # PyTorch's rows are then filled up on the left
    takes_types = ends_with_cls or getattr(model.config, "type_vocab_size", 0) > 1
    found, size = [], 0.0
    for length in LENGTHS:
        names = ["input_ids", "attention_mask", *(["token_type_ids"] if takes_types else [])]
        there = stored[f"{length}/attention_mask"] > 0
        rows = {name: stored[f"{length}/{name}"] for name in names}
        if ends_with_cls:
            rows = {name: on_the_right(values, there) for name, values in rows.items()}
        inputs = {name: torch.tensor(values).long() for name, values in rows.items()}
        if head == "multiple-choice":
            inputs = {name: value[:, None] for name, value in inputs.items()}
        with torch.no_grad():
            expected = model(**inputs)
        for key in outputs:
            if key.startswith(f"{length}/"):
                one, other = expected[key.split("/")[1]].numpy(), outputs[key]
                if one.shape[1:2] == (length,):  # what stands at the padding means nothing
                    one, other = one[rows["attention_mask"] > 0], other[there]
                found.append(float(np.abs(one - other).max()))
                size = max(size, float(np.abs(one).max()))
    return {"max_difference": max(found), "largest_output": size}


if __name__ == "__main__":
    sys.exit(main())
