"""The state of a training that is not over: written beside its output while it goes on, whole or not at all, and read back bit by bit.

`States` is the folder, `SaveState` the Keras callback that writes into it and goes on from it. A state is a nested dict of JSON values and
NumPy arrays; whatever remembers something gives its part by `state()` and takes it back by `restore(part)`.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import signal
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file, save_file

from tfbert import files, models
from tfbert._compat import keras
from tfbert.errors import InputError, Interrupted
from tfbert.signals import Signals
from tfbert.workers import Workers

FORMAT_VERSION = 1
KEPT = 2  # states: the newest, and the one before it, should the newest be damaged


class States:
    """The folder `.NAME.run` beside an output folder NAME: the newest two states of a run that is not over.

    Args:
        directory: the output folder, which the caller holds (`files.locked`).
        workers: those that train together, each with a folder of its own; None: this process alone.

    Example:
        >>> import tempfile
        >>> states = States(Path(tempfile.mkdtemp()) / "movies")
        >>> states.write(40, {"rate": 0.5, "weights": [np.arange(3.0)]})
        >>> states.newest()
        {'rate': 0.5, 'weights': [array([0., 1., 2.])]}
        >>> states.clear()
    """

    def __init__(self, directory: str | Path, workers: Workers | None = None):
        self.directory, self.workers = Path(directory), workers or Workers()
        self.place = self.workers.place(directory, "run")
        self._kept: list[Path] = []

    def __bool__(self) -> bool:
        """Whether there is a state, damaged or not."""
        return bool(self._folders())

    def write(self, step: int, state: Mapping[str, Any]) -> None:
        """Writes a state and then deletes those before the last two.

        Args:
            step: updates so far; the state's name on the disk, and what the newest is known by.
            state: nested dicts and lists of JSON values and NumPy arrays.

        Raises:
            InputError: the disk refuses. The states before are as they were.
        """
        folder = self.place / f"step-{step:08}"
        arrays: dict[str, np.ndarray] = {}
        values = _parted({"format_version": FORMAT_VERSION, "state": state}, "", arrays)
        with files.new_directory(folder, overwrite=True) as temporary:
            with files.told(folder):
                save_file(arrays, temporary / "arrays.safetensors")
            # Scores may be NaN, for which Python's JSON has a word; nobody else reads this file.
            files.write_text(temporary / "values.json", json.dumps(values))
            files.write_text(temporary / "SHA256SUMS", _sums(temporary))
        self._kept = [path for path in self._kept if path != folder][1 - KEPT :] + [folder]
        for old in self._folders():
            if old not in self._kept:
                shutil.rmtree(old, ignore_errors=True)

    def newest(self) -> dict[str, Any] | None:
        """Reads the newest state whose checksums are right; one that is damaged is told on stderr, and the one before it taken.

        Of several workers all take the newest that each of them has.

        Returns:
            What `write` was given, or None where nothing was saved yet.

        Raises:
            InputError: there are states, and none is whole, or none that all workers have; or it is one of another version of this
                package.
        """
        for rest in self.place.glob(".*"):  # of a process that was killed while it wrote
            shutil.rmtree(rest, ignore_errors=True)
        folders, whole = self._folders(), []
        for folder in reversed(folders):
            wrong = _damage(folder)
            if wrong:
                print(f"tfbert: {folder} is damaged ({wrong}); the state before it is taken", file=sys.stderr)
                continue
            whole.append(folder)
            if self.workers.count == 1:
                break
        with self.workers.agreeing():
            if folders and not whole:
                raise InputError(
                    f"none of the states in {self.place} is whole; pass overwrite (--overwrite) to begin the run anew"
                )
        found = self.workers.tell([folder.name for folder in whole])
        names = set.intersection(*map(set, found))
        if not names and all(
            len(of_one) <= 1 for of_one in found
        ):  # at most the very first save, which not all of them did
            self._check_workers(whole)
            self.clear()
            return None
        if not names:
            having = ", ".join(f"worker {i}: {' and '.join(of_one) or 'none'}" for i, of_one in enumerate(found))
            raise InputError(
                f"of {self.directory} there is no state that all workers have ({having}); bring the folders "
                f"{self.place.name} back, or pass overwrite (--overwrite) to begin the run anew"
            )
        self._kept = [folder for folder in whole if folder.name == max(names)]
        return _read(self._kept[0])

    def _check_workers(self, whole: list[Path]) -> None:
        """Refuses to drop the one state of a run that others began."""
        with self.workers.agreeing():
            began = _read(whole[0]).get("identity", {}) if whole else {}
            before, now = began.get("strategy.replicas", 1), max(self.workers.replicas, self.workers.count)
            if began and before != now:
                raise InputError(
                    f"{self.directory} was begun by {before} replicas, not {now}; go on with as many, or pass overwrite "
                    "(--overwrite) to begin anew"
                )

    def take_back(self) -> None:
        """Lets the next `write` keep not the last state but the one before it: another worker could not write the last."""
        del self._kept[1:]

    def clear(self) -> None:
        """Deletes the folder: the run is over, or begun anew."""
        shutil.rmtree(self.place, ignore_errors=True)

    def _folders(self) -> list[Path]:
        return sorted(self.place.glob("step-*"))


def _parted(value, name: str, arrays: dict[str, np.ndarray]):
    """The value for JSON, with the names of the arrays in their places; the arrays go to `arrays`."""
    if isinstance(value, np.ndarray):
        arrays[name] = value
        return {"array": name}
    if isinstance(value, Mapping):
        return {key: _parted(part, f"{name}/{key}", arrays) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_parted(part, f"{name}/{i}", arrays) for i, part in enumerate(value)]
    return value


def _joined(value, arrays: Mapping[str, np.ndarray]):
    """What `_parted` was given."""
    if isinstance(value, dict):
        if value.keys() == {"array"}:
            return arrays[value["array"]]
        return {key: _joined(part, arrays) for key, part in value.items()}
    return [_joined(part, arrays) for part in value] if isinstance(value, list) else value


def _sums(folder: Path) -> str:
    """The checksums in the form of `sha256sum`, which can check them too."""
    return "".join(f"{files.sha256(folder / name)}  {name}\n" for name in ("arrays.safetensors", "values.json"))


def _damage(folder: Path) -> str:
    """What is wrong with a state's files; "" where nothing is."""
    try:
        if (folder / "SHA256SUMS").read_bytes() == _sums(folder).encode():
            return ""
    except (OSError, InputError) as error:
        return str(error)
    return "the files are not those that SHA256SUMS was written for"


def _read(folder: Path) -> dict[str, Any]:
    values = files.read_json(folder / "values.json")
    if values["format_version"] != FORMAT_VERSION:
        raise InputError(
            f"{folder} has format_version {values['format_version']}, this tfbert reads {FORMAT_VERSION}; go on with the tfbert that "
            "wrote it, or pass overwrite (--overwrite) to begin the run anew"
        )
    return _joined(values["state"], load_file(folder / "arrays.safetensors"))


class SaveState(keras.callbacks.Callback):
    """Saves the whole state of a training every so often, beside it, and lets `fit` go on where an earlier process stopped.

    It is the last of the callbacks, so that it sees what the others have done. Weights are copied between two steps; a thread writes
    them, and while it does nothing else is saved. A state that the disk refuses, or with a weight that is not finite, is not written, and
    the training goes on. When a signal has come, the state is written after the step, or after the scoring that is under way, and `fit`
    ends with Interrupted.

    The data set must begin at `position`, and `fit` needs no initial_epoch.

    Args:
        states: the folder.
        pieces: name -> callback with `state` and `restore`.
        steps: steps of an epoch.
        every: seconds between two saves, at least; 0 saves whenever the one before is written.
        identity: name -> value: what must be equal for a run to go on with this state.
        saved: what `states.newest` returned, to go on from there.

    Attributes:
        position: (epoch, batch) of the next step, both counted from 0.

    Raises:
        Interrupted: from `fit`, after a signal.
        InputError: from `fit`, for a saved state that is not of this model.
    """

    def __init__(self, states: States, pieces: Mapping[str, Any], *, steps: int, every: float, identity, saved=None):
        super().__init__()
        self.states, self.pieces, self.steps, self.every, self.identity = states, pieces, steps, every, identity
        self.workers = states.workers
        self._saved, self._writer, self._failed, self._told = saved, None, None, False
        self.position: tuple[int, int] = tuple(saved["position"]) if saved else (0, 0)
        self.signals = Signals()
        self._on_disk = self.position if saved else None

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Surrounds `fit`: takes signals, and waits at the end until what is being written is written."""
        try:
            with self.signals:
                yield
        finally:
            if self._writer is not None:
                self._writer.join()

    def on_train_begin(self, logs=None):
        # Keras makes these at the first step, for the variables that have a gradient then; a state needs them before, and all.
        self.model.optimizer.build(self.model.trainable_variables)
        self.model.compiled_loss.build(self.model.output)
        self._written_at = time.monotonic()
        self.model._training_state = self  # as Keras' BackupAndRestore: `fit` asks it where to begin
        self._restored = None
        if self._saved is None:
            return
        for name, piece in self.pieces.items():
            piece.restore(self._saved["pieces"][name])
        for name, variables in self._variables().items():
            _assign(variables, self._saved["model"][name], name)
        self._restored, self._saved = self._saved, None  # the metrics wait until the epoch's beginning has reset them
        self._stopped = self._restored["stopped"]
        epoch, batch = self.position
        step = f", step {batch + 1} of {self.steps}" if batch else ""
        print(f"tfbert: {self.states.directory} goes on at epoch {epoch + 1}{step}", file=sys.stderr)

    def maybe_load_initial_counters_from_ckpt(self, steps_per_epoch, initial_epoch, mode=None) -> tuple[int, int]:
        """Where `fit` begins."""
        if self._restored is not None and self._restored["stopped"]:
            return self.params["epochs"], 0
        return self.position

    def on_epoch_begin(self, epoch, logs=None):
        self._epoch = epoch
        if self._restored is not None:
            if self.position[1]:
                _assign(self._metrics(), self._restored["metrics"], "metrics")
            self._restored = None

    def on_train_batch_end(self, batch, logs=None):
        # The last step's state is that of the epoch's end.
        if batch + 1 < self.steps and not self.model.stop_training:
            self._reached(self._epoch, batch + 1)

    def on_epoch_end(self, epoch, logs=None):
        self._reached(epoch + 1, 0)

    def on_train_end(self, logs=None):
        self.model._training_state = None

    def _reached(self, epoch: int, batch: int) -> None:
        self.position = (epoch, batch)
        idle = self._writer is None or not self._writer.is_alive()
        due = idle and time.monotonic() - self._written_at >= self.every
        # What one worker does, all do at the same step.
        lost = idle and self._failed is not None
        signalled, ready, failed = self.workers.sums([self.signals.received is not None, due, lost])
        if signalled:
            self._stop(self.signals.received or signal.SIGTERM)
        if ready < self.workers.count:
            return
        self._tell_failure()
        if failed and self._failed is None:
            self.states.take_back()
        self._writer = threading.Thread(target=self._write, args=(self.position, self._state()), name="tfbert-save")
        self._writer.start()

    def _stop(self, received: signal.Signals) -> None:
        if self._writer is not None:
            self._writer.join()
        if self.workers.sums([self._failed is not None])[0] and self._failed is None:
            self.states.take_back()
        self._write(self.position, self._state())
        self._tell_failure()
        self.workers.sums([0])  # nobody leaves before all have saved
        raise Interrupted(received, self._how_to_resume())

    def _how_to_resume(self) -> str:
        if self._on_disk is None:
            return f"nothing of {self.states.directory} could be saved; it begins anew"
        epoch, batch = self._on_disk
        return f"saved at epoch {epoch + 1}, step {batch + 1}; the same command with --resume goes on"

    def _tell_failure(self) -> None:
        """Says on stderr that the last save has failed, the first time of several in a row."""
        if self._failed is not None and not self._told:
            print(f"tfbert: the state is not saved, training goes on: {self._failed}", file=sys.stderr)
        self._told = self._failed is not None

    def _write(self, position: tuple[int, int], state: dict[str, Any]) -> None:
        weights = state["model"]["weights"]
        if all(np.isfinite(array).all() for array in weights):
            try:
                self.states.write(position[0] * self.steps + position[1], state)
                self._on_disk, self._failed = position, None
            except InputError as error:
                self._failed = error
        self._written_at = time.monotonic()

    def _state(self) -> dict[str, Any]:
        return {
            "identity": self.identity,
            "position": self.position,
            "stopped": bool(self.model.stop_training),
            "pieces": {name: piece.state() for name, piece in self.pieces.items()},
            "model": {name: _values(variables) for name, variables in self._variables().items()},
            "metrics": _values(self._metrics()),
        }

    def _variables(self) -> dict[str, list]:
        """All variables that a step changes, but the metrics."""
        optimizer = self.model.optimizer
        scale = getattr(
            optimizer, "_loss_scale", None
        )  # of Keras' LossScaleOptimizer, whose variables are those it wraps
        return {
            "weights": models.weights_in_order(self.model),
            "optimizer": list(optimizer.variables),
            "loss scale": [] if scale is None else [scale.current_loss_scale, scale.counter],
            "random": models.random_state(self.model),
        }

    def _metrics(self) -> list:
        """The variables of each replica: their sum, given to one of them, would be added up in another order."""
        parts = self.model.distribute_strategy.experimental_local_results
        return [part for metric in self.model.metrics for variable in metric.variables for part in parts(variable)]


def _values(variables) -> list[np.ndarray]:
    return [np.asarray(variable.numpy()) for variable in variables]


def _assign(variables, arrays, what: str) -> None:
    shapes = [tuple(variable.shape) for variable in variables], [array.shape for array in arrays]
    if shapes[0] != shapes[1]:
        raise InputError(
            f"the saved state's {what} are not of this model's shapes; pass overwrite (--overwrite) to begin anew"
        )
    for variable, array in zip(variables, arrays):
        variable.assign(array)
