"""Every picture is counted exactly once, whatever happens to the workers."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from itertools import count

import pytest

from npformer.evaluate import evaluate, evaluation, open_data_set
from npformer.evaluate import run as run_module
from npformer.evaluate.data import Item
from npformer.evaluate.job import Job
from npformer.evaluate.run import Here, classify_all, process_pool
from tests.evaluate.made_up import Deadly, Slow, class_folders

MODEL = "efficientnet-fashion"  # the quickest


def lines(path):
    """Results by number, each once; the header is left out."""
    _, *records = [json.loads(line) for line in path.read_text().splitlines()]
    numbered = {record["number"]: record for record in records}
    assert len(numbered) == len(records), "a picture was counted twice"
    return numbered


@pytest.fixture
def undisturbed(tmp_path):
    """Return the results of an undisturbed run of one worker on a data set."""

    def run(data):
        evaluate(MODEL, data, output=tmp_path / "undisturbed.jsonl", batch=8)
        return lines(tmp_path / "undisturbed.jsonl")

    return run


def close(one, other):
    """Return whether two results are equal up to the last digits, which depend on the batch of a matrix product."""
    assert one.keys() == other.keys()
    for number, record in one.items():
        assert record["label"] == other[number]["label"]
        assert record["top"] == other[number]["top"]
        assert record["probs"] == pytest.approx(other[number]["probs"], abs=2e-6)
    return True


class Losing(Executor):
    """Executor that runs the work at once, but breaks permanently when `breaks` is true of a share's numbers."""

    def __init__(self, breaks, began):
        self.breaks, self.broken, self.began = breaks, False, began

    def submit(self, function, job, data, share, threads):
        if self.broken:
            raise BrokenProcessPool("gone")
        numbers = [item.number for item in share]
        self.began.append(numbers)
        future = Future()
        if self.breaks(numbers):
            self.broken = True
            future.set_exception(BrokenProcessPool("a process was terminated abruptly"))
        else:
            future.set_result([{"number": number, "key": "", "label": None} for number in numbers])
        return future


def losing(breaks, total=100, workers=2):
    found, began = [], []
    items = (Item(number, str(number), None) for number in range(total))
    classify_all(
        Job("m"), None, items, lambda: Losing(breaks, began), found.extend, workers=workers, threads=1, share=16
    )
    assert sorted(record["number"] for record in found) == list(range(total))
    return {record["number"] for record in found if "error" in record}, began


def test_nothing_is_lost_when_workers_die_at_random():
    died = count()
    errors, _ = losing(lambda numbers: next(died) % 3 == 1)
    assert errors == set()


def test_a_picture_that_kills_its_worker_is_found_and_the_others_are_not_blamed():
    errors, began = losing(lambda numbers: 37 in numbers)
    assert errors == {37}
    assert sum(numbers == [37] for numbers in began) == run_module.TRIES


def test_several_such_pictures_are_found():
    assert losing(lambda numbers: bool({3, 4, 50, 99} & set(numbers)))[0] == {3, 4, 50, 99}


def test_workers_that_never_live_are_an_error_not_a_thousand_broken_pictures():
    with pytest.raises(RuntimeError, match=r"workers were lost 3. times in a row; run with --workers 1"):
        losing(lambda numbers: True)


def test_an_error_of_our_own_is_not_taken_for_a_lost_worker():
    class Wrong(Executor):
        def submit(self, *arguments):
            future = Future()
            future.set_exception(KeyError("a mistake"))
            return future

    with pytest.raises(KeyError, match="a mistake"):
        classify_all(Job("m"), None, iter([Item(0, "0", None)]), Wrong, lambda records: None, workers=1, threads=1)


def test_few_shares_are_under_way_at_a_time():
    listed, most = count(), []
    done = []
    items = (Item(next(listed), "", None) for _ in range(1000))

    class Counting(Losing):
        def submit(self, *arguments):
            most.append(next(listed) - len(done))
            next_number.append(1)
            return super().submit(*arguments)

    next_number = []
    classify_all(
        Job("m"), None, items, lambda: Counting(lambda numbers: False, []), done.extend, workers=2, threads=1, share=16
    )
    assert len(done) == 1000
    assert max(most) < 16 * 2 * 2 + 16 + len(next_number)


def test_here_is_an_executor():
    assert Here().submit(max, 1, 2).result() == 2
    assert isinstance(Here().submit(int, "x").exception(), ValueError)


def test_processes_give_what_one_process_gives(tmp_path, undisturbed):
    data = open_data_set(class_folders(tmp_path / "val", 10))
    evaluate(MODEL, data, workers=2, output=tmp_path / "two.jsonl", batch=4)
    assert close(lines(tmp_path / "two.jsonl"), undisturbed(data))


@pytest.mark.parametrize("kind", [ThreadPoolExecutor, ProcessPoolExecutor])
def test_any_executor_will_do_and_stays_open(tmp_path, undisturbed, kind):
    data = open_data_set(class_folders(tmp_path / "val", 6))
    with process_pool(2) if kind is ProcessPoolExecutor else kind(2) as executor:
        evaluate(MODEL, data, executor=executor, output=tmp_path / "lent.jsonl", batch=4)
        assert executor.submit(int, "7").result() == 7
    assert close(lines(tmp_path / "lent.jsonl"), undisturbed(data))


def test_worker_processes_killed_by_a_picture(tmp_path, undisturbed):
    notes = tmp_path / "notes"
    notes.mkdir()
    expected = undisturbed(Deadly(40))
    data = Deadly(40, always=(13,), once=(5, 30), notes=notes)
    evaluate(MODEL, data, workers=2, output=tmp_path / "killed.jsonl", batch=8)
    found = lines(tmp_path / "killed.jsonl")
    assert found.pop(13)["error"] == "whoever opens it dies (3 times)"
    expected.pop(13)
    assert close(found, expected)
    assert {"5", "13", "30"} == {path.name for path in notes.iterdir()}


@contextmanager
def one_worker_killed(notes):
    """Kill the first worker that announces itself, within the block."""
    killed = []

    def kill_one():
        while not (workers := list(notes.glob("worker-*"))):
            time.sleep(0.01)
        time.sleep(0.1)
        killed.append(int(workers[0].name.removeprefix("worker-")))
        os.kill(killed[0], signal.SIGKILL)

    killer = threading.Thread(target=kill_one, daemon=True)
    killer.start()
    yield
    killer.join(timeout=10)
    assert len(killed) == 1, "no worker was killed"


def test_a_worker_process_killed_from_outside(tmp_path, undisturbed):
    notes = tmp_path / "notes"
    notes.mkdir()
    with one_worker_killed(notes):
        evaluate(MODEL, Slow(120, notes=notes), workers=2, output=tmp_path / "killed.jsonl", batch=8)
    assert len(list(notes.glob("worker-*"))) > 2, "nobody took the dead worker's place"
    assert close(lines(tmp_path / "killed.jsonl"), undisturbed(Deadly(120)))


def test_a_run_that_is_interrupted_goes_on_where_it_was(tmp_path, undisturbed):
    root = class_folders(tmp_path / "val", 200)
    output = tmp_path / "out.jsonl"
    command = [sys.executable, "-m", "npformer", "evaluate", str(root), "--model", "efficientformer-fashion"]
    command += ["--workers", "2", "--batch", "4", "--output", str(output)]
    running = subprocess.Popen(
        command,
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # of tests run with "&" it is ignored
    )
    while not output.exists() or output.read_text().count("\n") < 12:
        assert running.poll() is None, running.stderr.read()
        time.sleep(0.01)
    running.send_signal(signal.SIGINT)
    _, said = running.communicate(timeout=60)
    assert running.returncode == 130, said
    assert "the same command goes on from there" in said
    assert "Traceback" not in said
    halfway = lines(output)
    assert 8 <= len(halfway) < 600
    finished = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert finished.returncode == 0, finished.stderr
    whole = lines(output)
    assert {number: whole[number] for number in halfway} == halfway
    evaluate("efficientformer-fashion", open_data_set(root), output=tmp_path / "undisturbed.jsonl")
    assert close(whole, lines(tmp_path / "undisturbed.jsonl"))


def test_a_dask_cluster_that_loses_a_worker(tmp_path, undisturbed):
    distributed = pytest.importorskip("distributed")
    notes = tmp_path / "notes"
    notes.mkdir()
    options = {"n_workers": 2, "threads_per_worker": 1, "dashboard_address": None, "silence_logs": 50}
    with distributed.LocalCluster(**options) as cluster, one_worker_killed(notes):
        address = cluster.scheduler_address
        evaluate(MODEL, Slow(120, notes=notes), dask=address, output=tmp_path / "dask.jsonl", batch=8)
    assert close(lines(tmp_path / "dask.jsonl"), undisturbed(Deadly(120)))


def test_a_dask_scheduler_that_is_not_there(tmp_path, monkeypatch):
    pytest.importorskip("distributed")
    monkeypatch.setattr(evaluation, "DASK_SECONDS", 0.5)
    with pytest.raises(OSError, match=r"dask tcp://127\.0\.0\.1:9: no scheduler answers there"):
        evaluate(MODEL, Deadly(3), dask="tcp://127.0.0.1:9", output=tmp_path / "dask.jsonl")
