"""Fine-tuning in a loop of one's own: GradientTape under a strategy, lower rates for lower layers, and a slanted triangular rate.

    python examples/custom_loop.py

For those who want the wheel. What `compile` and `fit` do with the same pieces gives the same weights (a test compares them).
"""

from __future__ import annotations

import sys
from pathlib import Path

import tensorflow as tf
import tf_keras as keras

import tfbert

HERE = Path(__file__).resolve().parent
OUTPUT = HERE.parent / "saved_models" / "delivery-loop"
CHECKPOINT = "all-MiniLM-L6-v2"
TRAIN = tfbert.read(HERE / "data" / "delivery_train.csv")
TEST = tfbert.read(HERE / "data" / "delivery_test.csv")
TASK = tfbert.SequenceClassification(max_length=64).from_data(TRAIN)


def pieces(epochs: int = 5):
    """Batches, and under the strategy the model and its optimizer: what `compile` and `fit` would be given."""
    tokenizer, strategy = tfbert.load_tokenizer(CHECKPOINT), tfbert.get_strategy()
    batches = tfbert.make_dataset(TASK, tokenizer, TRAIN, batch_size=16, training=True)
    keras.utils.set_random_seed(0)
    with strategy.scope():
        model = TASK.build(CHECKPOINT)
        rate = tfbert.SlantedTriangular(2e-4, total_steps=epochs * len(batches))  # Howard and Ruder 2018
        optimizer = tfbert.AdamW(rate, layer_decay=1 / 2.6)  # each layer learns 2.6 times slower than the one above
    return strategy, tokenizer, batches, model, optimizer


def train(epochs: int = 5):
    """The loop; returns the trained model."""
    strategy, tokenizer, batches, model, optimizer = pieces(epochs)
    row_loss, learning = TASK.loss(), model.trainable_variables

    @tf.function(input_signature=batches.element_spec)  # traced once for all lengths
    def step(inputs, labels, weights):
        with tf.GradientTape() as tape:
            logits = model(inputs, training=True)["logits"]
            # The weights of a batch have mean 1. Gradients of replicas are added up, so each has its share.
            loss = tf.reduce_mean(row_loss(labels, logits) * weights) / strategy.num_replicas_in_sync
        optimizer.apply_gradients(zip(tape.gradient(loss, learning), learning, strict=True))
        return loss

    for epoch in range(epochs):
        losses = [
            strategy.reduce("sum", strategy.run(step, batch), axis=None)
            for batch in strategy.experimental_distribute_dataset(batches)
        ]
        scores = tfbert.evaluate(TASK, model, tokenizer, TEST)
        print(
            f"epoch {epoch + 1}: loss {tf.reduce_mean(losses):.4f}, test accuracy {scores['accuracy']:.3f}",
            file=sys.stderr,
        )
    print(f"accuracy {scores['accuracy']:.3f}")
    tfbert.export(TASK, model, tokenizer, OUTPUT)
    return model


def ask() -> None:
    """Loads the SavedModel, nothing else."""
    text = "He threw the parcel over the fence and broke my flower pot."
    answer = tfbert.Predictor(OUTPUT)([text])[0]
    print(f"{answer['score']:.2f}  {answer['label']}: {text}")


if __name__ == "__main__":
    train()
    ask()
