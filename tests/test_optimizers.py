"""AdamW against NumPy, value by value, and the choice of what is decayed on real architectures."""

from __future__ import annotations

import numpy as np
import pytest

from tfbert._compat import keras, tf, transformers
from tfbert.errors import InputError
from tfbert.optimizers import AdamW, decayed
from tfbert.schedules import WarmupLinear

SIZES = {
    "vocab_size": 40,
    "hidden_size": 8,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 16,
    "max_position_embeddings": 12,
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
}


@pytest.fixture(scope="module")
def bert():
    model = transformers.TFBertForSequenceClassification(transformers.BertConfig(**SIZES))
    model(tf.constant([[1, 2, 3]]))
    return model


def numpy_adamw(start, gradients, *, rates, decay, is_decayed, clip, beta_1=0.9, beta_2=0.999, epsilon=1e-8):
    """Loshchilov and Hutter 2019 with Keras' epsilon (Kingma and Ba's "epsilon hat"), dense, in float64."""
    weights = [w.astype(np.float64) for w in start]
    m, v = [np.zeros_like(w) for w in weights], [np.zeros_like(w) for w in weights]
    for t, (rate, step) in enumerate(zip(rates, gradients), 1):
        norm = np.sqrt(sum((g**2).sum() for g in step))
        scale = min(1.0, clip / norm) if clip else 1.0
        for i, g in enumerate(step):
            g = g * scale
            weights[i] = weights[i] - rate * decay * weights[i] * is_decayed[i]
            m[i] = beta_1 * m[i] + (1 - beta_1) * g
            v[i] = beta_2 * v[i] + (1 - beta_2) * g**2
            alpha = rate * np.sqrt(1 - beta_2**t) / (1 - beta_1**t)
            weights[i] = weights[i] - alpha * m[i] / (np.sqrt(v[i]) + epsilon)
    return weights


@pytest.mark.parametrize("clip", [None, 0.7, 1e3])
@pytest.mark.parametrize("scheduled", [False, True])
@pytest.mark.parametrize("graph", [False, True])
def test_five_steps_equal_numpy_with_sparse_gradients(clip, scheduled, graph):
    random = np.random.default_rng(4)
    names = ["embeddings/weight", "dense/kernel", "dense/bias", "LayerNorm/gamma"]
    start = [random.normal(size=shape) for shape in ((9, 3), (3, 4), (4,), (4,))]
    indices = [[1, 7, 1, 1, 0], [2, 2, 2, 2, 2], [8, 0, 8, 3, 1], [1, 4, 5, 1, 4], [6, 6, 0, 0, 6]]  # rows that repeat
    rows = random.normal(size=(5, 5, 3))
    others = [[random.normal(size=w.shape) for w in start[1:]] for _ in range(5)]
    dense = []
    for step in range(5):
        table = np.zeros((9, 3))
        np.add.at(table, indices[step], rows[step])
        dense.append([table, *others[step]])
    rates = [0.02 * (5 - t) / 5 for t in range(5)] if scheduled else [0.02] * 5
    expected = numpy_adamw(start, dense, rates=rates, decay=0.3, is_decayed=[1, 1, 0, 0], clip=clip)

    variables = [tf.Variable(w, name=name, dtype=tf.float32) for name, w in zip(names, start)]
    optimizer = AdamW(WarmupLinear(0.02, 5) if scheduled else 0.02, weight_decay=0.3, clip_norm=clip)
    optimizer.build(variables)

    def apply(place, values, *gradients):
        sparse = tf.IndexedSlices(values, place, tf.constant([9, 3], tf.int64))
        optimizer.apply_gradients(zip([sparse, *gradients], variables))

    apply = tf.function(apply) if graph else apply
    for step in range(5):
        values = [tf.constant(g, tf.float32) for g in (rows[step], *others[step])]
        apply(tf.constant(indices[step], tf.int64), *values)
    for name, variable, right in zip(names, variables, expected):
        np.testing.assert_allclose(variable.numpy(), right, rtol=2e-6, atol=2e-6, err_msg=name)


def test_a_zero_gradient_changes_only_matrices_and_by_the_decay_alone(bert):
    before = {v.name: v.numpy() for v in bert.trainable_variables}
    optimizer = AdamW(0.25, weight_decay=0.5)
    optimizer.apply_gradients([(tf.zeros_like(v), v) for v in bert.trainable_variables])
    for v in bert.trainable_variables:
        old = before[v.name]
        expected = old - old * np.float32(0.5) * np.float32(0.25) if old.ndim == 2 else old
        np.testing.assert_array_equal(v.numpy(), expected, err_msg=v.name)
        v.assign(old)


def test_bert_decays_all_but_biases_and_layer_norms(bert):
    yes, no = decayed(bert)
    variables = {v.name: v for v in bert.trainable_variables}
    assert sorted(yes + no) == sorted(variables)
    assert all(variables[name].shape.rank == 2 for name in yes)
    assert all(variables[name].shape.rank == 1 for name in no)
    # 3 embeddings, 6 kernels in each of 2 layers, pooler, classifier; 5 LayerNorms of 2, and a bias for each kernel
    assert (len(yes), len(no)) == (3 + 12 + 2, 10 + 12 + 2)
    # Keras numbers the outermost name by what the process has built before.
    pooler = decayed(v for v in bert.trainable_variables if "pooler" in v.name)
    assert [[name.split("/", 1)[1] for name in names] for names in pooler] == [
        ["bert/pooler/dense/kernel:0"],
        ["bert/pooler/dense/bias:0"],
    ]


def test_other_architectures_names():
    yes = [
        "tf_t5/encoder/block_._0/layer_._0/SelfAttention/relative_attention_bias/embeddings:0",
        "roberta/embeddings/word_embeddings/weight:0",
        "albert/encoder/embedding_hidden_mapping_in/kernel:0",
        "beta_head/kernel:0",
        "kernel/replica_1:0",
    ]
    no = [
        "tf_t5/encoder/block_._0/layer_._0/layer_norm/weight:0",
        "tf_t5/encoder/final_layer_norm/weight:0",
        "bart/encoder/layernorm_embedding/gamma:0",
        "gpt2/h_._0/ln_1/gamma:0",
        "marian/final_logits_bias:0",
        "deberta/encoder/layer_._0/attention/self/q_bias:0",
        "mobilebert/encoder/layer_._0/bottleneck/input/LayerNorm/weight:0",
        "lm_head/bias:0",
        "bias:0",
        "dense/bias/replica_1:0",
        "layer_normalization_3/gamma/replica_1:0",
    ]
    variables = [tf.Variable(0.0, name=name.removesuffix(":0")) for name in yes + no]
    assert decayed(variables) == (yes, no)
    optimizer = AdamW(1.0, weight_decay=0.5, clip_norm=None)
    for variable in variables:
        variable.assign(2.0)
    optimizer.apply_gradients([(tf.constant(0.0), variable) for variable in variables])
    assert [float(v) for v in variables] == [1.0] * len(yes) + [2.0] * len(no)


@pytest.mark.parametrize("rate", [0.5, WarmupLinear(0.5, 9, warmup_steps=1)])
def test_a_copy_from_the_config_decays_and_clips_alike(rate):
    optimizer = AdamW(rate, weight_decay=0.2, beta_1=0.8, clip_norm=0.1, epsilon=1e-6, use_ema=False, name="mine")
    copy = keras.optimizers.deserialize(keras.optimizers.serialize(optimizer))
    assert type(copy) is AdamW and copy.get_config() == optimizer.get_config()
    results = []
    for each in (optimizer, copy):
        kernel, bias = tf.Variable([[3.0, 2.0]], name="kernel"), tf.Variable([3.0, 2.0], name="bias")
        for _ in range(3):
            each.apply_gradients([(tf.constant([[9.0, 0.1]]), kernel), (tf.constant([0.0, 0.0]), bias)])
        assert bias.numpy().tolist() == [3.0, 2.0]
        results.append(kernel.numpy().tolist())
    assert results[0] == results[1]


def test_a_loss_scale_optimizer_clips_the_unscaled_gradient_once():
    scaled = keras.mixed_precision.LossScaleOptimizer(AdamW(0.1, clip_norm=0.5), dynamic=False, initial_scale=1024)
    plain = AdamW(0.1, clip_norm=0.5)
    results = []
    for optimizer, factor in ((scaled, 1024.0), (plain, 1.0)):
        table = tf.Variable(np.arange(6.0).reshape(3, 2), name="embeddings", dtype=tf.float32)
        for _ in range(3):
            gradient = tf.IndexedSlices(
                tf.constant([[3.0, 1], [2, 1], [1, 4]]) * factor, tf.constant([2, 0, 2]), [3, 2]
            )
            optimizer.apply_gradients([(gradient, table)])
        results.append(table.numpy())
    np.testing.assert_array_equal(*results)


def test_a_step_of_bert_under_keras_equals_numpy(bert):
    """The embeddings' gradients are sparse and hold each repeated token several times; NumPy gets them dense."""
    random = np.random.default_rng(0)
    ids, labels = random.integers(1, 9, (16, 6)), random.integers(0, 2, 16)
    start = bert.get_weights()
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    with tf.GradientTape() as tape:
        value = loss(labels, bert({"input_ids": ids}).logits)
    gradients = tape.gradient(value, bert.trainable_variables)
    assert isinstance(gradients[0], tf.IndexedSlices) and len(gradients[0].indices) == 16 * 6
    dense = [tf.convert_to_tensor(g).numpy().astype(np.float64) for g in gradients]
    norm = np.sqrt(sum((g**2).sum() for g in dense))
    is_decayed = [v.shape.rank == 2 for v in bert.trainable_variables]
    # An epsilon of the gradients' own size: without it Adam's first step is +-rate whatever the clipping did.
    expected = numpy_adamw(
        start, [dense], rates=[0.1], decay=0.2, is_decayed=is_decayed, clip=norm / 4, epsilon=norm / 1e4
    )
    bert.compile(AdamW(0.1, weight_decay=0.2, clip_norm=norm / 4, epsilon=norm / 1e4), loss=loss, run_eagerly=True)
    bert.train_on_batch({"input_ids": ids}, labels)
    for variable, right in zip(bert.trainable_variables, expected):
        np.testing.assert_allclose(variable.numpy(), right, rtol=0, atol=2e-6, err_msg=variable.name)
    bert.set_weights(start)


def test_mistakes_are_told():
    with pytest.raises(InputError, match="weight_decay is -0.1; give a number of at least 0"):
        AdamW(weight_decay=-0.1)
    with pytest.raises(InputError, match="clip_norm is 0; give a number above 0, or None not to clip"):
        AdamW(clip_norm=0)
    with pytest.raises(TypeError, match="weight_decy"):
        AdamW(weight_decy=0.1)


# Tables of which some rows learn


def table_after(steps: int, rows, weight_decay: float = 0.1, clip_norm: float | None = 0.5) -> list[np.ndarray]:
    """The table and another variable after some steps with gradients for a few rows, each row more than once."""
    random = np.random.default_rng(3)
    table = tf.Variable(random.normal(size=[40, 3]).astype(np.float32), name="embeddings/weight")
    other = tf.Variable(random.normal(size=[4, 2]).astype(np.float32), name="dense/kernel")
    optimizer = AdamW(
        keras.optimizers.schedules.PolynomialDecay(0.1, 10), weight_decay=weight_decay, clip_norm=clip_norm
    )
    if rows is not None:
        optimizer.learn_rows(table, rows)

    @tf.function
    def step(values, ids, dense):
        optimizer.apply_gradients([(tf.IndexedSlices(values, ids, [40, 3]), table), (dense, other)])

    for _ in range(steps):
        values, ids = random.normal(size=[9, 3]).astype(np.float32), random.choice([3, 5, 8, 39], 9)
        step(
            tf.constant(values), tf.constant(ids, tf.int32), tf.constant(random.normal(size=[4, 2]).astype(np.float32))
        )
    return [table.numpy(), other.numpy(), *(variable.shape.as_list() for variable in optimizer.variables)]


@pytest.mark.parametrize(("weight_decay", "clip_norm"), [(0.1, 0.5), (0.1, None), (0.0, 0.5)])
def test_learn_rows_gives_what_the_update_of_the_whole_table_gives_bit_for_bit(weight_decay, clip_norm):
    whole = table_after(12, None, weight_decay, clip_norm)
    some = table_after(12, [39, 3, 5, 8, 11, 3], weight_decay, clip_norm)
    np.testing.assert_array_equal(some[0], whole[0])
    np.testing.assert_array_equal(some[1], whole[1])
    assert [5, 3] in some[2:] and [40, 3] not in some[2:]  # the means of five rows, not of forty
    assert [40, 3] in whole[2:]


def test_learn_rows_of_most_rows_updates_the_whole_table():
    whole, some = table_after(3, None), table_after(3, range(1, 40))
    np.testing.assert_array_equal(some[0], whole[0])
    assert [40, 3] in some[2:]


def test_learn_rows_refuses_what_it_was_not_told_of():
    with pytest.raises(tf.errors.InvalidArgumentError, match="a row has a gradient that learn_rows was not told of"):
        table_after(3, [3, 5, 8])
    table, optimizer = tf.Variable(tf.zeros([40, 3]), name="weight"), AdamW()
    for rows in ([], [-1, 2], [40]):
        with pytest.raises(InputError, match="rows must be numbers of 0 to 39, at least one"):
            optimizer.learn_rows(table, rows)
    optimizer.learn_rows(table, [1])
    with pytest.raises(InputError, match="its gradient is dense"):
        optimizer.apply_gradients([(tf.ones([40, 3]), table)])
    with pytest.raises(InputError, match="before the model is compiled"):
        optimizer.learn_rows(table, [1])


# Rates by group, and variables that join late

NAMES = [
    "m/bert/embeddings/word_embeddings/weight",
    "m/bert/encoder/layer_._0/output/dense/kernel",
    "m/bert/encoder/layer_._1/output/dense/kernel",
    "m/bert/encoder/layer_._1/output/dense/bias",
    "m/bert/pooler/dense/kernel",
    "m/classifier/kernel",
]
DISTANCES = [4, 3, 2, 2, 1, 0]


@pytest.mark.parametrize("scheduled", [False, True])
def test_layer_decay_and_scale_equal_numpy_with_rates_of_their_own(scheduled):
    random = np.random.default_rng(8)
    start = [random.normal(size=[3, 4] if name.endswith("t") or "kernel" in name else [4]) for name in NAMES]
    gradients = [[random.normal(size=w.shape) for w in start] for _ in range(4)]
    variables = [tf.Variable(w, name=name, dtype=tf.float32) for name, w in zip(NAMES, start)]
    optimizer = AdamW(
        WarmupLinear(0.02, 4) if scheduled else 0.02, weight_decay=0.3, clip_norm=None, layer_decay=1 / 2.6
    )
    optimizer.scale(variables[-1:], 5.0)
    for step in gradients:
        optimizer.apply_gradients([(tf.constant(g, tf.float32), v) for g, v in zip(step, variables)])
    for i, variable in enumerate(variables):
        factor = 2.6 ** -DISTANCES[i] * (5.0 if i == 5 else 1.0)
        assert optimizer.factor(variable) == pytest.approx(factor)
        rates = [0.02 * factor * ((4 - t) / 4 if scheduled else 1) for t in range(4)]
        (expected,) = numpy_adamw(
            [start[i]], [[step[i]] for step in gradients], rates=rates, decay=0.3, is_decayed=[i != 3], clip=None
        )
        np.testing.assert_allclose(variable.numpy(), expected, rtol=2e-6, atol=2e-6, err_msg=NAMES[i])


def test_layer_decay_reads_the_groups_of_a_real_model(bert):
    optimizer = AdamW(0.1, layer_decay=0.5)
    optimizer.build(bert.trainable_variables)
    kinds = {"embeddings": 4, "layer_._0": 3, "layer_._1": 2, "pooler": 1, "classifier": 0}
    for variable in bert.trainable_variables:
        distance = next(kinds[part] for part in variable.name.split("/")[1:] if part in kinds)
        assert optimizer.factor(variable) == 0.5**distance, variable.name


def late(optimizer, counts: bool, steps: int = 20) -> np.ndarray:
    """A variable that joins after 50 updates of another one; its values after each of its own."""
    first, second = tf.Variable([1.0], name="first"), tf.Variable([1.0, 3.0], name="second")
    optimizer.build([first, second])
    for _ in range(50):
        optimizer.apply_gradients([(tf.constant([0.5]), first)])
    if counts:
        optimizer.begin([second])
    return updates(optimizer, second, steps, (tf.constant([0.5]), first))


def updates(optimizer, variable, steps, *others) -> np.ndarray:
    values = [variable.numpy()]
    for _ in range(steps):
        optimizer.apply_gradients([(tf.constant([0.25, -2.0]), variable), *others])
        values.append(variable.numpy())
    return np.stack(values)


def test_a_variable_that_begins_late_is_updated_as_by_a_new_optimizer_bit_for_bit():
    new = AdamW(0.01, weight_decay=0.1, clip_norm=None)
    alone = updates(new, tf.Variable([1.0, 3.0], name="second"), 20)
    np.testing.assert_array_equal(late(AdamW(0.01, weight_decay=0.1, clip_norm=None), True), alone)
    # Without it, Keras' Adam among others, the steps are (1 - 0.9^k) / sqrt(1 - 0.999^k) times the rate, or nearly.
    steps = np.abs(np.diff(late(keras.optimizers.Adam(0.01), False), axis=0)) / 0.01
    k = np.arange(1, 21)
    before = (1 - 0.999 ** (50 + k)) ** 0.5 / (1 - 0.9 ** (50 + k))
    np.testing.assert_allclose(steps[:, 0], before * (1 - 0.9**k) / (1 - 0.999**k) ** 0.5, rtol=1e-3)


def test_the_counts_of_late_variables_are_among_the_optimizer_s_own():
    optimizer = AdamW(0.01)
    late(optimizer, True)
    (starts,) = [variable for variable in optimizer.variables if variable.name.startswith("starts")]
    assert starts.numpy().tolist() == [0, 50]


@pytest.mark.parametrize("jit_compile", [False, True])
def test_what_all_updates_read_is_made_once_and_anew_for_each_step(jit_compile):
    variables = [tf.Variable([2.0, 3.0], name=f"kernel_{i}") for i in range(5)]
    optimizer = AdamW(0.1, weight_decay=0.5, jit_compile=jit_compile)
    alone = [tf.Variable([2.0, 3.0], name="kernel"), AdamW(0.1, weight_decay=0.5)]

    @tf.function
    def step(gradients):
        optimizer.apply_gradients(zip(gradients, variables))

    for gradient in ([0.1, 0.2], [0.3, 0.1], [-0.2, 0.4]):
        step([tf.constant(gradient)] * 5)
        optimizer.apply_gradients([(tf.constant(gradient), variable) for variable in variables])
        for _ in range(2):
            # Of five equal gradients the norm is that of one with each number five times.
            alone[1].global_clipnorm = 1 / np.sqrt(5)
            alone[1].apply_gradients([(tf.constant(gradient), alone[0])])
    for variable in variables:
        np.testing.assert_allclose(variable, alone[0], rtol=1e-6)
    if not jit_compile:  # else each update is a graph of its own
        graph = step.get_concrete_function([tf.constant([0.0, 0.0])] * 5).graph
        assert sum(node.type == "Pow" for node in graph.get_operations()) == 2


def test_amsgrad_is_keras_own():
    results = []
    for optimizer in (
        AdamW(0.05, amsgrad=True, weight_decay=0.1),
        keras.optimizers.AdamW(0.05, 0.1, epsilon=1e-8, amsgrad=True),
    ):
        kernel = tf.Variable([[1.0, -2.0]], name="kernel")
        for size in (0.5, 0.01, 0.3, 0.0):
            optimizer.apply_gradients([(tf.constant([[size, -0.2]]), kernel)])
        results.append(kernel.numpy())
    np.testing.assert_allclose(*results, rtol=1e-5)


def test_mistakes_about_rates_are_told():
    with pytest.raises(InputError, match="layer_decay is 0; give a number above 0"):
        AdamW(layer_decay=0)
    kernel = tf.Variable([1.0], name="dense/kernel")
    with pytest.raises(
        InputError,
        match="layer_decay needs layers that learn.*tell of none: dense/kernel:0, ...; leave it out, or use scale",
    ):
        AdamW(layer_decay=0.9).apply_gradients([(tf.ones([1]), kernel)])
    optimizer = AdamW()
    with pytest.raises(InputError, match="factor is -1; give a number of at least 0"):
        optimizer.scale([kernel], -1)
    optimizer.apply_gradients([(tf.ones([1]), kernel)])
    with pytest.raises(InputError, match="scale comes before the first update"):
        optimizer.scale([kernel], 2)
