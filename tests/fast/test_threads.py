"""Threads, scratch memory, and the stopwatch."""

import itertools
import os
import subprocess
import sys
import threading
import time
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest

import npformer
from npformer.fast import threads
from npformer.models import pretrained
from tests.sweep import sweep

LONGEST = 600  # seconds, and only where something hangs


@pytest.fixture(autouse=True)
def as_before():
    yield
    npformer.set_num_threads(None)


def test_every_task_is_done_once_whatever_the_number_of_threads():
    for n in (1, 2, 5):
        npformer.set_num_threads(n)
        assert npformer.get_num_threads() == n
        done = []
        with threads.sharing():
            assert threads.parts() == n
            threads.run([partial(done.append, i) for i in range(50)])
        assert sorted(done) == list(range(50))
        assert threads.parts() == 1


def test_tasks_run_side_by_side():
    npformer.set_num_threads(3)
    together = threading.Barrier(3, timeout=LONGEST)
    with threads.sharing():
        threads.run([together.wait] * 3)  # would break if fewer than three ran at once


def test_outside_of_sharing_and_inside_a_task_tasks_run_on_the_thread_that_asks():
    npformer.set_num_threads(3)
    seen = []
    threads.run([lambda: seen.append(threading.get_ident())] * 9)
    assert set(seen) == {threading.get_ident()}

    def outer():
        inner = []
        assert threads.parts() == 1
        threads.run([lambda: inner.append(threading.get_ident())] * 9)
        seen.append(set(inner) == {threading.get_ident()})

    seen.clear()
    with threads.sharing():
        threads.run([outer] * 6)
    assert seen == [True] * 6


@pytest.mark.parametrize("n", [1, 4])
def test_an_error_of_a_task_is_raised_after_all_have_stopped(n):
    npformer.set_num_threads(n)
    running = []

    def fail():
        raise ArithmeticError("of a task")

    def work():
        running.append(1)
        time.sleep(0.05)
        running.pop()

    for tasks in ([fail, work, work], [work, fail, work]):
        with pytest.raises(ArithmeticError, match="of a task"), threads.sharing():
            threads.run(tasks)
        assert not running
        assert threads.parts() == 1


def test_blas_is_held_to_one_thread_and_released():
    if not threads._blas.known:
        pytest.skip("NumPy's BLAS is not OpenBLAS here")
    before = threads._blas._get()
    npformer.set_num_threads(2)
    seen = []
    with threads.sharing():
        threads.run([lambda: seen.append(threads._blas._get())] * 4)
    assert seen == [1] * 4
    assert threads._blas._get() == before
    with pytest.raises(ZeroDivisionError), threads.sharing():
        threads.run([lambda: 1 / 0, lambda: None])
    assert threads._blas._get() == before


def test_many_callers_at_once_get_all_their_tasks_done():
    npformer.set_num_threads(2)
    counts = [0] * 8

    def call(i):
        for _ in range(20):
            done = []
            with threads.sharing():
                threads.run([partial(done.append, j) for j in range(5)])
            counts[i] += len(done)

    callers = [threading.Thread(target=call, args=(i,)) for i in range(8)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert counts == [100] * 8


@pytest.mark.parametrize("n", [0, -1])
def test_fewer_than_one_thread_is_refused(n):
    with pytest.raises(ValueError, match=f"n must be at least 1, got {n}"):
        npformer.set_num_threads(n)


@pytest.mark.parametrize("n", [1.0, "2", True])
def test_what_is_no_whole_number_of_threads_is_refused(n):
    with pytest.raises(TypeError, match="n must be a whole number of threads or None"):
        npformer.set_num_threads(n)


@pytest.mark.parametrize(
    ("name", "limit"),
    sweep(itertools.product(["OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS"], [1, 2]), lambda case: case[1] == 1),
)
def test_the_limits_of_the_environment_are_honoured(name, limit):
    if not threads._blas.known or (os.cpu_count() or 1) < 2:
        pytest.skip("needs NumPy's OpenBLAS and two cores")
    clean = {key: value for key, value in os.environ.items() if not key.endswith("_NUM_THREADS")}
    code = "import npformer; print(npformer.get_num_threads())"
    run = subprocess.run(
        [sys.executable, "-c", code], env={**clean, name: str(limit)}, capture_output=True, text=True, check=True
    )
    assert int(run.stdout) == limit


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_forked_child_makes_threads_of_its_own():
    npformer.set_num_threads(2)
    with threads.sharing():
        threads.run([lambda: None] * 4)  # the parent has its helpers now
    pid = os.fork()
    if pid == 0:
        together = threading.Barrier(2, timeout=LONGEST)
        try:
            with threads.sharing():
                threads.run([together.wait] * 2)
        except BaseException:
            os._exit(1)
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0


def test_memory_of_results_is_taken_again_only_when_nobody_refers_to_it():
    first = threads.fresh((3, 1000), np.float32)
    address = first.ctypes.data
    first[...] = 1
    view = first[1:]
    del first
    second = threads.fresh((3, 1000), np.float32)
    second[...] = 2
    assert second.ctypes.data != address
    assert (view == 1).all()
    del view
    assert threads.fresh((3, 1000), np.float32).ctypes.data == address
    kept = [threads.fresh((50, number), np.float64) for number in range(1, 100)]
    for number, array in enumerate(kept):
        array[...] = number
    assert all((array == number).all() for number, array in enumerate(kept))
    assert all(array.ctypes.data % 64 == 0 for array in kept)


def test_memory_of_results_is_that_of_one_thread():
    """Or two threads might take the same piece at once."""
    kept = threads.fresh((5, 1000), np.float32)
    address = kept.ctypes.data
    del kept
    elsewhere = []
    other = threading.Thread(target=lambda: elsewhere.append(threads.fresh((5, 1000), np.float32)))
    other.start()
    other.join()
    assert elsewhere[0].ctypes.data != address
    assert threads.fresh((5, 1000), np.float32).ctypes.data == address


def test_scratch_is_kept_by_name_dtype_and_thread():
    first = threads.scratch("a test", (3, 4), np.float32)
    assert not first.any()
    first[...] = 7
    assert threads.scratch("a test", (2, 5), np.float32).base is not None
    assert (threads.scratch("a test", (3, 4), np.float32) == 7).all()
    assert not threads.scratch("a test", (3, 4), np.float64).any()
    assert not threads.scratch("another", (3, 4), np.float32).any()
    assert threads.scratch("a test", (3, 4), np.float32).ctypes.data % 64 == 0
    elsewhere = []
    other = threading.Thread(target=lambda: elsewhere.append(threads.scratch("a test", (3, 4), np.float32).copy()))
    other.start()
    other.join()
    assert not elsewhere[0].any()


def test_a_profile_counts_time_operations_and_bytes_of_every_thread(monkeypatch):
    npformer.set_num_threads(2)
    clock = threading.local()  # of each thread its own, which goes only while it works
    monkeypatch.setattr(threads, "time", SimpleNamespace(perf_counter=lambda: getattr(clock, "now", 0.0)))

    def work():
        clock.now = getattr(clock, "now", 0.0) + 0.25
        threads.lap("work", 10, 100)

    work()  # outside of a profile nothing is counted
    with threads.profile() as profile, threads.sharing():
        threads.run([work] * 4)
    assert profile.seconds["work"] == 1
    assert profile.flops["work"] == 40
    assert profile.bytes["work"] == 400


def test_a_small_network_takes_one_thread_unless_told_otherwise(monkeypatch):
    class Asked(Exception):
        """For threads; nothing is computed."""

    def sharing(count):
        raise Asked(count)

    monkeypatch.setattr(threads._blas, "limit", lambda: 3)
    monkeypatch.setattr(pretrained, "sharing", sharing)
    small = npformer.fuse(npformer.get_model("efficientnet-fashion", pretrained=True))
    large = npformer.fuse(npformer.get_model("efficientnet-b0", seed=0))
    cases = [
        (small, 96, None, 1),
        (small, 1024, None, 3),
        (small, 96, 2, 2),
        (large, 224, None, 3),
        (large, 96, None, 1),
    ]
    for model, side, told, expected in cases:
        npformer.set_num_threads(told)
        for batch in (1, 2):
            with pytest.raises(Asked) as asked:
                model(np.zeros((batch, 3, side, side), np.float32))
            assert asked.value.args == (expected,), (side, told)
