"""Does a Longformer that tfbert saved give PyTorch the same model? Prints the largest difference for each head as JSON.

    python benchmarks/longformer_parity.py --peer-python PATH_OF_A_PYTHON_WITH_TORCH_AND_TRANSFORMERS_5

The other Python makes small models with random weights and saves them with PyTorch's names. tfbert loads each, computes its outputs for
rows of several lengths in padded batches, some longer than the attention's window, and saves it again; the other Python loads that folder
with LongformerForSequenceClassification and its siblings, lets them choose the global tokens by themselves, and computes the outputs again.
Exit code 1 where they differ by more than 1e-5, or where PyTorch finds a weight missing or left over.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

CLASSES = {
    "embedding": "LongformerModel",
    "sequence-classification": "LongformerForSequenceClassification",
    "token-classification": "LongformerForTokenClassification",
    "question-answering": "LongformerForQuestionAnswering",
    "multiple-choice": "LongformerForMultipleChoice",
    "masked-lm": "LongformerForMaskedLM",
}
CONFIG = {
    "vocab_size": 100,
    "hidden_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 96,
    "max_position_embeddings": 320,
    "type_vocab_size": 1,
    "attention_window": [16, 8, 16],
    "layer_norm_eps": 1e-5,
}
LENGTHS = (13, 16, 40, 300)
TOLERANCE = 1e-5


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer-python", default=sys.executable)
    parser.add_argument("--peer", nargs=2, metavar=("make|compare", "FOLDER"), help="the half that runs in PyTorch")
    arguments = parser.parse_args()
    if arguments.peer:
        what, place = arguments.peer
        print(json.dumps({"make": make, "compare": compare}[what](Path(place))))
        return 0
    with tempfile.TemporaryDirectory() as place:
        for what in ("make", "compare"):
            command = [arguments.peer_python, __file__, "--peer", what, place]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            if what == "make":
                in_tensorflow(Path(place))
        result = json.loads(done.stdout.splitlines()[-1])
    print(json.dumps(result | {"tolerance": TOLERANCE}, indent=1))
    heads = [result[name] for name in CLASSES]
    return int(any(head["max_difference"] > TOLERANCE or head["missing"] or head["unexpected"] for head in heads))


def batches(pad: int, separator: int) -> dict[str, np.ndarray]:
    """Rows [CLS] a [SEP] [SEP] b [SEP] of different lengths, with different lengths of a, in a padded batch of four for each length."""
    rng = np.random.default_rng(0)
    made = {}
    for longest in LENGTHS:
        ids = rng.integers(5, CONFIG["vocab_size"], (4, longest)).astype(np.int32)
        mask = np.ones_like(ids)
        for row, length in enumerate((longest, longest - 1, longest - 5, longest * 2 // 3)):
            first = 1 + row + longest // 10
            ids[row, [0, *(first, first + 1), length - 1]] = 3, *(separator, separator), separator
            ids[row, length:], mask[row, length:] = pad, 0
        made |= {f"{longest}/input_ids": ids, f"{longest}/attention_mask": mask}
    return made


def in_tensorflow(place: Path) -> None:
    """Loads what PyTorch saved, saves it again, and computes the outputs of each batch."""
    from tfbert import models

    stored = dict(np.load(place / "batches.npz"))
    for name in CLASSES:
        loaded = models.load(place / name / "pytorch", None if name == "embedding" else name)
        model = models.by_choice(loaded) if name == "multiple-choice" else models.as_keras(loaded)
        models.save(model, place / name / "tfbert")
        outputs = {}
        for length in LENGTHS:
            ids = {key: stored[f"{length}/{key}"] for key in ("input_ids", "attention_mask")}
            outputs |= {f"{length}/{key}": value.numpy() for key, value in model(ids).items()}
        np.savez(place / name / "outputs.npz", **outputs)


def make(place: Path) -> dict:
    """Saves a model for each head in PyTorch: real Longformers' special tokens, but for one whose pad token is 0, as BERT's."""
    import torch
    import transformers

    torch.manual_seed(0)
    for name, kind in CLASSES.items():
        config = transformers.LongformerConfig(**CONFIG, **_special(name), num_labels=2 if "question" in name else 3)
        model = getattr(transformers, kind)(config)
        with torch.no_grad():
            for parameter in model.parameters():  # far from 0, so that a difference would show
                parameter.add_(torch.randn_like(parameter) * 0.1)
        model.save_pretrained(place / name / "pytorch")
    np.savez(place / "batches.npz", **batches(pad=1, separator=2))
    return {}


def _special(name: str) -> dict[str, int]:
    return {"pad_token_id": 0 if name == "token-classification" else 1, "sep_token_id": 2}


def compare(place: Path) -> dict:
    """Loads what tfbert saved and compares PyTorch's outputs with those of tfbert."""
    import torch
    import transformers

    stored = np.load(place / "batches.npz")
    result = {}
    for name, kind in CLASSES.items():
        model, info = getattr(transformers, kind).from_pretrained(
            place / name / "tfbert", output_loading_info=True, use_safetensors=True
        )
        model.eval()
        outputs, differences, size = np.load(place / name / "outputs.npz"), [], 0.0
        for length in LENGTHS:
            ids, mask = (torch.tensor(stored[f"{length}/{key}"]).long() for key in ("input_ids", "attention_mask"))
            inputs = {"input_ids": ids, "attention_mask": mask}
            if name == "multiple-choice":
                inputs = {key: value[:, None] for key, value in inputs.items()}
            if name == "embedding":  # the bare model has no choice of its own
                inputs["global_attention_mask"] = torch.zeros_like(ids).index_fill(1, torch.tensor([0]), 1)
            with torch.no_grad():
                expected = model(**inputs)
            for key in outputs:
                if key.startswith(f"{length}/"):
                    one, other = expected[key.split("/")[1]].numpy(), outputs[key]
                    differences.append(float(np.abs(one - other).max()))
                    size = max(size, float(np.abs(one).max()))
        result[name] = {
            "max_difference": max(differences),
            "largest_output": size,
            "missing": sorted(info["missing_keys"]),
            "unexpected": sorted(info["unexpected_keys"]),
        }
    return result | {"torch": torch.__version__, "transformers": transformers.__version__}


if __name__ == "__main__":
    sys.exit(main())
