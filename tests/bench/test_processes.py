"""The jobs in processes of their own: requests, the clock, memory, and the machine's peaks."""

import os
import subprocess
import sys

import numpy as np
import pytest

from npformer.bench import peaks, process, timing
from npformer.bench.worker import ATTENTION, Job, work


def test_an_answer_comes_back_and_the_threads_are_in_the_environment(monkeypatch):
    seen = {}

    def run(command, **options):
        seen.update(options["env"], command=command)
        return subprocess.CompletedProcess(command, 0, 'noise\n\n{"a": 1}\n', "warnings")

    monkeypatch.setattr(process.subprocess, "run", run)
    assert process.ask("worker", {"b": 2}, 3, "someone") == {"a": 1}
    assert seen["command"] == [sys.executable, "-m", "npformer.bench.worker", '{"b": 2}']
    assert seen["OPENBLAS_NUM_THREADS"] == seen["OMP_NUM_THREADS"] == "3"


def test_a_failure_is_its_last_sentence(tmp_path):
    job = Job("npformer", str(tmp_path / "nowhere"), (1, 3, 8, 8), 1, 0.01)
    with pytest.raises(ChildProcessError, match=r"npformer on some-model failed: .*nowhere") as caught:
        job.run("some-model")
    assert len(str(caught.value).splitlines()) == 1


def test_runs_are_warmed_up_and_as_many_as_there_is_time_for():
    calls = []
    milliseconds = timing.time_runs(lambda: calls.append(0), 1e-9)
    assert len(calls) == timing.WARM_UPS + len(milliseconds)
    assert len(milliseconds) == timing.LEAST_RUNS
    assert len(timing.time_runs(lambda: None, 0.01)) > timing.LEAST_RUNS
    assert all(value >= 0 for value in milliseconds)


@pytest.mark.skipif(os.name != "posix", reason="memory is not known on this system")
def test_peak_memory_is_this_process_alone():
    large = np.ones(60_000_000, np.uint8)  # 60 MB here, which the child must not count
    script = (
        "import numpy as np; from npformer.bench.timing import peak_megabytes as peak; before = peak(); "
        "large = np.ones(100_000_000, np.uint8); del large; print(before, peak())"
    )
    told = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True).stdout
    before, after = map(float, told.split())
    assert 90 < after - before < 130
    if sys.platform == "linux":
        assert before < timing.peak_megabytes() - 30
    assert large.size


def test_peaks_are_measured():
    found = peaks.Peaks(**peaks.main(threads=2, seconds=0.001))
    assert min(found.gflops, found.gbytes_cache, found.gbytes_memory) > 0
    assert np.isfinite([found.gflops, found.gbytes_cache, found.gbytes_memory]).all()


def test_attention_alone_runs_for_any_number_of_tokens():
    answer = work(Job(ATTENTION, "", (1, 9, 448), 1, 1e-9))
    assert len(answer["milliseconds"]) == timing.LEAST_RUNS
    assert "profile" not in answer
