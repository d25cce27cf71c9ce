"""Does the Beam pipeline of examples/beam_score.py answer as the Predictor does? Every row of many is compared.

    python benchmarks/prepare_data.py ../shared/data build/data
    python benchmarks/batch_scoring.py saved_models/NAME build/data --rows 100000
    python benchmarks/batch_scoring.py saved_models/NAME build/data --rows 5000 --workers 4 --window 4096

The texts are those of the .csv files in the folder, in the order of their names, again from the first where there are too few. They are
written to .txt files, as many as --files; Beam's DirectRunner answers them with --workers processes, and then the Predictor does, in this
one. The exit code is 1 where a row is missing or there twice, another word is answered, or a number differs by more than 1e-5.
"""

from __future__ import annotations

import argparse
import itertools
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from training import HERE

import tfbert
from tfbert.errors import InputError
from tfbert.sources.examples import counted

WORK = HERE.parent / "build" / "batch-scoring"
SCRIPT = HERE.parent / "examples" / "beam_score.py"
TOLERANCE = 1e-5


def texts(folder: Path) -> list[str]:
    """The texts of all .csv files below a folder, each on one line."""
    files = sorted(folder.rglob("*.csv"))
    if not files:
        raise InputError(f"{folder} holds no .csv file; benchmarks/prepare_data.py makes some")
    rows = itertools.chain.from_iterable(map(tfbert.stream, files))
    found = [" ".join(row["text"].split()) for row in rows if "text" in row]
    if not found:
        raise InputError(f"{folder}: no .csv file has a column text")
    return found


def written(folder: Path, rows: list[str], files: int) -> list[Path]:
    """The rows in so many files, a line each."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    paths = [folder / f"texts-{number:02}.txt" for number in range(files)]
    for number, path in enumerate(paths):
        path.write_text("".join(f"{text}\n" for text in rows[number::files]), "utf-8")
    return paths


def with_beam(export: str, files: list[Path], options) -> dict:
    """What beam_score.py tells of its run; its answers are in build/batch-scoring/answers."""
    command = [sys.executable, str(SCRIPT), "--export", export, "--output", str(WORK / "answers")]
    command += ["--window", str(options.window), "--threads", str(options.threads), "--input", *map(str, files)]
    command += ["--direct_running_mode", "multi_processing", "--direct_num_workers", str(options.workers)]
    shutil.rmtree(WORK / "answers", ignore_errors=True)
    done = subprocess.run(command, check=False, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        raise InputError("beam_score.py failed; its error is above")
    return json.loads(done.stdout)


def with_predictor(export: str, files: list[Path], window: int) -> tuple[dict, dict]:
    """The answers by file and row, and how long they took."""
    begin = time.monotonic()
    predictor, found = tfbert.Predictor(export), {}
    for file in files:
        for number, answer in enumerate(predictor.stream(tfbert.stream(file), window=window), 1):
            found[str(file), number] = answer
    seconds = time.monotonic() - begin
    return found, {"seconds": round(seconds, 3), "rows_per_second": round(len(found) / seconds, 1)}


def parted(value) -> tuple[list[float], object]:
    """The numbers in an answer, and the answer without them."""
    if isinstance(value, float):
        return [value], None
    if not isinstance(value, dict | list):
        return [], value
    pairs = value.items() if isinstance(value, dict) else enumerate(value)
    parts = {name: parted(item) for name, item in pairs}
    return [number for numbers, _ in parts.values() for number in numbers], {n: rest for n, (_, rest) in parts.items()}


def compared(expected: dict, lines: Iterator[str]) -> dict:
    """How equal the lines that Beam wrote are to the answers expected; each of those is used up by the first line of its row."""
    found = {"rows": 0, "unexpected": 0, "different": 0, "largest_difference": 0.0}
    for line in lines:
        row = json.loads(line)
        found["rows"] += 1
        answer = expected.pop((row["file"], row["row"]), None)
        if answer is None:
            found["unexpected"] += 1
            continue
        (ours, words), (theirs, others) = parted(answer), parted({name: row[name] for name in answer})
        if words != others:
            found["different"] += 1
        elif ours:
            apart = max(abs(a - b) for a, b in zip(ours, theirs, strict=True))
            found["largest_difference"] = max(found["largest_difference"], apart)
    return found | {"missing": len(expected)}


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("export", help="a folder that fine-tune or export wrote")
    parser.add_argument("data", type=Path, help="a folder with .csv files that have a column text")
    parser.add_argument("--rows", type=int, default=100_000, help="default 100,000")
    parser.add_argument("--files", type=int, default=8, help="default 8")
    parser.add_argument("--workers", type=int, default=2, help="Beam's processes (default 2)")
    parser.add_argument("--threads", type=int, default=1, help="of TensorFlow in each of them (default 1)")
    parser.add_argument("--window", type=int, default=1024, help="rows sorted by length together (default 1024)")
    options = parser.parse_args(argv)
    try:
        rows = list(itertools.islice(itertools.cycle(texts(options.data)), options.rows))
        files = written(WORK / "texts", rows, options.files)
        beam = with_beam(options.export, files, options)
        expected, predictor = with_predictor(options.export, files, options.window)
    except InputError as error:
        print(f"batch_scoring.py: {error}", file=sys.stderr)
        return 2
    lines = itertools.chain.from_iterable(map(Path.open, sorted((WORK / "answers").iterdir())))
    result = compared(expected, lines)
    settings = {name: getattr(options, name) for name in ("rows", "files", "workers", "threads", "window")}
    sides = {"beam": {name: beam[name] for name in ("seconds", "rows_per_second")}, "predictor": predictor}
    about = {"distinct": len(set(rows)), "words": sum(len(text.split()) for text in rows)}
    print(f"{counted(result['rows'], 'row')}: {result}, {sides}", file=sys.stderr)
    print(json.dumps({"benchmark": "batch_scoring", **sides, "answers": result, "texts": about, "settings": settings}))
    wrong = result["unexpected"] + result["different"] + result["missing"]
    return int(wrong > 0 or result["largest_difference"] > TOLERANCE)


if __name__ == "__main__":
    sys.exit(main())
