"""Seconds from nothing to a package that is ready: `import tfbert`, `tfbert --help`, and all that training needs, beside PyTorch's.

    python benchmarks/start.py

Each is a new process, in turn; the files are in the system's memory already. The exit code is 1 where `import tfbert` or
`tfbert --help` takes longer than its limit. The result is one JSON object on stdout; a table goes to stderr.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path

from training import place, spread

LIMITS = {"import tfbert": 1.0, "tfbert --help": 0.5}  # seconds
# Names are looked up, not only imported: packages of both sides load their parts on first use.
TFBERT = (
    "import tfbert; from tfbert._compat import keras, tf, transformers; tf.constant(0); keras.Model; "
    "transformers.TFBertForSequenceClassification; tfbert.fine_tune"
)
TRAINER = (
    "import torch; torch.tensor(0); from transformers import AutoModelForSequenceClassification, AutoTokenizer, Trainer"
)
# Ours, the peer's, and the name under which both are compared.
COMPARED = {
    "import": ("import tfbert", "import transformers"),
    "training": ("tfbert, TensorFlow, Keras, Transformers", "torch, Trainer"),
}


def commands(peer_python: str) -> dict[str, list[str]]:
    return {
        "python": [sys.executable, "-c", "pass"],
        "import tfbert": [sys.executable, "-c", "import tfbert"],
        "tfbert --help": [sys.executable, "-m", "tfbert", "--help"],
        "import transformers": [peer_python, "-c", "import transformers"],
        "tfbert, TensorFlow, Keras, Transformers": [sys.executable, "-c", TFBERT],
        "torch, Trainer": [peer_python, "-c", TRAINER],
        "sentence-transformers": [peer_python, "-c", "import sentence_transformers"],
    }


def run(command: list[str]) -> dict[str, float]:
    """Wall-clock seconds and processor seconds of one process."""
    before, begin = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    seconds, after = time.perf_counter() - begin, resource.getrusage(resource.RUSAGE_CHILDREN)
    return {
        "seconds": seconds,
        "cpu_seconds": after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime,
    }


def summary(found: dict[str, list[dict]]) -> dict:
    """The processes' figures, the ratios (above 1, tfbert is the better one), and which limits were kept."""
    sides = {
        name: {key: spread([r[key] for r in of]) for key in ("seconds", "cpu_seconds")} for name, of in found.items()
    }
    return {
        "benchmark": "start",
        "sides": sides,
        "ratios": {
            theirs: {
                name: spread([b["seconds"] / a["seconds"] for a, b in zip(found[ours], found[theirs], strict=True)])
            }
            for name, (ours, theirs) in COMPARED.items()
        },
        "limits": {
            name: {"seconds": limit, "kept": sides[name]["seconds"]["median"] <= limit}
            for name, limit in LIMITS.items()
        },
    }


def table(result: dict) -> str:
    """The result as lines to read."""
    lines = [f"{'':42}{'seconds':>8}{'min':>8}{'max':>8}{'CPU s':>8}{'limit':>7}"]
    for name, side in result["sides"].items():
        of, limit = side["seconds"], result["limits"].get(name, {}).get("seconds", "")
        lines.append(
            f"{name:42}{of['median']:8.2f}{of['min']:8.2f}{of['max']:8.2f}{side['cpu_seconds']['median']:8.2f}{limit!s:>7}"
        )
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9, help="processes of each kind (default 9)")
    parser.add_argument(
        "--peer-python", default=".venv-peers/bin/python", help="its interpreter (see requirements-peers.txt)"
    )
    options = parser.parse_args(argv)
    if not Path(options.peer_python).is_file():
        absent = f"there is no {options.peer_python}; `make bench` makes it, or name one with --peer-python"
        print(f"start.py: {absent}", file=sys.stderr)
        return 2
    load, of = os.getloadavg()[0], commands(options.peer_python)
    for command in of.values():  # not counted: the files come from the disk
        run(command)
    found = {name: [] for name in of}
    for _ in range(options.rounds):
        for name, command in of.items():
            found[name].append(run(command))
    result = {**summary(found), "settings": {"rounds": options.rounds}, "machine": place(load)}
    print(table(result), file=sys.stderr)
    print(json.dumps(result))
    return int(not all(limit["kept"] for limit in result["limits"].values()))


if __name__ == "__main__":
    sys.exit(main())
