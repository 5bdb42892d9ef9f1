"""Records in a results file are kept, and count once."""

import json

import numpy as np
import pytest

from npformer.evaluate.metrics import BINS, WORST, Metrics
from npformer.evaluate.results import Results

HEADER = {"model": "m", "limit": None}


def record(number, label=0, top=(0, 1, 2), probs=(0.5, 0.3, 0.1)):
    hits = [guess == label for guess in top]
    return {
        "number": number, "key": str(number), "label": label, "top": list(top), "probs": list(probs),
        "top1": hits[0], "top5": any(hits),
    }  # fmt: skip


def test_records_are_appended_and_read_again(tmp_path):
    path = tmp_path / "deep" / "out.jsonl"
    first = Results(path, HEADER)
    first.append([record(3), record(1)])
    assert [found["number"] for found in first] == [3, 1]
    first.close()
    second = Results(path, HEADER)
    second.append([record(0)])
    assert second.done(5).tolist() == [True, True, False, True, False]
    second.close()
    assert path.read_text().count("\n") == 4


@pytest.mark.parametrize("cut", range(1, 60, 7))
def test_a_line_that_was_cut_off_is_dropped(tmp_path, cut):
    path = tmp_path / "out.jsonl"
    results = Results(path, HEADER)
    results.append([record(0), record(1)])
    results.close()
    path.write_bytes(path.read_bytes()[:-cut])
    results = Results(path, HEADER)
    results.append([record(1)])
    assert [found["number"] for found in results] == [0, 1]
    results.close()


def test_results_of_another_run_are_refused_and_kept(tmp_path):
    path = tmp_path / "out.jsonl"
    Results(path, HEADER).close()
    before = path.read_bytes()
    with pytest.raises(ValueError, match="holds results of another run: its limit is None, not 7; give --output"):
        Results(path, {**HEADER, "limit": 7})
    assert path.read_bytes() == before


@pytest.mark.parametrize("content", ["my notes\n", "[1, 2]\n", '{"a": 1}\n', "\0\1\2"])
def test_a_file_of_somebody_else_s_is_refused_and_kept(tmp_path, content):
    path = tmp_path / "notes.txt"
    path.write_text(content)
    with pytest.raises(ValueError, match=r"notes\.txt exists, and holds no results of npformer"):
        Results(path, HEADER)
    assert path.read_text() == content


def test_two_runs_do_not_write_to_one_file(tmp_path):
    pytest.importorskip("fcntl")
    first = Results(tmp_path / "out.jsonl", HEADER)
    with pytest.raises(ValueError, match="is being written to by another run"):
        Results(tmp_path / "out.jsonl", HEADER)
    first.close()
    Results(tmp_path / "out.jsonl", HEADER).close()


def test_a_damaged_line_is_named(tmp_path):
    path = tmp_path / "out.jsonl"
    Results(path, HEADER).close()
    path.write_text(path.read_text() + "nonsense\n" + json.dumps(record(0)) + "\n")
    results = Results(path, HEADER)
    with pytest.raises(ValueError, match=r"out\.jsonl, line 2, is damaged: 'nonsense"):
        list(results)
    results.close()


def test_a_number_beyond_the_data_set_is_named(tmp_path):
    results = Results(tmp_path / "out.jsonl", HEADER)
    results.append([record(9)])
    with pytest.raises(ValueError, match="has a picture of number 9, but DATA holds 5"):
        results.done(5)
    results.close()


# --- metrics ---------------------------------------------------------------------------------------------------------


def test_accuracy_by_hand():
    records = [
        record(0, label=0, top=(0, 1, 2)), record(1, label=1, top=(0, 1, 2)), record(2, label=1, top=(1, 0, 2)),
        record(3, label=3, top=(0, 1, 2)), {"number": 4, "key": "b.png", "label": 2, "error": "broken"},
    ]  # fmt: skip
    metrics = Metrics(records, ["a", "b", "c", "d"])
    assert (metrics.total, metrics.read, metrics.unreadable_count) == (5, 4, 1)
    assert metrics.top1 == 50
    assert metrics.top5 == 75
    assert metrics.unreadable == [("b.png", "broken")]
    assert metrics.confusion.tolist() == [[1, 0, 0, 0], [1, 1, 0, 0], [0, 0, 0, 0], [1, 0, 0, 0]]
    assert metrics.per_class() == [
        ("a", 1, 100, 100, pytest.approx(100 / 3)), ("b", 2, 50, 100, 100), ("d", 1, 0, 0, 0),
    ]  # fmt: skip
    assert json.loads(json.dumps(metrics.to_dict()))["right"] == 2


def test_calibration_by_hand():
    records = [record(0, 0, probs=(0.95, 0, 0)), record(1, 1, probs=(0.97, 0, 0)), record(2, 0, probs=(1.0, 0, 0))]
    metrics = Metrics([*records, record(3, 0, probs=(0.31, 0.3, 0))], ["a", "b", "c"])
    bins = metrics.calibration
    assert bins[-1] == (3, pytest.approx(2.92 / 3), pytest.approx(2 / 3))
    assert bins[3] == (1, pytest.approx(0.31), 1)
    assert sum(n for n, _, _ in bins) == 4
    assert len(bins) == BINS
    assert metrics.calibration_error == pytest.approx((3 * (2.92 / 3 - 2 / 3) + 0.69) / 4)


def test_the_worst_mistakes_are_the_surest():
    generator = np.random.default_rng(0)
    sure = generator.permutation(500) / 500
    metrics = Metrics([record(i, 1, probs=(sure[i], 0, 0)) for i in range(500)], ["a", "b", "c"])
    found = [mistake["probs"][0] for mistake in metrics.worst]
    assert found == sorted(sure, reverse=True)[:WORST]


def test_nothing_readable():
    metrics = Metrics([{"number": 0, "key": "a", "label": 0, "error": "broken"}], ["a"])
    assert np.isnan(metrics.top1)
    assert metrics.to_dict()["top1"] is None


def test_a_label_the_model_does_not_know_is_named():
    with pytest.raises(ValueError, match="5 has label 9, but the model knows 2 classes"):
        Metrics([record(5, label=9)], ["a", "b"])
