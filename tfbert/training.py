"""One call from labelled examples to a folder with checkpoint, scores and a SavedModel: fine_tune."""

from __future__ import annotations

import contextlib
import dataclasses
import shutil
import statistics
import sys
from pathlib import Path
from typing import Any

from tfbert import (
    adaptation,
    analysis,
    distillation,
    evaluation,
    files,
    metrics,
    plots,
    run,
    tokenization,
)
from tfbert._compat import lazy
from tfbert.checks import as_begun, begin, check_parts, check_same, check_settings, check_unlabelled, read
from tfbert.errors import Diverged, InputError
from tfbert.prepared import Prepared
from tfbert.report import html
from tfbert.sources import Examples, from_iterable, split
from tfbert.tasks import Task
from tfbert.tuned import FineTuned, load, write
from tfbert.workers import Workers

checkpoints = lazy(
    "tfbert.checkpoints"
)  # it subclasses a Keras class; the command line reads fine_tune's signature without it


def fine_tune(
    task: Task,
    checkpoint,
    train,
    validation=None,
    *,
    directory,
    test=None,
    adapt=None,
    adapt_epochs: int = 3,
    epochs: int = 3,
    batch_size: int = 32,
    learning_rate: float = 5e-5,
    schedule: str = "warmup-linear",
    warmup_fraction: float = 0.1,
    weight_decay: float = 0.01,
    clip_norm: float = 1.0,
    layer_decay: float = 1.0,
    freeze: str | None = None,
    unfreeze: str | None = None,
    frozen_cache: str = "auto",
    lora: int = 0,
    reinitialize: int = 0,
    accumulate: int = 1,
    ema: float = 0.0,
    fgm: float = 0.0,
    r_drop: float = 0.0,
    teacher: str | None = None,
    teacher_temperature: float = 2.0,
    teacher_share: float = 0.9,
    unlabelled=None,
    evaluate_every: int = 0,
    patience: int | None = None,
    monitor: str | None = None,
    precision: str = "auto",
    strategy: str = "auto",
    xla: str = "auto",
    seed: int = 0,
    seeds: int = 1,
    new_head: bool = False,
    keep_layers: str | None = None,
    encoder: str = "lean",
    gradient_checkpointing: bool = False,
    allow_missing_labels: bool = False,
    overwrite: bool = False,
    resume: bool = False,
    allow_changes: bool = False,
    save_every: int = 300,
    export: bool = True,
    report: bool | None = None,
) -> FineTuned:
    """Fine-tunes a checkpoint on labelled examples and writes checkpoint, scores and export into one new folder.

    Each epoch ends with a validation (or every so many steps do); the weights with the best score are kept. The folder appears when
    everything in it is complete and has been tested, and only a report comes after.

    While it trains, the whole state of the run is saved beside that folder, in `.NAME.run`, which goes when the run is complete. After a
    crash, `kill -9` at whatever moment, or an interruption, the same call with `resume` ends with the same weights, history and scores,
    bit for bit, as if nothing had happened. SIGTERM and Ctrl-C save before they end the training, with `Interrupted`; a second one
    ends it at once.

    Args:
        task: such as `SequenceClassification()`; fields left open are filled from the training data.
        checkpoint: a folder, a name on the Hugging Face hub, or "all-MiniLM-L6-v2" for the packaged one.
        train: examples to learn from: a reader's result, a list or any iterable of dicts; or `Prepared`, of any size, which needs
            `validation` and leaves the fields of `task` that are not given as they were prepared.
        validation: examples to choose the best epoch by; None holds out a tenth of `train`: of each label, or whole contexts
            for questions.
        directory: the folder to write, `saved_models/NAME`.
        test: examples to score at the very end; None scores the validation examples only.
        adapt: text on which the encoder first learns as a masked LM, in the same call: "train", the texts of the training examples, or
            examples with a `text`, such as `read_documents` gives, without labels (task-adaptive pretraining; Gururangan et al. 2020,
            "Don't Stop Pretraining"; Sun et al. 2019, "How to Fine-Tune BERT for Text Classification?"). None: not at all (default). A
            tenth of it is held out, to keep the best epoch. Too little text is told on stderr.
        adapt_epochs: passes over that text (default 3), at a rate of 1e-4; of small texts many more help, 100 in Gururangan et al. (2020).
        epochs: passes over the training examples (default 3).
        batch_size: rows in a batch (default 32).
        learning_rate: the highest rate of the schedule (default 5e-5).
        schedule: warmup-linear, warmup-cosine, warmup-constant, slanted-triangular, one-cycle, inverse-square-root or constant
            (default warmup-linear).
        warmup_fraction: share of all steps over which the rate rises from 0 (default 0.1); slanted-triangular: its cut_frac.
        weight_decay: decay per step, times the rate, of all but biases and LayerNorm (default 0.01).
        clip_norm: largest norm of the gradient of all weights together; 0 switches clipping off (default 1.0).
        layer_decay: what the rate is multiplied by for each group of layers on the way down from the head (default 1.0); 0.8 in ELECTRA.
        freeze: what does not learn: "embeddings,layers[:3]" (as Python slices), "encoder" (the head alone learns), "weights" (the
            encoder's biases and the head learn: BitFit). None (default): all learns.
        unfreeze: "gradual": the head learns first, and the layers below join one by one, an epoch each (ULMFiT; Howard and Ruder 2018);
            or which groups join in which epoch, counted from 0: "0: head; 1: layers[-2:]; 3: encoder". None (default): all learns
            from the beginning.
        frozen_cache: where layers at the bottom are frozen, with the lean encoder, they are computed once and not in each epoch; the
            file beside the output, without a name, takes 1.5 KB a token of a 384-wide model, for `unfreeze` in several epochs several
            times. bfloat16: half of that, and 3 digits; off: no file; auto (default): in the precision of the training, where the disk has
            the room.
        lora: rank of the small matrices that learn in place of each layer's query and value; the encoder is frozen, and what is saved
            is an ordinary model (LoRA), with the small matrices and the head beside it in `adapter`, as PEFT writes them (not after
            `adapt`, since they fit the adapted checkpoint alone). 0: none (default).
        reinitialize: how many of the highest layers begin anew, with the pooler, for small data (default 0; Zhang et al. 2021).
        accumulate: parts that a batch is computed in, one after the other: the same update at less memory (default 1).
        ema: momentum of a moving average of the weights, which is then what is scored, chosen and kept; 0.99, say (default 0: none).
        fgm: length of adversarial steps on the word embeddings, 1 for most models (default 0: none; Miyato et al. 2017). Twice the time.
        r_drop: how much two passes with different dropout must agree, 1 to 5 (default 0: one pass; Liang et al. 2021). Twice the time.
        teacher: a folder that `fine_tune` wrote for this task, from whose answers the model learns as well (distillation; Hinton et al.
            2015). They are computed once; its labels are the task's.
        teacher_temperature: what the logits of both are divided by for that, 1 to 8 (default 2.0).
        teacher_share: of the teacher's answers in the loss, above 0 to 1, which leaves the labels out (default 0.9).
        unlabelled: texts without labels, to learn from the teacher's answers alone.
        evaluate_every: steps between two scorings of the validation data, after each of which the weights may be the best ones; 0
            (default): at the end of each epoch.
        patience: stop after so many scorings without a better one; None never stops early.
        monitor: the score that chooses the best epoch; None takes the task's own.
        precision: float32, bfloat16, float16, or auto: bfloat16 where the hardware multiplies it faster, else float32.
        strategy: where it computes: cpu, gpu, mirrored (all GPUs of the machine, each with an equal part of a batch), multi-worker (all
            that TF_CONFIG lists, each with an equal part of a batch: the same call on each of them; the chief writes `directory`), tpu, or
            auto: what there is (see `get_strategy`).
        xla: on: XLA compiles the training step, and batches are padded to at most four lengths; off: TensorFlow's graph, which on a CPU is
            faster and leaves padding out; auto (default): on where there is a GPU and all examples have as many rows.
        seed: of the new head, the order of the rows, dropout and the held-out split (default 0).
        seeds: how many runs to make, with `seed` and the numbers after it (default 1): the best by `monitor` is kept, and metrics.json
            has the scores of all, of which the median says more about a recipe than one run (Zhang et al. 2021). One that diverges counts
            as failed.
        new_head: drop the head of a checkpoint that was fine-tuned before and begin a new one (default False): intermediate training on a
            larger task helps small ones (Phang et al. 2018, "Sentence Encoders on STILTs").
        keep_layers: which of the checkpoint's layers the model has, as Python slices a list: "0,2,5", or "::2", every second one, as
            DistilBERT begins (Sanh et al. 2019); None (default): all.
        encoder: "lean" (default), or "transformers": TF Transformers' own layers, slower and of equal outputs.
        gradient_checkpointing: compute the layers of the lean encoder again in the backward pass (default False): the same training in less
            memory, for about a third more computing (Chen et al. 2016).
        allow_missing_labels: accept validation and test data in which a label never occurs (default False).
        overwrite: replace a folder that holds a finished run, and forget one that is not finished (default False).
        resume: go on with a run that was interrupted, or begin where there is none (default False). What it was begun with must be the
            same: arguments, data, checkpoint, versions.
        allow_changes: with `resume`, accept other versions of the packages, patience, strategy or test data (default False): the last
            bits may then differ.
        save_every: seconds between two saves of the state, at least (default 300); 0 saves after each step that finds the save before
            it done.
        export: write the SavedModel too (default True).
        report: write report.html too: scores, where the model is wrong, what the data are. It needs matplotlib, the extra `report`; None
            (default) writes it where that is installed.

    Returns:
        FineTuned: task, model, tokenizer, history, metrics, directory.

    Raises:
        InputError: whatever the user can mend, in one line that names the place.
        Interrupted: after SIGTERM or Ctrl-C, on all workers; the state is saved.
        WorkerLost: another worker has died; started again with `resume`, all go on from the last state that was saved.
    """
    teacher = None if teacher is None else str(teacher)
    unlabelled = None if unlabelled is None else from_iterable(unlabelled, "unlabelled")
    monitor = None if monitor is None else monitor.removeprefix("val_")
    arguments = dict(locals())
    settings = {name: arguments[name] for name in _SETTINGS}
    check_settings(task, {**settings, "seeds": seeds, "adapt_epochs": adapt_epochs}, save_every)
    report = plots.available() if report is None else report and plots.needed()
    workers = Workers(strategy)  # before anything computes: TensorFlow then no longer lets itself be connected
    if workers.count > 1 and (adapt is not None or seeds > 1):
        name = "seeds" if seeds > 1 else "adapt"
        raise InputError(
            f"several workers train one run together, and {name} means several; make them one after the other"
        )
    if adapt is not None:
        return _after_adapting(arguments, settings, report)
    if seeds > 1:
        return _best_of(arguments, settings, report)
    directory = Path(directory)
    with workers.joined(), contextlib.ExitStack() as held:
        with workers.agreeing():
            held.enter_context(files.locked(directory, workers.place(directory, "lock")))
        states = checkpoints.States(directory, workers)
        saved = begin(directory, states, resume, overwrite)
        with workers.agreeing():
            examples = read(task, train, validation, test, seed)
            training = _prepare(
                task, checkpoint, *examples, unlabelled, settings, export, allow_missing_labels, workers
            )
            identity = training.identity()
            if saved is not None:
                check_same(saved["identity"], identity, directory, allow_changes=allow_changes)
        workers.check_same(identity)
        tuned = FineTuned(*training(states, saved, save_every), directory, training.adapter)
        with workers.agreeing():
            _finish(tuned, states, export, training.parts if report else None)
    return tuned


def _prepare(
    task, checkpoint, train, validation, test, whole, unlabelled, settings, export, allow_missing_labels, workers
) -> run.Run:
    """Fills what the task leaves open, and checks all that can be checked before the work."""
    tokenizer = tokenization.load_tokenizer(checkpoint)
    if export:
        task.check_export(tokenizer)
    teacher = _teacher(settings, unlabelled)
    if isinstance(train, Prepared):
        if teacher:
            raise InputError(f"{train.source} holds tokens alone, which a teacher cannot answer; leave teacher out")
        task = train.fill(task)
        train.features(task, tokenizer)  # of another tokenizer is told before the work
    else:
        task = (teacher.fill(task) if teacher else task).from_data(whole)
    check_parts(task, train, [part for part in (validation, test) if part is not None], allow_missing_labels)
    if unlabelled is not None:
        check_unlabelled(task, unlabelled)
    return run.Run(task, checkpoint, tokenizer, train, validation, test, settings, workers, teacher, unlabelled)


def _teacher(settings: dict[str, Any], unlabelled: Examples | None) -> distillation.Teacher | None:
    if settings["teacher"] is None:
        if unlabelled is not None:
            raise InputError("unlabelled texts are learnt from a teacher's answers; name it with teacher (--teacher)")
        return None
    tuned = load(settings["teacher"])
    own = (settings["teacher_temperature"], settings["teacher_share"])
    return distillation.Teacher(tuned.task, tuned.model, tuned.tokenizer, tuned.directory, *own)


def _finish(tuned: FineTuned, states, export: bool, parts: dict[str, Examples] | None) -> None:
    """Writes the folder, forgets the states of the training, and reports on `parts`; of several workers the chief writes."""
    if states.workers.chief:
        write(tuned, export)
    states.clear()
    if parts is not None and states.workers.chief:
        _report(tuned, parts)


def _after_adapting(arguments: dict[str, Any], settings: dict[str, Any], report: bool) -> FineTuned:
    """Trains a masked LM in a folder beside the output, where an interrupted one goes on, and fine-tunes its encoder."""
    directory, task, checkpoint = (arguments[name] for name in ("directory", "task", "checkpoint"))
    directory = Path(directory)
    place = directory.parent / f".{directory.name}.adapted"
    adapted = place / "masked-lm"
    with files.locked(directory):
        begin(directory, checkpoints.States(directory), arguments["resume"], arguments["overwrite"])
        _kept_for_resume(place, arguments)
        # What is wrong with the fine-tuning is told before the work.
        training, common = _prepared(arguments, settings)
        if isinstance(common["train"], Prepared) and isinstance(arguments["adapt"], str):
            raise InputError(
                f"{common['train'].source} holds tokens alone; give the text to adapt to, not {arguments['adapt']!r}"
            )
        documents = adaptation.text(arguments["adapt"], task, common["train"])
        adaptation.warn_if_small(documents, arguments["adapt_epochs"])
        masked = adaptation.arguments(task, arguments, split(documents, 0.1, seed=arguments["seed"]))
        identity = adaptation.identity(training.identity(), arguments["adapt_epochs"], documents)
        with as_begun(place, identity, arguments):
            if not (adapted / "metrics.json").is_file():
                print(f"tfbert: adapting to {len(documents):,} texts of {documents.source}", file=sys.stderr)
                fine_tune(**masked, directory=adapted)
    tuned = fine_tune(**{**arguments, **common, "checkpoint": adapted / "checkpoint", "adapt": None, "report": False})
    if tuned.adapter is not None:  # it fits the adapted checkpoint alone, which goes now
        shutil.rmtree(directory / "adapter")
        tuned = dataclasses.replace(tuned, adapter=None)
    tuned.metrics["settings"]["checkpoint"] = str(checkpoint)
    tuned.metrics["adapted"] = adaptation.about(files.read_json(adapted / "metrics.json"))
    files.write_json(directory / "metrics.json", tuned.metrics)
    shutil.rmtree(place)
    if report:
        _report(tuned, training.parts)
    return tuned


def _kept_for_resume(place: Path, arguments: dict[str, Any]) -> None:
    """Deletes a folder of unfinished runs beside the output, unless they are to go on."""
    if place.exists() and not arguments["resume"]:
        if not arguments["overwrite"]:
            raise InputError(
                f"{arguments['directory']} has runs that were interrupted; pass resume (--resume) to go on, or overwrite (--overwrite) to "
                "begin anew"
            )
        shutil.rmtree(place)


def _prepared(arguments: dict[str, Any], settings: dict[str, Any]) -> tuple[run.Run, dict[str, Any]]:
    """The training of `arguments`, of which all is checked that can be before the runs that it needs, and what these have in common."""
    named = (arguments[name] for name in ("task", "train", "validation", "test", "seed"))
    parts = read(*named)
    names = ("unlabelled", "export", "allow_missing_labels")
    unlabelled, export, allow = (arguments[name] for name in names)
    workers = Workers(arguments["strategy"])
    found = _prepare(arguments["task"], arguments["checkpoint"], *parts, unlabelled, settings, export, allow, workers)
    return found, {"task": found.task, **dict(zip(("train", "validation", "test"), parts, strict=False))}


def _best_of(arguments: dict[str, Any], settings: dict[str, Any], report: bool) -> FineTuned:
    """Runs `fine_tune` with each seed in a folder beside the output, where an interrupted one goes on, and keeps the best run."""
    directory, first = Path(arguments["directory"]), arguments["seed"]
    place = directory.parent / f".{directory.name}.seeds"
    with files.locked(directory):
        begin(directory, checkpoints.States(directory), False, arguments["overwrite"])
        _kept_for_resume(place, arguments)
        training, common = _prepared(arguments, settings)
        alone = {**arguments, **common, "seeds": 1, "resume": True, "export": False, "report": False}
        runs, failed = {}, {}
        with as_begun(place, training.identity(), arguments):
            for seed in range(first, first + arguments["seeds"]):
                print(f"tfbert: seed {seed}, {seed - first + 1} of {arguments['seeds']}", file=sys.stderr)
                folder = place / f"seed-{seed}"
                try:
                    if not (folder / "metrics.json").is_file():
                        fine_tune(**{**alone, "directory": folder, "seed": seed})
                    runs[seed] = files.read_json(folder / "metrics.json")
                except Diverged as error:
                    failed[seed] = str(error)
        if not runs:
            raise Diverged(f"all {len(failed)} runs diverged; of the first: {next(iter(failed.values()))}")
        monitor = arguments["monitor"] or training.task.monitor  # of a task that the data have filled
        best = (max if metrics.direction(monitor) == "max" else min)(
            runs, key=lambda seed: runs[seed]["validation"][monitor]
        )
        tuned = load(place / f"seed-{best}")
        tuned = dataclasses.replace(tuned, directory=directory)
        tuned.metrics["seeds"] = {"kept": best, "failed": failed, **_spread(runs)}
        write(tuned, arguments["export"])
        shutil.rmtree(place)
        if report:
            _report(tuned, training.parts)
    return tuned


def _spread(runs: dict[int, dict[str, Any]]) -> dict[str, Any]:
    """Of each score of several runs the values by seed, median, least and most: of the test data, or else of the validation data."""
    found = {}
    for name in next(iter(runs.values()))["metrics"]:
        values = [run["metrics"][name] for run in runs.values()]
        found[name] = {
            "by_seed": dict(zip(map(str, runs), values, strict=True)),
            "median": statistics.median(values),
            "min": min(values),
            "max": max(values),
        }
    return {"scores": found}


def _report(tuned: FineTuned, parts: dict[str, Examples]) -> None:
    """Adds the data sheet to metrics.json, and report.html: at last, so that whatever fails here costs nobody a training."""
    sheets = {name: part for name, part in parts.items() if isinstance(part, Examples)}
    tuned.metrics["data"] = analysis.data_sheet(tuned.task, tuned.tokenizer, sheets)
    final = parts.get("test", parts["validation"])
    details = evaluation.evaluate(tuned.task, tuned.model, tuned.tokenizer, final, details=True)
    files.write_json(tuned.directory / "metrics.json", tuned.metrics)
    files.write_text(tuned.directory / "report.html", html(tuned.task, tuned.metrics, tuned.history, details))


_SETTINGS = (
    "epochs batch_size learning_rate schedule warmup_fraction weight_decay clip_norm layer_decay freeze unfreeze frozen_cache lora "
    "reinitialize accumulate ema fgm r_drop teacher teacher_temperature teacher_share evaluate_every patience monitor precision strategy "
    "xla seed new_head keep_layers encoder gradient_checkpointing"
).split()
