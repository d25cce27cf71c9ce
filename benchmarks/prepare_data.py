"""Turns the public data sets of the results table, as they are distributed, into files that `tfbert fine-tune` reads.

    python benchmarks/prepare_data.py ../shared/data build/data

Each source is a folder as downloaded: sentiment_mr (rt-polarity.pos/.neg), banking77, clinc150 (data_full.json), goemotions, stsb,
snli_dev (snli_1.0_dev.jsonl.gz), movie_reviews (movie_reviews.zip), wnut17 and xquad (English). What is absent is left out and said.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import json
import random
import re
import shutil
import sys
import zipfile
from collections.abc import Iterable
from pathlib import Path


def write(path: Path, names: tuple[str, ...], rows: Iterable[tuple]) -> int:
    rows = list(rows)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([names, *rows])
    return len(rows)


def shuffled(rows: list[tuple]) -> list[tuple]:
    return random.Random(0).sample(rows, len(rows))


def every_tenth(rows: list[tuple]) -> tuple[list[tuple], list[tuple]]:
    """A fixed 90/10 split, the tenth rows of each label held out."""
    seen: dict[str, int] = {}
    parts: tuple[list[tuple], list[tuple]] = ([], [])
    for row in shuffled(rows):
        seen[row[-1]] = seen.get(row[-1], 0) + 1
        parts[seen[row[-1]] % 10 == 0].append(row)
    return parts


def sentiment_mr(source: Path) -> dict[str, tuple]:
    rows = []
    for name, label in (("rt-polarity.pos", "positive"), ("rt-polarity.neg", "negative")):
        rows += [(line.strip(), label) for line in (source / name).read_text("latin-1").split("\n") if line.strip()]
    train, test = every_tenth(rows)
    return {"train": (("text", "label"), train), "test": (("text", "label"), test)}


def banking77(source: Path) -> dict[str, tuple]:
    parts = {}
    for part in ("train", "test"):
        with (source / f"{part}.csv").open(encoding="utf-8", newline="") as file:
            parts[part] = (("text", "label"), list(csv.reader(file))[1:])
    return parts


def clinc150(source: Path) -> dict[str, tuple]:
    data = json.loads((source / "data_full.json").read_text("utf-8"))
    names = {"train": "train", "validation": "val", "test": "test"}
    return {part: (("text", "label"), [tuple(row) for row in data[name]]) for part, name in names.items()}


def goemotions(source: Path) -> dict[str, tuple]:
    emotions = (source / "labels.txt").read_text("utf-8").split()
    parts = {}
    for part, name in {"train": "train", "validation": "dev", "test": "test"}.items():
        lines = [line.split("\t") for line in (source / f"{name}.tsv").read_text("utf-8").split("\n") if line]
        parts[part] = (
            ("text", "label"),
            [(text, ",".join(emotions[int(i)] for i in ids.split(","))) for text, ids, _ in lines],
        )
    return parts


def stsb(source: Path) -> dict[str, tuple]:
    parts = {}
    for part, name in {"train": "train", "validation": "dev", "test": "test"}.items():
        lines = [line.split("\t") for line in (source / f"sts-{name}.tsv").read_text("utf-8").split("\n") if line]
        parts[part] = (("text", "text_pair", "label"), [(fields[5], fields[6], fields[4]) for fields in lines])
    return parts


def snli(source: Path) -> dict[str, tuple]:
    with gzip.open(source / "snli_1.0_dev.jsonl.gz", "rt", encoding="utf-8") as file:
        pairs = [json.loads(line) for line in file]
    # The pairs of one photo stand together and share its caption: a split by place keeps a caption on one side.
    rows = [(pair["sentence1"], pair["sentence2"], pair["gold_label"]) for pair in pairs if pair["gold_label"] != "-"]
    cut = len(rows) * 4 // 5
    names = ("text", "text_pair", "label")
    return {"train": (names, shuffled(rows[:cut])), "test": (names, rows[cut:])}


def movie_reviews(source: Path) -> dict[str, tuple]:
    rows = []
    with zipfile.ZipFile(source / "movie_reviews.zip") as archive:
        for name in sorted(archive.namelist()):
            if match := re.search(r"/(pos|neg)/[^/]+\.txt$", name):
                rows.append((" ".join(archive.read(name).decode("latin-1").split()), match[1]))
    train, test = every_tenth(rows)
    return {"train": (("text", "label"), train), "test": (("text", "label"), test)}


def copy_wnut17(source: Path, target: Path) -> None:
    """Its files are in columns already; only their names differ."""
    target.mkdir(parents=True, exist_ok=True)
    names = {"train": "wnut17train.conll", "validation": "emerging.dev.conll", "test": "emerging.test.annotated"}
    for part, name in names.items():
        shutil.copyfile(source / name, target / f"{part}.conll")
        print(f"wnut17/{part}.conll")


def write_xquad(source: Path, target: Path) -> None:
    """Every tenth paragraph is held out with all its questions."""
    paragraphs = [
        paragraph
        for article in json.loads((source / "xquad.en.json").read_text("utf-8"))["data"]
        for paragraph in article["paragraphs"]
    ]
    target.mkdir(parents=True, exist_ok=True)
    for part, held_out in (("train", False), ("test", True)):
        chosen = [paragraph for i, paragraph in enumerate(paragraphs) if (i % 10 == 9) == held_out]
        text = json.dumps({"data": [{"title": "", "paragraphs": chosen}]}, ensure_ascii=False)
        (target / f"{part}.json").write_text(text, "utf-8")
        print(f"xquad/{part}.json: {sum(len(p['qas']) for p in chosen):,} questions on {len(chosen)} paragraphs")


SETS = {
    "sentiment_mr": sentiment_mr,
    "banking77": banking77,
    "clinc150": clinc150,
    "goemotions": goemotions,
    "stsb": stsb,
    "snli_dev": snli,
    "movie_reviews": movie_reviews,
}
WRITTEN_BY = {"wnut17": copy_wnut17, "xquad": write_xquad}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("source", type=Path, help="the folder with one folder per data set")
    parser.add_argument("target", type=Path, help="where NAME/train.csv, NAME/test.csv, ... are written")
    options = parser.parse_args()
    for name in (*SETS, *WRITTEN_BY):
        if not (options.source / name).is_dir():
            print(f"{name}: not in {options.source}, left out", file=sys.stderr)
            continue
        if name in WRITTEN_BY:
            WRITTEN_BY[name](options.source / name, options.target / name)
            continue
        for part, (names, rows) in SETS[name](options.source / name).items():
            print(f"{name}/{part}.csv: {write(options.target / name / f'{part}.csv', names, rows):,} rows")


if __name__ == "__main__":
    main()
