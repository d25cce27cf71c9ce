"""A sentence's 24 matrix products in every form of low precision that a stock TF Serving has: CPU milliseconds, and how far they are off.

    python benchmarks/products.py --tokens 12

The shapes are MiniLM's; each product reads a weight of its own, as in the model. One thread; medians of rounds in which the forms took
turns. "off" is the largest difference from float32 in standard deviations of the product.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time

import numpy as np

from tfbert._compat import tf

SHAPES = ((384, 1152), (384, 384), (384, 1536), (1536, 384)) * 6


def rounded(kernel: np.ndarray, levels: int) -> tuple[np.ndarray, np.ndarray]:
    """int8 [D, E] and its scale of each column, float32 [E]."""
    scale = (np.abs(kernel).max(0) / levels).astype(np.float32)
    return np.rint(kernel / scale).astype(np.int8), scale


def by_row(x):
    """Activations as int8 with a scale for each row."""
    scale = tf.maximum(tf.reduce_max(tf.abs(x), -1, keepdims=True), 1e-9) / 127
    return tf.cast(tf.round(x / scale), tf.int8), scale


def float32(kernel):
    weight = tf.Variable(kernel)
    return lambda x: tf.matmul(x, weight)


def bfloat16(kernel):
    weight = tf.Variable(tf.cast(kernel, tf.bfloat16))
    return lambda x: tf.cast(tf.matmul(tf.cast(x, tf.bfloat16), weight), tf.float32)


def with_bias(name: str, dtype, transposed: bool, fused: bool):
    """Product and bias, in oneDNN's fused form or apart, with the kernel as [D, E] or [E, D]."""

    def form(kernel):
        weight = tf.Variable(tf.cast(kernel.T if transposed else kernel, dtype))
        bias = tf.Variable(tf.zeros(kernel.shape[1], dtype))

        def product(x):
            x = tf.cast(x, dtype)
            if fused:
                y = tf.nn.bias_add(tf.matmul(x, weight, transpose_b=transposed), bias)
            else:
                y = tf.raw_ops.BatchMatMulV2(x=x, y=weight, adj_y=transposed) + bias
            return tf.cast(y, tf.float32)

        return product

    form.__name__ = name
    return form


def bfloat16_stored(kernel):
    weight = tf.Variable(tf.cast(kernel, tf.bfloat16))
    return lambda x: tf.matmul(x, tf.cast(weight, tf.float32))


def int8_stored(kernel):
    weight, scale = map(tf.Variable, rounded(kernel, 127))
    return lambda x: tf.matmul(x, tf.cast(weight, tf.float32)) * scale


def BatchMatMulV3(kernel):
    weight, scale = map(tf.Variable, rounded(kernel, 127))

    def product(x):
        x, own = by_row(x)
        return tf.cast(tf.raw_ops.BatchMatMulV3(x=x, y=weight, Tout=tf.int32), tf.float32) * own * scale

    return product


def UniformQuantizedDotHybrid(kernel):
    weight, scale = map(tf.Variable, rounded(kernel, 127))
    return lambda x: tf.raw_ops.UniformQuantizedDotHybrid(
        lhs=x,
        rhs=tf.bitcast(weight, tf.qint8),
        rhs_scales=scale,
        rhs_zero_points=tf.zeros(scale.shape, tf.int32),
        Tout=tf.float32,
        rhs_quantization_min_val=-127,
        rhs_quantization_max_val=127,
        rhs_quantization_axis=1,
    )


def QuantizedMatMul(kernel):
    largest = np.abs(kernel).max()
    weight = tf.Variable((np.rint(kernel / largest * 127) + 128).astype(np.uint8))

    def product(x):
        most = tf.maximum(tf.reduce_max(tf.abs(x)), 1e-9)
        numbers = tf.bitcast(tf.cast(tf.round(x / most * 127) + 128, tf.uint8), tf.quint8)
        sums, _, _ = tf.raw_ops.QuantizedMatMul(
            a=numbers,
            b=tf.bitcast(weight, tf.quint8),
            min_a=-128 / 127 * most,
            max_a=most,
            min_b=-128 / 127 * largest,
            max_b=largest,
            Toutput=tf.qint32,
        )
        return tf.cast(tf.bitcast(sums, tf.int32), tf.float32) * (most / 127 * largest / 127)

    return product


def oneDNN(kernel, levels=127):
    from tensorflow.python.framework.op_def_library import apply_op  # noqa: PLC0415  the operation has no public name

    weight, scale = map(tf.Variable, rounded(kernel, levels))

    def product(x):
        most = tf.maximum(tf.reduce_max(tf.abs(x)), 1e-9)
        numbers, low, high = tf.raw_ops.QuantizeV2(input=x, min_range=-most, max_range=most, T=tf.qint8, mode="SCALED")
        tensors = [numbers, tf.bitcast(weight, tf.qint8), tf.zeros(scale.shape), low, high, -127 * scale, 127 * scale]
        kinds = {"T1": tf.qint8, "T2": tf.qint8, "Tbias": tf.float32, "Tout": tf.float32, "U": tf.float32}
        return apply_op(
            "_QuantizedMatMul",
            name="product",
            device_inputs=tensors,
            host_inputs=[],
            Tdevice_outputs=[tf.float32],
            Thost_outputs=[],
            input_quant_mode="SCALED",
            output_quant_mode="SCALED",
            fused_ops=["BiasAdd", "Dequantize"],
            leakyrelu_alpha=0.2,
            is_weight_const=False,
            is_bias_const=False,
            transpose_a=False,
            transpose_b=False,
            **kinds,
        )[0][0]

    return product


def oneDNN_7_bits(kernel):
    return oneDNN(kernel, 63)


BIASED = [
    with_bias(
        f"{dtype}, bias {'fused' if fused else 'apart'}{', transposed' if transposed else ''}", dtype, transposed, fused
    )
    for dtype in ("float32", "bfloat16")
    for transposed in (False, True)
    for fused in (True, False)
]
FORMS = (
    float32,
    bfloat16,
    *BIASED,
    bfloat16_stored,
    int8_stored,
    BatchMatMulV3,
    QuantizedMatMul,
    oneDNN,
    oneDNN_7_bits,
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=12, help="rows of the products (default 12, a sentence)")
    parser.add_argument("--rounds", type=int, default=10, help="default 10")
    options = parser.parse_args()
    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    rng = np.random.default_rng(0)
    kernels = [(rng.normal(size=shape) / np.sqrt(shape[0])).astype(np.float32) for shape in SHAPES]
    inputs = {size: rng.normal(size=(options.tokens, size)).astype(np.float32) for size in (384, 1536)}
    # A hundred times slower than the rest: not for many tokens.
    forms = FORMS if options.tokens > 64 else (*FORMS, UniformQuantizedDotHybrid)
    runs, off, times = {}, {}, {form.__name__: [] for form in forms}
    for form in forms:
        products = [form(kernel) for kernel in kernels]
        run = tf.function(lambda products=products: [product(inputs[s[0]]) for product, s in zip(products, SHAPES)])
        runs[form.__name__], found = run, [tensor.numpy() for tensor in run()]
        gaps = [np.abs(y - inputs[k.shape[0]] @ k).max() for y, k in zip(found, kernels)]
        off[form.__name__] = round(float(max(gaps)), 3)  # the products' standard deviation is 1
    for _ in range(options.rounds):
        for name, run in runs.items():
            begin = time.process_time()
            run()
            times[name].append(1000 * (time.process_time() - begin))
    told = {name: {"cpu_ms": round(statistics.median(values), 2), "off": off[name]} for name, values in times.items()}
    print(json.dumps({"tokens": options.tokens, "onednn": os.environ.get("TF_ENABLE_ONEDNN_OPTS"), "forms": told}))


if __name__ == "__main__":
    main()
