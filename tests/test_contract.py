"""What every task keeps, one table for all: from examples to served answers, number by number."""

from __future__ import annotations

import copy
import dataclasses
import json

import numpy as np
import pytest

import tfbert
from tfbert import models, pipeline, serving, tasks, tokenization
from tfbert._compat import keras, tf
from tfbert.errors import InputError
from tfbert.evaluation import Inference, evaluate, predict, predict_stream
from tfbert.serving import lengths
from tfbert.serving.inputs import spread
from tfbert.sources import from_iterable

TEXTS = [
    "a great film",
    "awful , dull plot",
    "lovely actor and a bright scene",
    "it was not very good",
    "boring",
    "Très bien! 好 😀 [SEP]",
    "the plot of it, and then the actor and the film and a very, very long scene",
    "",
]


def rows(count: int, label) -> list[dict]:
    rng = np.random.default_rng(5)
    made = []
    for i in range(count):
        good = i % 2
        words = [
            *rng.choice(["good", "great", "lovely"] if good else ["bad", "awful", "dull"], 2),
            *rng.choice(["film", "the", "it"], 2),
        ]
        made.append(
            {"text": " ".join(rng.permutation(words)), "text_pair": " ".join(words[:2]), "label": label(i, good)}
        )
    return made


def without_pair(examples: list[dict]) -> list[dict]:
    return [{name: value for name, value in row.items() if name != "text_pair"} for row in examples]


def sentences(count: int, sep: str | None = None) -> list[dict]:
    """Words with tags, or with `sep` as text with spans: names are "actor" after "the", or "bright film"."""
    rng = np.random.default_rng(6)
    made = []
    for _ in range(count):
        words, tags, spans = [], [], []
        for _ in range(rng.integers(1, 6)):
            part = [("the", "actor"), ("bright", "film"), ("is", "dull"), ("very",)][rng.integers(0, 4)]
            own = {"the": ["O", "B-PER"], "bright": ["B-ART", "I-ART"]}.get(part[0], ["O"] * len(part))
            start = len(" ".join([*words, ""])) if words else 0
            if part[0] == "the":
                spans.append({"start": start + 4, "end": start + 9, "label": "PER"})
            elif part[0] == "bright":
                spans.append({"start": start, "end": start + 11, "label": "ART"})
            words += part
            tags += own
        made.append({"text": sep.join(words), "spans": spans} if sep else {"words": words, "tags": tags})
    return made


def asked(count: int, none: int = 0) -> list[dict]:
    """A context of words, of which the two after "the" answer "the actor"; every `none`-th context has no "the"."""
    rng = np.random.default_rng(8)
    made = []
    for i in range(count):
        words = rng.choice(["good", "film", "very", "dull", "was", "it", "bright"], int(rng.integers(6, 20))).tolist()
        place = int(rng.integers(0, len(words) - 2))
        answers = []
        if not none or i % none:
            words[place] = "the"
            start = len(" ".join(words[: place + 1])) + 1
            answers = [{"text": " ".join(words[place + 1 : place + 3]), "start": start}]
        made.append({"question": "the actor", "context": " ".join(words), "answers": answers})
    return made


CASES = {
    "single": (
        tasks.SequenceClassification(max_length=32),
        without_pair(rows(48, lambda i, good: "good" if good else "bad")),
    ),
    "single of pairs": (tasks.SequenceClassification(max_length=32), rows(48, lambda i, good: str(good))),
    "smoothed, weighted": (
        tasks.SequenceClassification(max_length=32, labels=("no", "yes"), class_weights=(1, 3), label_smoothing=0.1),
        without_pair(rows(48, lambda i, good: "yes" if good else "no")),
    ),
    "multi": (
        tasks.SequenceClassification(max_length=32, kind="multi"),
        without_pair(rows(48, lambda i, good: ["good", "film"] if good else ["bad"] if i % 4 else [])),
    ),
    "windows": (
        tasks.SequenceClassification(max_length=8, long_text="windows", stride=2),
        without_pair(rows(48, lambda i, good: "good" if good else "bad")),
    ),
    "symmetric pairs": (
        tasks.SequenceClassification(max_length=32, kind="regression", symmetric=True),
        rows(48, lambda i, good: 2.5 * good + 0.01 * i),
    ),
    "head+tail of pairs": (
        tasks.SequenceClassification(max_length=10, long_text="head+tail"),
        rows(48, lambda i, good: "good" if good else "bad"),
    ),
    "choices": (
        tasks.MultipleChoice(max_length=32),
        [
            {
                "text": row["text"],
                "choices": ["was it not", "of the plot"][: i % 3]
                + [row["text_pair"]]
                + ["was it not", "of the plot"][i % 3 :],
                "label": i % 3,
            }
            for i, row in enumerate(rows(48, lambda i, good: good))
        ],
    ),
    "embedding, cosine": (
        tasks.SentenceEmbedding(max_length=32),
        rows(48, lambda i, good: 2.5 * good + 0.01 * i),
    ),
    "embedding, ranking": (
        tasks.SentenceEmbedding(max_length=32, objective="ranking", pooling="max"),
        rows(48, lambda i, good: good),
    ),
    "embedding, triplet": (
        tasks.SentenceEmbedding(max_length=32, objective="triplet", pooling="cls", normalize=False),
        [{**row, "negative": "not the plot"} for row in rows(48, lambda i, good: good)],
    ),
    "tokens": (tasks.TokenClassification(max_length=32), sentences(48)),
    "tokens in windows": (
        tasks.TokenClassification(max_length=6, stride=2, aggregation="max", constrained=True),
        sentences(48, sep=" "),
    ),
    "questions": (tasks.QuestionAnswering(max_length=24, stride=4, max_answer_length=4), asked(48)),
    "questions without answer": (
        tasks.QuestionAnswering(max_length=14, stride=3, max_question_length=4, n_best=3),
        asked(48, none=3),
    ),
    "questions as the pipeline": (
        tasks.QuestionAnswering(max_length=14, stride=3, max_answer_length=4, n_best=12, post_processing="pipeline"),
        asked(48, none=3),
    ),
    "masked": (tasks.MaskedLM(max_length=24), without_pair(rows(48, lambda i, good: good))),
    "masked spans in rows": (
        tasks.MaskedLM(max_length=6, masking="span"),
        without_pair(rows(48, lambda i, good: good)),
    ),
    "causal, documents in rows": (
        tasks.CausalLM(max_length=7, max_new_tokens=3),
        without_pair(rows(48, lambda i, good: good)),
    ),
    "causal, prompts": (
        tasks.CausalLM(max_length=24, max_new_tokens=5, num_beams=2),
        [{"text": row["text_pair"], "target": row["text"]} for row in rows(48, lambda i, good: good)],
    ),
    "seq2seq, prefixed": (
        tasks.Seq2Seq(max_length=24, max_new_tokens=5, prefix="the "),
        [{"text": row["text"], "target": row["text_pair"]} for row in rows(48, lambda i, good: good)],
    ),
    "span corruption": (
        tasks.SpanCorruption(max_length=6, max_new_tokens=5),
        [{"text": row["text"] + " " + row["text_pair"]} for row in rows(48, lambda i, good: good)],
    ),
    "pretraining": (
        tasks.BertPretraining(max_length=16, order="sentence-order"),
        [{"text": row["text"].replace(" ", "\n", 3)} for row in rows(48, lambda i, good: good)],
    ),
    "replaced tokens": (
        tasks.ReplacedTokenDetection(max_length=12),
        [{"text": row["text"] + " " + row["text_pair"]} for row in rows(48, lambda i, good: good)],
    ),
    "regression": (
        tasks.SequenceClassification(max_length=32, kind="regression"),
        rows(48, lambda i, good: 2.5 * good + 0.01 * i),
    ),
}

CHECKPOINTS = {
    "causal-lm": "tiny_gpt2",
    "seq2seq": "tiny_t5",
    "replaced-token-detection": "tiny_electra",
    "span-corruption": "tiny_t5",
}  # by the task; of others "tiny"
# Tasks that learn from text alone; what they are scored on is not what they are asked.
OF_TEXT = ("masked-lm", "causal-lm", "seq2seq", "bert-pretraining", "replaced-token-detection", "span-corruption")


@dataclasses.dataclass
class Case:
    task: tasks.Task
    model: object
    tokenizer: object
    examples: object
    checkpoint: object


@pytest.fixture(scope="module", params=CASES)
def case(request) -> Case:
    task, examples = CASES[request.param]
    examples = from_iterable(examples, "made.csv")
    task = task.from_data(examples)
    task.check(examples)
    folder = request.getfixturevalue(CHECKPOINTS.get(task.name, "tiny"))
    return Case(task, task.build(folder, seed=1), tokenization.load_tokenizer(folder), examples, folder)


def texts_for(task) -> list:
    return spread(TEXTS, task.input_shapes)


def close(one: list[dict], other: list[dict], tolerance: float) -> None:
    assert len(one) == len(other)
    for left, right in zip(one, other):
        assert left.keys() == right.keys()
        for name, value in left.items():
            if isinstance(value, float) or (isinstance(value, list) and value and isinstance(value[0], float)):
                np.testing.assert_allclose(value, right[name], atol=tolerance, rtol=0)
            else:
                assert value == right[name]


def test_task_round_trips_through_json(case):
    fields = json.loads(json.dumps(case.task.to_json()))
    assert tasks.by_name(fields["task"]).from_json(fields) == case.task
    with pytest.raises(InputError, match=r"has no field 'max_lenght'.*Did you mean 'max_length'\?"):
        tasks.by_name(fields["task"]).from_json({**fields, "max_lenght": 3})


def test_features_hold_every_example_in_whole_rows(case):
    features = case.task.features(case.tokenizer, case.examples)
    for values, splits in [*features.ragged.values(), *features.aligned.values()]:
        assert splits[0] == 0 and splits[-1] == len(values) and len(splits) == len(features.lengths) + 1
    assert len(features.example_splits) == len(case.examples) + 1
    assert features.example_splits[-1] == len(features.lengths) and (np.diff(features.example_splits) > 0).all()
    drawn = len(features.lengths) if features.alone else len(case.examples)
    if case.task.name == "span-corruption":  # text alone, of which a part is lost
        features = case.task.scored(case.tokenizer, case.examples)
        is_target, splits = features.ragged["is_target"]
        assert np.add.reduceat(1 - is_target, splits[:-1]).max() == case.task.max_length
        return
    assert len(features.weights) == drawn and features.lengths.max() <= case.task.max_length


def test_loss_is_one_finite_number_per_row_and_falls(case):
    task = case.task
    model = task.build(case.checkpoint, seed=1)
    dataset = tfbert.make_dataset(task, case.tokenizer, case.examples, batch_size=16, training=True)
    inputs, targets, _ = next(iter(dataset))
    outputs = model(inputs)
    targets = targets if isinstance(targets, dict) else dict.fromkeys(outputs, targets)
    loss_of = task.loss() if isinstance(task.loss(), dict) else dict.fromkeys(outputs, task.loss())
    loss = sum(loss_of[name](targets[name], output) for name, output in outputs.items())
    assert loss.shape == (len(tf.nest.flatten(targets)[0]),) and loss.dtype == tf.float32 and np.isfinite(loss).all()
    keras.utils.set_random_seed(1)
    model.compile(optimizer=tfbert.AdamW(5e-3), loss=task.loss())
    history = model.fit(dataset, epochs=6, verbose=0).history["loss"]
    assert history[-1] < 0.9 * history[0]


def test_answers_do_not_depend_on_batch_mates_or_padding(case):
    texts = texts_for(case.task)
    together = predict(case.task, case.model, case.tokenizer, texts)
    alone = [predict(case.task, case.model, case.tokenizer, [text])[0] for text in texts]
    close(together, alone, 1e-6)
    in_windows = predict_stream(case.task, case.model, case.tokenizer, iter(texts), window=3, batch_size=2)
    close(list(in_windows), together, 1e-6)
    features = case.task.features(case.tokenizer, case.examples, targets=False)
    if len(set(np.diff(features.example_splits))) > 1 and not features.alone:
        with pytest.raises(InputError, match="pad_to needs examples of one number of rows, but they have 1 to "):
            pipeline.batches(features, batch_size=len(case.examples), pad_to=(64,))
        return
    wide = next(iter(pipeline.batches(features, batch_size=len(case.examples), pad_to=(64,))))
    narrow = next(iter(pipeline.batches(features, batch_size=len(case.examples))))
    width = narrow["attention_mask"].shape[1]
    for name, output in case.model(narrow).items():
        got = case.model(wide)[name].numpy()
        if got.ndim > 1 and got.shape[1] == 64:  # a number for each token: those of the padding mean nothing
            there = narrow["attention_mask"].numpy() > 0
            got, output = got[:, :width][there], output.numpy()[there]
        np.testing.assert_allclose(got, output, atol=3e-6, rtol=0)


def test_every_example_counts_once_in_the_score(case):
    inferred = Inference(case.task, case.tokenizer, case.examples, batch_size=5)(case.model)
    one_by_one = Inference(case.task, case.tokenizer, case.examples, batch_size=1)(case.model)
    for name, values in inferred.items():
        assert len(values) == len(case.examples)
        np.testing.assert_allclose(values, one_by_one[name], atol=3e-6, rtol=1e-6)  # a sum of losses may be large
    assert evaluate(case.task, case.model, case.tokenizer, case.examples) == pytest.approx(
        case.task.score(case.examples, one_by_one)
    )
    assert case.task.monitor in case.task.score(case.examples, inferred)


def test_details_are_the_same_scores_and_answers_example_by_example(case):
    details = evaluate(case.task, case.model, case.tokenizer, case.examples, details=True)
    assert details["metrics"] == pytest.approx(evaluate(case.task, case.model, case.tokenizer, case.examples))
    assert sum(group["examples"] for group in details["by_length"]) == len(details["examples"]) == len(case.examples)
    inputs = [{name: case.task.input(case.examples, i, name) for name in case.task.inputs} for i in range(48)]
    if case.task.name not in OF_TEXT:
        close(
            [row["answer"] for row in details["examples"]], predict(case.task, case.model, case.tokenizer, inputs), 3e-6
        )
    found = np.array([row["loss"] for row in details["examples"]])
    assert np.isfinite(found).all() and np.ptp(found) > 0
    assert details["top_losses"] == np.argsort(-found, kind="stable")[:20].tolist()
    json.dumps(details, allow_nan=False)


def test_saved_and_loaded_weights_are_the_same_bits(case, tmp_path):
    models.save(case.model, tmp_path / "checkpoint", case.tokenizer)
    again = case.task.build(tmp_path / "checkpoint")
    for before, after in zip(case.model.get_weights(), again.get_weights()):
        np.testing.assert_array_equal(before, after)


def test_export_answers_as_the_model_does(case, tmp_path, monkeypatch):
    monkeypatch.setattr(lengths, "SHORTEST", 3)  # so that these few, short texts form groups
    monkeypatch.setattr(lengths, "LEAST", 0)
    place = serving.export(case.task, case.model, case.tokenizer, tmp_path)
    assert place == tmp_path / "1"
    answers = tfbert.Predictor(place)(texts_for(case.task))
    close(predict(case.task, case.model, case.tokenizer, texts_for(case.task)), answers, 1e-5)


def test_a_row_without_its_text_or_label_is_told_by_place(case):
    broken = copy.deepcopy([dict(row) for row in case.examples])
    field = next(name for name in ("text", "tags", "question") if name in broken[7])
    del broken[7][field]
    with pytest.raises(InputError, match=f"row 8 of made.csv: no field '{field}'; the row has"):
        case.task.check(from_iterable(broken, "made.csv"))
    if getattr(case.task, "objective", "cosine") != "cosine" or case.task.name in OF_TEXT:
        return  # nothing but texts in an example
    broken = copy.deepcopy([dict(row) for row in case.examples])
    broken[2] |= dict.fromkeys({"label", "tags", "spans", "answers"} & set(broken[2]), {"no": "such label"})
    with pytest.raises(InputError, match="row 3 of made.csv"):
        case.task.check(from_iterable(broken, "made.csv"))


def test_a_symmetric_task_does_not_mind_the_order_of_a_pair(tiny):
    task, examples = CASES["symmetric pairs"]
    task = task.from_data(from_iterable(examples))
    model, tokenizer = task.build(tiny, seed=1), tokenization.load_tokenizer(tiny)
    plain = dataclasses.replace(task, symmetric=False)
    bare = plain.build(tiny, seed=1)
    pairs = [("a good film", "very dull"), ("the plot", "the actor was great"), ("it", "")]
    swapped = [pair[::-1] for pair in pairs]
    scores, turned = ([row["score"] for row in predict(task, model, tokenizer, rows)] for rows in (pairs, swapped))
    np.testing.assert_allclose(scores, turned, atol=1e-6)
    one, other = ([row["score"] for row in predict(plain, bare, tokenizer, rows)] for rows in (pairs, swapped))
    np.testing.assert_allclose(scores, (np.array(one) + other) / 2, atol=1e-6)
    assert np.abs(np.array(one) - other).max() > 1e-4
    with pytest.raises(InputError, match="symmetric is for pairs, but the examples have no text_pair"):
        dataclasses.replace(task, pair=False).check(from_iterable(without_pair(examples)))
