"""Keras' AdamW with what fine-tuning needs: no decay of biases and LayerNorm, and clipping that is right for
embeddings."""

from __future__ import annotations

import re
from collections.abc import Iterable

from tfbert._compat import keras, tf
from tfbert.errors import InputError

# A variable's kind is read from the end of its name, or from its layer's, as Keras and TF Transformers give them:
# ".../dense/bias:0", ".../final_logits_bias:0", ".../gamma:0", T5's ".../layer_norm/weight:0". MirroredStrategy's
# copies end in "/replica_1:0". T5's ".../relative_attention_bias/embeddings:0" is a matrix, and is decayed.
UNDECAYED = r"(((^|[/_])bias|(^|/)(gamma|beta))(/replica_\d+)?(:\d+)?$)|((?i:layer_?norm)[^/]*/)"


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
        options: anything else that keras.optimizers.AdamW takes. `jit_compile` is False here, so that every machine
            runs the same ops.

    Raises:
        InputError: weight_decay or clip_norm outside its range.

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
        name: str = "AdamW",
        **options,
    ):
        if weight_decay is None or not weight_decay >= 0:
            raise InputError(f"weight_decay is {weight_decay!r}; give a number of at least 0 (0 for no decay)")
        if clip_norm is not None and not clip_norm > 0:
            raise InputError(f"clip_norm is {clip_norm!r}; give a number above 0, or None not to clip")
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

    def _clip_gradients(self, grads):
        return super()._clip_gradients(self._deduplicate_sparse_grad(grads))

    def update_step(self, gradient, variable):
        """Keras' Adam update as one pass over memory: fine-tuning a small batch is bound by the optimizer's traffic.

        Keras' own update_step runs a dozen passes over each weight (and over every row of an embedding); this one runs the
        same formula in TensorFlow's fused kernel.
        """
        if self.amsgrad:
            super().update_step(gradient, variable)
            return
        place = self._index_dict[self._var_key(variable)]
        step, dtype = tf.cast(self.iterations + 1, variable.dtype), variable.dtype
        beta_1, beta_2 = tf.cast(self.beta_1, dtype), tf.cast(self.beta_2, dtype)
        tf.raw_ops.ResourceApplyAdam(
            var=variable.handle,
            m=self._momentums[place].handle,
            v=self._velocities[place].handle,
            beta1_power=tf.pow(beta_1, step),
            beta2_power=tf.pow(beta_2, step),
            lr=tf.cast(self.learning_rate, dtype),
            beta1=beta_1,
            beta2=beta_2,
            epsilon=tf.cast(self.epsilon, dtype),
            grad=tf.convert_to_tensor(
                gradient
            ),  # rows that an embedding's gradient lacks decay as well: exactly dense Adam
            use_locking=True,
        )

    def get_config(self) -> dict:
        config = super().get_config()
        config["clip_norm"] = config.pop("global_clipnorm")
        del config["is_legacy_optimizer"]  # Keras writes it for its own loader; no constructor takes it
        if not isinstance(config["learning_rate"], dict):
            config["learning_rate"] = float(config["learning_rate"])
        return config


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
