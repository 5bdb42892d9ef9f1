"""Rounds, ratios and the check of the logits, on stubbed workers."""

import math
from pathlib import Path

import numpy as np
import pytest

from npformer.bench import rounds
from npformer.bench.breakdown import REST, break_down
from npformer.bench.rounds import Rules, geometric_means, measure
from npformer.bench.subject import Subject
from npformer.bench.worker import Job
from tests.bench.made_up import PROFILE, RULES, result

SUBJECT = Subject("some-model", Path("weights"), 3, 64)


@pytest.fixture
def workers(monkeypatch):
    """Stub of the processes: each answers with its next time; logits are as given."""

    class Workers:
        def __init__(self):
            self.jobs, self.logits, self.times = [], {}, {}

        def run(self, job, name):
            self.jobs.append(job)
            if job.logits:
                np.save(job.logits, self.logits.get(job.contestant, np.array([[3.0, -4.0]], np.float32)))
            milliseconds = self.times[job.contestant].pop(0)
            answer = {"milliseconds": [milliseconds] * 3, "peak_mb": milliseconds}
            return {**answer, "profile": PROFILE} if job.contestant == "npformer" else answer

    standing_in = Workers()
    monkeypatch.setattr(Job, "run", lambda job, name: standing_in.run(job, name))
    return standing_in


def test_contestants_take_turns_and_ratios_are_taken_within_a_round(workers, tmp_path):
    workers.times = {"npformer": [10, 100, 11], "torch": [20, 50, 44]}
    found = measure(SUBJECT, 2, ["npformer", "torch"], RULES, tmp_path)
    assert [job.contestant for job in workers.jobs] == ["npformer", "torch"] * 3
    assert {job.shape for job in workers.jobs} == {(2, 3, 64, 64)}
    assert {job.model for job in workers.jobs} == {"weights"}
    assert [job.logits is not None for job in workers.jobs] == [True, True, False, False, False, False]
    ratio = found.ratio("torch")
    assert ratio.rounds == [0.5, 2.0, 0.25]
    assert ratio.median == 0.5
    assert found.timings["npformer"].median == 11
    assert found.timings["npformer"].quartiles == (10, 11, 100)
    assert found.timings["torch"].peak_mb == 50, "the largest of the rounds"


def test_an_export_is_made_once_and_all_rounds_use_it(workers, tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(rounds.process, "ask", lambda *arguments: asked.append(arguments))
    workers.times = {"npformer": [1, 1, 1], "onnxruntime": [1, 1, 1]}
    measure(SUBJECT, 4, ["npformer", "onnxruntime"], RULES, tmp_path)
    ((module, request, threads, _),) = asked
    assert (module, threads) == ("transformers_model", 2)
    assert request == {"directory": "weights", "shape": (4, 3, 64, 64), "path": str(tmp_path / "model.onnx")}
    models = {job.contestant: job.model for job in workers.jobs}
    assert models == {"npformer": "weights", "onnxruntime": str(tmp_path / "model.onnx")}


@pytest.mark.parametrize("theirs", [[[3.0, -3.99]], [[3.0, math.nan]], [[-4.0, 3.0]]])
def test_other_logits_are_an_error(workers, tmp_path, theirs):
    workers.times = {"npformer": [1], "torch": [1]}
    workers.logits["torch"] = np.array(theirs)
    with pytest.raises(ValueError, match="logits of some-model must be the same in npformer and torch"):
        measure(SUBJECT, 1, ["npformer", "torch"], Rules(1, 1, 0.01), tmp_path)


def test_rounding_is_no_error(workers, tmp_path):
    workers.times = {"npformer": [1], "torch": [1]}
    workers.logits["torch"] = np.array([[3.001, -4.001]])
    measure(SUBJECT, 1, ["npformer", "torch"], Rules(1, 1, 0.01), tmp_path)


def test_geometric_means_are_of_the_medians_per_rival_and_batch():
    results = [
        result("a", 1, torch=[10, 20, 40], onnxruntime=[5, 5, 5]),  # ratios 1, 1, 1 and 2, 4, 8
        result("b", 1, torch=[40, 80, 160], onnxruntime=[40, 20, 10]),  # 1/4 and 1/4, 1, 4
        result("a", 8, torch=[20, 40, 80], onnxruntime=[10, 20, 40]),
    ]
    means = {(mean.rival, mean.batch): (mean.ratio, mean.models) for mean in geometric_means(results)}
    expected = {
        ("torch", 1): (0.5, 2), ("torch", 8): (0.5, 1), ("onnxruntime", 1): (2.0, 2), ("onnxruntime", 8): (1.0, 1)
    }  # fmt: skip
    assert means.keys() == expected.keys()
    for key, (ratio, models) in expected.items():
        assert means[key] == (pytest.approx(ratio), models), key


def test_a_breakdown_shares_threads_out_and_adds_up():
    parts = {part.kind: part for part in break_down([PROFILE, PROFILE], threads=2)}
    assert list(parts) == ["matrix product", "activation", "new kind", REST]
    assert [part.milliseconds for part in parts.values()] == pytest.approx([30, 15, 5, 30])
    assert sum(part.share for part in parts.values()) == pytest.approx(1)
    assert parts["matrix product"].gflops == pytest.approx(200), "6e11 operations in 3 s of both threads"
    assert parts["matrix product"].gbytes == pytest.approx(8 / 3)
    assert (parts["activation"].gflops, parts["activation"].gbytes) == (0, pytest.approx(6))


def test_a_lone_thread_is_not_shared_out():
    (part, rest) = break_down([{"runs": 1, "seconds": 1.0, "kinds": {"norm": (0.9, 9 * 10**9, 0)}}], threads=2)
    assert (part.milliseconds, part.share, part.gflops) == pytest.approx((900, 0.9, 10))
    assert rest.milliseconds == pytest.approx(100)


def test_a_model_that_counts_nothing_is_all_rest():
    (part,) = break_down([{"runs": 2, "seconds": 1.0, "kinds": {}}], threads=2)
    assert (part.kind, part.milliseconds, part.share) == (REST, 500, 1)
