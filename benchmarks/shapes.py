"""One training step of 32 rows of 128 tokens, inference of as many, and of one row of 32: ids in, beside PyTorch and the runtimes.

    python benchmarks/shapes.py                                  # bfloat16 where the processor multiplies it, else float32
    python benchmarks/shapes.py --precision float32 --rounds 3

The encoder and a head of eight labels alone, without strings, padding and data: what serving.py and training.py measure end to end. The
sides are tfbert's lean encoder, TF Transformers' layers in a graph, PyTorch, ONNX Runtime and OpenVINO, each a process of its own with
the same weights; they take turns. The result is one JSON object on stdout; a table goes to stderr. Exit code 1: logits differ.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from serving import BFLOAT16, FROZEN, PAUSE, Side, percentile
from training import HERE, machine, place, spread

from tfbert.checkpoint_folder import find_checkpoint
from tfbert.errors import InputError

OURS, PEERS = ("tfbert", "tfbert-frozen", "transformers-tf"), ("torch", "onnx", "onnx-int8", "openvino")
SHAPES = {"training": (32, 128), "batch": (32, 128), "sentence": (1, 32)}
TIMES = {"training": 3, "batch": 5, "sentence": 60}  # calls a round
WARM_UP = {"training": 2, "batch": 2, "sentence": 20}
TOLERANCE = {"float32": 1e-4, "bfloat16": 0.1}  # of a logit, beside tfbert's
WORK = HERE.parent / "build" / "shapes"


class Turn(Side):
    """A process of shapes_sides.py: calls something so many times when it is its turn."""

    def __call__(self, work: str, times: int) -> dict:
        time.sleep(PAUSE)
        self.process.stdin.write(f"{work} {times}\n")
        self.process.stdin.flush()
        return self._report()


def measure(commands: dict[str, tuple], rounds: int) -> dict[str, dict]:
    """Of each side what it told first, and by work the median seconds of a call in each round."""
    sides, found = [], {}
    try:
        for name, command in commands.items():
            print(f"preparing {name} ...", file=sys.stderr, flush=True)
            sides.append(Turn(name, *command))
            found[name] = {"first": sides[-1].first, **{work: [] for work in sides[-1].first["works"]}}
            for work in sides[-1].first["works"]:
                sides[-1](work, WARM_UP[work])
        for number in range(rounds):
            for work in SHAPES:
                for side in (side for side in sides if work in found[side.name]):
                    found[side.name][work].append(percentile(side(work, TIMES[work])["seconds"], 0.5))
            done = "  ".join(f"{name} {1000 * of['sentence'][-1]:.2f}" for name, of in found.items())
            print(f"round {number + 1}/{rounds}  ms a sentence: {done}", file=sys.stderr, flush=True)
    finally:
        for side in sides:
            side.stop()
    return found


def figures(of: dict) -> dict[str, list[float]]:
    """A side's figures of each round: tokens a second of what has many, milliseconds of the sentence."""
    found = {
        f"{work}_tokens_per_second": [np.prod(SHAPES[work]) / seconds for seconds in of[work]]
        for work in ("training", "batch")
        if work in of
    }
    return found | {"sentence_ms": [1000 * seconds for seconds in of["sentence"]]}


def ratios(ours: dict, theirs: dict) -> dict[str, dict[str, float]]:
    """How many times as good we are, of neighbouring rounds: above 1, tfbert is the better one."""
    return {
        name: spread([b / a if name == "sentence_ms" else a / b for a, b in zip(ours[name], theirs[name], strict=True)])
        for name in theirs
    }


def summary(found: dict[str, dict]) -> dict:
    """What `measure` returned in figures, ratios and differences of the batch's logits."""
    of = {name: figures(each) for name, each in found.items()}
    reference, *others = of
    logits = {name: np.array(each["first"]["logits"]) for name, each in found.items()}
    return {
        "benchmark": "shapes",
        "sides": {
            name: {
                "measures": {key: spread(values, 2) for key, values in of[name].items()},
                **found[name]["first"]["about"],
            }
            for name in of
        },
        "ratios": {name: ratios(of[reference], of[name]) for name in others},
        "largest_difference": {name: float(f"{np.abs(logits[name] - logits[reference]).max():.2g}") for name in others},
    }


def table(result: dict) -> str:
    """The result as lines to read."""
    names = ("training_tokens_per_second", "batch_tokens_per_second", "sentence_ms")
    lines = [f"{'':17}{'training tok/s':>16}{'batch tok/s':>14}{'sentence ms':>14}{'apart by':>10}"]
    for name, side in result["sides"].items():
        shown = [f"{side['measures'][key]['median']:,.2f}" if key in side["measures"] else "" for key in names]
        apart = result["largest_difference"].get(name, 0)
        lines.append(f"{name:17}{shown[0]:>16}{shown[1]:>14}{shown[2]:>14}{apart:10.1g}")
    for name, ratio in result["ratios"].items():
        told = [f"{key} {of['median']:.2f} ({of['min']:.2f} to {of['max']:.2f})" for key, of in ratio.items()]
        lines.append(f"tfbert to {name}: {'  '.join(told)}")
    return "\n".join(lines)


def commands(options: argparse.Namespace, flags: list[str]) -> dict[str, tuple]:
    """The sides' command lines, environments and logs by name; their files are made anew."""
    shutil.rmtree(WORK, ignore_errors=True)
    (WORK / "peers").mkdir(parents=True)
    path, job = (
        WORK / "job.json",
        {
            "from": str(find_checkpoint(options.checkpoint)),
            "original": str(WORK / "classifier"),
            "checkpoint": str(WORK / "peers" / "checkpoint"),
            "folder": str(WORK / "peers"),
            "temperature": 1.0,
            "threads": options.threads,
            "precision": options.precision,
            "max_length": SHAPES["batch"][1],
            "flags": flags,
            "shapes": SHAPES,
        },
    )
    path.write_text(json.dumps(job), "utf-8")
    # No side may find an accelerator; all have oneDNN, which tfbert turns on where it trains and serves on a processor.
    environment = {"CUDA_VISIBLE_DEVICES": "-1", "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": str(options.threads)}
    environment |= {"TF_ENABLE_ONEDNN_OPTS": "1", "TOKENIZERS_PARALLELISM": "false"}
    script = str(HERE / "shapes_sides.py")
    for command in (
        [sys.executable, script, "prepare", str(path)],
        [options.peer_python, str(HERE / "peers_serving.py"), "prepare", str(path)],
    ):
        subprocess.run(command, check=True, stdout=sys.stderr, env={**os.environ, **environment})
    pythons = dict.fromkeys(OURS, sys.executable) | dict.fromkeys(PEERS, options.peer_python)
    if options.precision == "bfloat16":
        del pythons["onnx"]  # it has float32 and int8 only
    own = {"tfbert-frozen": {FROZEN: "1"}}
    return {
        name: ([python, script, name, str(path)], environment | own.get(name, {}), WORK / f"{name}.log")
        for name, python in pythons.items()
    }


def arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", default="all-MiniLM-L6-v2", help="default all-MiniLM-L6-v2")
    parser.add_argument(
        "--precision",
        choices=["auto", "float32", "bfloat16"],
        default="auto",
        help="of all sides but onnx-int8; auto (default): bfloat16 where the processor has its instructions",
    )
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="of each side (default all cores)")
    parser.add_argument("--rounds", type=int, default=7, help="default 7")
    parser.add_argument(
        "--peer-python", default=".venv-peers/bin/python", help="its interpreter (see requirements-peers.txt)"
    )
    return parser


def main(argv: list[str] | None = None) -> int:
    options = arguments().parse_args(argv)
    cpuinfo, load = Path("/proc/cpuinfo"), os.getloadavg()[0]
    flags = machine(cpuinfo.read_text() if cpuinfo.is_file() else "")["flags"]
    if options.precision == "auto":
        options.precision = "bfloat16" if BFLOAT16 & set(flags) else "float32"
    try:
        if not Path(options.peer_python).is_file():
            raise InputError(
                f"there is no {options.peer_python}; `make bench` makes it, or name one with --peer-python"
            )
        sides = commands(options, flags)
    except InputError as error:
        print(f"shapes.py: {error}", file=sys.stderr)
        return 2
    result = summary(measure(sides, options.rounds))
    result["settings"] = {
        **{name: getattr(options, name) for name in ("checkpoint", "threads", "rounds")},
        "shapes": SHAPES,
    }
    result |= {"precision": options.precision, "machine": place(load)}
    print(table(result), file=sys.stderr)
    print(json.dumps(result))
    exact = [value for name, value in result["largest_difference"].items() if name != "onnx-int8"]
    return int(max(exact) > TOLERANCE[options.precision])


if __name__ == "__main__":
    sys.exit(main())
