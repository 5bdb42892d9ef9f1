"""Growth: fits on numbers of known law, and the requests to the workers."""

import json

import numpy as np
import pytest

from npformer.bench import scaling
from npformer.bench.fit import power_law
from npformer.bench.scaling import Curve, Growth
from npformer.bench.subject import Subject
from npformer.bench.worker import Job
from tests.bench.made_up import RULES

TOKENS = [49, 196, 441, 784, 1764]


@pytest.mark.parametrize("exponent", [0, 1, 1.37, 2])
def test_a_power_law_is_found(exponent):
    assert power_law(TOKENS, [0.03 * n**exponent for n in TOKENS]) == pytest.approx((0.03, exponent))


def test_noise_moves_an_exponent_little():
    noise = np.random.default_rng(0).uniform(0.95, 1.05, len(TOKENS))
    assert power_law(TOKENS, [n**2 * factor for n, factor in zip(TOKENS, noise, strict=True)])[1] == pytest.approx(
        2, abs=0.05
    )


def test_a_curve_tells_how_it_grows():
    curve = Curve("attention", TOKENS, [[n**2, 3 * n**2, n] for n in TOKENS])
    assert curve.milliseconds == [n**2 for n in TOKENS], "the median of the rounds"
    assert curve.exponent == pytest.approx(2)
    assert curve.steps == pytest.approx([2, 2, 2, 2])
    mixed = Curve("linear, then quadratic", [1, 2, 4], [[1.0], [2.0], [8.0]])
    assert mixed.steps == pytest.approx([1, 2])
    assert Curve("batches", [8, 16, 64], [[80.0], [150.0], [704.0]]).deviation == pytest.approx(0.1)
    assert Curve("in proportion", [8, 64], [[80.0], [640.0]]).deviation == 0


@pytest.fixture
def growth(monkeypatch):
    """Return the growth on stub workers of 2 ms a picture, 0.01 ms a token; attention's is its tokens squared."""
    jobs = []

    def run(job, name):
        jobs.append(job)
        if job.contestant == "attention":
            return {"milliseconds": [1e-5 * job.shape[1] ** 2]}
        batch, _, side, _ = job.shape
        return {"milliseconds": [2.0 * batch if side == 224 and batch > 1 else 0.01 * (side // 4) ** 2]}

    monkeypatch.setattr(Job, "run", run)
    monkeypatch.setattr(scaling, "prepare", lambda name, size, directory: Subject(name, directory, 3, 224))
    lines = []
    found = scaling.measure(RULES, lines.append)
    assert len(lines) == 5
    found.jobs = jobs
    return found


def test_what_is_measured(growth):
    assert [curve.name for curve in growth.batches] == ["efficientformer-l1", "efficientnet-b0", "swiftformer-xs"]
    assert [curve.deviation for curve in growth.batches] == pytest.approx([0, 0, 0])
    swift, attention = growth.tokens
    assert (swift.sizes[0], swift.sizes[-1]) == (3136, 50176)
    assert swift.exponent == pytest.approx(1)
    assert attention.sizes[:3] == [49, 196, 441]
    assert attention.exponent == pytest.approx(2)
    assert len(growth.jobs) == RULES.rounds * (3 * 4 + len(swift.sizes) + len(attention.sizes))
    shapes = [job.shape for job in growth.jobs[:8]]
    assert shapes == [(batch, 3, 224, 224) for batch in (8, 16, 32, 64)] * 2, "round by round"


def test_tables_and_json(growth):
    lines = scaling.format_growth(growth, RULES).splitlines()
    assert lines[0].split() == ["ms", "per", "picture", "at", "batch", "8", "16", "32", "64", "8", "to", "64"]
    assert lines[1].split() == ["efficientformer-l1", "2.00", "2.00", "2.00", "2.00", "+0.0%"]
    assert lines[lines.index("swiftformer-xs") + 1].split() == ["tokens", "ms", "us", "per", "token", "exponent"]
    assert lines[lines.index("swiftformer-xs") + 2].split() == ["3136", "31.36", "10.00"]
    assert lines[lines.index("swiftformer-xs") + 3].split() == ["6400", "64.00", "10.00", "1.00"]
    told = scaling.as_json(growth, RULES)
    assert json.loads(json.dumps(told)) == told
    assert told["batches"][0]["batch"] == [8, 16, 32, 64]
    assert told["tokens"][1]["exponent"] == pytest.approx(2)
    assert isinstance(growth, Growth)
