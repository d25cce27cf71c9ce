"""Does a folder that tfbert saved give PyTorch the same model? Prints the largest difference of the logits as JSON.

    python benchmarks/pytorch_parity.py --peer-python PATH_OF_A_PYTHON_WITH_TORCH_AND_TRANSFORMERS_5

tfbert loads the default checkpoint with a new head, saves it, and computes logits on real sentences, alone and in a padded batch. The
other Python loads the folder with BertForSequenceClassification.from_pretrained and computes them again. Exit code 1 where they differ
by more than 1e-5, or where PyTorch finds a weight missing or left over.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

TEXTS = (
    "The parcel arrived a day early and in one piece.",
    "Nobody answers the phone.",
    "",
    "naïve café, 東京, ½ price, emoji 🙂",
    "A long complaint about a late delivery. " * 40,
    "ok",
)
TOLERANCE = 1e-5


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", default="all-MiniLM-L6-v2")
    parser.add_argument("--peer-python", default=sys.executable)
    parser.add_argument("--peer", nargs=2, metavar=("FOLDER", "BATCHES"), help="the half that runs in PyTorch")
    arguments = parser.parse_args()
    if arguments.peer:
        print(json.dumps(in_pytorch(*map(Path, arguments.peer))))
        return 0
    with tempfile.TemporaryDirectory() as place:
        folder, batches = Path(place) / "model", Path(place) / "batches.npz"
        in_tensorflow(arguments.checkpoint, folder, batches)
        command = [arguments.peer_python, __file__, "--peer", str(folder), str(batches)]
        result = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1])
    print(json.dumps(result | {"tolerance": TOLERANCE}))
    return int(result["max_difference"] > TOLERANCE or bool(result["missing"]) or bool(result["unexpected"]))


def in_tensorflow(checkpoint: str, folder: Path, batches: Path) -> None:
    """Saves the model, and the ids and logits of each batch."""
    import tfbert
    from tfbert import models

    tokenizer = tfbert.load_tokenizer(checkpoint)
    model = models.as_keras(models.load(checkpoint, "sequence-classification", id2label=dict(enumerate("abc")), seed=3))
    head = model.transformer.classifier
    head.kernel.assign(head.kernel * 30)  # logits of a trained model's size, so that a difference would show
    head.bias.assign([0.5, -0.25, 0.125])
    models.save(model, folder, tokenizer)
    arrays = {}
    for number, texts in enumerate([*([text] for text in TEXTS), TEXTS]):
        features = tokenizer(list(texts), padding=True, truncation=True, max_length=256, return_tensors="np")
        ids = {name: np.asarray(features[name], np.int32) for name in ("input_ids", "attention_mask", "token_type_ids")}
        arrays |= {f"{number}/{name}": value for name, value in ids.items()}
        arrays[f"{number}/logits"] = model(ids)["logits"].numpy()
    np.savez(batches, **arrays)


def in_pytorch(folder: Path, batches: Path) -> dict:
    """Loads the folder in PyTorch and compares its logits with those that TensorFlow gave."""
    import torch
    import transformers

    model, info = transformers.BertForSequenceClassification.from_pretrained(
        folder, output_loading_info=True, use_safetensors=True
    )
    model.eval()
    stored = np.load(batches)
    differences, size = [], 0.0
    for number in sorted({name.split("/")[0] for name in stored}, key=int):
        names = ("input_ids", "attention_mask", "token_type_ids")
        with torch.no_grad():
            logits = model(
                **{name: torch.tensor(stored[f"{number}/{name}"], dtype=torch.long) for name in names}
            ).logits.numpy()
        differences.append(float(np.abs(logits - stored[f"{number}/logits"]).max()))
        size = max(size, float(np.abs(logits).max()))
    return {
        "max_difference": max(differences),
        "largest_logit": size,
        "batches": len(differences),
        "missing": sorted(info["missing_keys"]),
        "unexpected": sorted(info["unexpected_keys"]),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
    }


if __name__ == "__main__":
    sys.exit(main())
