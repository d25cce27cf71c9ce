"""Makes a BERT-base checkpoint of random weights, 109 M parameters, with the vocabulary of all-MiniLM-L6-v2: for speed and memory.

python benchmarks/bert_base.py build/bert-base-random
"""

from __future__ import annotations

import sys

from tfbert import load_tokenizer, models
from tfbert._compat import keras, transformers


def main(folder: str) -> None:
    tokenizer = load_tokenizer("all-MiniLM-L6-v2")
    keras.utils.set_random_seed(0)
    # BertConfig's own defaults are those of BERT-base: 12 layers, 768 wide, 12 heads, 512 positions.
    model = transformers.TFBertModel(transformers.BertConfig(vocab_size=len(tokenizer)))
    model.build_in_name_scope()
    models.save(model, folder, tokenizer)


if __name__ == "__main__":
    main(sys.argv[1])
