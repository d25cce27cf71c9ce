"""Embeddings: pooling and retrieval against NumPy, the forms of other libraries, and the packaged checkpoint on STS-B."""

from __future__ import annotations

import copy
import csv

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

import tfbert
from tfbert import metrics, models, serving, tasks, tokenization
from tfbert._compat import tf
from tfbert.errors import InputError
from tfbert.sources import from_iterable

TEXTS = ["good film", "an awful and very dull plot", "", "lovely lovely lovely actor", "good films"]


@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("pooling", ["mean", "cls", "max"])
def test_pooling_is_the_formula_whatever_the_padding(tiny, pooling, normalize):
    tokenizer = tokenization.load_tokenizer(tiny)
    model = tasks.SentenceEmbedding(pooling=pooling, normalize=normalize, max_length=16).build(tiny)
    bare = models.load(tiny, None)
    ids = {name: tf.constant(np.asarray(values)) for name, values in tokenizer(TEXTS, padding=True).items()}
    hidden = bare(ids).last_hidden_state.numpy().astype(np.float64)
    for i, length in enumerate(ids["attention_mask"].numpy().sum(1)):
        own = hidden[i, :length]
        expected = {"mean": own.mean(0), "cls": own[0], "max": own.max(0)}[pooling]
        expected = expected / np.linalg.norm(expected) if normalize else expected
        np.testing.assert_allclose(model(ids)["embedding"][i], expected, atol=2e-6)


def test_the_pooler_which_takes_no_part_is_not_trained_and_is_saved(tiny, tmp_path, caplog):
    rows = [{"text": f"good film {i}", "text_pair": f"lovely film {i}"} for i in range(40)]
    task = tasks.SentenceEmbedding(objective="ranking", max_length=16)
    tuned = tfbert.fine_tune(
        task, tiny, rows, epochs=1, learning_rate=1e-2, directory=tmp_path / "out", export=False, report=False
    )
    assert "Gradients do not exist" not in caplog.text
    before, after = (models.load(place, None) for place in (tiny, tmp_path / "out" / "checkpoint"))
    for one, other in zip(before.weights, after.weights):
        assert np.array_equal(one, other) == ("pooler" in one.name), one.name
    assert not any("pooler" in variable.name for variable in tuned.model.trainable_variables)


def test_retrieval_counts_ranks():
    rng = np.random.default_rng(0)
    texts, partners = rng.normal(size=(300, 8)), rng.normal(size=(300, 8))
    partners[:100] = texts[:100] + 0.5 * rng.normal(size=(100, 8))
    cosines = metrics.unit_vectors(texts) @ metrics.unit_vectors(partners).T
    ranks = np.array([sorted(-row).index(-row[i]) + 1 for i, row in enumerate(cosines)])
    found = metrics.retrieval(texts, partners)
    for k in (1, 5, 10):
        assert found[f"recall_at_{k}"] == pytest.approx((ranks <= k).mean())
    assert found["mean_reciprocal_rank"] == pytest.approx((1 / ranks).mean())
    assert 0.1 < found["recall_at_1"] < found["recall_at_10"] < 0.9


@pytest.fixture(scope="module")
def export(tiny, tmp_path_factory):
    task = tasks.SentenceEmbedding(objective="ranking", max_length=16)
    model = task.build(tiny)
    return serving.export(task, model, tokenization.load_tokenizer(tiny), tmp_path_factory.mktemp("export"))


def test_an_export_is_langchains_embeddings(export):
    embedder = tfbert.SentenceEmbedder(export)
    vectors = embedder.embed_documents(TEXTS)
    answers = tfbert.Predictor(export)(TEXTS)
    assert vectors == [answer["embedding"] for answer in answers]
    assert embedder.embed_documents([]) == []
    np.testing.assert_allclose(embedder.embed_query(TEXTS[1]), vectors[1], atol=1e-6)
    with pytest.raises(InputError, match="texts is one string; pass a list of texts, or use embed_query"):
        embedder.embed_documents("good film")


def test_an_export_is_a_scikit_learn_transformer(export):
    embedder = tfbert.SentenceEmbedder(export, batch_size=2)
    again = clone(copy.deepcopy(embedder))
    assert again.get_params() == {"directory": export, "batch_size": 2}
    pipeline = make_pipeline(again, LogisticRegression(C=1e4))
    labels = [1, 0, 0, 1, 1]
    assert pipeline.fit(TEXTS, labels).predict(TEXTS).tolist() == labels
    vectors = embedder.transform(TEXTS)
    assert vectors.dtype == np.float32 and vectors.shape == (5, len(embedder.get_feature_names_out()))
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    assert embedder.transform([]).shape == (0, vectors.shape[1])
    with pytest.raises(InputError, match=r"no parameter 'batchsize'.*Did you mean 'batch_size'\?"):
        embedder.set_params(batchsize=3)


def test_what_an_example_lacks_is_told_by_place(tiny):
    examples = from_iterable([{"text": "good", "text_pair": "fine", "label": 6}], "pairs.csv")
    task = tasks.SentenceEmbedding(label_range=(0, 5))
    with pytest.raises(InputError, match="row 1 of pairs.csv: label is 6; it must lie in label_range, 0 to 5"):
        task.check(examples)
    with pytest.raises(
        InputError, match="row 1 of pairs.csv: no field 'negative'; the row has 'text', 'text_pair', 'label'"
    ):
        tasks.SentenceEmbedding(objective="triplet").check(examples)
    with pytest.raises(InputError, match="the task has no label_range yet"):
        tasks.SentenceEmbedding().check(examples)
    with pytest.raises(InputError, match="every label is the same number"):
        tasks.SentenceEmbedding().from_data(examples)
    for settings, message in (
        (
            {"objective": "cosin"},
            r"objective is 'cosin'; it must be one of cosine, ranking, triplet. Did you mean 'cosine'\?",
        ),
        ({"scale": 0}, "scale is 0; it must be positive"),
        ({"label_range": (5, 0)}, "give the label that means cosine 0 and a greater one"),
    ):
        with pytest.raises(InputError, match=message):
            tasks.SentenceEmbedding(**settings)


@pytest.mark.data
def test_the_packaged_checkpoint_knows_similar_sentences_before_any_training(data, minilm):
    """Spearman on the first 300 test pairs of STS-B, as the authors' own library computes it: about 0.82 on all."""
    place = next((data / "stsb").rglob("*test*"))
    with place.open(encoding="utf-8", newline="") as file:
        pairs = list(csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE))[:300]
    rows = [{"text": row[5], "text_pair": row[6], "label": float(row[4])} for row in pairs]
    task = tasks.SentenceEmbedding(label_range=(0, 5))
    found = tfbert.evaluate(task, task.build(minilm), tokenization.load_tokenizer(minilm), from_iterable(rows))
    assert found["spearman"] > 0.8
