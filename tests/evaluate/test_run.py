"""Every picture is counted exactly once, whatever becomes of the workers."""

import json
import os
import random
import re
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from itertools import count

import numpy as np
import pytest

from npformer.evaluate import evaluate, evaluation, open_data_set
from npformer.evaluate import run as run_module
from npformer.evaluate.data import Item
from npformer.evaluate.job import Job
from npformer.evaluate.run import Here, classify_all, process_pool
from tests.evaluate.made_up import LONGEST, Deadly, Held, class_folders, until
from tests.sweep import sweep

MODEL = "efficientnet-fashion"  # the quickest


def lines(path):
    """Results by number, each once; the header is left out."""
    _, *records = [json.loads(line) for line in path.read_text().splitlines()]
    numbered = {record["number"]: record for record in records}
    assert len(numbered) == len(records), "a picture was counted twice"
    return numbered


@pytest.fixture
def undisturbed(tmp_path):
    """What a run of one worker, left alone, writes about a data set."""

    def run(data):
        evaluate(MODEL, data, output=tmp_path / "undisturbed.jsonl", batch=8)
        return lines(tmp_path / "undisturbed.jsonl")

    return run


def close(one, other):
    """Whether two results are the same but for the last digits, which depend on who shared a matrix product."""
    assert one.keys() == other.keys()
    for number, record in one.items():
        assert record["label"] == other[number]["label"]
        assert record["top"] == other[number]["top"]
        assert record["probs"] == pytest.approx(other[number]["probs"], abs=2e-6)
    return True


class Losing(Executor):
    """Does the work at once, but breaks for good whenever `breaks` says so of a share's numbers."""

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


@pytest.mark.parametrize("chance", [0.1, 0.5])
def test_nothing_is_lost_when_workers_die_by_the_hundred(chance):
    for seed in range(50):
        draw = random.Random(seed)
        losing(lambda numbers, draw=draw: draw.random() < chance)


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
    data = open_data_set(class_folders(tmp_path / "val", 4))
    evaluate(MODEL, data, workers=2, output=tmp_path / "two.jsonl", batch=3)
    assert close(lines(tmp_path / "two.jsonl"), undisturbed(data))


@pytest.mark.parametrize("kind", sweep([ThreadPoolExecutor, ProcessPoolExecutor], default=[ThreadPoolExecutor]))
def test_any_executor_will_do_and_stays_open(tmp_path, undisturbed, kind):
    data = open_data_set(class_folders(tmp_path / "val", 6))
    with process_pool(2) if kind is ProcessPoolExecutor else kind(2) as executor:
        evaluate(MODEL, data, executor=executor, output=tmp_path / "lent.jsonl", batch=4)
        assert executor.submit(int, "7").result() == 7
    assert close(lines(tmp_path / "lent.jsonl"), undisturbed(data))


@pytest.mark.parametrize(
    ("count", "always", "once", "batch"), sweep([(4, 1, (), 1), (40, 13, (5, 30), 8)], default=[(4, 1, (), 1)])
)
def test_worker_processes_killed_by_a_picture(tmp_path, notes, undisturbed, count, always, once, batch):
    expected = undisturbed(Deadly(count))
    data = Deadly(count, always=(always,), once=once, notes=notes)
    evaluate(MODEL, data, workers=2, output=tmp_path / "killed.jsonl", batch=batch)
    found = lines(tmp_path / "killed.jsonl")
    assert found.pop(always)["error"] == "whoever opens it dies (3 times)"
    expected.pop(always)
    assert close(found, expected)
    assert {str(number) for number in (always, *once)} == {path.name for path in notes.iterdir()}


@pytest.fixture
def notes(tmp_path):
    (tmp_path / "notes").mkdir()
    return tmp_path / "notes"


@contextmanager
def meanwhile(act):
    """What happens on another thread while something runs here, and must have happened before that is over."""
    done = []
    thread = threading.Thread(target=lambda: done.append(act()), daemon=True)
    thread.start()
    yield
    thread.join(LONGEST)
    assert done, "it did not happen"


def kill_one(data, of):
    """When so many workers have opened a picture each and wait there, kill one."""
    until(lambda: len(data.openers()) == of)
    os.kill(min(data.openers()), signal.SIGKILL)
    data.go(0)


def test_a_worker_process_killed_from_outside(tmp_path, notes, undisturbed):
    data = Held(24, notes)
    with meanwhile(lambda: kill_one(data, of=2)):
        evaluate(MODEL, data, workers=2, output=tmp_path / "killed.jsonl", batch=8)
    assert len(data.openers()) > 2, "nobody took the dead worker's place"
    assert close(lines(tmp_path / "killed.jsonl"), undisturbed(Deadly(24)))


def stops(seed, total):
    """Where to kill: at pictures that lie far enough apart that none is alone with three deaths."""
    return tuple(int(stop) for stop in np.cumsum(np.random.default_rng(seed).integers(3, 8, total)))


@pytest.mark.exhaustive
@pytest.mark.parametrize("seed", range(6))
def test_worker_processes_killed_again_and_again(tmp_path, notes, undisturbed, monkeypatch, seed):
    """Any of them, whatever it does at that moment: start, open a picture, compute, answer or wait."""
    pools = []
    monkeypatch.setattr(evaluation, "process_pool", lambda count: pools.append(process_pool(count)) or pools[-1])
    draw, places = random.Random(seed), stops(seed, 12)
    count = places[-1] + 10
    data = Held(count, notes, places)

    def kill():
        for stop in places:
            until(lambda stop=stop: data.openers(stop))
            time.sleep(draw.uniform(0, 0.1))
            with suppress(ProcessLookupError, TypeError):  # the pool is broken already, and its processes forgotten
                os.kill(draw.choice(sorted(pools[-1]._processes)), signal.SIGKILL)
            data.go(stop)

    with meanwhile(kill):
        evaluate(MODEL, data, workers=2, output=tmp_path / "killed.jsonl", batch=4)
    assert len(pools) > 1, "nobody was killed"
    assert close(lines(tmp_path / "killed.jsonl"), undisturbed(Deadly(count)))


# --- a run that ends early -------------------------------------------------------------------------------------------


def start(root, output):
    """The command with two workers, in a group of processes of its own."""
    command = [sys.executable, "-m", "npformer", "evaluate", str(root), "--model", MODEL, "--workers", "2"]
    return subprocess.Popen(
        [*command, "--batch", "4", "--output", str(output)],
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # of tests run with "&" it is ignored
    )


def written(output):
    """How many pictures have a result."""
    return output.read_text().count("\n") - 1 if output.exists() else 0


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no FIFOs on this system")
def test_a_run_that_is_interrupted_goes_on_where_it_was(tmp_path, undisturbed):
    root, output = class_folders(tmp_path / "val", 8), tmp_path / "out.jsonl"
    held = root / "Bag" / "1.png"  # number 9; whoever opens it waits for somebody to write it
    content = held.read_bytes()
    held.unlink()
    os.mkfifo(held)
    running = start(root, output)
    until(lambda: written(output) == 20 or running.poll() is not None)  # all but the share of four that it is in
    running.send_signal(signal.SIGINT)
    said = running.stderr.readline() + running.stderr.readline()
    assert "the same command goes on from there" in said
    held.write_bytes(b"")  # nobody waits for the result any more
    rest = running.communicate(timeout=LONGEST)[1]
    assert (running.returncode, rest) == (130, "")
    halfway = lines(output)
    assert sorted({*range(24)} - {*halfway}) == [8, 9, 10, 11]
    held.unlink()
    held.write_bytes(content)
    evaluate(MODEL, open_data_set(root), output=output, batch=4)
    whole = lines(output)
    assert {number: whole[number] for number in halfway} == halfway
    assert close(whole, undisturbed(open_data_set(root)))


@pytest.mark.exhaustive
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_run_that_is_killed_again_and_again_goes_on_where_it_was(tmp_path, undisturbed, number):
    """All its processes at once, as a machine that goes down would; whatever the moment."""
    root, output = class_folders(tmp_path / "val", 40), tmp_path / "out.jsonl"
    draw = random.Random(number)
    for _ in range(4):
        running, enough = start(root, output), written(output) + draw.randint(0, 20)
        until(lambda running=running, enough=enough: written(output) >= enough or running.poll() is not None)
        time.sleep(draw.uniform(0, 0.05))
        with suppress(ProcessLookupError):  # it was faster
            os.killpg(running.pid, number)
        running.communicate(timeout=LONGEST)
    finished = start(root, output)
    told = finished.communicate(timeout=LONGEST)[1]
    assert finished.returncode == 0, told
    assert close(lines(output), undisturbed(open_data_set(root)))


# --- Dask ------------------------------------------------------------------------------------------------------------


@contextmanager
def cluster(tmp_path, workers):
    """The address of worker processes, on ports that are free, with patience for slow machines."""
    dask, distributed = pytest.importorskip("dask"), pytest.importorskip("distributed")
    patience = dict.fromkeys(["distributed.comm.timeouts.connect", "distributed.comm.timeouts.tcp"], f"{LONGEST}s")
    options = {"threads_per_worker": 1, "dashboard_address": None, "silence_logs": 50, "local_directory": tmp_path}
    with dask.config.set(patience), distributed.LocalCluster(n_workers=workers, **options) as found:
        yield found.scheduler_address


@pytest.mark.parametrize("workers", sweep([1, 2], default=[1]))  # another process takes the dead one's place
def test_a_dask_cluster_that_loses_a_worker(tmp_path, notes, monkeypatch, undisturbed, workers):
    monkeypatch.setattr(evaluation, "DASK_SECONDS", LONGEST)
    data = Held(24, notes)
    with cluster(tmp_path, workers) as address, meanwhile(lambda: kill_one(data, of=workers)):
        evaluate(MODEL, data, dask=address, output=tmp_path / "dask.jsonl", batch=4)
    assert close(lines(tmp_path / "dask.jsonl"), undisturbed(Deadly(24)))


@pytest.mark.exhaustive
@pytest.mark.parametrize("seed", range(2))
def test_a_dask_cluster_that_loses_workers_again_and_again(tmp_path, notes, monkeypatch, undisturbed, seed):
    monkeypatch.setattr(evaluation, "DASK_SECONDS", LONGEST)
    places = stops(seed, 5)
    count = places[-1] + 10
    data = Held(count, notes, places)

    def kill():
        dead = set()
        for stop in places:
            until(lambda stop=stop: data.openers(stop) - dead)
            dead.add(worker := min(data.openers(stop) - dead))
            os.kill(worker, signal.SIGKILL)
            data.go(stop)

    with cluster(tmp_path, 2) as address, meanwhile(kill):
        evaluate(MODEL, data, dask=address, output=tmp_path / "dask.jsonl", batch=4)
    assert close(lines(tmp_path / "dask.jsonl"), undisturbed(Deadly(count)))


def test_a_dask_scheduler_that_is_not_there(tmp_path, monkeypatch, nowhere):
    pytest.importorskip("distributed")
    monkeypatch.setattr(evaluation, "DASK_SECONDS", 0.5)
    with pytest.raises(OSError, match=rf"dask tcp://{re.escape(nowhere)}: no scheduler answers there"):
        evaluate(MODEL, Deadly(3), dask=f"tcp://{nowhere}", output=tmp_path / "dask.jsonl")
