"""From a model's outputs to what a person reads, as TensorFlow operations: the same in evaluation and in the exported graph."""
