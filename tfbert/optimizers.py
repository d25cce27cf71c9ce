"""Keras' AdamW with what fine-tuning needs: no decay of biases and LayerNorm, and clipping that is right for
embeddings."""

from __future__ import annotations

import re
from collections.abc import Iterable

import numpy as np

from tfbert._compat import check_weights_may_change, keras, tf
from tfbert.errors import InputError
from tfbert.names import UNDECAYED, distances_from_top, group_of


@keras.saving.register_keras_serializable(package="tfbert")
class AdamW(keras.optimizers.AdamW):
    """Keras' AdamW that never decays biases and LayerNorm, and clips the gradient by its global norm.

    Each update first subtracts learning_rate * weight_decay * w from the matrices, then does Adam's step
    lr * sqrt(1 - beta_2^t) / (1 - beta_1^t) * m / (sqrt(v) + epsilon): Keras' epsilon is the "epsilon hat" of Kingma
    and Ba (2015); PyTorch's acts in this formula as epsilon * sqrt(1 - beta_2^t), smaller on the first steps. Decay is
    decoupled, and scaled by the rate of the step (Loshchilov and Hutter 2019).

    tf_keras measures the norm before it sums the rows that an embedding's sparse gradient holds more than once (every
    [CLS] of the batch is one), so that the same gradient, dense, would be clipped otherwise; here they are summed
    first.

    Args:
        learning_rate: the rate, or a Keras schedule (default 5e-5).
        weight_decay: share of a matrix that a step of rate 1 takes away, >= 0 (default 0.01).
        beta_1: decay of the mean of gradients (default 0.9).
        beta_2: decay of the mean of squared gradients (default 0.999).
        epsilon: added to the root of the latter (default 1e-8).
        clip_norm: longest allowed gradient, over all variables together, > 0; None does not clip (default 1.0).
        layer_decay: what the rate is multiplied by for each group on the way down from the head: head, pooler, layers,
            embeddings (see `models.layer_groups`), > 0; 0.8 in ELECTRA (Clark et al. 2020), 1 / 2.6 in ULMFiT (Howard
            and Ruder 2018). The decay of weights goes by the same rate. Groups are read from the names of the variables,
            as TF Transformers gives them. None is 1 (default).
        options: anything else that keras.optimizers.AdamW takes. `jit_compile` is False here, so that every machine
            runs the same ops.

    Raises:
        InputError: weight_decay, clip_norm or layer_decay outside its range; TF_ONEDNN_ASSUME_FROZEN_WEIGHTS is set, with which
            TensorFlow would learn from weights as they were at first; with layer_decay, at the first update, variables
            of which none is of a layer.

    Example:
        >>> import tensorflow as tf
        >>> kernel, bias = tf.Variable([[2.0]], name="kernel"), tf.Variable([2.0], name="bias")
        >>> optimizer = AdamW(0.1, weight_decay=0.5)
        >>> int(optimizer.apply_gradients([(tf.zeros([1, 1]), kernel), (tf.zeros([1]), bias)]))  # updates so far
        1
        >>> kernel.numpy().tolist(), bias.numpy().tolist()
        ([[1.9]], [2.0])
    """

    def __init__(
        self,
        learning_rate=5e-5,
        *,
        weight_decay: float = 0.01,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-8,
        clip_norm: float | None = 1.0,
        layer_decay: float | None = None,
        name: str = "AdamW",
        **options,
    ):
        check_weights_may_change()
        if weight_decay is None or not weight_decay >= 0:
            raise InputError(f"weight_decay is {weight_decay!r}; give a number of at least 0 (0 for no decay)")
        if clip_norm is not None and not clip_norm > 0:
            raise InputError(f"clip_norm is {clip_norm!r}; give a number above 0, or None not to clip")
        if layer_decay is not None and not layer_decay > 0:
            raise InputError(f"layer_decay is {layer_decay!r}; give a number above 0, say 0.9, or None for one rate")
        self.layer_decay = layer_decay
        self._rows, self._updated, self._factors, self._starts, self._distances = {}, {}, {}, None, None
        self._shared = None
        super().__init__(
            learning_rate=learning_rate,
            weight_decay=weight_decay,
            beta_1=beta_1,
            beta_2=beta_2,
            epsilon=epsilon,
            global_clipnorm=clip_norm,
            name=name,
            **{"jit_compile": False, **options},
        )
        self.exclude_from_weight_decay(var_names=[UNDECAYED])

    def learn_rows(self, variable, rows) -> None:
        """Says which rows of an embedding can have a gradient: the others are decayed and nothing else, as their Adam step is 0.

        What comes out is what the update of the whole table gives. What it costs goes with the rows: a run on texts that use 6,000 of
        30,522 word pieces spends a quarter of the time on the table, and a fifth of the memory on its means.

        Args:
            variable: the table [V, D] of a model that is not compiled yet.
            rows: the numbers of the rows, integers of 0 to V - 1, in any order. A gradient for another row ends the step with an error.
                Are they more than six tenths of all, the whole table is updated, which is then cheaper.

        Example:
            >>> import tensorflow as tf
            >>> table, optimizer = tf.Variable([[1.0]] * 3, name="weight"), AdamW(0.1, weight_decay=0.5)
            >>> optimizer.learn_rows(table, [2])
            >>> int(optimizer.apply_gradients([(tf.IndexedSlices(tf.ones([1, 1]), tf.constant([2]), [3, 1]), table)]))
            1
            >>> [round(value, 4) for value in table.numpy()[:, 0].tolist()]  # decay of 0.05, and a step of 0.1
            [0.95, 0.95, 0.85]
        """
        rows, size = np.unique(np.asarray(rows, np.int64)), variable.shape[0]
        if getattr(self, "_built", False):
            raise InputError("learn_rows comes before the model is compiled and before the first update")
        if not len(rows) or rows[0] < 0 or rows[-1] >= size:
            raise InputError(f"rows must be numbers of 0 to {size - 1}, at least one; got {rows[:5].tolist()} ...")
        if len(rows) <= 0.6 * size:
            self._rows[self._var_key(variable)] = rows

    def scale(self, variables, factor: float) -> None:
        """Multiplies the rate of some variables by a factor, on top of `layer_decay`: a head that is new may learn faster.

        Their update is that of an AdamW with the rate `factor` times as high, decay included.

        Args:
            variables: of a model that has not been trained with this optimizer yet, such as `models.layer_groups(model)["head"]`.
            factor: a number of at least 0.

        Example:
            >>> import tensorflow as tf
            >>> one, other = tf.Variable([1.0], name="one"), tf.Variable([1.0], name="other")
            >>> optimizer = AdamW(0.1, weight_decay=0.0)
            >>> optimizer.scale([other], 3.0)
            >>> int(optimizer.apply_gradients([(tf.ones([1]), one), (tf.ones([1]), other)]))
            1
            >>> [round(float(value), 4) for value in (one[0], other[0])]
            [0.9, 0.7]
        """
        if getattr(self, "_built", False):
            raise InputError("scale comes before the first update")
        if not factor >= 0:
            raise InputError(f"factor is {factor!r}; give a number of at least 0")
        self._factors.update({self._var_key(variable): factor for variable in variables})

    def begin(self, variables) -> None:
        """Says that variables begin to learn now: Adam's correction for its short memory counts their updates from here.

        Counted from the optimizer's first update, a variable that joins late, with empty averages, takes steps of other
        lengths than the rate says: where its gradients are alike, 4.2 times as long at the 12th update after 500, 6.6 times
        after many thousands. After this call its updates are those of a new AdamW, bit for bit.

        Args:
            variables: of which this optimizer has averages (see `build`).

        Example:
            >>> import tensorflow as tf
            >>> early, late = tf.Variable([1.0], name="early"), tf.Variable([1.0], name="late")
            >>> optimizer = AdamW(0.1, weight_decay=0.0)
            >>> optimizer.build([early, late])
            >>> for _ in range(9):
            ...     _ = optimizer.apply_gradients([(tf.ones([1]), early)])
            >>> optimizer.begin([late])
            >>> _ = optimizer.apply_gradients([(tf.ones([1]), early), (tf.ones([1]), late)])
            >>> round(float(late[0]), 4)  # 0.9516 without `begin`
            0.9
        """
        starts = self._starts.numpy()
        starts[[self._index_dict[self._var_key(variable)] for variable in variables]] = int(self.iterations.numpy())
        self._starts.assign(starts)

    def add_variable_from_reference(self, model_variable, variable_name, shape=None, initial_value=None):
        rows = self._rows.get(self._var_key(model_variable))
        if rows is not None:
            shape = [len(rows), *model_variable.shape[1:]]
        return super().add_variable_from_reference(model_variable, variable_name, shape, initial_value)

    def build(self, var_list):
        """Makes the means of each variable, for a table with `learn_rows` the place where its rows are updated, and the counts of
        `begin`."""
        super().build(var_list)
        for variable in var_list:
            key = self._var_key(variable)
            if key in self._rows and key not in self._updated:
                self._updated[key] = self.add_variable_from_reference(variable, "rows")
        if self._starts is None:
            first = tf.VariableAggregation.ONLY_FIRST_REPLICA
            zeros = np.zeros(len(var_list), np.int64)
            self._starts = tf.Variable(zeros, trainable=False, aggregation=first, name="starts")
            self._variables.append(self._starts)
        if self.layer_decay not in (None, 1) and self._distances is None:
            self._distances = distances_from_top(variable.name for variable in var_list)
            if "layers[0]" not in self._distances:
                raise InputError(
                    "layer_decay needs layers that learn, and the variables' names, as TF Transformers gives them, tell of none: "
                    f"{var_list[0].name}, ...; leave it out, or use scale"
                )

    def aggregate_gradients(self, grads_and_vars):
        if tf.distribute.get_strategy().num_replicas_in_sync > 1:
            grads_and_vars = [(self._same_rows(gradient, variable), variable) for gradient, variable in grads_and_vars]
        return super().aggregate_gradients(grads_and_vars)

    def _same_rows(self, gradient, variable):
        """A table's gradient with the same rows in every replica: their sum has the same bits each time, and nothing is padded for it."""
        if not isinstance(gradient, tf.IndexedSlices):
            return gradient
        rows = self._rows.get(self._var_key(variable))
        if rows is None:
            return tf.convert_to_tensor(gradient)
        shape = tf.constant(variable.shape.as_list(), tf.int64)
        return tf.IndexedSlices(_of_rows(gradient, rows, variable.shape[0]), tf.constant(rows), shape)

    def _clip_gradients(self, grads):
        # Here, and not again where Keras would.
        return super()._clip_gradients(super()._deduplicate_sparse_grad(grads))

    def _deduplicate_sparse_grad(self, grads):
        return grads

    def _apply_weight_decay(self, variables):
        """Nothing: update_step decays, in the same pass over the variables."""

    def update_step(self, gradient, variable):
        """Keras' decay and Adam update in few passes over memory: fine-tuning a small batch is bound by the optimizer's traffic.

        Keras' own update_step runs a dozen passes over each weight (and over every row of an embedding); this one runs the
        same formula in TensorFlow's fused kernel.
        """
        factor, decays = self.factor(variable), self.weight_decay and self._use_weight_decay(variable)
        rate = self._once(("rate", factor), variable, self._rate)
        kept = self._once(("kept", factor), variable, self._kept) if decays else None
        if self._var_key(variable) in self._rows:
            self._update_rows(gradient, variable, rate, kept)
            return
        if kept is not None:
            variable.assign(variable * kept)
        # Rows that an embedding's gradient lacks move as well: exactly dense Adam.
        self._adam(variable, tf.convert_to_tensor(gradient), self._index_dict[self._var_key(variable)], rate)

    def _update_rows(self, gradient, variable, rate, kept) -> None:
        """The same for a table of which only some rows learn: they are gathered, updated and put back; all others are decayed."""
        key = self._var_key(variable)
        rows, place = self._rows[key], self._index_dict[key]
        if self.amsgrad or not isinstance(gradient, tf.IndexedSlices):
            raise InputError(
                f"learn_rows was called for {variable.name}, but its gradient is dense or amsgrad is on; leave learn_rows out"
            )
        summed = _of_rows(gradient, rows, variable.shape[0])
        mine = self._updated[key]
        values = tf.gather(variable, rows)
        mine.assign(values if kept is None else values * kept)
        if kept is not None:
            others = np.setdiff1d(np.arange(variable.shape[0]), rows)
            variable.scatter_mul(tf.IndexedSlices(kept, tf.constant(others)))
        self._adam(mine, summed, place, rate)
        variable.scatter_update(tf.IndexedSlices(mine, tf.constant(rows)))

    def _distributed_apply_gradients_fn(self, distribution, grads_and_vars, **kwargs):
        self._shared = _Shared()
        try:
            return super()._distributed_apply_gradients_fn(distribution, grads_and_vars, **kwargs)
        finally:
            self._shared = None

    def _once(self, what: tuple, variable, make):
        """`make(dtype, *what[1:])`, once for all variables of an update: made for each, they were a sixth of a training step's graph."""
        if self._shared is None:
            return make(variable.dtype, *what[1:])
        # A graph of its own has each branch of a condition, and each variable that XLA updates.
        key = (*what, variable.dtype, variable.device, tf.compat.v1.get_default_graph())
        if key not in self._shared.made:
            self._shared.made[key] = make(variable.dtype, *what[1:])
        return self._shared.made[key]

    def _rate(self, dtype, factor: float):
        rate = tf.cast(self.learning_rate, dtype)
        return rate if factor == 1 else rate * factor

    def _kept(self, dtype, factor: float):
        """What decay leaves of a weight."""
        return 1 - tf.cast(self.weight_decay, dtype) * self._rate(dtype, factor)

    def _powers(self, dtype) -> tuple:
        """beta_1, beta_2 and epsilon, and the powers of the two for each variable in its place."""
        counts = tf.cast(self.iterations + 1 - self._starts, dtype)
        betas = [tf.cast(beta, dtype) for beta in (self.beta_1, self.beta_2)]
        return *betas, tf.cast(self.epsilon, dtype), *(tf.unstack(tf.pow(beta, counts)) for beta in betas)

    def _adam(self, variable, gradient, place: int, rate) -> None:
        beta_1, beta_2, epsilon, powers_1, powers_2 = self._once(("powers",), variable, self._powers)
        apply, state = tf.raw_ops.ResourceApplyAdam, {}
        if self.amsgrad:
            apply, state = tf.raw_ops.ResourceApplyAdamWithAmsgrad, {"vhat": self._velocity_hats[place].handle}
        apply(
            var=variable.handle,
            m=self._momentums[place].handle,
            v=self._velocities[place].handle,
            **state,
            beta1_power=powers_1[place],
            beta2_power=powers_2[place],
            lr=rate,
            beta1=beta_1,
            beta2=beta_2,
            epsilon=epsilon,
            grad=gradient,
            use_locking=True,
        )

    def factor(self, variable) -> float:
        """What the rate is multiplied by for a variable, once the averages are made (see `build`): by layer_decay and `scale`."""
        decay = self.layer_decay ** self._distances[group_of(variable.name)] if self._distances else 1
        return decay * self._factors.get(self._var_key(variable), 1)

    def get_config(self) -> dict:
        config = super().get_config()
        config["clip_norm"] = config.pop("global_clipnorm")
        config["layer_decay"] = self.layer_decay
        del config["is_legacy_optimizer"]  # Keras writes it for its own loader; no constructor takes it
        if not isinstance(config["learning_rate"], dict):
            config["learning_rate"] = float(config["learning_rate"])
        return config


class _Shared:
    """What the updates of all variables read: past Keras, which would track a plain dict of tensors."""

    def __init__(self):
        self.made: dict = {}


def _of_rows(gradient, rows, size: int):
    """The gradients of some rows of a table [V, D], summed: [rows, D]; of others there must be none."""
    among = np.full(size, -1, np.int32)
    among[rows] = np.arange(len(rows))
    found = tf.gather(tf.constant(among), gradient.indices)
    known = tf.debugging.assert_non_negative(found, "a row has a gradient that learn_rows was not told of")
    with tf.control_dependencies([known] if known is not None else []):
        return tf.math.unsorted_segment_sum(gradient.values, found, len(rows))


def decayed(variables: keras.Model | Iterable) -> tuple[list[str], list[str]]:
    """The names of the variables that AdamW decays, and of those that it does not.

    Args:
        variables: a built model (its trainable variables are taken) or the variables themselves.

    Returns:
        (decayed names, undecayed names), each in the order of the variables.

    Example:
        >>> layers = [keras.layers.Dense(2, name="dense"), keras.layers.LayerNormalization(name="norm")]
        >>> model = keras.Sequential(layers)
        >>> model.build([None, 3])
        >>> decayed(model)
        (['dense/kernel:0'], ['dense/bias:0', 'norm/gamma:0', 'norm/beta:0'])
    """
    if isinstance(variables, keras.Model):
        variables = variables.trainable_variables
    names = [variable.name for variable in variables]
    undecayed = [name for name in names if re.search(UNDECAYED, name)]
    return [name for name in names if not re.search(UNDECAYED, name)], undecayed
