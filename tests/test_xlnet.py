"""XLNet: rows that end with [CLS], by TF Transformers' own classes with rows filled up on the left; precisions; the way through a task."""

from __future__ import annotations

import json

import numpy as np
import pytest
import test_contract as contract
from tiny_families import shake, write
from tokenizers import Tokenizer, decoders, normalizers, pre_tokenizers, processors, trainers
from tokenizers import models as kinds

import tfbert
from tfbert import models
from tfbert._compat import keras, tf, transformers
from tfbert.errors import InputError
from tfbert.models.families import family_of
from tfbert.models.loading import quiet
from tfbert.sources import from_iterable

SPECIALS = ("<unk>", "<s>", "</s>", "<cls>", "<sep>", "<pad>", "<mask>")
CLS, SEP, PAD = 3, 4, 5
WORDS = (
    "what did the dog the cat and the bird see where on one red mat by the old door it sat there all day long".split()
)
QUESTIONS = [
    {"question": "what did the cat see", "context": "the cat and the old dog sat there all day", "answers": []},
    {
        "question": "where sat the bird",
        "context": "the red bird sat on the mat by the door",
        "answers": [{"text": "on the mat", "start": 17}],
    },
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A checkpoint with a tokenizer of XLNet's form: text <sep> <cls>, types 0 and 2, and a pair's second text 1."""
    place = tmp_path_factory.mktemp("xlnet") / "xlnet"
    backend = Tokenizer(kinds.Unigram())
    backend.normalizer = normalizers.NFKD()
    backend.pre_tokenizer, backend.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=60, special_tokens=list(SPECIALS), unk_token="<unk>", show_progress=False
    )
    backend.train_from_iterator([" ".join(WORDS[i:]) for i in range(len(WORDS))], trainer)
    backend.post_processor = processors.TemplateProcessing(
        single="$A:0 <sep>:0 <cls>:2",
        pair="$A:0 <sep>:0 $B:1 <sep>:1 <cls>:2",
        special_tokens=[("<sep>", SEP), ("<cls>", CLS)],
    )
    with quiet():
        tokenizer = transformers.XLNetTokenizerFast(tokenizer_object=backend)
    write("xlnet", place, tokenizer)
    config = json.loads((place / "config.json").read_text("utf-8"))
    (place / "config.json").write_text(json.dumps(config | {"pad_token_id": PAD}), encoding="utf-8")
    return place


def batch(lengths=(9, 8, 4)) -> dict[str, np.ndarray]:
    """Rows of two texts and [CLS], filled up on the right."""
    rng, longest = np.random.default_rng(1), max(lengths)
    mask = (np.arange(longest) < np.array(lengths)[:, np.newaxis]).astype(np.int32)
    ids = np.where(mask, rng.integers(6, 36, mask.shape), PAD).astype(np.int32)
    types = (np.arange(longest) >= np.array(lengths)[:, np.newaxis] // 2).astype(np.int32) * mask
    for row, length in enumerate(lengths):
        ids[row, length - 1], types[row, length - 1] = CLS, 2
    return {"input_ids": ids, "attention_mask": mask, "token_type_ids": types}


def on_the_right(rows: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Published XLNets' form: what is there stands at the end of each row."""
    lengths = rows["attention_mask"].sum(1)
    rolled = {
        name: np.stack([np.roll(row, len(row) - length) for row, length in zip(values, lengths, strict=True)])
        for name, values in rows.items()
    }
    return rolled | {"token_type_ids": np.where(rolled["attention_mask"], rolled["token_type_ids"], 3)}


@pytest.mark.parametrize("head", family_of("xlnet").heads)
def test_outputs_are_those_of_tf_transformers_for_rows_filled_up_on_the_left(head, folder, tmp_path):
    kind = family_of("xlnet").heads[head]
    labels = {} if head is None or kind.labels else {"num_labels": 3}
    with quiet():
        config = transformers.XLNetConfig.from_pretrained(folder, **labels)
        theirs = getattr(transformers, kind.tf_class)(config)
        theirs.build_in_name_scope()
    shake(theirs, np.random.default_rng(2))
    models.save(theirs, tmp_path / "saved")
    rows = batch()
    left = on_the_right(rows)
    if head == "multiple-choice":
        found = models.by_choice(models.load(tmp_path / "saved", head))(rows)
        expected = {"logits": theirs({name: values[:, np.newaxis] for name, values in left.items()}).logits}
    else:
        found, expected = models.as_keras(models.load(tmp_path / "saved", head, **labels))(rows), theirs(left)
    for name in kind.outputs:
        one, other = found[name].numpy(), expected[name].numpy()
        if one.shape[1:2] == rows["input_ids"].shape[1:]:
            one, other = one[rows["attention_mask"] > 0], other[left["attention_mask"] > 0]
        np.testing.assert_allclose(one, other, atol=2e-6)
        assert np.abs(one).max() > 0.1


@pytest.mark.parametrize("precision", ["mixed_bfloat16", "mixed_float16"])
def test_half_precision_computes_nearly_the_same_and_has_gradients(precision, folder):
    """TF Transformers' own attention adds up states and masks of two types, which fails."""
    rows = batch()
    exact = models.as_keras(models.load(folder, "sequence-classification", num_labels=3))(rows)["logits"].numpy()
    keras.mixed_precision.set_global_policy(precision)
    try:
        model = models.as_keras(models.load(folder, "sequence-classification", num_labels=3))
    finally:
        keras.mixed_precision.set_global_policy("float32")
    with tf.GradientTape() as tape:
        logits = model(rows)["logits"]
        loss = tf.reduce_sum(logits**2)
    np.testing.assert_allclose(logits, exact, atol=0.1 if precision == "mixed_bfloat16" else 0.01)
    learning = model.trainable_weights
    assert not any("mask_emb" in weight.name for weight in learning)
    gradients = [tf.convert_to_tensor(gradient).numpy() for gradient in tape.gradient(loss, learning)]
    assert all(np.isfinite(gradient).all() for gradient in gradients)
    assert sum(np.abs(gradient).max() > 0 for gradient in gradients) > len(gradients) - 3


def test_xla_computes_the_same_loss_and_gradients(folder):
    rows, model = batch(), models.as_keras(models.load(folder, "sequence-classification", num_labels=3))

    def step():
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(model(rows)["logits"] ** 2)
        return [loss, *map(tf.convert_to_tensor, tape.gradient(loss, model.trainable_weights))]

    for one, other in zip(tf.function(step)(), tf.function(step, jit_compile=True)(), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-4)


def test_vectors_by_cls_are_those_of_the_last_token(folder):
    texts, tokenizer = ["the dog sat", "the cat and the bird sat there all day"], tfbert.load_tokenizer(folder)
    task = tfbert.SentenceEmbedding(pooling="cls", normalize=False)
    found = tfbert.predict(task, task.build(folder), tokenizer, texts)
    for text, answer in zip(texts, found, strict=True):
        ids = tokenizer(text)["input_ids"]
        assert ids[-2:] == [SEP, CLS]
        types = np.array([[0] * (len(ids) - 1) + [2]])
        states = models.load(folder, None)({"input_ids": np.array([ids]), "token_type_ids": types})[0]
        np.testing.assert_allclose(answer["embedding"], states[0, -1], atol=1e-5)


def test_an_answer_that_is_not_there_is_at_the_last_token(folder):
    task, tokenizer = tfbert.QuestionAnswering(max_length=48, stride=2, no_answer=True), tfbert.load_tokenizer(folder)
    examples = from_iterable(QUESTIONS, "made.jsonl")
    features = task.features(tokenizer, examples)
    ids, splits = features.ragged["input_ids"]
    start, end = features.targets["start_logits"], features.targets["end_logits"]
    row = 0
    for example in QUESTIONS:
        expected = tokenizer(
            example["question"],
            example["context"],
            max_length=48,
            stride=2,
            truncation="only_second",
            return_overflowing_tokens=True,
            return_offsets_mapping=True,
        )
        answered = 0
        for k, tokens in enumerate(expected["input_ids"]):
            assert ids[splits[row] : splits[row + 1]].tolist() == tokens
            offsets, owner = expected["offset_mapping"][k], expected.sequence_ids(k)
            place = (start[row], end[row])
            if place == (len(tokens) - 1, len(tokens) - 1):
                assert tokens[-1] == CLS
            else:
                assert owner[place[0]] == owner[place[1]] == 1
                words = example["context"][offsets[place[0]][0] : offsets[place[1]][1]].strip()
                assert words == example["answers"][0]["text"]
                answered += 1
            row += 1
        assert (answered > 0) == bool(example["answers"])
    assert row == len(splits) - 1


def test_no_answer_scores_the_logits_of_the_last_token(folder):
    tokenizer = tfbert.load_tokenizer(folder)
    task = tfbert.QuestionAnswering(max_length=64, no_answer=True, threshold=0.0)
    model = task.build(folder, seed=3)
    found = tfbert.predict(task, model, tokenizer, [{name: row[name] for name in task.inputs} for row in QUESTIONS])
    for i, example in enumerate(QUESTIONS):
        encoded = tokenizer(example["question"], example["context"], return_tensors="np", return_token_type_ids=True)
        outputs = model({name: encoded[name].astype(np.int32) for name in model.input_names})
        first, last = (outputs[f"{name}_logits"].numpy()[0] for name in ("start", "end"))
        inside = [at for at, owner in enumerate(encoded.sequence_ids(0)) if owner == 1]
        best = max(first[s] + last[e] for s in inside for e in inside if s <= e < s + 30)
        assert found[i]["no_answer_score"] == pytest.approx(first[-1] + last[-1] - best, abs=1e-5)


@pytest.mark.slow
def test_an_xlnet_with_its_own_tokenizer_is_trained_exported_and_asked(folder, tmp_path):
    task = tfbert.QuestionAnswering(max_length=48)
    examples = [row | {"context": f"{row['context']} {word}"} for word in WORDS[:8] for row in QUESTIONS]
    options = {"epochs": 2, "batch_size": 4, "learning_rate": 1e-3, "report": False, "seed": 1}
    tuned = tfbert.fine_tune(task, folder, from_iterable(examples, "made.jsonl"), directory=tmp_path / "run", **options)
    texts = contract.texts_for(tuned.task)
    expected = tfbert.predict(tuned.task, tuned.model, tuned.tokenizer, texts)
    contract.close(expected, tfbert.Predictor(tmp_path / "run")(texts), 1e-5)


@pytest.mark.parametrize(
    ("setting", "value", "expected"),
    [("summary_type", "mean", "'last'"), ("attn_type", "uni", "'bi'"), ("bi_data", True, "False")],
)
def test_what_is_another_model_is_refused(setting, value, expected, folder, tmp_path):
    place = tmp_path / "other"
    models.save(models.load(folder, None), place)
    config = json.loads((place / "config.json").read_text("utf-8"))
    (place / "config.json").write_text(json.dumps(config | {setting: value}), encoding="utf-8")
    with pytest.raises(InputError, match=f"config.json: {setting} is {value}; expected {expected}"):
        models.load(place, None)


def test_dropout_sets_the_rates_that_it_has(tiny, tmp_path):
    folder = write("xlnet", tmp_path / "xlnet", tfbert.load_tokenizer(tiny), 1)
    task = tfbert.SequenceClassification(labels=("a", "b"), pair=False, dropout=0.25)
    assert models.transformer_of(task.build(folder)).config.dropout == 0.25
