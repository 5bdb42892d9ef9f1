"""`npformer bench` against PyTorch and ONNX Runtime themselves."""

import json

import pytest

from npformer.assets import shipped_models
from npformer.bench import command
from npformer.bench.peaks import Peaks
from npformer.cli import main

for library in ("torch", "transformers", "onnx", "onnxruntime"):
    pytest.importorskip(library, exc_type=ImportError)


@pytest.mark.parametrize("name", ["efficientnet-fashion", pytest.param(None, marks=pytest.mark.exhaustive)])
def test_the_same_thing_is_timed_everywhere(name, capsys, monkeypatch):
    monkeypatch.setattr(command, "ask_for_peaks", lambda threads, seconds: Peaks(100.0, 100.0, 10.0))
    names = [name] if name else shipped_models()
    rivals = ("unfused", "torch", "onnxruntime")
    options = ["--against", "onnxruntime,torch", "--unfused", "--batch", "2", "--rounds", "1", "--seconds", "0.05"]
    code = main(["bench", *names, *options, "--json"])
    captured = capsys.readouterr()
    assert code == 0, captured.err  # which it would not be, had the logits differed
    told = json.loads(captured.out)
    assert [result["model"] for result in told["results"]] == names
    for result in told["results"]:
        assert tuple(result["ratios"]) == rivals
        memory = {name: contestant["peak_mb"] for name, contestant in result["contestants"].items()}
        assert memory["npformer"] < memory["torch"]
    assert [mean["rival"] for mean in told["geometric_means"]] == list(rivals)
    assert {"npformer", "numpy", "torch", "transformers", "onnxruntime"} <= told["versions"].keys()
