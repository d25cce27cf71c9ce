"""One training: from a built model and checked examples to the trained model, its history and its scores."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import sys
import time
from collections.abc import Iterator
from typing import Any

from tfbert import _compat, devices, distillation, evaluation, features, metrics, models, pipeline, prepared
from tfbert._compat import keras, lazy, plain, tf
from tfbert.checkpoint_folder import find_checkpoint
from tfbert.checks import check_frozen, check_monitor
from tfbert.errors import InputError
from tfbert.files import sha256
from tfbert.frozen_states import FrozenStates
from tfbert.models.frozen import LOWEST
from tfbert.sources import fingerprint

# These subclass Keras classes; the command line reads fine_tune's signature without them.
callbacks, checkpoints = lazy("tfbert.callbacks"), lazy("tfbert.checkpoints")
optimizers, schedules = lazy("tfbert.optimizers"), lazy("tfbert.schedules")
training_model = lazy("tfbert.models.training_model")

# The settings that the model is built with.
BUILT_WITH = ("seed", "new_head", "encoder", "gradient_checkpointing", "keep_layers")
FEW = 64  # examples that tell which scores there are; of few one may be undefined, and of all not, even where nothing is learnt
# With these values Keras' own training step is taken.
KERAS_STEP = {"accumulate": 1, "fgm": 0, "r_drop": 0}


class Run:
    """The training itself, between reading and writing."""

    def __init__(
        self, task, checkpoint, tokenizer, train, validation, test, settings, workers, teacher=None, unlabelled=None
    ):
        self.task, self.checkpoint, self.tokenizer, self.settings = task, checkpoint, tokenizer, settings
        self.teacher, self.unlabelled = teacher, unlabelled
        parts = {"train": train, "validation": validation, "test": test}
        self.train, self.validation, self.test = train, validation, test
        self.parts = {name: part for name, part in parts.items() if part is not None}
        self.data = self.parts if unlabelled is None else {**self.parts, "unlabelled": unlabelled}
        self.hashes = {name: _hash(part) for name, part in self.data.items()}
        self.precision = devices.choose_precision(settings["precision"])
        self.unfreezing, self.cache = None, {}
        self.workers, self.strategy = workers, workers.strategy
        self._check_replicas()

    def _check_replicas(self) -> None:
        s, count = self.settings, self.workers.replicas
        if count > 1 and not self.task.in_parts:
            raise InputError(
                f"strategy {s['strategy']!r} computes a batch in {count} parts, but this objective compares all of its examples; use "
                "'cpu' or 'gpu'"
            )
        if count > 1 and s["fgm"]:
            raise InputError(
                f"fgm moves the word embeddings of one replica, not of {count}; leave it out, or use strategy 'cpu' or 'gpu'"
            )
        if s["batch_size"] % count:
            raise InputError(
                f"batch_size is {s['batch_size']}, of which {count} replicas cannot have equal parts; take "
                f"{-(-s['batch_size'] // count) * count}"
            )

    def identity(self) -> dict[str, Any]:
        """All on which the trained weights depend, name -> value: what must be equal for an interrupted run to go on."""
        folder = find_checkpoint(str(self.checkpoint))
        files = sorted([*folder.iterdir(), *folder.glob("generator/*")])
        read = [path for path in files if path.suffix in (".json", ".txt", ".safetensors", ".h5")]
        return {
            # Of the teacher counts what is in its folder, not the name of it.
            **{name: value for name, value in self.settings.items() if name != "teacher"},
            "precision": self.precision,
            **{f"task.{name}": value for name, value in json.loads(json.dumps(self.task.to_json())).items()},
            **{f"checkpoint/{path.relative_to(folder)}": sha256(path) for path in read},
            **(self.teacher.identity() if self.teacher else {}),
            **self.hashes,
            **({"strategy.replicas": self.workers.replicas} if self.workers.replicas > 1 else {}),
            # Each of several workers reads shards of its own: other workers would take up other rows.
            **({"data.workers": self.workers.count} if isinstance(self.train, prepared.Prepared) else {}),
            **{f"versions.{name}": version for name, version in _compat.versions().items()},
        }

    def __call__(self, states, saved: dict[str, Any] | None, save_every: int):
        """Trains, then scores the model as it will be exported; returns task, model, tokenizer, history and what metrics.json
        holds.

        Args:
            states: the `checkpoints.States` that the training is saved in while it goes on.
            saved: the state to go on from; None to begin.
            save_every: seconds between two saves.
        """
        options = {name: self.settings[name] for name in BUILT_WITH}
        keras.utils.set_random_seed(options["seed"])
        keras.mixed_precision.set_global_policy(devices.PRECISIONS[self.precision])
        try:
            with self._placed():
                with self._scope():
                    model = self.task.build(self.checkpoint, **options)
                    models.check_task(self.task, model, self.tokenizer)
                    if self.settings["reinitialize"]:
                        models.reinitialize(model, self.settings["reinitialize"], seed=options["seed"])
                    self._freeze(model)
                history = self._fit(model, states, saved, save_every)
        finally:
            keras.mixed_precision.set_global_policy("float32")
        if self.precision != "float32" or self.strategy:
            # What is evaluated is what is exported: the same weights, computing in float32 and in one place.
            with contextlib.redirect_stderr(io.StringIO()):  # what there is to say of the checkpoint was said above
                twin = self.task.build(self.checkpoint, **options)
            for own, other in zip(*map(models.weights_in_order, (twin, model)), strict=True):
                own.assign(other.numpy())
            model = twin
        inferred = self.held_out(model)
        task = self.task.tuned(self.validation, inferred)
        if task != self.task:
            inferred = evaluation.Inference(task, self.tokenizer, self.validation)(model)
        scores = {"validation": task.score(self.validation, inferred)}
        final = self.validation
        if self.test is not None:
            final, inferred = self.test, evaluation.Inference(task, self.tokenizer, self.test)(model)
            scores["test"] = task.score(final, inferred)
        return task, model, self.tokenizer, history, self._results(model, scores, task.score_by_label(final, inferred))

    def _placed(self):
        """Where everything is that no strategy places."""
        return contextlib.nullcontext() if self.strategy else tf.device(devices.device(self.settings["strategy"]))

    def _scope(self):
        """Where what has a copy on each replica is made."""
        return self.strategy.scope() if self.strategy else contextlib.nullcontext()

    def _freeze(self, model) -> None:
        if self.settings["lora"]:
            models.add_lora(model, self.settings["lora"], seed=self.settings["seed"])
        if self.settings["freeze"] is not None:
            models.freeze(model, self.settings["freeze"])
            models.unfreeze_new(model)
            check_frozen(model, self.settings)
        if self.settings["unfreeze"] is not None:
            self.unfreezing = callbacks.GradualUnfreezing.read(self.settings["unfreeze"])
        self.counts = models.count_parameters(model)
        if not self.counts["all"]["trainable"]:
            raise InputError(
                f"freeze is {self.settings['freeze']!r}, which leaves nothing to learn; leave the head out"
            )

    def _fit(self, model, states, saved, save_every) -> list[dict[str, float]]:
        s, lesson = self.settings, self._lesson()
        xla = self._uses_xla(lesson.features)
        order = {"batch_size": s["batch_size"], "training": True, "seed": s["seed"], "pad_to": "auto" if xla else ()}
        stream = prepared if isinstance(lesson.features, prepared.Streamed) else pipeline
        shares = {"workers": self.workers.count} if stream is prepared and lesson.features.alike else {}
        self.cost = cost = stream.statistics(lesson.features, **shares, **order)
        self.total = cost.steps * s["epochs"]
        self.period = s["evaluate_every"] or cost.steps  # steps between two scorings, which Keras calls an epoch
        self.held_out = evaluation.Inference(self.task, self.tokenizer, self.validation)
        if s["monitor"] not in (None, self.task.monitor):
            check_monitor(s["monitor"], self._score_names(model))
        rate = schedules.by_name(
            s["schedule"], s["learning_rate"], total_steps=self.total, warmup_fraction=s["warmup_fraction"]
        )
        rows = self._with_states(model, lesson.features, states.directory.parent)
        with self._scope():
            model = self._compiled(model, rate, dataclasses.replace(lesson, features=rows), xla)
        pieces = self._callbacks()
        saver = checkpoints.SaveState(
            states, pieces, steps=self.period, every=save_every, identity=self.identity(), saved=saved
        )
        done = saver.position[0] * self.period + saver.position[1]
        batches = stream.batches(rows, start=divmod(done, cost.steps), **self._part(rows), **order).repeat()
        dataset = self.strategy.distribute_datasets_from_function(lambda _: batches) if self.strategy else batches
        with saver.running(), self._read():
            plain(model.fit)(
                # Keras, not the end of the data, ends an epoch: a step without data still decays the weights. An interrupted epoch has
                # fewer batches left than the others, so that it cannot know how many there are.
                dataset,
                steps_per_epoch=self.period,
                epochs=-(-self.total // self.period),
                verbose=0,
                callbacks=[callbacks.StopOnNonFinite(), callbacks.StopAfter(self.total), *pieces.values(), saver],
            )
        self.held_out.frozen = None
        self.groups = self._groups(model)
        self.adapter = models.adapter_of(model) if s["lora"] else None
        models.merge_lora(model)
        models.unfreeze(model)  # and with it, Keras' order of the weights is that of any other model again
        return self._rows(pieces["history"], rate)

    def _score_names(self, model) -> Iterator[list[str]]:
        """The names of the scores that there are, of few examples and then of all."""
        for part in (self.validation[:FEW], self.validation):
            infer = evaluation.Inference(self.task, self.tokenizer, part)
            yield self.workers.of_chief(lambda: list(self.task.score(part, infer(model))))  # noqa: B023 - called at once

    def _part(self, rows) -> dict[str, Any]:
        """Of several workers and replicas, what this process makes batches of."""
        workers = self.workers
        if isinstance(rows, prepared.Streamed) and rows.alike:
            return {"replicas": len(workers.own), "worker": (workers.index, workers.count)}
        return {"replicas": workers.replicas, "own": workers.own}

    def _read(self):
        """Where training data are read while it trains, so that a damaged file is told by its name."""
        return self.train.told() if isinstance(self.train, prepared.Prepared) else contextlib.nullcontext()

    def _callbacks(self) -> dict[str, Any]:
        """What watches the training and has a state, in the order in which Keras calls it."""
        s, cost = self.settings, self.cost
        monitor = s["monitor"] or self.task.monitor
        self.timer = callbacks.EpochTimer()
        self.scorer = callbacks.ScoreTask(
            lambda trained: self.workers.of_chief(lambda: self.task.score(self.validation, self.held_out(trained))),
            monitor=monitor,
            mode=metrics.direction(monitor),
            patience=s["patience"],
        )
        progress = callbacks.Progress(
            None if self.workers.chief else io.StringIO(),
            tokens_per_epoch=cost.tokens * self.period // cost.steps,
            padding_share=cost.padding_share,
            monitor=monitor,
            unit="part" if s["evaluate_every"] else "epoch",
        )
        return {
            **({"unfreezing": self.unfreezing} if self.unfreezing else {}),
            "timer": self.timer,
            **({"averages": callbacks.UseMovingAverages()} if s["ema"] else {}),
            "scorer": self.scorer,
            "progress": progress,
            "history": callbacks.History(),
        }

    def _with_states(self, model, features, place):
        """The features with what the frozen layers make of them, where there are such layers and more than one epoch."""
        s, began = self.settings, time.monotonic()
        rungs = self._rungs(model)
        changing = features.masking is not None  # what is computed is another text in each epoch
        changing |= isinstance(features, prepared.Streamed)  # or is not there as a whole
        if s["frozen_cache"] == "off" or max(rungs) < LOWEST or s["epochs"] == 1 or changing or self.strategy:
            return features
        parts, precision = (features, self.held_out.features), s["frozen_cache"]
        try:
            states, self.held_out.frozen = (FrozenStates(model, part, rungs, place, precision) for part in parts)
        except InputError as error:
            if precision != "auto":
                raise
            print(f"tfbert: {error}; they are computed in each epoch", file=sys.stderr)
            return features
        self.cache = {
            "frozen_cache_seconds": round(time.monotonic() - began, 3),
            "frozen_cache_bytes": states.bytes + self.held_out.frozen.bytes,
        }
        return dataclasses.replace(features, beside=states.beside(rungs))

    def _rungs(self, model) -> list[int]:
        """The rung of each epoch, up to which nothing learns."""
        if self.unfreezing is None:
            return [models.frozen_rung(model)]
        names, rungs = self.unfreezing.names(model), []
        for epoch in range(self.settings["epochs"]):
            self.unfreezing.let_learn(model, names, epoch)
            rungs.append(models.frozen_rung(model))
        return rungs

    def _lesson(self) -> distillation.Lesson:
        """The rows with their targets, and the loss."""
        if self.teacher:
            return self.teacher.lesson(self.task, self.tokenizer, self.train, self.unlabelled)
        if isinstance(self.train, prepared.Prepared):
            rows = self.train.features(self.task, self.tokenizer)
        else:
            rows = self.task.features(self.tokenizer, self.train)
        return distillation.Lesson(rows, self.task.loss(), self.task.divergence())

    def _uses_xla(self, features) -> bool:
        """Whether XLA compiles the step: what it cannot do is refused before where it was asked for, and left to the graph where not."""
        s = self.settings
        fits = features.even and self.task.in_parts and self.ways == KERAS_STEP
        return devices.uses_xla(s["xla"], s["strategy"]) and (fits or s["xla"] == "on")

    @property
    def ways(self) -> dict[str, Any]:
        """The settings that change what a training step is."""
        return {name: self.settings[name] for name in KERAS_STEP}

    def _compiled(self, model, rate, lesson, xla: bool):
        """The model with its optimizer and loss, and with a training step of its own where Keras' is not asked for."""
        s = self.settings
        averages = {"use_ema": True, "ema_momentum": s["ema"]} if s["ema"] else {}
        optimizer = optimizers.AdamW(
            rate,
            weight_decay=s["weight_decay"],
            clip_norm=s["clip_norm"] or None,
            layer_decay=s["layer_decay"],
            **averages,
        )
        stream = prepared if isinstance(lesson.features, prepared.Streamed) else features
        pieces = stream.pieces_in_use(lesson.features)
        if pieces is not None:
            optimizer.learn_rows(models.word_embeddings(model), pieces)
        if self.ways != KERAS_STEP:
            model = training_model.TrainingModel(model, divergence=lesson.divergence, **self.ways)
        elif lesson.features.beside:
            model = training_model.FromStates(model)
        model.compile(optimizer, loss=lesson.loss, jit_compile=xla)
        return model

    def _rows(self, history, rate) -> list[dict[str, float]]:
        """A row per epoch, or per scoring, for history.csv."""
        rows = []
        for i, epoch in enumerate(history.epoch):
            last_rate = float(rate(self._done(epoch) - 1))
            values = {name: float(column[i]) for name, column in history.history.items()}
            rows.append(
                {
                    "epoch": self._epochs(epoch),
                    "learning_rate": last_rate,
                    **values,
                    "seconds": round(self.timer.seconds[i], 3),
                }
            )
        return rows

    def _done(self, period: int) -> int:
        """The steps done at the end of a period, counted from 0."""
        return min((period + 1) * self.period, self.total)

    def _epochs(self, period: int) -> int | float:
        """The same in epochs."""
        epochs = self._done(period) / self.cost.steps
        return int(epochs) if epochs == int(epochs) else round(epochs, 4)

    def _groups(self, model) -> dict[str, dict[str, float]]:
        """Of each group of layers its parameters, the share of the learning rate that it learned with, and since which epoch."""
        joined = self._joined(model)
        variables, optimizer = models.layer_groups(model), getattr(model.optimizer, "inner_optimizer", model.optimizer)
        return {
            name: {
                **count,
                "rate": optimizer.factor(variables[name][0]) if count["trainable"] else 0.0,
                **({"from_epoch": joined[name] + 1} if name in joined else {}),
            }
            for name, count in self.counts.items()
            if name != "all"
        }

    def _joined(self, model) -> dict[str, int]:
        """The epoch in which each group began to learn, where they joined one by one; what is counted is what learned in the end."""
        if self.unfreezing is None:
            return {}
        names, joined = self.unfreezing.names(model), {}
        for epoch in range(len(self.timer.seconds)):
            self.unfreezing.let_learn(model, names, epoch)
            self.counts = models.count_parameters(model)
            for name, count in self.counts.items():
                if count["trainable"]:
                    joined.setdefault(name, epoch)
        return joined

    def _results(self, model, scores: dict[str, dict[str, float]], by_label) -> dict[str, Any]:
        seconds, epochs = sum(self.timer.seconds), self._epochs(len(self.timer.seconds) - 1)
        return {
            "metrics": scores.get("test", scores["validation"]),
            **scores,
            "by_label": by_label,
            "best_epoch": self._epochs(self.scorer.best_epoch),
            "train_seconds": round(seconds, 3),
            **self.cache,
            "tokens_per_second": round(self.cost.tokens * epochs / seconds, 1),
            "padding_share": round(self.cost.padding_share, 4),
            "peak_memory_bytes": devices.peak_memory_bytes(),
            "parameters": int(model.count_params()),
            "trainable_parameters": self.counts["all"]["trainable"],
            "layer_groups": self.groups,
            "steps": self.cost.steps,
            "settings": {**self.settings, "checkpoint": str(self.checkpoint), "precision": self.precision},
            "rows": {name: len(part) for name, part in self.data.items()},
            "sources": {name: part.source for name, part in self.data.items()},
            "data_sha256": self.hashes,
            "versions": _compat.versions(),
        }


def _hash(part) -> str:
    """The hash of a part of the data: of its rows, or of what they were prepared to."""
    return part.manifest.digest() if isinstance(part, prepared.Prepared) else fingerprint(part)
