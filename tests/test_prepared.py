"""Prepared data: the batches that memory would give, in the order that (seed, epoch) decides, from any place on, each worker its own."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
from test_checkpoints import Stop, crash, interrupt
from test_contract import CASES, CHECKPOINTS
from test_training import OPTIONS, TASK, TRAIN, VALIDATION

import tfbert
from tfbert import pipeline, prepared, tokenization, training
from tfbert._compat import tf
from tfbert.errors import InputError
from tfbert.features import pieces_in_use
from tfbert.prepared import order, parts
from tfbert.sources import from_iterable

WORDS = "good bad fine great awful film plot actor scene boring".split()


def rows(count: int = 203, seed: int = 0) -> list[dict]:
    chance = np.random.default_rng(seed)
    return [
        {"text": f"{i} " + " ".join(chance.choice(WORDS, chance.integers(1, 20))), "label": "abc"[i % 3]}
        for i in range(count)
    ]


def scalar(number: int):
    return tf.constant(number, tf.int64)


def numbers(records, lengths, batch_size: int, seed: int, epoch: int, worker=(0, 1)) -> list[list[int]]:
    """The records of each batch of an epoch, as the functions of `order` say; without those of weight 0."""
    share = order.Share(tuple(records), batch_size, *worker)
    epoch, total, came = scalar(epoch), len(records), []
    for k in order.shard_order(share, seed, epoch).numpy():
        shard = share.shards[k]
        places = order.within(scalar(records[shard]), total, seed, epoch, scalar(shard)).numpy()
        came += (places * total + shard).tolist()
    came, made = np.array(came + [-1] * share.fill), []
    for window, begin in enumerate(range(0, len(came), share.window * share.batch)):
        part = came[begin : begin + share.window * share.batch]
        sizes = np.where(part < 0, 0, np.asarray(lengths)[part])
        part = part[order.by_length(tf.constant(sizes, tf.int64), tf.constant(part >= 0)).numpy()]
        count = -(-len(part) // share.batch)
        for batch in order.batch_order(scalar(count), share, seed, epoch, scalar(window)).numpy():
            own = part[batch * share.batch : (batch + 1) * share.batch]
            made.append(own[own >= 0].tolist())
    return made


def same(one, other) -> None:
    """Two batches are equal, inputs, targets and weights, to the bit."""
    tf.nest.assert_same_structure(one, other)
    for a, b in zip(tf.nest.flatten(one), tf.nest.flatten(other), strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a.numpy(), b.numpy())


@pytest.fixture(scope="module")
def tokenizer(tiny):
    return tokenization.load_tokenizer(tiny)


@pytest.fixture(scope="module")
def data(tiny, tmp_path_factory) -> prepared.Prepared:
    """203 rows in five shards."""
    place = tmp_path_factory.mktemp("prepared") / "rows"
    task = tfbert.SequenceClassification(max_length=24)
    return tfbert.prepare(task, tiny, rows(), place, shards=5, keep_examples=True)


# 1. what a batch holds


@pytest.mark.parametrize("name", [name for name in CASES if name != "pretraining"])
def test_a_batch_is_that_of_the_same_rows_in_memory(name, request, tmp_path):
    """Of every task, masks and windows included: what the order says, assembled from the shards, is what memory gives."""
    task, examples = CASES[name]
    checkpoint = request.getfixturevalue(CHECKPOINTS.get(task.name, "tiny"))
    made = tfbert.prepare(task, checkpoint, examples, tmp_path / "made", shards=3)
    whole = from_iterable(examples)
    assert made.task == task.from_data(whole)
    tokenizer = tokenization.load_tokenizer(checkpoint)
    features = made.task.features(tokenizer, whole)
    assert len(made) == len(examples)
    streamed = made.features(made.task, tokenizer)
    assert streamed.even == features.even
    np.testing.assert_array_equal(streamed.draws, np.sort(features.draws))
    found, pieces = prepared.pieces_in_use(streamed), pieces_in_use(features)
    assert (found is None) == (pieces is None) and (found is None or found.tolist() == pieces.tolist())
    each = 1 if features.examples is None or features.alone else streamed.manifest.layout.rows_each or 1
    assemble = pipeline.Tables.of(features).batch(8, (), 4, 1, each)
    batches = prepared.batches(streamed, batch_size=8, seed=4)
    for epoch in range(2):
        wanted = numbers(streamed.records, features.draws, 8, 4, epoch)
        assert sorted(i for batch in wanted for i in batch) == list(range(len(features.draws)))
        for batch, places in zip(batches, wanted, strict=True):
            same(batch, assemble(scalar(epoch), tf.constant(places, tf.int64)))


def test_a_training_from_shards_learns_what_memory_learns_in_that_order(data, tiny, tokenizer):
    features = data.task.features(tokenizer, from_iterable(rows()))
    assemble = pipeline.Tables.of(features).batch(32, (), 2, 1, 1)
    records = [shard.records for shard in data.manifest.shards]

    def in_memory():
        for epoch in range(2):
            for places in numbers(records, features.draws, 32, 2, epoch):
                yield assemble(scalar(epoch), tf.constant(places, tf.int64))

    spec = data.dataset(tokenizer, batch_size=32).element_spec
    steps = len(numbers(records, features.draws, 32, 2, 0))
    memory = tf.data.Dataset.from_generator(in_memory, output_signature=spec)

    def fit(batches):
        tf.keras.utils.set_random_seed(1)
        model = data.task.build(tiny, seed=1)
        model.compile(tfbert.AdamW(1e-3), loss=data.task.loss())
        history = model.fit(batches, epochs=2, steps_per_epoch=steps, verbose=0, shuffle=False).history["loss"]
        return history, np.concatenate([w.reshape(-1) for w in model.get_weights()])

    losses, weights = fit(data.dataset(tokenizer, batch_size=32, seed=2).repeat())
    expected_losses, expected = fit(memory)
    assert losses == expected_losses
    np.testing.assert_array_equal(weights, expected)


# 2. from any place on


@pytest.fixture(scope="module")
def passes(data, tokenizer) -> list[list]:
    """The first four epochs."""
    batches = data.dataset(tokenizer, batch_size=8, seed=3)
    assert int(batches.cardinality()) == 26
    return [list(batches) for _ in range(4)]


@pytest.mark.parametrize("start", [(0, 1), (0, 13), (1, 0), (1, 12), (2, 25)])
def test_a_restart_gives_the_remaining_batches_and_then_the_next_epoch(data, tokenizer, passes, start):
    epoch, batch = start
    restarted = data.dataset(tokenizer, batch_size=8, seed=3, start=start)
    for expected in (passes[epoch][batch:], passes[epoch + 1]):
        for one, other in zip(restarted, expected, strict=True):
            same(one, other)


def test_shards_before_the_place_are_not_read(tiny, tokenizer, tmp_path):
    place = tmp_path / "rows"
    task = tfbert.SequenceClassification(max_length=24)
    made = tfbert.prepare(task, tiny, rows(120), place, shards=6)
    share = order.Share((20,) * 6, 10)
    first = order.shard_order(share, 0, scalar(0)).numpy()[:2]  # 40 records: the first four of twelve batches
    assert share.window == 6 and share.steps == 12
    expected = list(made.dataset(tokenizer, batch_size=10))[6:]
    for shard in first:
        (place / made.manifest.shards[shard].file).write_bytes(b"")
    restarted = made.dataset(tokenizer, batch_size=10, start=(0, 6))
    for one, other in zip(restarted, expected, strict=True):
        same(one, other)


def test_epochs_seeds_and_windows_differ(data, tokenizer, monkeypatch):
    monkeypatch.setattr(order, "WINDOW_BATCHES", 3)
    records = [shard.records for shard in data.manifest.shards]
    lengths = data.task.features(tokenizer, from_iterable(rows())).draws
    assert order.Share(tuple(records), 8).windows == 9
    one, two, other = (numbers(records, lengths, 8, seed, epoch) for seed, epoch in ((0, 0), (0, 1), (1, 0)))
    assert one != two and one != other
    assert all(sorted(i for batch in each for i in batch) == list(range(203)) for each in (one, two, other))
    for begin in range(0, 26, 3):
        sizes = sorted([sorted(lengths[batch]) for batch in one[begin : begin + 3]], key=lambda found: found[0])
        flat = [size for batch in sizes for size in batch]
        assert flat == sorted(flat)
    streamed = data.dataset(tokenizer, batch_size=8, seed=1)
    found = [inputs["attention_mask"].numpy().sum(1).tolist() for inputs, _, _ in streamed]
    assert found == [lengths[batch].tolist() for batch in other]


def test_with_pad_to_batches_are_of_few_shapes_and_filled_up(data, tokenizer):
    batches = list(data.dataset(tokenizer, batch_size=8, pad_to=(12, 24)))
    assert {tuple(inputs["input_ids"].shape) for inputs, _, _ in batches} == {(8, 12), (8, 24)}
    assert sum(int((weights.numpy() > 0).sum()) for _, _, weights in batches) == 203
    auto = data.dataset(tokenizer, batch_size=8, pad_to="auto")
    assert len({tuple(inputs["input_ids"].shape) for inputs, _, _ in auto}) <= 4
    with pytest.raises(InputError, match="pad_to ends at 12 tokens, but a row has"):
        data.dataset(tokenizer, pad_to=(12,))
    halves = list(data.dataset(tokenizer, batch_size=8, replicas=2))
    assert len(halves) == 52 and len({len(weights) for _, _, weights in halves[:2]}) == 1


def test_statistics_are_those_of_an_epoch(data, tokenizer):
    streamed = data.features(data.task, tokenizer)
    cost = prepared.statistics(streamed, batch_size=8)
    found = [inputs["attention_mask"].numpy() for inputs, _, _ in data.dataset(tokenizer, batch_size=8)]
    assert cost.steps == len(found) and cost.tokens == sum(int(mask.sum()) for mask in found)
    assert cost.padding_share == pytest.approx(1 - cost.tokens / sum(mask.size for mask in found), abs=0.03)


# 3. a shard per worker


@pytest.mark.parametrize("count", [3, 5])
def test_workers_have_as_many_steps_and_every_row_once(data, tokenizer, count):
    batch_size = 6 * count
    epochs = []
    for index in range(count):
        batches = data.dataset(tokenizer, batch_size=batch_size, seed=2, worker=(index, count))
        epochs.append([list(batches), list(batches)])
    records = [shard.records for shard in data.manifest.shards]
    lengths = data.task.features(tokenizer, from_iterable(rows())).draws
    for epoch in range(2):
        own = [worker[epoch] for worker in epochs]
        assert len({len(batches) for batches in own}) == 1
        wanted = [numbers(records, lengths, batch_size, 2, epoch, (index, count)) for index in range(count)]
        assert sorted(i for worker in wanted for batch in worker for i in batch) == list(range(203))
        for step, parts_of_it in enumerate(zip(*own, strict=True)):
            weights = np.concatenate([weights.numpy() for _, _, weights in parts_of_it])
            real = sum(len(worker[step]) for worker in wanted)
            assert len(weights) == batch_size and weights.mean() == pytest.approx(1)
            # Rows that weigh the same count the same, whichever worker has them: the mean is the global batch's.
            np.testing.assert_allclose(np.unique(weights[weights > 0].round(5)), [batch_size / real], rtol=1e-4)
            for worker, (inputs, _, own_weights) in zip(wanted, parts_of_it, strict=True):
                there = own_weights.numpy() > 0
                assert inputs["attention_mask"].numpy().sum(1)[there].tolist() == lengths[worker[step]].tolist()


def test_a_worker_goes_on_from_any_place(data, tokenizer, monkeypatch):
    monkeypatch.setattr(order, "WINDOW_BATCHES", 4)
    for index in range(2):
        options = {"batch_size": 8, "seed": 2, "worker": (index, 2)}
        whole = list(data.dataset(tokenizer, **options))
        for batch in (11, len(whole) - 1):
            rest = data.dataset(tokenizer, start=(0, batch), **options)
            for one, other in zip(rest, whole[batch:], strict=True):
                same(one, other)


def test_a_worker_without_records_left_weighs_nothing(tiny, tokenizer, tmp_path, monkeypatch):
    monkeypatch.setattr(order, "WINDOW_BATCHES", 1)
    made = tfbert.prepare(tfbert.SequenceClassification(max_length=24), tiny, rows(9), tmp_path / "nine", shards=2)
    assert [shard.records for shard in made.manifest.shards] == [5, 4]
    one, two = (list(made.dataset(tokenizer, batch_size=4, worker=(i, 2))) for i in range(2))
    assert [weights.numpy().tolist() for _, _, weights in one] == [[1, 1], [1, 1], [4, 0]]
    assert [weights.numpy().tolist() for _, _, weights in two] == [[1, 1], [1, 1], [0, 0]]


def test_what_workers_cannot_part_is_told(data, tokenizer):
    for worker, batch_size, message in [
        ((0, 6), 12, "there are 5 shards for 6 workers, each of which reads its own; prepare the data with shards=6"),
        ((0, 2), 7, "batch_size is 7, of which 2 workers cannot have equal parts; take 8"),
        ((2, 2), 8, r"worker is \(2, 2\); its number must be at least 0 and less than the workers'"),
        ((0, 1), 0, "batch_size is 0; it must be at least 1"),
    ]:
        with pytest.raises(InputError, match=message):
            data.dataset(tokenizer, batch_size=batch_size, worker=worker)


# 4. tf.data service


def test_a_tf_data_service_gives_every_record_once(data, tokenizer):
    """A dispatcher and two workers, which part the shards among them."""
    service = tf.data.experimental.service
    dispatcher = service.DispatchServer()
    address = dispatcher.target.split("://")[1]
    workers = [service.WorkerServer(service.WorkerConfig(dispatcher_address=address)) for _ in range(2)]
    batches = data.served(tokenizer, batch_size=8, seed=1, epoch=1)
    batches = batches.apply(service.distribute(service.ShardingPolicy.DYNAMIC, dispatcher.target))
    found = [tuple(row[row > 0].tolist()) for inputs, _, _ in batches for row in inputs["input_ids"].numpy()]
    features = data.task.features(tokenizer, from_iterable(rows()))
    ids, splits = features.ragged["input_ids"]
    assert sorted(found) == sorted(tuple(part.tolist()) for part in np.split(ids, splits[1:-1]))
    assert len(workers) == 2


# 5. fine_tune


@pytest.fixture(scope="module")
def learned_from(tiny, tmp_path_factory) -> prepared.Prepared:
    place = tmp_path_factory.mktemp("prepared") / "train"
    return tfbert.prepare(TASK, tiny, TRAIN, place, shards=4, keep_examples=True)


def fine_tune(tiny, train, directory, **options):
    options = {**OPTIONS, "epochs": 2, "export": False, "report": False, "precision": "float32", **options}
    return training.fine_tune(TASK, tiny, train, VALIDATION, directory=directory, **options)


@pytest.mark.slow
def test_fine_tune_learns_from_prepared_data_and_goes_on_to_the_bit(tiny, learned_from, tmp_path, monkeypatch):
    whole = fine_tune(tiny, learned_from, tmp_path / "whole")
    assert whole.metrics["rows"]["train"] == len(TRAIN)
    assert whole.metrics["sources"]["train"] == learned_from.folder
    assert whole.metrics["data_sha256"]["train"] == learned_from.manifest.digest()
    assert whole.task.labels == learned_from.task.labels
    interrupt(monkeypatch, (1, 3), crash)
    with pytest.raises(Stop):
        fine_tune(tiny, prepared.Prepared(learned_from.folder), tmp_path / "run", save_every=0)
    monkeypatch.undo()
    resumed = fine_tune(tiny, prepared.Prepared(learned_from.folder), tmp_path / "run", save_every=0, resume=True)
    for one, other in zip(whole.model.get_weights(), resumed.model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    drop = ("seconds",)
    rows_of = [[{k: v for k, v in row.items() if k not in drop} for row in each.history] for each in (whole, resumed)]
    assert rows_of[0] == rows_of[1] and whole.metrics["metrics"] == resumed.metrics["metrics"]


def test_fine_tune_says_what_it_cannot_do_with_prepared_data(tiny, learned_from, data, tmp_path):
    for changes, message in [
        (
            {"validation": None},
            r"is read as a stream, of which nothing is held out; give validation data \(--validation\)",
        ),
        ({"task": tfbert.MaskedLM()}, "was prepared for sequence-classification, not for masked-lm"),
        (
            {"task": dataclasses.replace(TASK, labels=("x", "y"))},
            r"was prepared with labels \(.*\), not \('x', 'y'\); prepare the data anew, or leave it out",
        ),
        ({"task": dataclasses.replace(TASK, max_length=20)}, "was prepared with max_length .*, not 20"),
        ({"adapt": "train"}, "holds tokens alone; give the text to adapt to"),
    ]:
        given = {"task": TASK, "validation": VALIDATION, "directory": tmp_path / "run", **changes}
        with pytest.raises(InputError, match=message):
            training.fine_tune(given.pop("task"), tiny, learned_from, given.pop("validation"), **given)
    assert not list(tmp_path.iterdir())


def test_another_tokenizer_is_told(learned_from, tiny_electra, tiny_gpt2):
    assert learned_from.features(learned_from.task, tokenization.load_tokenizer(tiny_electra))  # has the same
    with pytest.raises(
        InputError, match="was prepared with another tokenizer than this checkpoint's; prepare the data"
    ):
        learned_from.features(learned_from.task, tokenization.load_tokenizer(tiny_gpt2))


def test_fields_that_rows_do_not_depend_on_may_be_others(learned_from):
    task = learned_from.fill(dataclasses.replace(TASK, dropout=0.3, label_smoothing=0.1))
    assert (task.dropout, task.label_smoothing, task.labels) == (0.3, 0.1, learned_from.task.labels)


def test_examples_come_back_in_their_order_where_they_were_kept(tiny, data, tmp_path):
    assert list(data.examples()) == rows()
    task = tfbert.SequenceClassification(max_length=8, long_text="windows")
    windows = tfbert.prepare(task, tiny, rows(40), tmp_path / "windows", shards=3, keep_examples=True)
    assert list(windows.examples()) == rows(40)
    document = [{"text": "good film " * (1 + i % 5)} for i in range(20)]
    masked = tfbert.prepare(tfbert.MaskedLM(max_length=8), tiny, document, tmp_path / "masked", keep_examples=True)
    assert masked.manifest.counts.records > 20 and list(masked.examples()) == document
    without = tfbert.prepare(task, tiny, rows(9), tmp_path / "without")
    with pytest.raises(InputError, match=r"holds no examples, only their tokens.*keep_examples \(--keep-examples\)"):
        without.examples()


# 6. what was altered


@pytest.fixture
def copy(tiny, tmp_path) -> prepared.Prepared:
    return tfbert.prepare(tfbert.SequenceClassification(max_length=24), tiny, rows(60), tmp_path / "copy", shards=3)


def test_a_shard_that_is_missing_cut_off_or_altered_is_told_by_its_name(copy, tokenizer, tmp_path):
    path = tmp_path / "copy" / copy.manifest.shards[1].file
    whole = path.read_bytes()
    copy.verify()
    altered = bytearray(whole)
    altered[len(whole) // 2] ^= 1
    path.write_bytes(altered)
    again = prepared.Prepared(copy.folder)  # as large as before
    with pytest.raises(
        InputError, match="part-00001-of-00003.tfrecord was altered: its SHA-256 is not that of manifest"
    ):
        again.verify()
    with pytest.raises(InputError, match="part-00001-of-00003.tfrecord was altered"), again.told():
        list(again.dataset(tokenizer))
    path.write_bytes(whole[:-20])
    with pytest.raises(
        InputError, match=r"part-00001-of-00003.tfrecord has [\d,]+ bytes, not the [\d,]+ that were written"
    ):
        prepared.Prepared(copy.folder)
    with pytest.raises(InputError, match="has .* bytes, not the"), copy.told():  # cut off after it was opened
        list(copy.dataset(tokenizer))
    path.unlink()
    with pytest.raises(
        InputError, match="part-00001-of-00003.tfrecord is missing; copy it again, or prepare the data again"
    ):
        prepared.Prepared(copy.folder)


def test_a_manifest_of_another_kind_is_told(copy, tmp_path):
    path = tmp_path / "copy" / "manifest.json"
    value = json.loads(path.read_text())
    for changed, message in [
        (
            {**value, "format_version": 2},
            "format_version is 2, this tfbert reads 1; prepare the data again, or install",
        ),
        ({"a": 1}, "is not the manifest of prepared data"),
        ({**value, "shards": [{"file": "x"}]}, "manifest.json is damaged"),
    ]:
        path.write_text(json.dumps(changed))
        with pytest.raises(InputError, match=message):
            prepared.Prepared(copy.folder)
    path.write_text("{")
    with pytest.raises(InputError, match="manifest.json is not valid JSON"):
        prepared.Prepared(copy.folder)
    path.unlink()
    with pytest.raises(InputError, match="holds no manifest.json: it is no folder that `tfbert prepare` wrote"):
        prepared.Prepared(copy.folder)


@pytest.mark.slow
def test_a_record_that_is_damaged_while_training_ends_the_run_with_the_file(copy, tiny, tmp_path, capsys):
    path = tmp_path / "copy" / copy.manifest.shards[2].file
    altered = bytearray(path.read_bytes())
    altered[len(altered) // 2] ^= 1
    path.write_bytes(altered)
    with pytest.raises(InputError, match="part-00002-of-00003.tfrecord was altered.*copy it again"):
        training.fine_tune(copy.task, tiny, copy, rows(20, 1), directory=tmp_path / "run", **{**OPTIONS, "epochs": 1})


def test_parts_are_of_a_size(monkeypatch):
    monkeypatch.setattr(parts, "EXAMPLES", 3)
    monkeypatch.setattr(parts, "CHARACTERS", 100)
    given = from_iterable([{"text": "a" * size} for size in (10, 10, 10, 10, 90, 10, 10)])
    cut = [len(block) for block, _ in parts.blocks(given.select([i]) for i in range(len(given)))]
    assert cut == [3, 1, 1, 2]
