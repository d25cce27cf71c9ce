"""Fill-mask: the ids around masks, the tokens and scores of the Hugging Face pipeline, and the export, number by number."""

from __future__ import annotations

import json

import numpy as np
import pytest
from tokenizers import Tokenizer, decoders, pre_tokenizers, processors
from tokenizers import models as kinds

import tfbert
from tfbert import models, serving, tasks, tokenization
from tfbert._compat import tf, transformers
from tfbert.errors import InputError
from tfbert.models.loading import quiet

TEXTS = [
    "the film is [MASK] .",
    "[MASK] good",
    "a dull plot [MASK]",
    "[MASK]",
    "very[MASK]good, [MASK] [MASK]!",
    "[[MASK]] Très [MASK]bien 好",
    "no mask here",
    "",
    "[mask] [MASK ] [CLS]",
]


@pytest.fixture(scope="module")
def made(tiny, tmp_path_factory):
    """A tiny masked LM, saved and loaded back, so that its head is the checkpoint's."""
    place = tmp_path_factory.mktemp("masked") / "model"
    task, tokenizer = tasks.MaskedLM(max_length=24, top_k=4), tokenization.load_tokenizer(tiny)
    models.save(task.build(tiny, seed=3), place, tokenizer)
    return task, task.build(place), tokenizer, place


@pytest.fixture(scope="module")
def theirs(tiny):
    """The tokenizer as Hugging Face leaves it: special tokens in a text are special."""
    return transformers.BertTokenizerFast.from_pretrained(tiny)


@pytest.mark.parametrize("graph", [False, True])
def test_masks_stand_where_the_training_tokenizer_has_them(tiny, theirs, graph):
    tokenizer = tokenization.load_tokenizer(tiny)
    pieces = tokenization.graph_tokenizer(tokenizer) if graph else tokenization.RustPieces(tokenizer)
    texts = TEXTS[:-1]  # the last holds "[CLS]", which is text here and special there
    rows = tasks.MaskedLM(max_length=64).rows(pieces, {"text": tf.constant(texts)})
    expected = theirs(texts, padding=True)
    np.testing.assert_array_equal(rows.ids["input_ids"], expected["input_ids"])
    np.testing.assert_array_equal(rows.ids["attention_mask"], expected["attention_mask"])
    masks = np.array(expected["input_ids"]) == tokenizer.mask_token_id
    assert masks.sum() == 9
    np.testing.assert_array_equal(rows.ids["masked"], masks & (masks.cumsum(1) == 1))


@pytest.mark.parametrize("graph", [False, True])
def test_a_mask_that_takes_the_space_before_it(graph):
    """RoBERTa's does: "is <mask>" is "is" and the mask, which stands for " Paris"."""
    names = ["<s>", "<pad>", "</s>", "<mask>", *sorted(pre_tokenizers.ByteLevel.alphabet()), "Ġis"]
    merges = [("Ġ", "is"), ("i", "s")]
    vocabulary = {name: i for i, name in enumerate([*names, "is"])}
    backend = Tokenizer(kinds.BPE(vocabulary, merges[::-1]))
    backend.pre_tokenizer, backend.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    backend.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0), add_prefix_space=False)
    special = {"cls_token": "<s>", "sep_token": "</s>", "pad_token": "<pad>"}
    mask = transformers.AddedToken("<mask>", lstrip=True, special=True)
    theirs, ours = (
        transformers.PreTrainedTokenizerFast(tokenizer_object=backend, mask_token=mask, **special) for _ in range(2)
    )
    ours.backend_tokenizer.encode_special_tokens = True
    pieces = tokenization.graph_tokenizer(ours) if graph else tokenization.RustPieces(ours)
    texts = [
        "It is <mask> .",
        "is \t\n<mask>\u2003 <mask> is<mask>",
        " <mask>",
        "<mask>",
        "\u200b <mask>\x85<mask> ",
        "no ",
    ]
    rows = tasks.MaskedLM(max_length=64).rows(pieces, {"text": tf.constant(texts)})
    np.testing.assert_array_equal(rows.ids["input_ids"], theirs(texts, padding=True)["input_ids"])
    found = pieces.vocabulary.tokens(tf.constant([vocabulary["Ġis"], vocabulary["is"], 3, 999]))
    assert found.numpy().tolist() == [b" is", b"is", b"<mask>", b""]


def test_of_special_tokens_a_text_holds_the_mask_alone(made):
    task, _, tokenizer, _ = made
    rows = task.rows(tokenization.RustPieces(tokenizer), {"text": tf.constant(TEXTS[-1:])})
    ids = rows.ids["input_ids"].numpy()[0].tolist()
    assert (
        ids.count(tokenizer.cls_token_id) == 1
        and tokenizer.mask_token_id not in ids
        and not rows.ids["masked"].numpy().any()
    )


@pytest.mark.parametrize("before, after", [(0, 40), (3, 40), (20, 20), (40, 3), (40, 0), (40, 40), (4, 4)])
def test_of_a_long_text_the_part_around_the_first_mask_is_read(tiny, before, after):
    tokenizer = tokenization.load_tokenizer(tiny)
    words = [chr(97 + i % 26) for i in range(before)], [str(i % 10) for i in range(after)]
    text = " ".join([*words[0], "[MASK]", *words[1], "[MASK]"])
    rows = tasks.MaskedLM(max_length=12).rows(tokenization.RustPieces(tokenizer), {"text": tf.constant([text])})
    tokens = tokenizer.convert_ids_to_tokens(rows.ids["input_ids"].numpy()[0])
    assert len(tokens) == min(12, before + after + 4) and rows.ids["masked"].numpy().sum() == 1
    whole = [*words[0], "[MASK]", *words[1], "[MASK]"]
    inner = tokens[1:-1]
    assert any(whole[i : i + len(inner)] == inner for i in range(len(whole)))
    place = int(np.argmax(rows.ids["masked"].numpy()[0])) - 1
    assert inner[place] == "[MASK]" and inner[:place] == words[0][len(words[0]) - place :]
    if min(before, after) > 5:
        assert place == 5  # in the middle


def test_answers_are_those_of_the_fill_mask_pipeline(made, theirs):
    task, model, tokenizer, _ = made
    with quiet():
        bare = transformers.TFBertForMaskedLM(model.transformer.config)
        bare.build_in_name_scope()
        bare.set_weights(model.transformer.get_weights())
    fill = transformers.FillMaskPipeline(model=bare, tokenizer=theirs, framework="tf", top_k=4)
    one_mask = [text for text in TEXTS if text.count("[MASK]") == 1]
    assert len(one_mask) == 4
    for text, ours in zip(one_mask, tfbert.predict(task, model, tokenizer, one_mask), strict=True):
        expected = fill(text)
        assert ours["token"] == [answer["token_str"] for answer in expected]
        np.testing.assert_allclose(ours["score"], [answer["score"] for answer in expected], atol=1e-6)


def test_the_export_answers_alike_and_no_mask_is_an_empty_answer(made, tmp_path):
    task, model, tokenizer, _ = made
    predictor = tfbert.Predictor(serving.export(task, model, tokenizer, tmp_path))
    ours = tfbert.predict(task, model, tokenizer, TEXTS)
    for text, one, other in zip(TEXTS, ours, predictor(TEXTS), strict=True):
        assert one["token"] == other["token"]
        np.testing.assert_allclose(one["score"], other["score"], atol=1e-5)
        if "[MASK]" not in text:
            assert one == {"token": [""] * 4, "score": [0.0] * 4}
        else:
            assert one["score"] == sorted(one["score"], reverse=True) and one["score"][-1] > 0 and all(one["token"])
    alone = [tfbert.predict(task, model, tokenizer, [text])[0] for text in TEXTS]
    for one, other in zip(ours, alone, strict=True):
        assert one["token"] == other["token"]
        np.testing.assert_allclose(one["score"], other["score"], atol=1e-6)


def test_a_lower_precision_is_scored_by_perplexity(made, tmp_path):
    task, model, tokenizer, _ = made
    data = [{"text": "the film is very good"}, {"text": "a dull plot and a lovely scene of the actor"}]
    place = serving.export(task, model, tokenizer, tmp_path / "out", precision="int8", data=data, max_drop=0.2)
    scores = json.loads((place / "assets.extra" / "tfbert.json").read_text())["scores"]
    assert scores["model"] == pytest.approx(tfbert.evaluate(task, model, tokenizer, data), rel=1e-5)
    assert scores["export"]["perplexity"] == pytest.approx(scores["model"]["perplexity"], rel=0.2)
    assert scores["export"] != scores["model"]


def test_a_token_that_only_the_model_has_is_empty(tiny):
    vocabulary = tokenization.Vocabulary(tokenization.load_tokenizer(tiny))
    size = len(tokenization.load_tokenizer(tiny))
    found = vocabulary.tokens(tf.constant([0, size - 1, size, size + 100, -1])).numpy().tolist()
    assert found == [b"[PAD]", b"it", b"", b"", b""]


def test_what_cannot_be_done_is_refused(made, tmp_path):
    task, model, tokenizer, _ = made
    with pytest.raises(InputError, match="top_k is 0; it must be at least 1"):
        tasks.MaskedLM(top_k=0)
    long = tasks.MaskedLM(max_length=65)
    for work in (
        lambda: tfbert.predict(long, model, tokenizer, ["a"]),
        lambda: serving.export(long, model, tokenizer, tmp_path / "export"),
    ):
        with pytest.raises(InputError, match="max_length is 65, but .* has 64 positions"):
            work()
    assert not (tmp_path / "export").exists()
    maskless = transformers.BertTokenizerFast(tokenizer_object=tokenizer.backend_tokenizer, mask_token=None)
    with pytest.raises(InputError, match="the tokenizer has no mask token"):
        tfbert.predict(task, model, maskless, ["a"])
