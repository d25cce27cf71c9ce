"""What a variable is, read from its name as Keras and TF Transformers give it: the group that it belongs to, and its kind."""

from __future__ import annotations

import re

# A variable's kind is read from the end of its name, or from its layer's: ".../dense/bias:0", ".../final_logits_bias:0",
# ".../gamma:0", T5's ".../layer_norm/weight:0". MirroredStrategy's copies end in "/replica_1:0". T5's
# ".../relative_attention_bias/embeddings:0" is a matrix, and is decayed.
_END = r"(/replica_\d+)?(:\d+)?$"
UNDECAYED = rf"(((^|[/_])bias|(^|/)(gamma|beta)){_END})|((?i:layer_?norm)[^/]*/)"
_BIAS = re.compile(rf"((^|[/_])bias|(^|/)beta){_END}")
_LAYER = re.compile(r"_\._(\d+)/")  # "layer_._3/", GPT-2's "h_._3/", ALBERT's "albert_layer_groups_._0/"
_EMBEDDINGS = re.compile(r"embed|_emb/|/encoder/(LayerNorm|conv)/")  # the latter are DeBERTa-v2's


def group_of(name: str) -> str:
    """Returns the group of a variable: "embeddings", "layers[0]", "layers[1]", ..., "pooler" or, whatever is none of these, "head".

    Example:
        >>> group_of("tf_bert_for_sequence_classification/bert/encoder/layer_._3/output/dense/kernel:0")
        'layers[3]'
        >>> group_of("tf_bert_for_sequence_classification/classifier/kernel:0")
        'head'
    """
    number = _LAYER.search(name)
    if number:
        return f"layers[{int(number[1])}]"
    inside = name.split("/", 1)[-1]  # without the model's own name
    if "pooler" in inside:
        return "pooler"
    return "embeddings" if _EMBEDDINGS.search(inside) else "head"


def is_bias(name: str) -> bool:
    """Whether a variable is added to something: a bias, or the shift of a normalization.

    Example:
        >>> [is_bias(name) for name in ("dense/bias:0", "LayerNorm/beta:0", "LayerNorm/gamma:0", "dense/kernel:0")]
        [True, True, False, False]
    """
    return _BIAS.search(name) is not None


def from_the_bottom(groups) -> list[str]:
    """Puts names of groups in the order of the model, each once: "embeddings", the layers, "pooler", "head".

    Example:
        >>> from_the_bottom(["head", "layers[10]", "layers[9]", "embeddings", "head"])
        ['embeddings', 'layers[9]', 'layers[10]', 'head']
    """

    def place(group: str) -> tuple[int, int]:
        if group.startswith("layers["):
            return 1, int(group.removeprefix("layers[").rstrip("]"))
        return ("embeddings", "", "pooler", "head").index(group), 0

    return sorted(set(groups), key=place)


def distances_from_top(names) -> dict[str, int]:
    """How many groups lie above each group of these variables: 0 for the highest. A layer that none of them is in counts all the same.

    Example:
        >>> distances_from_top(["bert/encoder/layer_._2/a/kernel:0", "bert/embeddings/weight:0", "x/classifier/kernel:0"])
        {'embeddings': 4, 'layers[0]': 3, 'layers[1]': 2, 'layers[2]': 1, 'head': 0}
    """
    groups = from_the_bottom(map(group_of, names))
    layers = [group for group in groups if group.startswith("layers[")]
    number = 1 + int(layers[-1].removeprefix("layers[").rstrip("]")) if layers else 0
    above = [group for group in groups if group in ("pooler", "head")]
    whole = ["embeddings", *(f"layers[{i}]" for i in range(number)), *above]
    return {group: len(whole) - 1 - place for place, group in enumerate(whole)}
