"""Does PEFT read what LoRA learned here, and tfbert what PEFT saved? Prints the largest differences of the logits as JSON.

    python benchmarks/lora_parity.py --peer-python PATH_OF_A_PYTHON_WITH_TORCH_AND_PEFT

tfbert adds LoRA with random numbers to the default checkpoint, writes the adapter and the logits of real sentences. The other Python puts
the adapter on the same checkpoint with PEFT's `PeftModel.from_pretrained`, computes the logits, changes the adapter's numbers, and saves
it with `save_pretrained`, which tfbert reads again. Exit code 1 where logits differ by more than 1e-5.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

TEXTS = ["The parcel arrived a day early and in one piece.", "Nobody answers the phone.", "naïve café, 東京", "ok"]
TOLERANCE = 1e-5


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", default="all-MiniLM-L6-v2")
    parser.add_argument("--peer-python", default=sys.executable)
    parser.add_argument("--peer", type=Path, help="the half that runs in PyTorch")
    arguments = parser.parse_args()
    if arguments.peer:
        in_pytorch(arguments.peer)
        return 0
    with tempfile.TemporaryDirectory() as place:
        ours = in_tensorflow(arguments.checkpoint, Path(place))
        subprocess.run([arguments.peer_python, __file__, "--peer", place], check=True)
        theirs = np.load(Path(place) / "theirs.npz")
        again = back_in_tensorflow(Path(place))
    found = {
        "tfbert_to_peft": float(np.abs(ours - theirs["first"]).max()),
        "peft_to_tfbert": float(np.abs(again - theirs["second"]).max()),
        "moved_by_the_adapter": float(np.abs(ours - theirs["base"]).max()),
        "tolerance": TOLERANCE,
    }
    print(json.dumps(found))
    return int(max(found["tfbert_to_peft"], found["peft_to_tfbert"]) > TOLERANCE or found["moved_by_the_adapter"] < 0.1)


def in_tensorflow(checkpoint: str, place: Path) -> np.ndarray:
    """Saves the base model and the adapter; returns the logits of the sum."""
    import tfbert
    from tfbert import models

    tokenizer = tfbert.load_tokenizer(checkpoint)
    model = models.load(checkpoint, "sequence-classification", id2label=dict(enumerate("abc")), seed=3)
    models.save(model, place / "base", tokenizer)
    ids = dict(tokenizer(TEXTS, padding=True, return_tensors="np"))
    np.savez(place / "ids.npz", **ids)
    models.add_lora(model, 8, targets=("query", "value", "output", "up"))
    random = np.random.default_rng(0)
    for variable in model.trainable_weights:
        variable.assign(random.normal(0, 0.1, variable.shape))
    models.adapter_of(model).save(place / "adapter")
    return logits(model, ids)


def back_in_tensorflow(place: Path) -> np.ndarray:
    """The logits with the adapter that PEFT saved."""
    from tfbert import models

    model = models.load(place / "base", "sequence-classification")
    models.read_adapter(place / "theirs").put_on(model)
    return logits(model, dict(np.load(place / "ids.npz")))


def logits(model, ids) -> np.ndarray:
    return model({name: values.astype(np.int32) for name, values in ids.items()}).logits.numpy()


def in_pytorch(place: Path) -> None:
    """Puts the adapter on the model with PEFT, and saves another one."""
    import torch
    from peft import PeftModel
    from transformers import BertForSequenceClassification

    ids = {name: torch.tensor(values) for name, values in np.load(place / "ids.npz").items()}
    model = BertForSequenceClassification.from_pretrained(place / "base").eval()
    with torch.no_grad():
        base = model(**ids).logits.numpy()
        model = PeftModel.from_pretrained(model, str(place / "adapter"), is_trainable=True).eval()
        first = model(**ids).logits.numpy()
        for name, weight in model.named_parameters():
            if weight.requires_grad:
                weight *= 1.25 if "lora_A" in name else 0.75
        second = model(**ids).logits.numpy()
    model.save_pretrained(place / "theirs")
    np.savez(place / "theirs.npz", base=base, first=first, second=second)


if __name__ == "__main__":
    sys.exit(main())
