"""Learning-rate schedules of fine-tuning, as Keras schedules: `optimizer = AdamW(WarmupLinear(5e-5, total_steps=300))`.

Step t is the number of updates done before this one (the optimizer's `iterations`), so the first update has t = 0 and
the last t = total_steps - 1. Beyond the end a rate stays at its final value. All arithmetic is in float64 inside the
graph: float32 would lose the end of a cosine, and the position in a run of a million steps; the rate itself is float32.
"""

from __future__ import annotations

import math

from tfbert._compat import keras, tf
from tfbert.errors import InputError, suggest


class _Schedule(keras.optimizers.schedules.LearningRateSchedule):
    """A peak rate times a share from 0 to 1 that the step decides.

    Args:
        learning_rate: the peak rate, > 0.
        total_steps: updates in the whole run, >= 1.
    """

    def __init__(self, learning_rate: float, total_steps: int):
        name = type(self).__name__
        if not isinstance(learning_rate, (int, float)) or not 0 < learning_rate < math.inf:
            raise InputError(f"{name}: learning_rate is {learning_rate!r}; give a positive number, say 5e-5")
        if not _is_whole(total_steps) or total_steps < 1:
            raise InputError(f"{name}: total_steps is {total_steps!r}; give the number of updates in the whole run")
        self.learning_rate = float(learning_rate)
        self.total_steps = int(total_steps)

    def __call__(self, step):
        """The rate of update `step` (integer, scalar or any shape), float32 of the same shape."""
        # Never beyond the end; and the optimizer's iterations may be a variable, which only a conversion makes a
        # tensor.
        step = tf.minimum(tf.cast(tf.convert_to_tensor(step), tf.float64), float(self.total_steps))
        return tf.cast(self.learning_rate * self._share(step), tf.float32)

    def _share(self, step):
        raise NotImplementedError

    def get_config(self) -> dict:
        return {"learning_rate": self.learning_rate, "total_steps": self.total_steps}


class _WarmedUp(_Schedule):
    """Rises from 0 in a straight line over the first steps: rate t / warmup_steps of the peak, as Hugging Face's
    schedules do.

    The very first update therefore has rate 0 and only fills the optimizer's averages.

    Args:
        warmup_steps: steps of the rise, 0 <= warmup_steps < total_steps (default 0).
        warmup_fraction: the same as a share of total_steps, rounded up to a whole step and kept below total_steps.
    """

    def __init__(
        self, learning_rate: float, total_steps: int, *, warmup_steps: int = 0, warmup_fraction: float | None = None
    ):
        super().__init__(learning_rate, total_steps)
        name = type(self).__name__
        if warmup_fraction is not None:
            if warmup_steps:
                raise InputError(f"{name}: warmup_steps and warmup_fraction are both given; give one of them")
            if not 0 <= warmup_fraction < 1:
                raise InputError(f"{name}: warmup_fraction is {warmup_fraction!r}; give at least 0 and less than 1")
            # Rounded first: 0.07 * 100 is 7.000000000000001.
            warmup_steps = min(math.ceil(round(total_steps * warmup_fraction, 6)), self.total_steps - 1)
        if not _is_whole(warmup_steps) or not 0 <= warmup_steps < self.total_steps:
            raise InputError(
                f"{name}: warmup_steps is {warmup_steps!r} of {self.total_steps} steps in all; "
                f"give a whole number from 0 to {self.total_steps - 1}"
            )
        self.warmup_steps = int(warmup_steps)

    def _share(self, step):
        decayed = self._decay((step - self.warmup_steps) / (self.total_steps - self.warmup_steps))
        return tf.where(step < self.warmup_steps, step / max(self.warmup_steps, 1), decayed)

    def _decay(self, progress):
        """The share of the peak at `progress` from 0 (the warmup's end) to 1 (the run's)."""
        raise NotImplementedError

    def get_config(self) -> dict:
        return {**super().get_config(), "warmup_steps": self.warmup_steps}


@keras.saving.register_keras_serializable(package="tfbert")
class WarmupLinear(_WarmedUp):
    """Rises from 0 to the peak over the warmup, then falls in a straight line to 0 at the end.

    The schedule of BERT (Devlin et al. 2019) and of Hugging Face's get_linear_schedule_with_warmup, step for step: the
    first update of a warmup has rate 0.

    Args:
        learning_rate: the peak rate.
        total_steps: updates in the whole run.
        warmup_steps: steps of the rise (default 0: begin at the peak).
        warmup_fraction: the same as a share of total_steps, rounded up; give one of the two.

    Raises:
        InputError: a value outside its range, or both kinds of warmup.

    Example:
        >>> WarmupLinear(1.0, 8, warmup_steps=2)(range(10)).numpy().tolist()
        [0.0, 0.5, 1.0, 0.833, 0.667, 0.5, 0.333, 0.167, 0.0, 0.0]
    """

    def _decay(self, progress):
        return 1 - progress


@keras.saving.register_keras_serializable(package="tfbert")
class WarmupCosine(_WarmedUp):
    """Rises from 0 to the peak over the warmup, then falls along half a cosine to 0 at the end.

    The same as Hugging Face's get_cosine_schedule_with_warmup (half a period; Loshchilov and Hutter 2017).

    Args:
        learning_rate: the peak rate.
        total_steps: updates in the whole run.
        warmup_steps: steps of the rise (default 0: begin at the peak).
        warmup_fraction: the same as a share of total_steps, rounded up; give one of the two.

    Raises:
        InputError: a value outside its range, or both kinds of warmup.

    Example:
        >>> WarmupCosine(1.0, 6, warmup_steps=2)(range(8)).numpy().tolist()
        [0.0, 0.5, 1.0, 0.854, 0.5, 0.146, 0.0, 0.0]
    """

    def _decay(self, progress):
        return 0.5 * (1 + tf.cos(math.pi * progress))


@keras.saving.register_keras_serializable(package="tfbert")
class WarmupConstant(_WarmedUp):
    """Rises from 0 to the peak over the warmup and stays there; without a warmup it is a constant rate.

    The same as Hugging Face's get_constant_schedule_with_warmup.

    Args:
        learning_rate: the peak rate.
        total_steps: updates in the whole run; here it only bounds and measures the warmup.
        warmup_steps: steps of the rise (default 0: begin at the peak).
        warmup_fraction: the same as a share of total_steps, rounded up; give one of the two.

    Raises:
        InputError: a value outside its range, or both kinds of warmup.

    Example:
        >>> WarmupConstant(1.0, 8, warmup_fraction=0.5)(range(6)).numpy().tolist()
        [0.0, 0.25, 0.5, 0.75, 1.0, 1.0]
    """

    def _decay(self, progress):
        return tf.ones_like(progress)


@keras.saving.register_keras_serializable(package="tfbert")
class SlantedTriangular(_Schedule):
    """A short steep rise from peak / ratio to the peak, then a long slow fall back to it (Howard and Ruder 2018,
    equation 3).

    cut = floor(T * cut_frac); p = t / cut while t < cut, else 1 - (t - cut) / (cut * (1 / cut_frac - 1));
    rate = peak * (1 + p * (ratio - 1)) / ratio. Where T * cut_frac is no whole number the paper's p falls below 0 on
    the last steps: here it stops at 0. Where cut is 0 there is no rise, and p = 1 - t / T.

    Args:
        learning_rate: the peak rate (eta_max).
        total_steps: updates in the whole run (T).
        cut_frac: share of the steps in the rise, 0 <= cut_frac < 1 (default 0.1).
        ratio: how many times lower the lowest rate is than the peak, >= 1 (default 32).

    Raises:
        InputError: a value outside its range.

    Example:
        >>> SlantedTriangular(32.0, 20)(range(0, 22, 2)).numpy().tolist()
        [1.0, 32.0, 28.56, 25.11, 21.67, 18.22, 14.78, 11.33, 7.89, 4.44, 1.0]
    """

    def __init__(self, learning_rate: float, total_steps: int, *, cut_frac: float = 0.1, ratio: float = 32):
        super().__init__(learning_rate, total_steps)
        if not 0 <= cut_frac < 1:
            raise InputError(f"SlantedTriangular: cut_frac is {cut_frac!r}; give at least 0 and less than 1, say 0.1")
        if not 1 <= ratio < math.inf:
            raise InputError(f"SlantedTriangular: ratio is {ratio!r}; give a number of at least 1, say 32")
        self.cut_frac = float(cut_frac)
        self.ratio = float(ratio)

    def _share(self, step):
        # Rounded first: 0.29 * 100 is 28.999999999999996.
        cut = math.floor(round(self.total_steps * self.cut_frac, 6))
        fall = cut * (1 / self.cut_frac - 1) if cut else self.total_steps
        p = tf.where(step < cut, step / max(cut, 1), 1 - (step - cut) / fall)
        return (1 + tf.maximum(p, 0) * (self.ratio - 1)) / self.ratio

    def get_config(self) -> dict:
        return {**super().get_config(), "cut_frac": self.cut_frac, "ratio": self.ratio}


@keras.saving.register_keras_serializable(package="tfbert")
class InverseSquareRoot(_WarmedUp):
    """Rises from 0 to the peak over the warmup, then falls with the square root of the step: peak * sqrt(warmup / t).

    The schedule of the Transformer (Vaswani et al. 2017) and of fairseq, with its warmup from 0, and of Hugging Face's
    get_inverse_sqrt_schedule, step for step. It needs no end: where the run goes on after total_steps is no matter, but
    for the rate, which stays. Without a warmup it begins at the peak, peak / sqrt(1 + t / 10000).

    Args:
        learning_rate: the peak rate.
        total_steps: updates in the whole run.
        warmup_steps: steps of the rise (default 0: begin at the peak).
        warmup_fraction: the same as a share of total_steps, rounded up; give one of the two.

    Raises:
        InputError: a value outside its range, or both kinds of warmup.

    Example:
        >>> InverseSquareRoot(1.0, 64, warmup_steps=4)([0, 2, 4, 16, 64]).numpy().tolist()
        [0.0, 0.5, 1.0, 0.5, 0.25]
    """

    def _share(self, step):
        scale = self.warmup_steps or 10_000
        after = tf.sqrt(scale / (tf.maximum(step, self.warmup_steps) + scale - self.warmup_steps))
        return tf.where(step < self.warmup_steps, step / max(self.warmup_steps, 1), after)


@keras.saving.register_keras_serializable(package="tfbert")
class OneCycle(_Schedule):
    """One rise and one long fall, both along half a cosine (Smith 2018, https://arxiv.org/abs/1803.09820).

    As PyTorch's OneCycleLR with anneal_strategy="cos": from peak / start_ratio to the peak at step
    warmup_fraction * total_steps - 1, then down to peak / start_ratio / end_ratio at the last step, total_steps - 1. The
    momentum, which Smith lowers while the rate rises, stays as the optimizer has it.

    Args:
        learning_rate: the peak rate.
        total_steps: updates in the whole run.
        warmup_fraction: share of the steps in the rise, 0 <= warmup_fraction < 1 (default 0.3).
        start_ratio: how many times lower the first rate is than the peak, >= 1 (default 25).
        end_ratio: how many times lower the last rate is than the first, >= 1 (default 10,000).

    Raises:
        InputError: a value outside its range.

    Example:
        >>> OneCycle(1.0, 11, warmup_fraction=3 / 11, start_ratio=4, end_ratio=25)(range(11)).numpy().round(3).tolist()
        [0.25, 0.625, 1.0, 0.962, 0.855, 0.694, 0.505, 0.316, 0.155, 0.048, 0.01]
    """

    def __init__(
        self,
        learning_rate: float,
        total_steps: int,
        *,
        warmup_fraction: float = 0.3,
        start_ratio: float = 25,
        end_ratio: float = 1e4,
    ):
        super().__init__(learning_rate, total_steps)
        if not 0 <= warmup_fraction < 1:
            raise InputError(
                f"OneCycle: warmup_fraction is {warmup_fraction!r}; give at least 0 and less than 1, say 0.3"
            )
        for name, ratio in (("start_ratio", start_ratio), ("end_ratio", end_ratio)):
            if not 1 <= ratio < math.inf:
                raise InputError(f"OneCycle: {name} is {ratio!r}; give a number of at least 1, say 25")
        self.warmup_fraction, self.start_ratio, self.end_ratio = map(float, (warmup_fraction, start_ratio, end_ratio))

    def _share(self, step):
        first, last = 1 / self.start_ratio, 1 / (self.start_ratio * self.end_ratio)
        peak_at, end = max(self.warmup_fraction * self.total_steps - 1, 0.0), float(self.total_steps - 1)
        rise = _between(first, 1.0, step / (peak_at or 1.0))
        fall = _between(1.0, last, (tf.minimum(step, end) - peak_at) / ((end - peak_at) or 1.0))
        return tf.where(step < peak_at, rise, fall)

    def get_config(self) -> dict:
        ratios = {"start_ratio": self.start_ratio, "end_ratio": self.end_ratio}
        return {**super().get_config(), "warmup_fraction": self.warmup_fraction, **ratios}


def _between(first: float, last: float, progress):
    """From `first` to `last` along half a cosine."""
    return last + (first - last) / 2 * (1 + tf.cos(math.pi * progress))


@keras.saving.register_keras_serializable(package="tfbert")
class Joined(keras.optimizers.schedules.LearningRateSchedule):
    """Several schedules, one after the other; each counts its steps from its own beginning.

    Args:
        parts: pairs of a Keras schedule and its number of steps, >= 1; the last goes on for ever, and its number may be None.

    Raises:
        InputError: no parts, one that is no Keras schedule, or a number of steps below 1.

    Example:
        >>> Joined([(WarmupConstant(1.0, 2), 2), (WarmupLinear(1.0, 4), None)])(range(7)).numpy().tolist()
        [1.0, 1.0, 1.0, 0.75, 0.5, 0.25, 0.0]
    """

    def __init__(self, parts):
        parts = [tuple(part) for part in parts]
        if not parts:
            raise InputError("Joined: there are no parts; give pairs of a schedule and its number of steps")
        for i, (schedule, steps) in enumerate(parts):
            if not isinstance(schedule, keras.optimizers.schedules.LearningRateSchedule):
                raise InputError(f"Joined: part {i + 1} is {schedule!r}; give a Keras learning-rate schedule")
            if not (steps is None and i == len(parts) - 1) and (not _is_whole(steps) or steps < 1):
                raise InputError(f"Joined: part {i + 1} has {steps!r} steps; give a whole number of at least 1")
        self.parts = parts

    def __call__(self, step):
        """The rate of update `step` (integer, scalar or any shape), float32 of the same shape."""
        step = tf.cast(tf.convert_to_tensor(step), tf.int64)
        start, rate = 0, None
        for schedule, steps in self.parts:
            own = tf.cast(schedule(tf.maximum(step - start, 0)), tf.float32)
            rate = own if rate is None else tf.where(step < start, rate, own)
            start += steps or 0
        return rate

    def get_config(self) -> dict:
        saved = keras.optimizers.schedules.serialize
        return {"parts": [[saved(schedule), None if steps is None else int(steps)] for schedule, steps in self.parts]}

    @classmethod
    def from_config(cls, config):
        """The schedule that `get_config` described."""
        return cls([(keras.optimizers.schedules.deserialize(part), steps) for part, steps in config["parts"]])


_NAMES = {
    "constant": WarmupConstant,
    "inverse-square-root": InverseSquareRoot,
    "one-cycle": OneCycle,
    "slanted-triangular": SlantedTriangular,
    "warmup-constant": WarmupConstant,
    "warmup-cosine": WarmupCosine,
    "warmup-linear": WarmupLinear,
}
NAMES = tuple(_NAMES)


def by_name(
    name: str, learning_rate: float, *, total_steps: int, warmup_fraction: float = 0.1
) -> keras.optimizers.schedules.LearningRateSchedule:
    """The schedule that the command line calls by this name.

    Args:
        name: "warmup-linear", "slanted-triangular", "warmup-cosine", "warmup-constant", "one-cycle",
            "inverse-square-root" or "constant".
        learning_rate: the peak rate.
        total_steps: updates in the whole run.
        warmup_fraction: share of the steps in the rise (default 0.1): the cut_frac of "slanted-triangular"; "constant"
            has no rise and does not look at it.

    Raises:
        InputError: no schedule of this name, or a value outside its range.

    Example:
        >>> by_name("warmup-linear", 5e-5, total_steps=300).warmup_steps
        30
    """
    if name not in _NAMES:
        raise InputError(f"there is no schedule {name!r};{suggest(name, NAMES)} give one of {', '.join(NAMES)}")
    if name == "constant":
        return WarmupConstant(learning_rate, total_steps)
    if name == "slanted-triangular":
        return SlantedTriangular(learning_rate, total_steps, cut_frac=warmup_fraction)
    return _NAMES[name](learning_rate, total_steps, warmup_fraction=warmup_fraction)


def _is_whole(number) -> bool:
    return isinstance(number, int) or (hasattr(number, "dtype") and number.dtype.kind in "iu")
