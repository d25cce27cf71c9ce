"""One training: from a built model and checked examples to the trained model, its history and its scores."""

from __future__ import annotations

import json
from typing import Any

from tfbert import _compat, devices, evaluation, metrics, models, pipeline
from tfbert._compat import keras, lazy, tf
from tfbert.checkpoint_folder import find_checkpoint
from tfbert.errors import InputError
from tfbert.files import sha256
from tfbert.sources import fingerprint

# These subclass Keras classes; the command line reads fine_tune's signature without them.
callbacks, checkpoints = lazy("tfbert.callbacks"), lazy("tfbert.checkpoints")
optimizers, schedules = lazy("tfbert.optimizers"), lazy("tfbert.schedules")
training_model = lazy("tfbert.models.training_model")

# With these values Keras' own training step is taken.
KERAS_STEP = {"accumulate": 1, "fgm": 0, "r_drop": 0}


class Run:
    """The training itself, between reading and writing."""

    def __init__(self, task, checkpoint, tokenizer, train, validation, test, settings):
        self.task, self.checkpoint, self.tokenizer, self.settings = task, checkpoint, tokenizer, settings
        parts = {"train": train, "validation": validation, "test": test}
        self.train, self.validation, self.test = train, validation, test
        self.parts = {name: part for name, part in parts.items() if part is not None}
        self.hashes = {name: fingerprint(part) for name, part in self.parts.items()}
        self.precision = devices.choose_precision(settings["precision"])

    def identity(self) -> dict[str, Any]:
        """All on which the trained weights depend, name -> value: what must be equal for an interrupted run to go on."""
        folder = find_checkpoint(str(self.checkpoint))
        read = [path for path in sorted(folder.iterdir()) if path.suffix in (".json", ".txt", ".safetensors", ".h5")]
        return {
            **self.settings,
            "precision": self.precision,
            **{f"task.{name}": value for name, value in json.loads(json.dumps(self.task.to_json())).items()},
            **{f"checkpoint/{path.name}": sha256(path) for path in read},
            **self.hashes,
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
        options = {name: self.settings[name] for name in ("seed", "new_head", "encoder", "gradient_checkpointing")}
        keras.utils.set_random_seed(options["seed"])
        keras.mixed_precision.set_global_policy(devices.PRECISIONS[self.precision])
        try:
            with tf.device(devices.device(self.settings["strategy"])):
                model = self.task.build(self.checkpoint, **options)
                models.check_task(self.task, model, self.tokenizer)
                if self.settings["reinitialize"]:
                    models.reinitialize(model, self.settings["reinitialize"], seed=options["seed"])
                self._freeze(model)
                history = self._fit(model, states, saved, save_every)
        finally:
            keras.mixed_precision.set_global_policy("float32")
        if self.precision != "float32":
            # What is evaluated is what is exported: the same weights, computing in float32.
            twin = self.task.build(self.checkpoint, **options)
            twin.set_weights(model.get_weights())
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

    def _freeze(self, model) -> None:
        if self.settings["lora"]:
            models.add_lora(model, self.settings["lora"], seed=self.settings["seed"])
        if self.settings["freeze"] is not None:
            models.freeze(model, self.settings["freeze"])
        self.counts = models.count_parameters(model)
        if not self.counts["all"]["trainable"]:
            raise InputError(
                f"freeze is {self.settings['freeze']!r}, which leaves nothing to learn; leave the head out"
            )

    def _fit(self, model, states, saved, save_every) -> list[dict[str, float]]:
        s, task = self.settings, self.task
        features = task.features(self.tokenizer, self.train)
        xla = self._uses_xla(features)
        order = {"batch_size": s["batch_size"], "training": True, "seed": s["seed"], "pad_to": "auto" if xla else ()}
        self.cost = cost = pipeline.statistics(features, **order)
        self.held_out = held_out = evaluation.Inference(task, self.tokenizer, self.validation)
        rate = schedules.by_name(
            s["schedule"],
            s["learning_rate"],
            total_steps=cost.steps * s["epochs"],
            warmup_fraction=s["warmup_fraction"],
        )
        monitor = s["monitor"] or task.monitor
        self.timer = callbacks.EpochTimer()
        self.scorer = callbacks.ScoreTask(
            lambda trained: task.score(self.validation, held_out(trained)),
            monitor=monitor,
            mode=metrics.direction(monitor),
            patience=s["patience"],
        )
        progress = callbacks.Progress(tokens_per_epoch=cost.tokens, padding_share=cost.padding_share, monitor=monitor)
        model = self._compiled(model, rate, features, xla)
        history = callbacks.History()
        pieces = {
            "timer": self.timer,
            **({"averages": callbacks.UseMovingAverages()} if s["ema"] else {}),
            "scorer": self.scorer,
            "progress": progress,
            "history": history,
        }
        saver = checkpoints.SaveState(
            states, pieces, steps=cost.steps, every=save_every, identity=self.identity(), saved=saved
        )
        dataset = pipeline.batches(features, start=saver.position, **order)
        with saver.running():
            model.fit(
                # Keras, not the end of the data, ends an epoch: a step without data still decays the weights. An interrupted epoch has
                # fewer batches left than the others, so that it cannot know how many there are.
                dataset.repeat(),
                steps_per_epoch=cost.steps,
                epochs=s["epochs"],
                verbose=0,
                callbacks=[callbacks.StopOnNonFinite(), *pieces.values(), saver],
            )
        self.groups = self._groups(model)
        models.merge_lora(model)
        models.unfreeze(model)  # and with it, Keras' order of the weights is that of any other model again
        return self._rows(history, rate)

    def _uses_xla(self, features) -> bool:
        """Whether XLA compiles the step: what it cannot do is refused before where it was asked for, and left to the graph where not."""
        s = self.settings
        fits = features.even and self.task.in_parts and self.ways == KERAS_STEP
        return devices.uses_xla(s["xla"], s["strategy"]) and (fits or s["xla"] == "on")

    @property
    def ways(self) -> dict[str, Any]:
        """The settings that change what a training step is."""
        return {name: self.settings[name] for name in KERAS_STEP}

    def _compiled(self, model, rate, features, xla: bool):
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
        pieces = pipeline.pieces_in_use(features)
        if pieces is not None:
            optimizer.learn_rows(models.word_embeddings(model), pieces)
        if self.ways != KERAS_STEP:
            model = training_model.TrainingModel(model, divergence=self.task.divergence(), **self.ways)
        model.compile(optimizer, loss=self.task.loss(), jit_compile=xla)
        return model

    def _rows(self, history, rate) -> list[dict[str, float]]:
        """A row per epoch for history.csv."""
        rows = []
        for i, epoch in enumerate(history.epoch):
            last_rate = float(rate((epoch + 1) * self.cost.steps - 1))
            values = {name: float(column[i]) for name, column in history.history.items()}
            rows.append(
                {"epoch": epoch + 1, "learning_rate": last_rate, **values, "seconds": round(self.timer.seconds[i], 3)}
            )
        return rows

    def _groups(self, model) -> dict[str, dict[str, float]]:
        """Of each group of layers its parameters, and the share of the learning rate that it learned with."""
        variables, optimizer = models.layer_groups(model), getattr(model.optimizer, "inner_optimizer", model.optimizer)
        return {
            name: {**count, "rate": optimizer.factor(variables[name][0]) if count["trainable"] else 0.0}
            for name, count in self.counts.items()
            if name != "all"
        }

    def _results(self, model, scores: dict[str, dict[str, float]], by_label) -> dict[str, Any]:
        seconds, epochs = sum(self.timer.seconds), len(self.timer.seconds)
        return {
            "metrics": scores.get("test", scores["validation"]),
            **scores,
            "by_label": by_label,
            "best_epoch": self.scorer.best_epoch + 1,
            "train_seconds": round(seconds, 3),
            "tokens_per_second": round(self.cost.tokens * epochs / seconds, 1),
            "padding_share": round(self.cost.padding_share, 4),
            "peak_memory_bytes": devices.peak_memory_bytes(),
            "parameters": int(model.count_params()),
            "trainable_parameters": self.counts["all"]["trainable"],
            "layer_groups": self.groups,
            "steps": self.cost.steps,
            "settings": {**self.settings, "checkpoint": str(self.checkpoint), "precision": self.precision},
            "rows": {name: len(part) for name, part in self.parts.items()},
            "sources": {name: part.source for name, part in self.parts.items()},
            "data_sha256": self.hashes,
            "versions": _compat.versions(),
        }
