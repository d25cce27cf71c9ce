"""Training steps beside the Hugging Face Trainer (PyTorch, dynamic padding, group by length): prints tokens a second and their ratio.

    python benchmarks/training.py                                  # the bundled messages, all of them
    python benchmarks/training.py --setting long                   # movie reviews cut at 256 tokens, from prepare_data.py
    python benchmarks/training.py --setting base                   # 12 layers, 768 wide, random weights, for speed and memory
    python benchmarks/training.py --data reviews.csv --label stars --rows 512 --max-length 256

Both sides train the same checkpoint on the same rows with the same batch size, precision, threads, dropout, clipping and AdamW.
Each is a process of its own that is prepared and warmed up over one whole epoch; then they run one epoch each in turn, the other
waiting. The result is one JSON object on stdout; a table goes to stderr.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from tfbert.checkpoint_folder import find_checkpoint
from tfbert.errors import InputError
from tfbert.sources import read

HERE = Path(__file__).resolve().parent
# What decides how fast matrices are multiplied; the rest of /proc/cpuinfo's flags is noise here.
CPU_FLAGS = ("avx2", "fma", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16", "asimd", "bf16")
# The defaults of `tfbert fine-tune`; the Trainer is given the same.
BASE = "bert-base-random"  # a checkpoint that bert_base.py makes
REVIEWS = str(HERE.parent / "build" / "data" / "movie_reviews" / "train.csv")
# The options of each named setting, where they differ from the defaults.
SETTINGS = {
    "short": {},
    "long": {"data": REVIEWS, "rows": 128, "batch_size": 16, "max_length": 256},
    "base": {"data": REVIEWS, "rows": 64, "batch_size": 16, "rounds": 3, "checkpoint": BASE},
}
RECIPE = {"learning_rate": 5e-5, "warmup_fraction": 0.1, "weight_decay": 0.01, "clip_norm": 1.0, "seed": 0}


class Worker:
    """A process that trains one epoch each time it is told to."""

    def __init__(self, python: str, script: str, job: Path):
        # TensorFlow's and PyTorch's own choice of device must not differ.
        environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "TOKENIZERS_PARALLELISM": "false"}
        self.name = script
        self.process = subprocess.Popen(
            [python, str(HERE / script), str(job)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )

    def prepared(self) -> dict:
        """Waits for the warm-up epoch's report, which also says versions and settings."""
        return self._report()

    def epoch(self) -> dict:
        """Runs one epoch: seconds, real tokens, padding share, loss, peak memory so far."""
        self.process.stdin.write("go on\n")
        self.process.stdin.flush()
        return self._report()

    def _report(self) -> dict:
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self.name} ended with exit code {self.process.wait()}; its error is above")
        return json.loads(line)

    def stop(self) -> None:
        self.process.kill()
        self.process.wait()
        self.process.stdin.close()
        self.process.stdout.close()


def spread(values: list[float], digits: int = 4) -> dict[str, float]:
    """The median, smallest and largest of some numbers."""
    found = {"median": statistics.median(values), "min": min(values), "max": max(values)}
    return {name: round(value, digits) for name, value in found.items()}


def summary(rounds: list[dict]) -> dict:
    """One side's rounds in one dict.

    Args:
        rounds: for each epoch seconds, cpu_seconds (of all threads), tokens (without padding), padding_share, loss and
            peak_memory_bytes (so far).
    """
    return {
        "tokens_per_second": spread([r["tokens"] / r["seconds"] for r in rounds], 1),
        "seconds": spread([r["seconds"] for r in rounds]),
        "cpu_seconds": spread([r["cpu_seconds"] for r in rounds]),
        "tokens": rounds[0]["tokens"],
        "padding_share": spread([r["padding_share"] for r in rounds]),
        "peak_memory_bytes": max(r["peak_memory_bytes"] for r in rounds),
        "losses": [round(r["loss"], 4) for r in rounds],
    }


def ratios(ours: list[dict], theirs: list[dict]) -> dict[str, dict[str, float]]:
    """How many times as good we are as the peer: real tokens a second of each pair of neighbouring rounds, and the peaks."""
    speeds = [(a["tokens"] / a["seconds"]) / (b["tokens"] / b["seconds"]) for a, b in zip(ours, theirs)]
    peaks = [max(r["peak_memory_bytes"] for r in rounds) for rounds in (theirs, ours)]
    return {"tokens_per_second": spread(speeds), "peak_memory": spread([peaks[0] / peaks[1]])}


def machine(cpuinfo: str) -> dict:
    """The processor in the words of /proc/cpuinfo, the operating system and the load."""
    found = set(re.findall(r"\w+", cpuinfo))
    model = re.search(r"^model name\s*: (.+)$", cpuinfo, re.M)
    return {
        "processor": model[1] if model else platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "flags": [flag for flag in CPU_FLAGS if flag in found],
        "system": f"{platform.system()} {platform.machine()}",
    }


def table(result: dict) -> str:
    """The result as lines to read."""
    lines = [
        f"{'':10}{'tokens/s: median':>18}{'min':>9}{'max':>9}{'s/epoch':>10}{'CPU s':>8}{'padding':>9}{'peak memory':>13}  loss"
    ]
    for side in ("tfbert", "trainer"):
        row = result[side]
        speed = row["tokens_per_second"]
        lines.append(
            f"{side:10}{speed['median']:18,.1f}{speed['min']:9,.1f}{speed['max']:9,.1f}{row['seconds']['median']:10.2f}{row['cpu_seconds']['median']:8.2f}"
            f"{100 * row['padding_share']['median']:8.1f}%{row['peak_memory_bytes'] / 2**20:9,.0f} MiB"
            f"  {row['losses'][0]:.3f} -> {row['losses'][-1]:.3f}"
        )
    of = result["ratios"]["trainer"]["tokens_per_second"]
    lines.append(f"tfbert / trainer: {of['median']:.2f} times the tokens a second ({of['min']:.2f} to {of['max']:.2f})")
    return "\n".join(lines)


def take_turns(job: dict, rounds: int, peer_python: str) -> tuple[dict, dict, str]:
    """Prepares both workers and lets them run in turn.

    Returns:
        Of each side its first report, the warm-up; of each side the reports of its rounds; and the precision of both.
    """
    workers = []
    with tempfile.TemporaryDirectory() as folder:
        try:
            found = {}
            for side, python, script in (
                ("tfbert", sys.executable, "tfbert_training.py"),
                ("trainer", peer_python, "peers_training.py"),
            ):
                path = Path(folder) / f"{side}.json"
                path.write_text(json.dumps(job), "utf-8")
                print(f"preparing {side} ...", file=sys.stderr, flush=True)
                workers.append(Worker(python, script, path))
                found[side] = workers[-1].prepared()
                job = {**job, "precision": found[side]["precision"]}  # "auto" is tfbert's to resolve; the peer follows
            epochs = {"tfbert": [], "trainer": []}
            for number in range(rounds):
                for side, worker in zip(epochs, workers):
                    epochs[side].append(worker.epoch())
                    told = epochs[side][-1]
                    speed = told["tokens"] / told["seconds"]
                    print(f"round {number + 1}/{rounds}  {side:8}{speed:9,.1f} tokens/s", file=sys.stderr, flush=True)
        finally:
            for worker in workers:
                worker.stop()
    return found, epochs, job["precision"]


def measure(job: dict, rounds: int, peer_python: str) -> dict:
    """Both sides' rounds as figures, with their ratios."""
    found, epochs, precision = take_turns(job, rounds, peer_python)
    about = ("optimizer", "attention", "dropout", "parameters", "versions")
    return {
        "precision": precision,
        **{side: {**summary(epochs[side]), **{name: found[side][name] for name in about}} for side in epochs},
        "ratios": {"trainer": ratios(epochs["tfbert"], epochs["trainer"])},
    }


def base_checkpoint(folder: Path) -> Path:
    """The folder of a BERT-base of random weights, made first where it is not there."""
    if not (folder / "config.json").is_file():
        print(f"making {folder} ...", file=sys.stderr, flush=True)
        subprocess.run([sys.executable, str(HERE / "bert_base.py"), str(folder)], check=True, stdout=sys.stderr)
    return folder


def arguments(description: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--data", default=str(HERE.parent / "examples" / "data" / "delivery_train.csv"), help="labelled texts"
    )
    parser.add_argument("--text", default="text", help="the column of texts (default text)")
    parser.add_argument("--label", default="label", help="the column of labels (default label)")
    parser.add_argument("--rows", type=int, help="only the first so many rows (default all)")
    parser.add_argument(
        "--checkpoint", default="all-MiniLM-L6-v2", help=f"a BERT checkpoint, or {BASE} (default all-MiniLM-L6-v2)"
    )
    parser.add_argument("--batch-size", type=int, default=32, help="rows in a batch (default 32)")
    parser.add_argument("--max-length", type=int, default=128, help="tokens of an input (default 128)")
    parser.add_argument(
        "--precision", choices=("auto", "float32", "bfloat16"), default="auto", help="of both (default auto)"
    )
    parser.add_argument(
        "--threads", type=int, default=os.cpu_count(), help="threads of an operation (default all cores)"
    )
    parser.add_argument("--rounds", type=int, default=5, help="measured epochs of each side (default 5)")
    parser.add_argument(
        "--peer-python", default=".venv-peers/bin/python", help="its interpreter (see requirements-peers.txt)"
    )
    return parser


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    """The options, with the defaults of the setting named."""
    parser = arguments(__doc__)
    parser.add_argument(
        "--setting", choices=SETTINGS, default="short", help="the other options' defaults (default short)"
    )
    parser.set_defaults(**SETTINGS[parser.parse_known_args(argv)[0].setting])
    return parser.parse_args(argv)


def job_of(options: argparse.Namespace) -> dict:
    """What both workers are told.

    Raises:
        InputError: the data, the checkpoint or the peer's Python is not there.
    """
    if options.data == REVIEWS and not Path(REVIEWS).is_file():
        raise InputError(f"there is no {REVIEWS}; prepare_data.py makes it, or name a file with --data")
    rows = list(read(options.data, columns={"text": options.text, "label": options.label}))[: options.rows]
    if not Path(options.peer_python).is_file():
        raise InputError(f"there is no {options.peer_python}; `make bench` makes it, or name one with --peer-python")
    is_base = options.checkpoint == BASE
    checkpoint = base_checkpoint(HERE.parent / "build" / BASE) if is_base else find_checkpoint(options.checkpoint)
    names = sorted({str(row["label"]) for row in rows})
    return {
        **RECIPE,
        "checkpoint": str(checkpoint),
        "precision": options.precision,
        "threads": options.threads,
        "batch_size": options.batch_size,
        "max_length": options.max_length,
        "epochs": options.rounds + 2,  # a warm-up, and one that never begins: the learning rate stays above 0
        "names": names,
        "texts": [row["text"] for row in rows],
        "labels": [names.index(str(row["label"])) for row in rows],
    }


def place(load: float) -> dict:
    """The machine, with its load before and now."""
    cpuinfo = Path("/proc/cpuinfo")
    found = machine(cpuinfo.read_text() if cpuinfo.is_file() else "")
    return {**found, "load_average": [round(load, 2), round(os.getloadavg()[0], 2)]}


def main() -> int:
    options = parse()
    try:
        job = job_of(options)
    except InputError as error:
        print(f"training.py: {error}", file=sys.stderr)
        return 2
    load = os.getloadavg()[0]
    measured = measure(job, options.rounds, options.peer_python)
    settings = {
        "setting": options.setting,
        "data": Path(options.data).name,
        "rows": len(job["texts"]),
        "checkpoint": options.checkpoint,
        "rounds": options.rounds,
    }
    settings |= {name: job[name] for name in ("batch_size", "max_length", "threads", *RECIPE)}
    result = {
        "benchmark": "training",
        **measured,
        "same_tokens": measured["tfbert"]["tokens"] == measured["trainer"]["tokens"],
        "settings": settings,
        "machine": place(load),
    }
    print(table(result), file=sys.stderr)
    print(json.dumps(result))
    return 0 if result["same_tokens"] else 1


if __name__ == "__main__":
    sys.exit(main())
