"""Fine-tune BERT-family models in TensorFlow, and export the finished job, strings in and answers out, to TensorFlow Serving.

The public names, each loaded with its module when it is first asked for, so that `import tfbert` stays fast:

    read, stream, split                              files -> checked examples, all at once or as they come
    SequenceClassification                           what the problem is
    load_tokenizer, make_dataset                     examples -> tf.data batches
    AdamW, WarmupLinear, Warmup, get_strategy, ...   what plain Keras lacks
    prepare, Prepared                                data larger than memory: tokenized once, streamed into training
    create_checkpoint                                text -> tokenizer and random weights, where none is to begin with
    fine_tune, evaluate, predict, load               train, score, answer (predict_stream: without end), come back
    export, Predictor                                write a SavedModel and call it

Import tfbert before anything that uses `tf.keras`: it asks TensorFlow for Keras 2 (tf_keras), which transformers' models are made of.
"""

from __future__ import annotations

import importlib

from tfbert import _compat  # noqa: F401 - says TF_USE_LEGACY_KERAS=1 before anybody imports tensorflow
from tfbert.errors import suggest

__version__ = "0.1.0"

# public name -> the module that holds it; a name that maps to itself is a module
_HOMES = {
    "AdamW": "tfbert.optimizers",
    "BertPretraining": "tfbert.tasks",
    "CausalLM": "tfbert.tasks",
    "Examples": "tfbert.sources",
    "FindLearningRate": "tfbert.callbacks",
    "FineTuned": "tfbert.training",
    "GradualUnfreezing": "tfbert.callbacks",
    "InputError": "tfbert.errors",
    "Interrupted": "tfbert.errors",
    "InverseSquareRoot": "tfbert.schedules",
    "OneCycle": "tfbert.schedules",
    "Predictor": "tfbert.serving",
    "Prepared": "tfbert.prepared",
    "QuestionAnswering": "tfbert.tasks",
    "ReplacedTokenDetection": "tfbert.tasks",
    "ScoreTask": "tfbert.callbacks",
    "MaskedLM": "tfbert.tasks",
    "MultipleChoice": "tfbert.tasks",
    "SentenceEmbedder": "tfbert.serving",
    "SentenceEmbedding": "tfbert.tasks",
    "Seq2Seq": "tfbert.tasks",
    "SequenceClassification": "tfbert.tasks",
    "SlantedTriangular": "tfbert.schedules",
    "SlantedTriangularLearningRate": "tfbert.callbacks",
    "SpanCorruption": "tfbert.tasks",
    "TokenClassification": "tfbert.tasks",
    "TrainingModel": "tfbert.models.training_model",
    "Warmup": "tfbert.callbacks",
    "WarmupConstant": "tfbert.schedules",
    "WarmupCosine": "tfbert.schedules",
    "WarmupLinear": "tfbert.schedules",
    "WorkerLost": "tfbert.errors",
    "callbacks": "tfbert.callbacks",
    "create_checkpoint": "tfbert.models",
    "evaluate": "tfbert.evaluation",
    "export": "tfbert.serving",
    "fine_tune": "tfbert.training",
    "get_strategy": "tfbert.devices",
    "load": "tfbert.training",
    "load_tokenizer": "tfbert.tokenization",
    "make_dataset": "tfbert.pipeline",
    "metrics": "tfbert.metrics",
    "predict": "tfbert.evaluation",
    "predict_stream": "tfbert.evaluation",
    "prepare": "tfbert.prepared",
    "read": "tfbert.sources",
    "read_conll": "tfbert.sources",
    "read_csv": "tfbert.sources",
    "read_documents": "tfbert.sources",
    "read_json": "tfbert.sources",
    "read_jsonl": "tfbert.sources",
    "read_lines": "tfbert.sources",
    "read_parallel": "tfbert.sources",
    "read_parquet": "tfbert.sources",
    "read_squad": "tfbert.sources",
    "read_tfds": "tfbert.sources",
    "schedules": "tfbert.schedules",
    "split": "tfbert.sources",
    "stream": "tfbert.sources",
    "zero_shot": "tfbert.entailment",
}

__all__ = sorted(_HOMES)  # noqa: PLE0605


def __getattr__(name: str):
    if name not in _HOMES:
        raise AttributeError(f"module 'tfbert' has no attribute {name!r}.{suggest(name, __all__)}")
    module = importlib.import_module(_HOMES[name])
    value = module if module.__name__ == f"tfbert.{name}" else getattr(module, name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
