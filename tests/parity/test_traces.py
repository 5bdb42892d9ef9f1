"""Two dumps compared without a model."""

from pathlib import Path

import numpy as np
import pytest

from npformer import record, watch
from npformer.parity import compare_traces
from tests import tiny
from tests.support import NET, ONE_HEAD, SWIFT


@pytest.fixture(scope="module", params=[ONE_HEAD, NET, SWIFT])
def traces(request):
    model, x = tiny.model(request.param), tiny.pictures()
    return record(model.astype(np.float64), x.astype(np.float64)), record(model, x)


def test_one_model_in_two_dtypes_is_equal(traces):
    report = compare_traces(*traces)
    assert report.equal
    assert report.dtype == "float32"
    assert report.tested == len(traces[0])
    assert compare_traces(traces[1], traces[1]).values[-1].ratio == 0


def test_the_first_difference_is_faulty_and_the_rest_inherited(traces, request):
    exact, _ = traces
    class_name = request.node.callspec.params["traces"]
    model, x = tiny.model(class_name).astype(np.float64), tiny.pictures().astype(np.float64)
    name = list(exact)[len(exact) // 2]

    def off(at, module, inputs, output, layout):
        return output + 0.01 if at == name else output

    with watch(model, off):
        other = record(model, x)
    report = compare_traces(exact, other)
    assert not report.equal
    (fault,) = report.faults
    assert fault.op == name
    assert fault.value.error == pytest.approx(0.01)
    assert fault.got_there - fault.expected_there == pytest.approx(0.01)
    position = list(exact).index(name)
    assert {value.status for value in report.values[:position]} == {"clean"}
    assert report.values[-1].status == "inherited"


def test_the_limit_is_eight_units_in_the_last_place(traces):
    _, single = traces
    name = next(iter(single))
    unit = np.float32(2.0**-23)
    for factor, equal in ((7.5, True), (8.5, False)):
        largest = np.abs(single[name]).max()
        other = {**single, name: single[name] + factor * unit * largest}
        assert compare_traces(single, other, dtype="float32").equal == equal


def test_shapes_must_be_equal_and_names_are_listed(traces):
    exact, _ = traces
    names = list(exact)
    shape = exact[names[3]].shape
    other = {**exact, names[3]: exact[names[3]][:1], "more": np.ones(3)}
    del other[names[5]]
    report = compare_traces(exact, other)
    assert [fault.reason for fault in report.faults] == ["misshapen"]
    assert str(shape) in report.faults[0].value.note
    assert [finding.text for finding in report.findings] == [
        f"only in the first: {names[5]!r}", "only in the second: 'more'",
    ]  # fmt: skip
    assert report.values[5].status == "untested"


def test_not_a_number_differs(traces):
    exact, _ = traces
    name = list(exact)[4]
    bad = exact[name].copy()
    bad.flat[1] = np.nan
    report = compare_traces(exact, {**exact, name: bad})
    assert [fault.op for fault in report.faults] == [name]
    assert np.isnan(report.faults[0].got_there)


def test_files_are_read_and_nonsense_is_refused(traces, tmp_path: Path):
    exact, single = traces
    exact.save(tmp_path / "a.safetensors")
    single.save(tmp_path / "b.safetensors")
    assert compare_traces(tmp_path / "a.safetensors", tmp_path / "b.safetensors").equal
    with pytest.raises(ValueError, match="no name in common"):
        compare_traces(exact, {"x": np.ones(3)})
    with pytest.raises(ValueError, match="dtype must be"):
        compare_traces(exact, single, dtype="int8")
    with pytest.raises(FileNotFoundError):
        compare_traces(exact, tmp_path / "none.npz")
