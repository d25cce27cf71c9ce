"""Answers the texts of files of any number and size with an export, as an Apache Beam pipeline: RunInference over `tfbert.Predictor`.

    python examples/beam_score.py --export saved_models/NAME --input 'reviews-*.csv' --output answers
    python examples/beam_score.py ... --direct_running_mode multi_processing --direct_num_workers 4 --threads 1

Needs `pip install ".[beam]"` in the folder of this project. Each answer is a line of JSON in --output with its file, its row, counted
from 1, and its texts, for Beam keeps no order; stdout has a JSON object of the whole. Files are .txt (a line is a text), .csv, .tsv,
.jsonl and whatever else `tfbert.read` knows, also as .gz. One worker reads a file, all answer its rows: a billion rows are best in some
hundred files.

All other options are Beam's own, so the same file runs elsewhere; the workers need tfbert and read the export from where all can:

    python -m build --sdist
    python examples/beam_score.py --export gs://BUCKET/NAME/1 --input 'gs://BUCKET/texts-*.txt' --output gs://BUCKET/answers --threads 1 \
        --runner DataflowRunner --project PROJECT --region REGION --temp_location gs://BUCKET/tmp --extra_package dist/tfbert-0.1.0.tar.gz
    python examples/beam_score.py --export s3://BUCKET/NAME/1 --input 's3://BUCKET/texts-*.txt' --output s3://BUCKET/answers --threads 1 \
        --runner FlinkRunner --flink_master HOST:8081 --environment_type DOCKER --environment_config IMAGE
    python examples/beam_score.py ... --runner SparkRunner --spark_master_url spark://HOST:7077 --environment_type DOCKER ...

`gs://` needs apache-beam[gcp], `s3://` apache-beam[aws]. IMAGE is a container with tfbert in it, which also saves Dataflow the installation
at the start of each worker (--sdk_container_image IMAGE): FROM apache/beam_python3.11_sdk:VERSION, COPY dist/tfbert-0.1.0.tar.gz /,
RUN pip install /tfbert-0.1.0.tar.gz.
"""

# ruff: noqa: E402 - see the logging below

from __future__ import annotations

import argparse
import contextlib
import json
import logging
import os
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

logging.getLogger().setLevel(logging.ERROR)  # Beam warns of Google's packages when it is imported

import apache_beam as beam
from apache_beam.io.filesystem import BeamIOError
from apache_beam.io.filesystems import FileSystems
from apache_beam.metrics import MetricsFilter
from apache_beam.ml.inference.base import ModelHandler, RunInference
from apache_beam.options.pipeline_options import PipelineOptions, StandardOptions

import tfbert
from tfbert.errors import suggest
from tfbert.files import new_directory
from tfbert.serving.layout import INFORMATION, saved_model

# What "DirectRunner" means here. Beam's own of that name first tries to download Prism, which does without --direct_num_workers.
LOCAL = "apache_beam.runners.portability.fn_api_runner.FnApiRunner"


def parse(argv: Sequence[str] | None) -> tuple[argparse.Namespace, list[str]]:
    """Our options, and the words that are Beam's."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0], allow_abbrev=False)
    parser.add_argument(
        "--export", required=True, help="what fine-tune or export wrote; a version's folder where it is remote"
    )
    parser.add_argument("--input", required=True, nargs="+", metavar="FILE", help="files, or patterns in quotes")
    parser.add_argument("--output", required=True, metavar="FOLDER", help="a new folder")
    parser.add_argument(
        "--column", action="append", default=[], metavar="FIELD=COLUMN", help="such as text=review; as often as needed"
    )
    parser.add_argument("--batch-size", type=int, default=32, help="rows computed at once (default 32)")
    parser.add_argument("--window", type=int, default=1024, help="rows that are sorted by length before (default 1024)")
    parser.add_argument("--threads", type=int, help="of TensorFlow in each process (default all cores)")
    parser.add_argument(
        "--share-model", action="store_true", help="one copy for all processes of a machine: large models, GPUs"
    )
    options, others = parser.parse_known_args(argv)
    ours = [f"--{name.replace('_', '-')}" for name in vars(options)]
    theirs = set(PipelineOptions([]).get_all_options())
    for word in others:
        name = word.split("=")[0]
        hint = suggest(name, ours) if name.startswith("--") else ""
        if hint and name[2:] not in theirs:
            raise tfbert.InputError(f"{name} is no option.{hint}")
    for name in ("batch_size", "window", "threads"):
        if (value := getattr(options, name)) is not None and value < 1:
            raise tfbert.InputError(f"--{name.replace('_', '-')} is {value}; it must be at least 1")
    if wrong := [text for text in options.column if not re.fullmatch(r"[^=]+=.+", text)]:
        raise tfbert.InputError(f"--column {wrong[0]}: FIELD=COLUMN is needed, such as text=review")
    return options, others


@contextlib.contextmanager
def on_this_machine(place: str) -> Iterator[Path]:
    """A file or folder as it is, or a copy of what lies on gs://, s3:// or hdfs://, which is deleted in the end."""
    if "://" not in place:
        yield Path(place)
        return
    with tempfile.TemporaryDirectory() as folder:
        yield copied(place.rstrip("/"), Path(folder, place.rstrip("/").rsplit("/", 1)[1]))


def copied(place: str, copy: Path) -> Path:
    """Copies a file, or all that is in a folder, through Beam's file systems."""
    for found in matched([f"{place}/**"], [place]):
        target = Path(f"{copy}{found[len(place) :]}")
        target.parent.mkdir(parents=True, exist_ok=True)
        with FileSystems.open(found, compression_type="uncompressed") as source, target.open("wb") as file:
            shutil.copyfileobj(source, file)
    return copy


def matched(*alternatives: Sequence[str]) -> list[str]:
    """The files of the first patterns of which each has some; each file once."""
    for patterns in alternatives:
        try:
            results = FileSystems.match(patterns)
        except (ValueError, BeamIOError) as error:
            raise tfbert.InputError(f"{alternatives[-1][0]}: {error}") from error
        absent = [pattern for pattern, result in zip(patterns, results, strict=True) if not result.metadata_list]
        if not absent:
            return list(dict.fromkeys(metadata.path for result in results for metadata in result.metadata_list))
    raise tfbert.InputError(f"{absent[0]}: there is no such file")


class Read(beam.DoFn):
    """From the name of a file to its rows: (file, number, place for messages, texts by input)."""

    def __init__(self, columns: dict[str, str], inputs: Sequence[str]):
        self.columns, self.inputs = columns, inputs

    def process(self, file: str):
        with on_this_machine(file) as path:
            try:
                rows = tfbert.stream(path, columns=self.columns or None)
                for row in rows:
                    place = rows.last.where(0).replace(str(path), file)
                    whole = all(name in row for name in self.inputs)  # if not, it is told what the row has
                    yield file, rows.taken, place, {name: row[name] for name in self.inputs} if whole else row
            except tfbert.InputError as error:
                raise tfbert.InputError(str(error).replace(str(path), file)) from error


class Export(ModelHandler):
    """An export, loaded once by each process, or once by each machine (`share_model`).

    A batch of Beam's is a window: the Predictor computes its rows in batches of its own, those of like length together.
    """

    def __init__(self, export: str, *, window: int, batch_size: int, threads: int | None, share_model: bool):
        threaded = {"TF_NUM_INTRAOP_THREADS": str(threads), "TF_NUM_INTEROP_THREADS": str(threads)} if threads else {}
        super().__init__(min_batch_size=window, max_batch_size=window, large_model=share_model, env_vars=threaded)
        self.export, self.batch_size = export, batch_size

    def load_model(self) -> tfbert.Predictor:
        with on_this_machine(self.export) as place:
            return tfbert.Predictor(place)

    def run_inference(self, batch, model, inference_args=None) -> list[str]:
        """A line of JSON for each row."""
        try:
            answers = model([texts for *_, texts in batch], batch_size=self.batch_size)
        except tfbert.InputError as error:  # "row 7 has no 'text' ...", of this batch
            raise tfbert.InputError(re.sub(r"^row (\d+)", lambda n: batch[int(n[1]) - 1][2], str(error))) from error
        lines = []
        for (file, number, _, texts), answer in zip(batch, answers, strict=True):
            lines.append(json.dumps({"file": file, "row": number, **texts, **answer}, ensure_ascii=False))
        return lines


def inputs_of(export: str) -> list[str]:
    """The names of the texts that an export takes."""
    with on_this_machine(export) as place:
        information = saved_model(place) / INFORMATION
        if not information.is_file():
            raise tfbert.InputError(f"{export} has no {INFORMATION}; export it with tfbert")
        return json.loads(information.read_text("utf-8"))["inputs"]


@contextlib.contextmanager
def told(local: bool) -> Iterator[None]:
    """Makes one InputError of one that a worker raised, and of what Beam writes to stderr here nothing but in a fault of ours."""
    with tempfile.TemporaryFile() as said:
        stderr = os.dup(2)
        if local:
            os.dup2(said.fileno(), 2)
        try:
            yield
        except Exception as error:
            mistakes = re.findall(r"InputError: (.+?)(?: \[while running |\n|$)", f"{type(error).__name__}: {error}")
            if mistakes:
                raise tfbert.InputError(mistakes[-1]) from None
            said.seek(0)
            os.write(stderr, said.read())
            raise
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)


def score(options: argparse.Namespace, pipeline: beam.Pipeline, folder: str) -> int:
    """Runs the pipeline, and returns how many rows were answered."""
    columns = dict(text.split("=", 1) for text in options.column)
    settings = {name: getattr(options, name) for name in ("window", "batch_size", "threads", "share_model")}
    _ = (
        pipeline
        | "files" >> beam.Create(matched(options.input))
        | "files apart" >> beam.Reshuffle()
        | "read" >> beam.ParDo(Read(columns, inputs_of(options.export)))
        | "rows apart" >> beam.Reshuffle()
        | "answer" >> RunInference(Export(options.export, **settings))
        | "write" >> beam.io.WriteToText(f"{folder}/answers", ".jsonl")
    )
    result = pipeline.run()
    result.wait_until_finish()
    counters = result.metrics().query(MetricsFilter().with_name("num_inferences"))["counters"]
    return sum(counter.result for counter in counters)


def main(argv: Sequence[str] | None = None) -> None:
    options, others = parse(argv)
    beams, begin = PipelineOptions(others), time.monotonic()
    standard, remote = beams.view_as(StandardOptions), "://" in options.output
    local = (standard.runner or "DirectRunner") == "DirectRunner"
    standard.runner = LOCAL if local else standard.runner
    if not local:
        logging.getLogger().setLevel(logging.INFO)  # where the job can be seen
    try:
        pipeline = beam.Pipeline(options=beams)
    except (ValueError, ImportError) as error:
        raise tfbert.InputError(str(error)) from error
    if not remote and Path(options.output).exists():
        raise tfbert.InputError(f"{options.output} exists already; choose another folder")
    with contextlib.nullcontext(options.output) if remote else new_directory(options.output) as folder, told(local):
        rows = score(options, pipeline, str(folder))
    seconds = round(time.monotonic() - begin, 3)
    about = {"output": options.output, "rows": rows, "seconds": seconds, "rows_per_second": round(rows / seconds, 1)}
    print(json.dumps(about))


if __name__ == "__main__":
    try:
        main()
    except tfbert.InputError as error:
        sys.exit(f"beam_score.py: {error}")
