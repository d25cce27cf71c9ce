"""What the frozen bottom of a model computes for each row of a data set: once, into files without a name, from where batches read it."""

from __future__ import annotations

import math
import os
import tempfile
from collections.abc import Callable, Iterable, Sequence

import numpy as np

from tfbert import models
from tfbert._compat import tf, traced
from tfbert.errors import InputError
from tfbert.features import Features
from tfbert.models.frozen import LOWEST
from tfbert.pipeline import rows_by_length

BATCH = 64  # rows that are computed at once


class FrozenStates:
    """The states below all that learns, of each token of each row: every epoch after the first costs only what learns.

    They are exact: the lean encoder draws no dropout in its frozen bottom, so each epoch would compute the same again (but for the order
    of additions in products of other shapes, some 1e-7). They lie in files that have no name any more, so that they are gone with the
    process however it ends; what is read again and again the operating system keeps in memory, as far as there is some. One token of a
    384-wide model takes 1.5 KB in float32, half of that in bfloat16; where the highest layer is frozen and the head reads the first
    token only, it is one state a row.

    Give `beside` to the features that batches are made of, and train a `FromStates` model. Freeze other layers, and they are worthless.

    Args:
        model: what `task.build` returned, with the lean encoder.
        features: the rows.
        rungs: those that are wanted (see `models.frozen_rung`); those below LOWEST are not worth keeping.
        directory: an existing folder on the disk that has the room.
        precision: "auto": that in which the model computes (default); "bfloat16": half the size of float32, and 3 digits.

    Attributes:
        bytes: of all files together.

    Raises:
        InputError: the disk has no room for them.

    Example:
        >>> rung = models.frozen_rung(model)                                            # doctest: +SKIP
        >>> states = FrozenStates(model, features, [rung], "saved_models")              # doctest: +SKIP
        >>> features = dataclasses.replace(features, beside=states.beside([rung]))      # doctest: +SKIP
        >>> learner = FromStates(model)                                                 # doctest: +SKIP
    """

    def __init__(self, model, features: Features, rungs: Iterable[int], directory, precision: str = "auto"):
        encoder, rungs = models.lean_encoder(model), sorted({rung for rung in rungs if rung >= LOWEST})
        self._splits = next(iter(features.ragged.values()))[1]
        rows, tokens = len(self._splits) - 1, int(self._splits[-1])
        data = rows_by_length(features, batch_size=BATCH)

        @traced(input_signature=[data.element_spec[1]])
        def compute(inputs):
            with models.wanted(rungs) as found:
                encoder.main(**{"token_type_ids": None, **inputs}, training=False)
            return {r: tf.cast(x, tf.bfloat16) if precision == "bfloat16" else x for r, x in found.items()}

        made = compute.get_concrete_function().structured_outputs
        self._dtype, self._width = made[rungs[0]].dtype, made[rungs[0]].shape[-1]
        top = (
            len(encoder.parts(encoder.main).layers) + 1 if encoder.first_token else None
        )  # the rung that has a state a row
        shapes = {rung: (rows if rung == top else tokens, self._width) for rung in rungs}
        self.bytes = sum(math.prod(shape) for shape in shapes.values()) * self._dtype.size
        self._files = {rung: _file(shape, self._dtype, directory) for rung, shape in shapes.items()}
        self._top = top
        for numbers, inputs in data:
            self._write(numbers.numpy(), compute(inputs))

    def _write(self, rows, states) -> None:
        ends = np.cumsum(self._splits[rows + 1] - self._splits[rows])
        for rung, tensor in states.items():
            file, values = self._files[rung], tensor.numpy()
            if rung == self._top:
                file[rows] = values
                continue
            for begin, after, end in zip(self._splits[rows], self._splits[rows + 1], ends):
                file[begin:after] = values[end - (after - begin) : end]

    def beside(self, rungs: Sequence[int]) -> dict[str, Callable]:
        """For `Features.beside`: what reads the states of a batch.

        Args:
            rungs: that of each epoch; the last is that of all epochs after it, too.

        Returns:
            The name of the input, and the function of rows int64 [b], epoch int64 and width int64 to their states [b, width, D], zeros
            behind the end of a row; [b, 1, D] of first tokens; [b, 0, D] in an epoch whose rung is below LOWEST.
        """

        def numbers(rows, epoch, width):
            rung = rungs[min(max(int(epoch), 0), len(rungs) - 1)]
            if rung < LOWEST:
                return np.zeros([len(rows), 0, self._width], self._dtype.as_numpy_dtype)
            file = self._files[rung]
            if rung == self._top:
                return file[rows][:, np.newaxis]
            padded = np.zeros([len(rows), width, self._width], file.dtype)
            for place, begin, end in zip(padded, self._splits[rows], self._splits[rows + 1]):
                place[: end - begin] = file[begin:end]
            return padded

        def read(rows, epoch, width):
            states = tf.numpy_function(numbers, [rows, epoch, width], self._dtype, stateful=False)
            return tf.ensure_shape(states, [rows.shape[0], None, self._width])

        return {models.STATES: read}


def _file(shape: Sequence[int], dtype, directory) -> np.memmap:
    """A writable array on the disk, without a name from the beginning."""
    size = math.prod(shape) * dtype.size
    try:
        with tempfile.TemporaryFile(dir=directory) as file:
            # Room that is not there would else end the process, where a page is written.
            getattr(os, "posix_fallocate", lambda _, __, size: file.truncate(size))(file.fileno(), 0, size)
            return np.memmap(file, dtype.as_numpy_dtype, "r+", shape=shape)
    except OSError as error:
        raise InputError(
            f"the states of the frozen layers need {size / 2**30:.1f} GiB in {directory}: {error.strerror}; keep them in bfloat16 "
            "(--frozen-cache bfloat16), which is half of float32, or compute them in each epoch (--frozen-cache off)"
        ) from None
