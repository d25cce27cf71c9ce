"""Raw strings in, labels out: a tfbert export beside PyTorch's pipeline, ONNX Runtime and OpenVINO with the same weights.

    python benchmarks/serving.py                                             # fine-tunes the default checkpoint first, once
    python benchmarks/serving.py --model saved_models/NAME --data reviews.csv --text review
    python benchmarks/serving.py --export tfbert=saved_models/NAME/1 --export onednn=saved_models/NAME/1,TF_ENABLE_ONEDNN_OPTS=1

Each side is a process of its own that loads the model and answers; then they work in turn, A B C A B C, the others waiting. The
result is one JSON object on stdout; a table goes to stderr.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path

from training import HERE, machine, spread

from tfbert.errors import InputError
from tfbert.serving.layout import saved_model
from tfbert.sources import read

SHORT = "The parcel has still not arrived and nobody answers me"  # ten words
PEERS = ("pipeline", "onnx", "onnx-int8", "openvino")
BFLOAT16 = {"avx512_bf16", "amx_bf16"}
BATCH = 32
PAUSE = 0.3  # seconds; threads of the side before may spin a while after its answer
WORK = HERE.parent / "build" / "serving"
# Variables that change a side's speed; whichever are set are told with the result.
TOLD = ("OMP_WAIT_POLICY", "TF_ENABLE_ONEDNN_OPTS")
FROZEN = "TF_ONEDNN_ASSUME_FROZEN_WEIGHTS"  # oneDNN rearranges the weights of a product once


class Side:
    """A process that answers texts: starts at once, `first` is its first answer."""

    def __init__(self, name: str, command: list[str], environment: dict[str, str], log: Path):
        self.name, self.log = name, log
        begin = time.perf_counter()
        with log.open("w") as file:
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=file,
                text=True,
                env={**os.environ, **environment},
            )
        self.first = self._report()
        self.first["cold_start_seconds"] = time.perf_counter() - begin

    def __call__(self, path: Path, batch: int, answers: bool = False) -> dict:
        """All texts of a file once, in batches."""
        time.sleep(PAUSE)
        self.process.stdin.write(f"{batch} {int(answers)} {path}\n")
        self.process.stdin.flush()
        return self._report()

    def _report(self) -> dict:
        line = self.process.stdout.readline()
        if not line:
            code, told = self.process.wait(), self.log.read_text("utf-8", "replace")[-2000:]
            self.stop()
            raise RuntimeError(f"{self.name} ended with exit code {code}:\n{told}")
        return json.loads(line)

    def stop(self) -> None:
        self.process.kill()
        self.process.communicate()


def percentile(values: list[float], share: float) -> float:
    """The smallest of the values that at least this share of them does not exceed (nearest rank)."""
    ordered = sorted(values)
    return ordered[max(0, -(-len(ordered) * round(100 * share) // 100) - 1)]


def parse_export(text: str) -> dict:
    """NAME=FOLDER[,signature=S][,intra=N][,inter=N][,VARIABLE=VALUE ...] in parts; variables of the environment are in capitals."""
    (name, *folder), *settings = ([part.split("=", 1) for part in text.split(",")]) if text else [[""]]
    found = {"name": name, "folder": folder[0] if folder else "", "environment": {}}
    for setting in settings:
        key, value = setting if len(setting) == 2 else (setting[0], "")
        if key == "signature" or (key in ("intra", "inter") and value.isdigit()):
            found[key] = value
        elif key.isupper() and value:
            found["environment"][key] = value
        else:
            raise InputError(f"--export {text}: {key} is not signature=S, intra=N, inter=N or VARIABLE=VALUE")
    if not name or not found["folder"]:
        raise InputError(f"--export {text}: NAME=FOLDER is needed")
    return found


def measures(rounds: dict[str, list[dict]], texts: int) -> dict[str, list[float]]:
    """A side's figures, of each round: what is higher for the better side is per second; all else is lower for it."""
    found = {
        f"texts_per_second_{order}": [texts / r["seconds"] for r in rounds[order]] for order in ("sorted", "unsorted")
    }
    found["cpu_ms_a_text_sorted"] = [1000 * r["cpu_seconds"] / texts for r in rounds["sorted"]]
    for share in (50, 95, 99):
        found[f"latency_ms_p{share}"] = [1000 * percentile(r["each"], share / 100) for r in rounds["short"]]
    found["cold_start_seconds"] = [r["cold_start_seconds"] for r in rounds["start"]]
    found["peak_memory_mib"] = [r["peak_memory_bytes"] / 2**20 for r in rounds["short"][-1:]]
    return found


def ratios(ours: dict[str, list[float]], theirs: dict[str, list[float]]) -> dict[str, dict[str, float]]:
    """How many times as good we are in each measure, of neighbouring rounds: above 1, tfbert is the better one."""
    found = {}
    for name in ours:
        higher = name.startswith("texts_per_second")
        found[name] = spread([a / b if higher else b / a for a, b in zip(ours[name], theirs[name], strict=True)])
    return found


def compare_answers(ours: dict, theirs: dict, tolerance: float = 1e-4) -> dict:
    """How equal two sides' answers are: labels, and the scores of the texts on whose label both agree."""
    pairs = list(zip(ours["labels"], theirs["labels"], ours["scores"], theirs["scores"], strict=True))
    gaps = [abs(a - b) for one, other, a, b in pairs if one == other]
    return {
        "texts": len(pairs),
        "equal_labels": round(len(gaps) / len(pairs), 4),
        "different_labels": len(pairs) - len(gaps),
        "different_scores": sum(gap > tolerance for gap in gaps),
        "largest_score_difference": float(f"{max(gaps, default=0.0):.2g}"),
    }


def table(result: dict) -> str:
    """The result as lines to read."""
    lines = [
        f"{'':15}{'texts/s sorted':>15}{'unsorted':>10}{'p50 ms':>9}{'p95':>8}{'p99':>8}{'start s':>9}{'MiB':>7}{'labels':>8}"
    ]
    for name, side in result["sides"].items():
        m = {key: value["median"] for key, value in side["measures"].items()}
        share = result["answers"].get(name, {}).get("equal_labels", 1)
        lines.append(
            f"{name:15}{m['texts_per_second_sorted']:15.1f}{m['texts_per_second_unsorted']:10.1f}{m['latency_ms_p50']:9.2f}"
            f"{m['latency_ms_p95']:8.2f}{m['latency_ms_p99']:8.2f}{m['cold_start_seconds']:9.2f}{m['peak_memory_mib']:7.0f}{share:8.1%}"
        )
    reference = next(iter(result["sides"]))
    for name, found in result["ratios"].items():
        told = "  ".join(
            f"{key} {found[key]['median']:.2f} ({found[key]['min']:.2f} to {found[key]['max']:.2f})"
            for key in ("texts_per_second_sorted", "latency_ms_p50", "cold_start_seconds")
        )
        lines.append(f"{reference} / {name}: {told}")
    return "\n".join(lines)


def write_texts(path: Path, texts: list[str]) -> Path:
    path.write_text("".join(text.encode("utf-8").hex() + "\n" for text in texts), "ascii")
    return path


def measure(commands: dict[str, tuple], texts: list[str], options) -> dict:
    """Starts every side, lets them work in turn, and returns the rounds of each by what was measured, and all answers."""
    orders = {"sorted": sorted(texts, key=len), "unsorted": texts, "short": [SHORT] * options.requests}
    files = {name: write_texts(WORK / f"{name}.txt", column) for name, column in orders.items()}
    found = {name: {"start": [], **{order: [] for order in orders}} for name in commands}
    for _ in range(options.starts):
        for name, command in commands.items():
            side = Side(name, *command)
            side.stop()
            found[name]["start"].append(side.first)
    sides = []
    try:
        for name, command in commands.items():
            sides.append(Side(name, *command))
            found[name]["answers"] = sides[-1](files["sorted"], BATCH, answers=True)  # also the warm-up
            sides[-1](files["short"], 1)
        for number in range(options.rounds):
            for order, file in files.items():
                for side in sides:
                    found[side.name][order].append(side(file, 1 if order == "short" else BATCH))
            told = "  ".join(
                f"{side.name} {len(texts) / found[side.name]['sorted'][-1]['seconds']:.0f}" for side in sides
            )
            print(f"round {number + 1}/{options.rounds}  texts/s: {told}", file=sys.stderr, flush=True)
    finally:
        for side in sides:
            side.stop()
    return found


def fine_tuned(folder: Path) -> Path:
    """The folder of a classifier, fine-tuned first where it is not there."""
    if not (folder / "task.json").is_file():
        data = HERE.parent / "examples" / "data"
        command = [
            sys.executable,
            "-m",
            "tfbert",
            "fine-tune",
            "sequence-classification",
            "--train",
            str(data / "delivery_train.csv"),
        ]
        command += ["--validation", str(data / "delivery_test.csv"), "--output", str(folder), "--learning-rate", "3e-4"]
        subprocess.run(command, check=True, stdout=sys.stderr)
    return folder


def narrowed(model: Path, data: str, text: str) -> Path:
    """A copy of a fine-tuned folder whose newest export is in bfloat16, scored on `data`."""
    folder = WORK / f"{model.name}-bfloat16"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(model, folder)
    command = [sys.executable, "-m", "tfbert", "export", str(folder), "--precision", "bfloat16", "--data", data]
    subprocess.run([*command, "--text", text, "--max-drop", "0.02"], check=True, stdout=sys.stderr)
    return folder


def peers_job(model: Path, options, flags: list[str]) -> dict:
    """What the peers are told; their files are made anew."""
    task = json.loads((model / "task.json").read_text("utf-8"))
    if task["task"] != "sequence-classification" or task["kind"] != "single" or task["pair"]:
        raise InputError(f"{model} is not a single-label classifier of one text")
    return {
        "original": str(model / "checkpoint"),
        "checkpoint": str(WORK / "peers" / "checkpoint"),
        "folder": str(WORK / "peers"),
        "temperature": task["temperature"] or 1.0,
        "max_length": task["max_length"],
        "threads": options.threads,
        "first": str(write_texts(WORK / "first.txt", [SHORT])),
        "flags": flags,
    }


def commands(model: Path, options, flags: list[str]) -> tuple[dict[str, tuple], dict]:
    """The sides' command lines, environments and logs by name, the reference first; and what is known of them."""
    import tfbert_serving  # noqa: PLC0415  loads TensorFlow, which --help need not wait for

    job = peers_job(model, options, flags)
    program = tfbert_serving.compile_program(WORK / "program")
    # Neither side may find an accelerator; the tokenizers of the peers may use the same threads as all else.
    environment = {
        "CUDA_VISIBLE_DEVICES": "-1",
        "TOKENIZERS_PARALLELISM": "true",
        "RAYON_NUM_THREADS": str(options.threads),
    }
    environment |= {"OMP_NUM_THREADS": str(options.threads), "HF_HUB_OFFLINE": "1"}
    found = {}
    exports = options.export or [f"tfbert={model}"]
    if options.setting == "bfloat16" and not options.export:
        lower = narrowed(model, options.data, options.text)
        # As README advises for a server; and without what it advises.
        exports = [f"tfbert={lower},{FROZEN}=1", f"not-frozen={lower}", f"float32={model}"]
    for given in exports:
        export = parse_export(given)
        words = tfbert_serving.command(
            program,
            saved_model(export["folder"]),
            Path(job["first"]),
            intra=int(export.get("intra", options.threads)),
            inter=int(export.get("inter", options.threads)),
            signature=export.get("signature", "serving_default"),
        )
        found[export["name"]] = (words, {**environment, **export["environment"]}, WORK / f"{export['name']}.log")
    about = {"versions": tfbert_serving.versions()}
    peers = list(options.peers)
    if BFLOAT16 & set(flags):
        peers += [f"{name}-bf16" for name in ("pipeline", "openvino") if name in peers]
    if peers:
        Path(job["folder"]).mkdir(parents=True, exist_ok=True)
        path = WORK / "job.json"
        path.write_text(json.dumps(job), "utf-8")
        script = [options.peer_python, str(HERE / "peers_serving.py")]
        done = subprocess.run([*script, "prepare", str(path)], check=True, stdout=subprocess.PIPE, text=True)
        about["peers"] = json.loads(done.stdout)
        found |= {name: ([*script, name, str(path)], environment, WORK / f"{name}.log") for name in peers}
    return found, about


def summary(found: dict[str, dict], texts: list[str], options) -> dict:
    """What `measure` returned, in figures of each side and ratios to the first."""
    figures = {name: measures(rounds, len(texts)) for name, rounds in found.items()}
    reference, *others = figures
    words = [len(text.split()) for text in texts]
    return {
        "benchmark": "serving",
        "sides": {
            name: {
                "measures": {key: spread(values) for key, values in of.items()},
                **found[name]["start"][0].get("about", {}),
            }
            for name, of in figures.items()
        },
        "ratios": {name: ratios(figures[reference], figures[name]) for name in others},
        "answers": {name: compare_answers(found[reference]["answers"], found[name]["answers"]) for name in others},
        "settings": {
            **{name: getattr(options, name) for name in ("threads", "rounds", "requests", "starts")},
            "data": Path(options.data).name,
            "texts": len(texts),
            "words": [min(words), statistics.median(words), max(words)],
            "batch": BATCH,
            "environment": {name: os.environ[name] for name in TOLD if name in os.environ},
            "exports": [re.sub(r"=[^,]*/", "=", text) for text in options.export or []],
        },
    }


def arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--model", type=Path, default=WORK / "model", help="what `tfbert fine-tune` wrote (default: made now)"
    )
    parser.add_argument(
        "--setting",
        choices=["bfloat16"],
        help="tfbert is an export in bfloat16, and the float32 one another side (for processors that multiply bfloat16)",
    )
    parser.add_argument(
        "--export",
        action="append",
        metavar="NAME=FOLDER[,KEY=VALUE...]",
        help="a tfbert side, as often as wanted, the first being compared with all others (default: tfbert=MODEL). Keys: signature, "
        "intra and inter (threads), and variables of the environment",
    )
    parser.add_argument("--peers", nargs="*", choices=PEERS, default=list(PEERS), help="default: all")
    parser.add_argument("--data", default=str(HERE.parent / "examples" / "data" / "delivery_test.csv"), help="texts")
    parser.add_argument("--text", default="text", help="the column of texts (default text)")
    parser.add_argument("--rows", type=int, help="only the first so many rows (default all)")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="of each side (default all cores)")
    parser.add_argument("--rounds", type=int, default=7, help="of texts and of requests (default 7)")
    parser.add_argument("--requests", type=int, default=100, help="requests of one short text in a round (default 100)")
    parser.add_argument("--starts", type=int, default=3, help="cold starts of each side (default 3)")
    parser.add_argument(
        "--peer-python", default=".venv-peers/bin/python", help="its interpreter (see requirements-peers.txt)"
    )
    return parser


def main(argv: list[str] | None = None) -> int:
    options = arguments().parse_args(argv)
    cpuinfo, load = Path("/proc/cpuinfo"), os.getloadavg()[0]
    place = machine(cpuinfo.read_text() if cpuinfo.is_file() else "")
    try:
        if options.peers and not Path(options.peer_python).is_file():
            raise InputError(
                f"there is no {options.peer_python}; `make bench` makes it, or name one with --peer-python"
            )
        texts = [row["text"] for row in read(options.data, columns={"text": options.text})][: options.rows]
        WORK.mkdir(parents=True, exist_ok=True)
        sides, about = commands(fine_tuned(options.model), options, place["flags"])
    except InputError as error:
        print(f"serving.py: {error}", file=sys.stderr)
        return 2
    result = summary(measure(sides, texts, options), texts, options) | {"about": about}
    if options.setting:
        result["precision"] = options.setting
    result["machine"] = {**place, "load_average": [round(load, 2), round(os.getloadavg()[0], 2)]}
    print(table(result), file=sys.stderr)
    print(json.dumps(result))
    equal = () if options.setting else ("pipeline", "onnx", "openvino")
    exact = [answer for name, answer in result["answers"].items() if name in equal]
    return int(any(answer["different_labels"] or answer["different_scores"] for answer in exact))


if __name__ == "__main__":
    sys.exit(main())
