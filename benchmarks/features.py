"""Texts to sentence vectors: tfbert's `predict` and export beside sentence-transformers and transformers' pipeline, the same weights.

    python benchmarks/features.py                                        # the bundled messages
    python benchmarks/features.py --data reviews.csv --text review --rows 500 --max-length 256

Means of the last layer's tokens, of length 1, float32. Each side is a process of its own that loads the model; then each computes all
texts in turn, the others waiting. The result is one JSON object on stdout; a table goes to stderr.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
from pathlib import Path

import numpy as np
from serving import BATCH, SHORT, Side, write_texts
from training import HERE, place, spread

from tfbert.checkpoint_folder import find_checkpoint
from tfbert.errors import InputError
from tfbert.sources import read

OURS, PEERS = ("predict", "export"), ("sentence-transformers", "pipeline", "pipeline-batches")
REFERENCE = "sentence-transformers"  # whose vectors the others' are compared with
TOLERANCE = 1e-5
WORK = HERE.parent / "build" / "features"


def measures(rounds: list[dict], starts: list[dict], texts: int) -> dict[str, list[float]]:
    """A side's figures, of each round."""
    return {
        "texts_per_second": [texts / r["seconds"] for r in rounds],
        "cpu_ms_a_text": [1000 * r["cpu_seconds"] / texts for r in rounds],
        "cold_start_seconds": [r["cold_start_seconds"] for r in starts],
        "peak_memory_mib": [max(r["peak_memory_bytes"] for r in rounds) / 2**20],
    }


def ratios(ours: dict[str, list[float]], theirs: dict[str, list[float]]) -> dict[str, dict[str, float]]:
    """How many times as good we are in each measure, of neighbouring rounds: above 1, tfbert is the better one."""
    return {
        name: spread(
            [a / b if name == "texts_per_second" else b / a for a, b in zip(values, theirs[name], strict=True)]
        )
        for name, values in ours.items()
    }


def measure(commands: dict[str, tuple], texts: list[str], rounds: int, starts: int) -> tuple[dict, dict]:
    """Starts every side and lets them work in turn; returns of each what it measured, and the vectors [N, D]."""
    file = write_texts(WORK / "texts.txt", texts)
    found = {name: {"rounds": [], "starts": []} for name in commands}
    for _ in range(starts):
        for name, command in commands.items():
            side = Side(name, *command)
            side.stop()
            found[name]["starts"].append(side.first)
    sides, vectors = [], {}
    try:
        for name, command in commands.items():
            sides.append(Side(name, *command))
            sides[-1](file, BATCH, answers=True)  # also the warm-up
            vectors[name] = np.load(f"{file}.{name}.npy")
        for number in range(rounds):
            for side in sides:
                found[side.name]["rounds"].append(side(file, BATCH))
            told = "  ".join(
                f"{side.name} {len(texts) / found[side.name]['rounds'][-1]['seconds']:.0f}" for side in sides
            )
            print(f"round {number + 1}/{rounds}  texts/s: {told}", file=sys.stderr, flush=True)
    finally:
        for side in sides:
            side.stop()
    return found, vectors


def summary(found: dict[str, dict], vectors: dict[str, np.ndarray], texts: list[str]) -> dict:
    """What `measure` returned, in figures of each side, ratios of ours to the peers', and how far vectors are apart."""
    figures = {name: measures(of["rounds"], of["starts"], len(texts)) for name, of in found.items()}
    words = [len(text.split()) for text in texts]
    return {
        "benchmark": "features",
        "sides": {
            name: {
                "measures": {key: spread(values) for key, values in of.items()},
                **found[name]["starts"][0].get("about", {}),
            }
            for name, of in figures.items()
        },
        "ratios": {f"{ours} to {peer}": ratios(figures[ours], figures[peer]) for ours in OURS for peer in PEERS},
        "largest_difference": {
            name: float(f"{np.abs(of - vectors[REFERENCE]).max():.2g}")
            for name, of in vectors.items()
            if name != REFERENCE
        },
        "texts": len(texts),
        "words": [min(words), statistics.median(words), max(words)],
        "dimensions": int(vectors[REFERENCE].shape[1]),
    }


def table(result: dict) -> str:
    """The result as lines to read."""
    lines = [f"{'':24}{'texts/s':>10}{'CPU ms a text':>15}{'start s':>9}{'MiB':>7}{'apart by':>10}"]
    for name, side in result["sides"].items():
        m = {key: value["median"] for key, value in side["measures"].items()}
        lines.append(
            f"{name:24}{m['texts_per_second']:10.1f}{m['cpu_ms_a_text']:15.2f}{m['cold_start_seconds']:9.2f}"
            f"{m['peak_memory_mib']:7.0f}{result['largest_difference'].get(name, 0):10.1g}"
        )
    for name, found in result["ratios"].items():
        of = found["texts_per_second"]
        lines.append(f"{name}: {of['median']:.2f} times the texts a second ({of['min']:.2f} to {of['max']:.2f})")
    return "\n".join(lines)


def commands(options: argparse.Namespace) -> dict[str, tuple]:
    """The sides' command lines, environments and logs by name; tfbert's export is made anew."""
    shutil.rmtree(WORK, ignore_errors=True)
    WORK.mkdir(parents=True)
    job, path = (
        {
            "checkpoint": str(find_checkpoint(options.checkpoint)),
            "export": str(WORK / "export"),
            "first": str(write_texts(WORK / "first.txt", [SHORT])),
            "max_length": options.max_length,
            "threads": options.threads,
        },
        WORK / "job.json",
    )
    path.write_text(json.dumps(job), "utf-8")
    # Neither side may find an accelerator; the tokenizers of the peers may use the same threads as all else.
    environment = {"CUDA_VISIBLE_DEVICES": "-1", "TOKENIZERS_PARALLELISM": "true", "HF_HUB_OFFLINE": "1"}
    environment |= {name: str(options.threads) for name in ("RAYON_NUM_THREADS", "OMP_NUM_THREADS")}
    script = str(HERE / "features_sides.py")
    prepare = [sys.executable, script, "prepare", str(path)]
    subprocess.run(prepare, check=True, stdout=sys.stderr, env={**os.environ, **environment})
    pythons = dict.fromkeys(OURS, sys.executable) | dict.fromkeys(PEERS, options.peer_python)
    return {
        name: ([python, script, name, str(path)], environment, WORK / f"{name}.log") for name, python in pythons.items()
    }


def arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", default="all-MiniLM-L6-v2", help="default all-MiniLM-L6-v2")
    parser.add_argument("--data", default=str(HERE.parent / "examples" / "data" / "delivery_train.csv"), help="texts")
    parser.add_argument("--text", default="text", help="the column of texts (default text)")
    parser.add_argument("--rows", type=int, help="only the first so many rows (default all)")
    parser.add_argument("--max-length", type=int, default=128, help="tokens of a text (default 128)")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="of each side (default all cores)")
    parser.add_argument("--rounds", type=int, default=7, help="all texts once, by each side (default 7)")
    parser.add_argument("--starts", type=int, default=3, help="cold starts of each side (default 3)")
    parser.add_argument(
        "--peer-python", default=".venv-peers/bin/python", help="its interpreter (see requirements-peers.txt)"
    )
    return parser


def main(argv: list[str] | None = None) -> int:
    options = arguments().parse_args(argv)
    load = os.getloadavg()[0]
    try:
        if not Path(options.peer_python).is_file():
            raise InputError(
                f"there is no {options.peer_python}; `make bench` makes it, or name one with --peer-python"
            )
        texts = [row["text"] for row in read(options.data, columns={"text": options.text})][: options.rows]
        sides = commands(options)
    except InputError as error:
        print(f"features.py: {error}", file=sys.stderr)
        return 2
    result = summary(*measure(sides, texts, options.rounds, options.starts), texts)
    result["settings"] = {
        "data": Path(options.data).name,
        "batch": BATCH,
        **{name: getattr(options, name) for name in ("checkpoint", "max_length", "threads", "rounds", "starts")},
    }
    result["machine"] = place(load)
    print(table(result), file=sys.stderr)
    print(json.dumps(result))
    return int(max(result["largest_difference"].values()) > TOLERANCE)


if __name__ == "__main__":
    sys.exit(main())
