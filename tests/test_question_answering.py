"""Answers as the Hugging Face question answering pipeline gives them, against its own code on the same logits."""

from __future__ import annotations

import json

import numpy as np
import pytest
from transformers.pipelines.question_answering import QuestionAnsweringPipeline

from tfbert import metrics, tasks
from tfbert._compat import tf
from tfbert.command_line.arguments import Parser, add_fields
from tfbert.decoding.spans import sum_of_equals
from tfbert.errors import InputError
from tfbert.sources import from_iterable
from tfbert.tokenization import RustPieces, graph_tokenizer, load_tokenizer

WORDS = "the film Film FILM plot, actor's scene. Zoë zoë Ünder (dull) 12% bright-it 好的 🙂 was İst ΣΟΦΟΣ σοφος of not- Unheard".split()
CONTEXTS, DRAWS = 40, 10


def pipeline_of(tiny, cls=QuestionAnsweringPipeline) -> QuestionAnsweringPipeline:
    """The pipeline without a model: how it prepares texts and picks answers."""
    made = object.__new__(cls)
    made.framework, made.tokenizer = "tf", load_tokenizer(tiny)
    return made


class Apart(QuestionAnsweringPipeline):
    """The pipeline without the sums: no answer is equal to another."""

    def get_answer(self, answers, target):
        return None


def asked(rng, count: int) -> list[dict]:
    made = []
    for _ in range(count):
        words = rng.choice(WORDS, int(rng.integers(1, 60)))
        context = "".join(
            word + str(rng.choice([" ", "  ", "\u00a0", "\n"], p=[0.9, 0.04, 0.03, 0.03])) for word in words
        )
        made.append({"question": " ".join(rng.choice(WORDS, int(rng.integers(1, 4)))), "context": context})
    return made


def random_logits(rng, rows, none: float) -> dict[str, np.ndarray]:
    """Scores for all tokens, of the question and the padding too; [CLS] stands higher by `none` and more or less in each window."""
    shape = tuple(rows.ids["input_ids"].shape)
    found = rng.normal(size=(2, *shape)) * rng.uniform(0.5, 5, (2, shape[0], 1))
    found[:, :, 0] += rng.uniform(-2, 8, shape[0]) + none
    return dict(zip(("start_logits", "end_logits"), found.astype(np.float32), strict=True))


def pipelines_answer(pipeline, features: list[dict], logits: dict, first: int, **settings) -> dict:
    """What the pipeline answers where the model gave an example's windows the rows of `logits` from `first` on."""
    outputs = []
    for k, window in enumerate(features):
        length = window["input_ids"].shape[1]
        start, end = (logits[name][first + k, np.newaxis, :length] for name in ("start_logits", "end_logits"))
        outputs.append({**window, "start": start, "end": end})
    found = pipeline.postprocess(outputs, **settings)
    return found[0] if isinstance(found, list) else found


def fits(pipeline, row: dict, most: int) -> bool:
    """Whether the question need not be cut, which the pipeline does not do."""
    return len(pipeline.tokenizer.tokenize(row["question"])) <= most


@pytest.mark.skipif(not hasattr(QuestionAnsweringPipeline, "get_answer"), reason="this transformers adds no scores up")
@pytest.mark.parametrize("no_answer", [False, True])
@pytest.mark.parametrize("top_k, longest, max_length", [(1, 15, 40), (5, 30, 64), (2, 3, 24)])
def test_2400_answers_are_those_of_the_pipeline(tiny, top_k, longest, max_length, no_answer):
    task = tasks.QuestionAnswering(
        post_processing="pipeline",
        n_best=2 * top_k + 10,
        max_answer_length=longest,
        max_length=max_length,
        max_question_length=12,
        stride=5,
        threshold=0,
        no_answer=no_answer,
    )
    pipeline, apart = pipeline_of(tiny), pipeline_of(tiny, Apart)
    rng = np.random.default_rng([top_k, no_answer])
    examples = from_iterable([row for row in asked(rng, 3 * CONTEXTS) if fits(pipeline, row, 10)][:CONTEXTS])
    assert len(examples) == CONTEXTS
    texts = {name: tf.constant([row[name] for row in examples]) for name in task.inputs}
    rows = task.rows(RustPieces(pipeline.tokenizer), texts)
    firsts = np.searchsorted(rows.example.numpy(), np.arange(CONTEXTS + 1)).tolist()
    features = [list(pipeline.preprocess(row, max_seq_len=max_length, doc_stride=5)) for row in map(dict, examples)]
    assert [len(windows) for windows in features] == np.diff(firsts).tolist() and max(map(len, features)) > 2

    decide = tf.function(lambda outputs: task.answer(task.infer(outputs, rows), texts, None))
    settings = {"top_k": top_k, "max_answer_len": longest, "handle_impossible_answer": no_answer}
    empty = summed = widened = 0
    for draw in range(DRAWS):
        logits = random_logits(rng, rows, none=8 * (draw % 2))
        got = {name: values.numpy() for name, values in decide(logits).items()}
        for i, row in enumerate(examples):
            want = pipelines_answer(pipeline, features[i], logits, firsts[i], **settings)
            answer = got["answer"][i].decode()
            assert (answer, got["start"][i], got["end"][i]) == (want["answer"], want["start"], want["end"])
            assert got["score"][i] == pytest.approx(want["score"], abs=1e-6)
            assert row["context"][want["start"] : want["end"]] == answer
            empty += answer == ""
            bare = pipelines_answer(pipeline, features[i], logits, firsts[i], **settings, align_to_words=False)
            widened += bare["answer"] != answer
            summed += pipelines_answer(apart, features[i], logits, firsts[i], **settings)["answer"] != answer
    assert (empty >= 40) == no_answer and widened >= 20 and summed >= 20  # of 400


def test_words_are_equal_but_for_their_case_and_the_sum_decides():
    contexts = ["Σοφος İst ΣΟΦΟΣ", "a\0b a\0c", "I i ı", "好 one 好", "one two"]
    spans = [
        [(6, 9, 0.5), (0, 5, 0.25), (10, 15, 0.375)],
        [(0, 3, 0.25), (4, 7, 0.375), (0, 0, 0.0)],
        [(4, 5, 0.375), (0, 1, 0.25), (2, 3, 0.25)],
        [(2, 5, 0.375), (6, 7, 0.25), (0, 1, 0.125)],  # as good as "one", which is met first
        [(4, 7, 0.0), (0, 0, 0.0), (0, 0, 0.0)],  # no span at all
    ]
    starts, ends, scores = (np.array(x) for x in zip(*(zip(*row) for row in spans)))
    given = (
        tf.constant(contexts),
        *(tf.constant(x, tf.int32) for x in (starts, ends)),
        tf.constant(scores, tf.float32),
    )
    start, end, score = (found.numpy().tolist() for found in tf.function(sum_of_equals)(*given))
    assert start == [0, 4, 0, 2, 0] and end == [5, 7, 1, 5, 0] and score == [0.625, 0.375, 0.5, 0.375, 0.0]
    for context, row in zip(contexts, spans, strict=True):  # the same by Python's own lower case
        totals = {}
        for a, b, value in row:
            totals[context[a:b].lower()] = totals.get(context[a:b].lower(), 0) + value
        assert max(totals.values()) == score[contexts.index(context)]
    nothing = (tf.zeros([0], tf.string), tf.zeros([0, 4], tf.int32), tf.zeros([0, 4], tf.int32), tf.zeros([0, 4]))
    assert [found.shape for found in sum_of_equals(*nothing)] == [(0,)] * 3


def test_a_context_without_tokens_and_no_context_at_all_are_answered(tiny):
    task = tasks.QuestionAnswering(post_processing="pipeline", max_length=16, no_answer=True)
    for pieces in (RustPieces(load_tokenizer(tiny)), graph_tokenizer(load_tokenizer(tiny))):
        for contexts, expected in (([], []), (["", " \u200b", "film"], [b"", b"", b"film"])):
            texts = {
                "question": tf.constant(["the"] * len(contexts), tf.string),
                "context": tf.constant(contexts, tf.string),
            }
            rows = task.rows(pieces, texts)
            high = tf.cast(rows.piece >= 0, tf.float32)
            answer = task.answer(task.infer({"start_logits": high, "end_logits": high}, rows), texts, pieces)
            assert answer["answer"].numpy().tolist() == expected
            if contexts:
                share = np.exp(1) / (1 + np.exp(1))
                null = (1 - share) ** 2
                np.testing.assert_allclose(answer["score"], [1, 1, share**2], atol=1e-6)
                np.testing.assert_allclose(answer["no_answer_score"], [1, 1, null - share**2], atol=1e-6)


def test_scores_and_the_threshold_are_those_of_the_answers(tiny):
    task = tasks.QuestionAnswering(post_processing="pipeline", max_length=24, stride=4, no_answer=True)
    rng = np.random.default_rng(3)
    made = []
    for i, row in enumerate(asked(rng, 60)):
        word = row["context"].split()[0]
        made.append({**row, "answers": [{"text": word, "start": row["context"].index(word)}] if i % 3 else []})
    examples = from_iterable(made)
    texts = {name: tf.constant([row[name] for row in examples]) for name in task.inputs}
    rows = task.rows(RustPieces(load_tokenizer(tiny)), texts)
    inferred = task.infer(random_logits(rng, rows, none=4), rows)
    kept = {name: values.numpy() for name, values in inferred.items()}
    tuned = task.tuned(examples, kept)
    references = [[answer["text"] for answer in row["answers"]] for row in examples]
    best = tasks.QuestionAnswering(post_processing="pipeline", no_answer=False).answer(inferred, texts, None)
    spans = [text.decode() for text in best["answer"].numpy()]
    assert tuned.threshold == metrics.squad_threshold(references, spans, best["no_answer_score"].numpy()) != 0
    for one in (task, tuned):
        answers = [text.decode() for text in one.answer(inferred, texts, None)["answer"].numpy()]
        assert one.score(examples, kept) == metrics.squad(references, answers)
    assert tuned.score(examples, kept)["f1"] >= task.score(examples, kept)["f1"] > 0


def test_the_setting_is_read_written_and_checked(tiny):
    task = tasks.QuestionAnswering(post_processing="pipeline")
    fields = json.loads(json.dumps(task.to_json()))
    assert fields["post_processing"] == "pipeline" and tasks.QuestionAnswering.from_json(fields) == task
    del fields["post_processing"]  # written before there was a choice
    assert tasks.QuestionAnswering.from_json(fields) == tasks.QuestionAnswering(post_processing="run_qa")
    with pytest.raises(
        InputError,
        match=r"^post_processing is 'pipelin'; it must be one of run_qa, pipeline. Did you mean 'pipeline'\?$",
    ):
        tasks.QuestionAnswering(post_processing="pipelin")
    parser = Parser()
    add_fields(parser, tasks.QuestionAnswering)
    assert parser.parse(["--post-processing", "pipeline"]).post_processing == "pipeline"
