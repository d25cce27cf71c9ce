"""Distillation: the losses against NumPy, the teacher's answers against its model row by row, whole runs against plain Keras."""

from __future__ import annotations

import dataclasses
import json
import shutil

import interrupting
import numpy as np
import pytest
from test_checkpoints import Stop, crash, interrupt
from test_contract import CASES

import tfbert
from tfbert import distillation, losses, models, pipeline, tokenization
from tfbert.__main__ import main
from tfbert._compat import keras, tf
from tfbert.errors import InputError
from tfbert.sources import from_iterable

RANDOM = np.random.default_rng(2)
T = 3.0


def log_softmax(x):
    x = x - x.max(-1, keepdims=True)
    return x - np.log(np.exp(x).sum(-1, keepdims=True))


def soft(teacher, logits, temperature=T):
    """T^2 times the cross-entropy of the softened probabilities (Hinton et al. 2015)."""
    expected = np.exp(log_softmax(teacher / temperature))
    return -(temperature**2) * (expected * log_softmax(logits / temperature)).sum(-1)


def soft_binary(teacher, logits, temperature=T):
    expected, found = (1 / (1 + np.exp(-x / temperature)) for x in (teacher, logits))
    return -(temperature**2) * (expected * np.log(found) + (1 - expected) * np.log(1 - found)).mean(-1)


def draw(*shape):
    return RANDOM.normal(0, 2, shape).astype(np.float32)


def test_soft_losses_are_the_formula():
    teacher, logits = draw(5, 4), draw(5, 4)
    found = losses.soft_crossentropy(np.zeros(5), teacher, logits, temperature=T)
    np.testing.assert_allclose(found, soft(teacher, logits), rtol=1e-5)
    found = losses.soft_binary_crossentropy(np.zeros([5, 4]), teacher, logits, temperature=T)
    np.testing.assert_allclose(found, soft_binary(teacher, logits), rtol=1e-5)
    targets = np.array([[0, -100, 3], [-100, 1, -100], [-100, -100, -100]])
    teacher, logits = draw(3, 3, 4), draw(3, 3, 4)
    each = soft(teacher, logits)
    expected = [(each[0, 0] + each[0, 2]) / 2, each[1, 1], 0]
    found = losses.soft_crossentropy(targets, teacher, logits, temperature=T)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_a_rows_loss_is_the_weighted_sum_of_both_and_without_a_label_the_soft_part():
    labels, teacher, logits = np.array([2, 0, 1]), draw(3, 3), draw(3, 3)
    hard = -log_softmax(logits)[np.arange(3), labels]
    loss = distillation.mixed(
        losses.sparse_categorical_crossentropy, losses.soft_crossentropy, columns=None, temperature=T, share=0.7
    )
    targets = np.concatenate([labels[:, np.newaxis], teacher], 1).astype(np.float32)
    np.testing.assert_allclose(loss(targets, logits), 0.3 * hard + 0.7 * soft(teacher, logits), rtol=1e-5)
    targets[1, 0] = np.nan
    expected = 0.3 * hard * [1, 0, 1] + 0.7 * soft(teacher, logits)
    np.testing.assert_allclose(loss(targets, logits), expected, rtol=1e-5)

    one, teacher, logits = (
        np.array([[1], [0]], np.float32),
        draw(2, 1),
        draw(2, 1),
    )  # one label of several that may apply
    loss = distillation.mixed(
        losses.binary_crossentropy, losses.soft_binary_crossentropy, columns=1, temperature=T, share=0.2
    )
    hard = -np.where(one > 0, np.log(1 / (1 + np.exp(-logits))), np.log(1 / (1 + np.exp(logits)))).mean(-1)
    found = loss(np.concatenate([one, teacher], 1), logits)
    np.testing.assert_allclose(found, 0.8 * hard + 0.2 * soft_binary(teacher, logits), rtol=1e-5)

    applies, teacher, logits = np.array([[1, 0], [1, 1]], np.float32), draw(2, 2), draw(2, 2)
    loss = distillation.mixed(
        losses.binary_crossentropy, losses.soft_binary_crossentropy, columns=2, temperature=T, share=0.2
    )
    hard = -np.where(applies > 0, np.log(1 / (1 + np.exp(-logits))), np.log(1 / (1 + np.exp(logits)))).mean(-1)
    found = loss(np.concatenate([applies, teacher], 1), logits)
    np.testing.assert_allclose(found, 0.8 * hard + 0.2 * soft_binary(teacher, logits), rtol=1e-5)


# One of each form that targets have: a label, a row of labels, a number; of a text, of its rows together, of each token, of each row.
FORMS = ("smoothed, weighted", "multi", "regression", "windows", "choices", "tokens in windows", "questions")


def without_labels(examples):
    names = ("label", "tags", "spans", "answers")
    return from_iterable([{name: row[name] for name in row if name not in names} for row in examples], "texts")


@pytest.mark.parametrize("form", FORMS)
def test_cached_answers_are_those_of_their_rows_beside_the_labels(tiny, form):
    """A student that answers as its teacher has nothing to learn from it: no gradient; and what is left is the task's own loss."""
    task, examples = CASES[form]
    examples = from_iterable(examples)
    task, tokenizer = task.from_data(examples), tokenization.load_tokenizer(tiny)
    model = task.build(tiny, seed=1)
    all_soft, all_hard = (distillation.Teacher(task, model, tokenizer, None, T, share) for share in (1.0, 1e-12))
    lesson = all_soft.lesson(task, tokenizer, examples[:24], without_labels(examples[24:]))
    plain = task.features(tokenizer, examples)
    for ours, theirs in zip(lesson.features.ragged["input_ids"], plain.ragged["input_ids"], strict=True):
        np.testing.assert_array_equal(ours, theirs)
    hard = all_hard.lesson(task, tokenizer, examples, None)
    np.testing.assert_array_equal(hard.features.weights, plain.weights)
    assert len(lesson.features.weights) == len(plain.weights)
    order = {"batch_size": 48, "training": True, "seed": 3}
    data = [pipeline.batches(features, **order) for features in (lesson.features, hard.features, plain)]
    for (inputs, targets, _), (_, labels, _), (_, expected, _) in zip(*data, strict=True):
        for name, output in model(inputs).items():
            soft_target, ours, theirs = (x[name] if isinstance(x, dict) else x for x in (targets, labels, expected))
            other = output + 0.5 * tf.random.stateless_normal(tf.shape(output), [1, 2])
            for answered, still in ((output, True), (other, False)):
                with tf.GradientTape() as tape:
                    tape.watch(answered)
                    loss = lesson.loss(soft_target, answered)
                assert loss.shape == soft_target.shape[:1]
                gradient = np.abs(tape.gradient(loss, answered).numpy()).max()
                assert gradient < 1e-5 if still else gradient > 1e-3
            np.testing.assert_allclose(hard.loss(ours, output), task.loss()(theirs, output), rtol=1e-5, atol=1e-6)
            if task.divergence():
                apart = [f(x, output, other) for f, x in ((hard.divergence, ours), (task.divergence(), theirs))]
                np.testing.assert_allclose(*apart, rtol=1e-5)


def test_a_task_without_a_soft_loss_is_told(tiny):
    teacher = distillation.Teacher(tfbert.SentenceEmbedding(), None, None, "big", T, 0.5)
    with pytest.raises(InputError, match="sentence-embedding has no loss for a teacher's answers; leave teacher out"):
        teacher.fill(tfbert.SentenceEmbedding())


def test_texts_without_labels_are_learnt_at_the_same_tokens_as_those_with(tiny):
    task, examples = CASES["tokens"]
    examples = from_iterable(examples)
    task = task.from_data(examples)
    tokenizer = tokenization.load_tokenizer(tiny)
    teacher = distillation.Teacher(task, task.build(tiny), tokenizer, None, 2.0, 0.5)
    bare = from_iterable([{"words": row["words"]} for row in examples])
    one = teacher.lesson(task, tokenizer, examples, None).features
    both = teacher.lesson(task, tokenizer, examples, bare).features
    values, count = both.targets[0], len(one.targets[0])
    np.testing.assert_allclose(values[:count], one.targets[0], atol=1e-5)
    labelled = values[:count, 0] != losses.IGNORED
    np.testing.assert_array_equal(np.isnan(values[count:, 0]), labelled)
    np.testing.assert_allclose(values[count:, 1:], values[:count, 1:], atol=1e-5)
    np.testing.assert_array_equal(both.weights, [*one.weights, *one.weights])


def test_a_teacher_answers_in_float32_whatever_the_precision_of_its_student(tiny):
    task, examples = CASES["single"]
    examples = from_iterable(examples)
    task, tokenizer = task.from_data(examples), tokenization.load_tokenizer(tiny)
    teacher = distillation.Teacher(task, task.build(tiny), tokenizer, "big", T, 0.5)
    expected = teacher.lesson(task, tokenizer, examples, None).features.targets
    keras.mixed_precision.set_global_policy("mixed_bfloat16")
    try:
        found = teacher.lesson(task, tokenizer, examples, None).features.targets
    finally:
        keras.mixed_precision.set_global_policy("float32")
    np.testing.assert_allclose(found, expected, atol=1e-6)


# Whole runs

TASK = tfbert.SequenceClassification(max_length=32, dropout=0.0)
TRAIN, VALIDATION = interrupting.rows(64, 0), interrupting.rows(32, 1)
TEXTS = [{"text": row["text"]} for row in interrupting.rows(20, 3)]
OPTIONS = {
    "epochs": 1,
    "batch_size": 8,
    "learning_rate": 5e-3,
    "precision": "float32",
    "export": False,
    "report": False,
}


@pytest.fixture(scope="module")
def teacher(tiny, tmp_path_factory):
    place = tmp_path_factory.mktemp("teachers") / "big"
    tfbert.fine_tune(TASK, tiny, TRAIN, VALIDATION, directory=place, **OPTIONS)
    return place


def test_plain_keras_gives_the_same_weights(tiny, teacher, tmp_path):
    options = {"teacher": teacher, "teacher_temperature": T, "teacher_share": 0.6, "unlabelled": TEXTS}
    tuned = tfbert.fine_tune(
        TASK, tiny, TRAIN, VALIDATION, directory=tmp_path / "small", keep_layers="1", **options, **OPTIONS
    )
    big = tfbert.load(teacher)
    rows = [*TRAIN, *TEXTS]
    features = big.task.features(big.tokenizer, from_iterable(rows), targets=False)
    one_by_one = pipeline.batches(features, batch_size=1)
    answers = np.concatenate([big.model(inputs)["logits"].numpy() for inputs in one_by_one])
    labels = [big.task.labels.index(row["label"]) for row in TRAIN] + [0] * len(TEXTS)
    hard = np.eye(2)[labels] * 0.4 * (np.arange(len(rows)) < len(TRAIN))[:, np.newaxis]
    probabilities = np.exp(log_softmax(answers.astype(np.float64) / T))
    targets = np.concatenate([hard, probabilities], 1).astype(np.float32)
    features = dataclasses.replace(features, targets=targets)

    def loss(targets, logits):
        return -tf.reduce_sum(targets[:, :2] * tf.nn.log_softmax(logits), -1) - 0.6 * T**2 * tf.reduce_sum(
            targets[:, 2:] * tf.nn.log_softmax(logits / T), -1
        )

    keras.utils.set_random_seed(0)
    model = models.as_keras(
        models.load(tiny, TASK.head, id2label=dict(enumerate(big.task.labels)), keep_layers="1", **models.dropout(0.0))
    )
    dataset = pipeline.batches(features, batch_size=8, training=True)
    assert len(dataset) == 11 == tuned.metrics["steps"]  # 84 rows
    model.compile(tfbert.AdamW(tfbert.WarmupLinear(5e-3, len(dataset), warmup_fraction=0.1)), loss=loss)
    history = model.fit(dataset, verbose=0).history["loss"]
    np.testing.assert_allclose(tuned.history[0]["loss"], history[0], rtol=1e-4)
    for mine, theirs in zip(tuned.model.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_allclose(mine, theirs, atol=2e-4)
    stored = json.loads((tmp_path / "small" / "metrics.json").read_text())
    assert stored["rows"] == {"train": 64, "validation": 32, "unlabelled": 20}
    assert stored["settings"]["teacher"] == str(teacher) and stored["settings"]["teacher_share"] == 0.6
    assert tfbert.load(tmp_path / "small").model.count_params() == tuned.model.count_params() < big.model.count_params()


def test_a_run_that_goes_on_ends_with_the_same_bits(tiny, teacher, tmp_path, monkeypatch):
    options = {"teacher": teacher, "unlabelled": TEXTS, "accumulate": 2, "r_drop": 0.5, "epochs": 2}
    whole = interrupting.digest(interrupting.fine_tune(tiny, tmp_path / "whole", **options))
    interrupt(monkeypatch, (1, 3), crash)
    with pytest.raises(Stop):
        interrupting.fine_tune(tiny, tmp_path / "crashed", **options)
    monkeypatch.undo()
    other = tmp_path / "other"
    shutil.copytree(teacher, other)
    task = json.loads((other / "task.json").read_text())
    (other / "task.json").write_text(json.dumps({**task, "temperature": 1.25}))
    with pytest.raises(InputError, match=r"was begun otherwise: teacher/task\.json: \w{12} -> \w{12};"):
        interrupting.fine_tune(tiny, tmp_path / "crashed", **{**options, "teacher": other}, resume=True)
    with pytest.raises(InputError, match=r"unlabelled: \w{12} -> \w{12}"):
        interrupting.fine_tune(tiny, tmp_path / "crashed", **{**options, "unlabelled": TEXTS[1:]}, resume=True)
    resumed = interrupting.digest(interrupting.fine_tune(tiny, tmp_path / "crashed", **options, resume=True))
    assert resumed == whole


def test_labels_left_open_are_the_teachers_and_another_vocabulary_may_read_the_texts(tiny, teacher, tmp_path):
    """The few labelled rows have one label of two; the student's tokenizer knows other words."""
    again = tmp_path / "letters"
    shutil.copytree(tiny, again)
    tokenizer = json.loads((again / "tokenizer.json").read_text())
    vocabulary = tokenizer["model"]["vocab"]
    vocabulary["good"], vocabulary["dull"] = vocabulary["dull"], vocabulary["good"]
    (again / "tokenizer.json").write_text(json.dumps(tokenizer))
    (again / "vocab.txt").unlink(missing_ok=True)
    big = tfbert.load(teacher)
    filled = distillation.Teacher(big.task, big.model, big.tokenizer, teacher, 2.0, 0.5)
    task = filled.fill(TASK)
    assert task.labels == big.task.labels == ("bad", "good")
    examples = from_iterable([row for row in TRAIN if row["label"] == "good"])
    student = tokenization.load_tokenizer(again)
    targets = [filled.lesson(task, each, examples, None).features for each in (student, big.tokenizer)]
    np.testing.assert_array_equal(targets[0].targets, targets[1].targets)
    assert not np.array_equal(targets[0].ragged["input_ids"][0], targets[1].ragged["input_ids"][0])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"task": tfbert.TokenClassification()}, "big is fine-tuned for sequence-classification, not for token-clas"),
        ({"task": tfbert.SequenceClassification(kind="multi")}, "kind: the task has 'multi', its teacher .* 'single'"),
        (
            {"task": tfbert.SequenceClassification(labels=("good", "bad"))},
            "labels: the task has good, bad, its teacher .* bad, good; give the task the teacher's, in its order",
        ),
        ({"teacher_temperature": 0.0}, "teacher_temperature is 0.0; it must be positive"),
        ({"teacher_share": 1.5}, "teacher_share is 1.5; it must be above 0 and at most 1"),
        ({"teacher": "saved_models/bog"}, "saved_models/bog is not a folder that fine-tune wrote"),
        (
            {"teacher": None},
            r"unlabelled texts are learnt from a teacher's answers; name it with teacher \(--teacher\)",
        ),
        ({"unlabelled": []}, "unlabelled has no examples; leave unlabelled out"),
        ({"unlabelled": [{"txt": "good"}]}, "row 1 of unlabelled: no field 'text'; .* Did you mean 'txt'"),
        ({"train": [{"text": "x", "label": "god"}, *TRAIN]}, r"label 'god' is not one of: bad, good\. Did you mean"),
        ({"keep_layers": "5"}, "keep_layers is '5'"),
    ],
)
def test_each_mistake_is_told_and_leaves_nothing(tiny, teacher, tmp_path, change, message):
    arguments = {"task": TASK, "train": TRAIN, "teacher": teacher, "unlabelled": TEXTS, **OPTIONS, **change}
    with pytest.raises(InputError, match=message):
        tfbert.fine_tune(
            arguments.pop("task"), tiny, arguments.pop("train"), VALIDATION, directory=tmp_path / "out", **arguments
        )
    assert not (tmp_path / "out").exists()


def test_tokens_must_be_the_teachers_where_each_has_a_target(tiny):
    task, examples = CASES["tokens"]
    examples = from_iterable(examples)
    task = task.from_data(examples)
    tokenizer = tokenization.load_tokenizer(tiny)
    wider = dataclasses.replace(task, max_length=6, stride=2)
    teacher = distillation.Teacher(wider, wider.build(tiny), tokenizer, "big", 2.0, 0.5)
    with pytest.raises(InputError, match="teacher big cuts texts into other tokens than the student; token-class"):
        teacher.lesson(task, tokenizer, examples, None)


def test_the_command_line(tiny, teacher, tmp_path, capsys):
    lines = [json.dumps({"message": row["text"], "kind of": row["label"]}) for row in TRAIN]
    (tmp_path / "train.jsonl").write_text("\n".join(lines) + "\n")
    (tmp_path / "texts.jsonl").write_text("\n".join(json.dumps({"message": row["text"]}) for row in TEXTS) + "\n")
    arguments = (
        f"fine-tune sequence-classification --train {tmp_path}/train.jsonl --text message --output {tmp_path}/small"
    )
    arguments += f" --checkpoint {tiny} --teacher {teacher} --unlabelled {tmp_path}/texts.jsonl --keep-layers ::2"
    arguments += " --teacher-share 0.5 --epochs 1 --no-export --no-report --max-length 32 --label"
    assert main([*arguments.split(), "kind of"]) in (0, None)
    assert json.loads(capsys.readouterr().out)["parameters"] < tfbert.load(teacher).model.count_params()
    stored = json.loads((tmp_path / "small" / "metrics.json").read_text())
    assert stored["rows"]["unlabelled"] == 20 and stored["settings"]["keep_layers"] == "::2"
