"""Reports as files: JSON without NaN, JUnit that parses, one op alone; whole or not at all, whatever the names."""

import json
import math
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import pytest

from npformer.parity.export import junit, save_report, save_repro, to_json
from npformer.parity.report import Finding
from npformer.parity.show import format_report, shown, verdict
from tests.parity.test_show import ODD, check_page, make_fault, make_report, make_value, odd_report


def strict(text):
    """JSON as any reader takes it: no NaN, no Infinity."""

    def refuse(constant):
        raise AssertionError(constant)

    return json.loads(text, parse_constant=refuse)


# --- JSON ------------------------------------------------------------------------------------------------------------


def test_json_holds_every_value_and_fault():
    report = make_report(20, faulty=(6, 9), untested=(5,), findings=[Finding("labels", "in another order", True)])
    report.suggestions, report.confidence = ["b", "a"], {"encoder.blocks.3.conv": 0.75}
    told = strict(json.dumps(to_json(report)))
    assert told["format"] == "npformer-parity"
    assert told["verdict"] == verdict(report)
    assert (told["equal"], told["tested"], told["dtype"], told["layout"]) == (False, 19, "float32", "NHWC")
    assert [value["name"] for value in told["values"]] == [value.name for value in report.values]
    assert told["values"][6] == {
        "name": "encoder.blocks.6.conv", "kind": "Conv2d", "shape": [2, 6, 5, 7], "axes": "BCHW",
        "port_name": "port/encoder.blocks.6.conv", "layout": "NHWC", "status": "faulty", "level": "fail",
        "ratio": 5312.4, "bulk": 5312.4, "peak": 2656.2, "channel": 1328.1, "floor": 2e-7, "error": 0.75,
        "largest": 3.5, "ulp": 12.0, "sqnr": 31.7, "drift": 1e-7, "note": "",
    }  # fmt: skip
    assert told["values"][5]["ratio"] is None
    assert [fault["value"] for fault in told["faults"]] == ["encoder.blocks.6.conv", "encoder.blocks.9.conv"]
    first = told["faults"][0]
    assert first["span"] == ["encoder.blocks.5.conv"]
    assert first["worst"] == [1, 3, 4, 2]
    assert (first["expected_there"], first["got_there"]) == (0.123456789, -math.pi)
    assert first["causes"] == [
        {"key": "silu-relu", "text": "SiLU replaced by ReLU", "op": "encoder.blocks.6.conv", "ratio": 0.93}
    ]
    assert told["findings"] == [{"kind": "labels", "text": "in another order", "bad": True}]
    assert told["names"]["encoder.blocks.3.conv"] == "port/encoder.blocks.3.conv"
    assert (told["suggestions"], told["confidence"]) == (["b", "a"], {"encoder.blocks.3.conv": 0.75})
    assert "encoder.blocks.5.conv" not in told["names"]


def test_json_summarises_arrays():
    report = make_report(3, faulty=(1,))
    array = np.array([[1.5, -2.0], [np.nan, 0.5], [np.inf, 1.0]], np.float32)
    report.faults[0].inputs = {"input": array, "index": np.array([[3, -9, 2]]), "none": np.zeros((0, 2))}
    report.faults[0].expected = None
    told = strict(json.dumps(to_json(report)))["faults"][0]
    assert told["inputs"]["input"] == {
        "shape": [3, 2], "dtype": "float32", "smallest": -2.0, "largest": 1.5,
        "rms": pytest.approx(math.sqrt(7.5 / 4)), "not_finite": 2, "largest_at": [1, 0],
    }  # fmt: skip
    assert told["inputs"]["index"]["largest_at"] == [0, 1]
    assert told["inputs"]["index"]["smallest"] == -9
    assert told["inputs"]["none"] == {"shape": [0, 2], "dtype": "float64"}
    assert told["expected"] is None
    assert told["parameters"]["weight"]["shape"] == [6, 1, 3, 3]


def test_json_spells_out_numbers_that_are_not_finite_and_keeps_names_as_they_are(tmp_path):
    report = odd_report()
    report.values[2].ratio = np.float32(np.inf)  # NumPy's numbers, too
    report.values[1].shape = (np.int64(3),)
    save_report(report, tmp_path / "report.json")
    told = strict((tmp_path / "report.json").read_text("utf-8"))
    first = told["faults"][0]
    assert (first["expected_there"], first["got_there"], first["border"]) == ("nan", "-inf", "inf")
    assert float(first["expected_there"]) != float(first["expected_there"])
    assert told["values"][2]["ratio"] == "inf"
    assert [value["name"] for value in told["values"]] == [value.name for value in report.values]
    assert told["faults"][3]["inputs"].keys() == set(ODD)


# --- JUnit -----------------------------------------------------------------------------------------------------------


def test_junit_has_a_case_for_every_value():
    report = make_report(20, faulty=(6, 9), untested=(4, 5, 12), warned=(2,))
    root = ET.fromstring(junit(report))
    (suite,) = root
    cases = suite.findall("testcase")
    assert [case.get("name") for case in cases] == [value.name for value in report.values]
    counts = {"tests": "20", "failures": "2", "errors": "0", "skipped": "3"}
    assert counts.items() <= suite.attrib.items()
    assert root.attrib == counts
    assert [case.get("name") for case in cases if case.find("failure") is not None] == [
        "encoder.blocks.6.conv", "encoder.blocks.9.conv",
    ]  # fmt: skip
    assert [i for i, case in enumerate(cases) if case.find("skipped") is not None] == [4, 5, 12]
    failure = cases[6].find("failure")
    assert failure.get("message") == "SiLU replaced by ReLU; ratio 5,312"
    assert "worst: at [B 1, C 3, H 4, W 2]: expected 0.123456789" in failure.text
    assert suite.findtext("system-out") == verdict(report)
    assert suite.get("time") == "1.250"


@pytest.mark.parametrize(
    ("report", "name"),
    [
        (make_report(4, findings=[Finding("labels", "in another order", True)]), "finding: labels"),
        (make_report(4, untested=range(4)), "comparison"),
    ],
)
def test_junit_fails_whenever_the_port_is_not_equal(report, name):
    suite = ET.fromstring(junit(report))[0]
    failed = [case.get("name") for case in suite.findall("testcase") if case.find("failure") is not None]
    assert failed == [name]
    assert suite.get("failures") == "1"
    assert suite.get("tests") == str(len(suite.findall("testcase"))) == "5"


def test_junit_of_an_equal_port_has_no_failure():
    report = make_report(7, findings=[Finding("names", "two aligned")])
    suite = ET.fromstring(junit(report))[0]
    assert suite.get("failures") == "0"
    assert not suite.findall("testcase/failure")


def test_junit_of_a_faulty_value_that_no_fault_tells_of():
    report = make_report(3)
    report.values[1] = make_value("b", "faulty", note="has another shape")
    suite = ET.fromstring(junit(report))[0]
    assert suite.find("testcase/failure").text == "has another shape"


def test_junit_with_odd_names_is_xml(tmp_path):
    report = odd_report()
    save_report(report, tmp_path / "report.xml")
    text = (tmp_path / "report.xml").read_bytes()
    cases = ET.fromstring(text)[0].findall("testcase")
    names = [case.get("name") for case in cases]
    assert names[0] == "finding: kind a<b>&amp;"
    assert names[1] == "finding: kind bell\\x07\\x1b[31mred"
    assert names[2:] == [shown(value.name) or "(model)" for value in report.values]


# --- files -----------------------------------------------------------------------------------------------------------


def test_reports_are_written_by_suffix(tmp_path):
    report = make_report(12, faulty=(3,))
    for name in ("a.html", "b.json", "c.xml", "d.txt", "new/folder/e.html"):
        save_report(report, tmp_path / name)
    check_page((tmp_path / "a.html").read_text("utf-8"))
    check_page((tmp_path / "new/folder/e.html").read_text("utf-8"))
    assert strict((tmp_path / "b.json").read_text())["verdict"] == verdict(report)
    assert ET.parse(tmp_path / "c.xml").getroot().tag == "testsuites"
    assert (tmp_path / "d.txt").read_text() == format_report(report, verbose=True) + "\n"


@pytest.mark.parametrize("suffix", [".html", ".json", ".xml", ".txt"])
def test_reports_with_odd_names_can_be_written(tmp_path, suffix):
    save_report(odd_report(), str(tmp_path / f"report{suffix}"))
    assert (tmp_path / f"report{suffix}").read_text("utf-8")


@pytest.mark.parametrize("name", ["report", "report.pdf", "report.HTML", ".html"])
def test_another_suffix_is_refused(tmp_path, name):
    with pytest.raises(ValueError, match=r"must end in \.html or \.json or \.xml or \.txt, got '.*/" + name):
        save_report(make_report(3), tmp_path / name)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("suffix", [".html", ".json", ".xml", ".txt"])
def test_a_report_that_cannot_be_written_leaves_what_was_there(tmp_path, monkeypatch, suffix):
    path = tmp_path / f"report{suffix}"
    path.write_text("old")
    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        save_report(make_report(3), path)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def fail(*_, **__):
    raise OSError("disk full")


# --- one op alone ----------------------------------------------------------------------------------------------------


def test_repro_holds_the_op_alone(tmp_path):
    fault = make_fault(make_value("blocks.3.act", "faulty"), span=["blocks.3.norm"], seed=4)
    fault.reason, fault.expected_there = "", math.nan
    save_repro(fault, tmp_path / "new" / "op.npz")
    with np.load(tmp_path / "new" / "op.npz", allow_pickle=False) as stored:
        arrays = dict(stored)
    about = strict(str(arrays.pop("about")))
    expected = {
        "inputs.input": fault.inputs["input"], "parameters.weight": fault.parameters["weight"],
        "parameters.bias": fault.parameters["bias"], "expected": fault.expected, "got": fault.got,
    }  # fmt: skip
    assert arrays.keys() == expected.keys()
    for name, array in expected.items():
        np.testing.assert_array_equal(arrays[name], array)
        assert arrays[name].dtype == array.dtype
    assert about["value"] == about["op"] == "blocks.3.act"
    assert (about["kind"], about["axes"], about["span"]) == ("Conv2d", "BCHW", ["blocks.3.norm"])
    assert about["causes"][0]["text"] == "SiLU replaced by ReLU"
    assert (about["worst"], about["expected_there"], about["got_there"]) == ([1, 3, 4, 2], "nan", -math.pi)


def test_repro_of_odd_names_and_of_a_missing_value(tmp_path):
    fault = odd_report().faults[3]
    fault.inputs = {name: np.array([float(i), np.nan]) for i, name in enumerate(["file", "a/b", *ODD])}
    fault.got, fault.parameters = None, {"weight": np.zeros((0, 3), np.float16)}
    save_repro(fault, tmp_path / "op.npz")
    with np.load(tmp_path / "op.npz", allow_pickle=False) as stored:
        arrays = dict(stored)
    assert set(arrays) == {
        "about", "expected", "parameters.weight", *(f"inputs.{shown(name)}" for name in fault.inputs),
    }  # fmt: skip
    assert arrays["inputs.a/b"][0] == 1
    assert arrays[f"inputs.{shown(ODD[-1])}"][0] == len(ODD) + 1
    assert json.loads(str(arrays["about"]))["value"] == ""


def test_repro_is_never_pickled_and_appears_whole_or_not_at_all(tmp_path, monkeypatch):
    fault = make_report(3, faulty=(1,)).faults[0]
    fault.inputs["odd"] = np.array([{}, None])
    with pytest.raises(ValueError, match=r"inputs\.odd is one of Python objects"):
        save_repro(fault, tmp_path / "op.npz")
    with pytest.raises(ValueError, match=r"must end in \.npz, got '.*op\.npy'"):
        save_repro(fault, tmp_path / "op.npy")
    del fault.inputs["odd"]
    monkeypatch.setattr(np, "savez", fail)
    with pytest.raises(OSError, match="disk full"):
        save_repro(fault, tmp_path / "op.npz")
    assert not list(tmp_path.iterdir())
