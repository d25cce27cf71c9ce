"""ELECTRA's two models as one: a generator writes in the places of hidden tokens, and a discriminator tells which it wrote."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tfbert._compat import keras, tf, transformers
from tfbert.errors import InputError
from tfbert.models.configuration import change_config, known
from tfbert.models.families import family_of
from tfbert.models.keras_model import picked
from tfbert.models.lean import put
from tfbert.models.loading import build_dropout, load, new_weight, quiet
from tfbert.models.saving import GENERATOR
from tfbert.models.weights import turned, variables_of

HEAD = "masked-lm"


def load_generator(folder: Path, discriminator, *, size: float = 0.25, seed: int = 0, **options):
    """The generator of a discriminator: the one in its checkpoint's folder, or a new one, narrower by `size`; their embeddings are shared.

    Clark et al. (2020, section 3.2 and appendix A) give it the discriminator's depth, a third or a quarter of its width, and the embeddings
    in common, of which both objectives learn.

    Args:
        folder: the discriminator's checkpoint.
        discriminator: what `load` returned for it.
        size: width of a new generator's layers, and of its feed-forward layers, relative to the discriminator's (default 0.25).
        seed: of a new one's weights (default 0).
        options: `encoder` and `gradient_checkpointing`, as `load` takes them.

    Returns:
        The generator, a TF Transformers model for masked LM, and whether it is new.

    Raises:
        InputError: the width would be no multiple of its heads' number, or the generator in the folder is of another vocabulary or width.
    """
    place, main = Path(folder) / GENERATOR, discriminator.base_model_prefix
    new = not (place / "config.json").is_file()
    generator = _new(discriminator, size, seed, **options) if new else load(place, HEAD, seed=seed, **options)
    shared, own = (getattr(model, main).embeddings for model in (discriminator, generator))
    if shared.weight.shape != own.weight.shape:
        raise InputError(
            f"{place}: its word embeddings are {list(own.weight.shape)}, the discriminator's {list(shared.weight.shape)}, and they are "
            "shared: delete the folder to begin a new generator"
        )
    del getattr(generator, main).embeddings  # so that Keras forgets it
    getattr(generator, main).embeddings = shared
    del generator.generator_lm_head.input_embeddings
    generator.generator_lm_head.input_embeddings = shared
    return generator, new


def _new(discriminator, size: float, seed: int, *, encoder: str = "lean", gradient_checkpointing: bool = False):
    config, family = discriminator.config, family_of(discriminator.config.model_type)
    width = round(config.hidden_size * size)
    heads = max(1, width // 64)  # as in the authors' code
    if width < 1 or width % heads:
        raise InputError(
            f"generator_size is {size}, by which the generator's layers would be {width} wide, no multiple of its {heads} heads; choose "
            "another"
        )
    settings = {name: getattr(config, name) for name in known(family) if getattr(config, name, None) is not None}
    sizes = {"hidden_size": width, "intermediate_size": 4 * width, "num_attention_heads": heads}
    settings = change_config(settings, sizes, "the generator's settings")
    kind = family.head(HEAD)
    with quiet():
        own = {family.names.get(name, name): value for name, value in settings.items()}
        model = getattr(transformers, kind.tf_class)(getattr(transformers, family.config_class)(**own))
        model.build_in_name_scope()
    build_dropout(model)
    for name, (variable, turn) in variables_of(model, family).items():
        shape = turned(np.empty(variable.shape, np.bool_), turn, to_tf=False).shape
        values = new_weight(f"generator.{name}", shape, config.initializer_range, seed)
        variable.assign(turned(values, turn, to_tf=True))
    if encoder == "lean":
        put(model, gradient_checkpointing=gradient_checkpointing)
    return model


def replaced_tokens(discriminator, generator):
    """Wraps the two as one Keras model, whose `transformer` is the discriminator.

    Args:
        discriminator: what `load` returned for the head "replaced-token-detection".
        generator: what `load_generator` returned for it.

    Returns:
        A keras.Model with the inputs of `at_masked`, of which the generator reads all, and `draw`, int32 [R, T], a number below 2 ** 23 for
        each token: with it the generator's guess is drawn from its softmax. Outputs: "logits", the generator's, float32 [R, P, V], and
        "replaced", float32 [R, T, 2]: of each token the discriminator's logit that it is not the text's own, and the id that was read.
    """
    inputs, states, _ = picked(generator)
    guess = family_of(generator.config.model_type).head(HEAD).guess
    logits = keras.layers.Activation("linear", dtype="float32", name="logits")(guess(generator, states))
    inputs["draw"] = keras.Input([None], dtype="int32", name="draw")
    # In float32: a chance below 1 / 256 would be lost in bfloat16's sum.
    drawn = keras.layers.Lambda(_written, dtype="float32", name="written")
    ids = drawn([logits, inputs["input_ids"], inputs["masked"], inputs["draw"]])
    own = {name: inputs[name] for name in inputs if name not in ("masked", "draw")}
    judged = discriminator({**own, "input_ids": ids})["logits"]
    both = keras.layers.Lambda(
        lambda both: tf.stack([tf.cast(values, tf.float32) for values in both], -1), dtype="float32", name="replaced"
    )([judged, ids])
    wrapped = keras.Model(inputs, {"logits": logits, "replaced": both}, name="tfbert_replaced_tokens")
    # Set past Keras' tracking, as in `as_keras`.
    object.__setattr__(discriminator, "generator", generator)
    object.__setattr__(wrapped, "transformer", discriminator)
    return wrapped


def _written(inputs):
    """The row's ids with the generator's in the places of the masks."""
    logits, ids, masked, draw = inputs
    places = tf.math.top_k(masked, tf.shape(logits)[1]).indices  # of equal numbers the lower index comes first
    chosen = sample(logits, tf.gather(draw, places, batch_dims=1))
    order = tf.maximum(tf.cumsum(masked, 1) - 1, 0)  # of the masks in their row
    return tf.where(masked > 0, tf.gather(chosen, order, batch_dims=1), ids)


def sample(logits, draw):
    """Draws one of V from a softmax for each number that was drawn before: the first at which the sum of the chances exceeds it.

    So one number is enough for what the Gumbel trick needs V for; the distribution is the same, but that chances below 1e-7 round.

    Args:
        logits: float32 [..., V].
        draw: int32 [...], from 0 to 2 ** 23 - 1.

    Returns:
        int32 [...]. No gradient passes.

    Example:
        >>> logits = tf.math.log([[0.25, 0.5, 0.25]] * 4)
        >>> sample(logits, tf.constant([0, 2**21 + 1, 2**22, 2**23 - 1])).numpy().tolist()
        [0, 1, 1, 2]
    """
    logits = tf.stop_gradient(logits)
    sums = tf.cumsum(tf.exp(logits - tf.reduce_max(logits, -1, keepdims=True)), -1)
    point = tf.cast(draw, tf.float32)[..., tf.newaxis] / 2**23 * sums[..., -1:]
    return tf.minimum(tf.reduce_sum(tf.cast(sums <= point, tf.int32), -1), tf.shape(logits)[-1] - 1)
