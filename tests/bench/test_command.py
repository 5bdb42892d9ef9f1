"""`npformer bench`: what it prints for the shipped models, and how it refuses bad input."""

import importlib.util
import json
import subprocess
import sys

import pytest

from npformer import SwiftFormerForImageClassification
from npformer.assets import shipped_models
from npformer.bench import command, contestants, plot, subject
from npformer.bench.breakdown import REST
from npformer.bench.peaks import Peaks
from tests import tiny
from tests.support import SWIFT, command_line

QUICK = ("--rounds", "1", "--seconds", "0.01")
NET, FORMER = "efficientnet-fashion", "efficientformer-fashion"


@pytest.fixture
def run(capsys, monkeypatch):
    monkeypatch.setattr(command, "ask_for_peaks", lambda threads, seconds: Peaks(200.0, 100.0, 40.0))
    return command_line(capsys, "bench")


@pytest.fixture
def untimed(monkeypatch):
    """Fail if anything is measured."""

    def forbidden(*arguments):
        raise AssertionError("measured before the refusal")

    monkeypatch.setattr(command, "measure", forbidden)
    monkeypatch.setattr(command, "ask_for_peaks", forbidden)
    monkeypatch.setattr(command.scaling, "measure", forbidden)


def test_one_model_gets_a_row_per_batch_and_its_breakdown(run):
    code, out, err = run(NET, "--batch", "1,3", *QUICK)
    assert code == 0
    lines = out.splitlines()
    assert lines[0].split() == ["model", "batch", "npformer", "ms", "quartiles", "pictures/s", "peak", "MB"]
    assert [line.split()[:2] for line in lines[1:3]] == [[NET, "1"], [NET, "3"]]
    for heading in (f"{NET}, 1 picture of 96 x 96", f"{NET}, 3 pictures of 96 x 96"):
        assert heading in lines
    assert out.count("GFLOP/s  of peak") == 2
    assert "200 GFLOP/s" in out
    assert "geometric mean" not in out, "there is nobody to compare with"
    assert [line.split(":")[0] for line in err.splitlines()] == [f"[1/2] {NET}, batch 1", f"[2/2] {NET}, batch 3"]
    assert all(len(line) <= 120 for line in lines)


def test_several_models_are_compared_with_the_model_as_it_reads(run):
    code, out, _ = run(NET, "swiftformer-fashion", NET, "--batch", "2", "--unfused", *QUICK)
    lines = out.splitlines()
    assert code == 0
    assert lines[0].split() == ["model", "batch", "npformer", "ms", "unfused", "ms", "ratio", "peak", "MB"]
    assert [line.split()[0] for line in lines[1:3]] == [NET, "swiftformer-fashion"]
    ours, unfused, ratio = (float(lines[1].split()[i]) for i in (2, 3, 4))
    assert ratio == pytest.approx(ours / unfused, abs=0.02)
    (mean,) = (line.split() for line in lines if line.startswith("npformer / unfused"))
    assert (mean[3], mean[5]) == ("2", "2"), "the batch, and of how many models"
    assert "GFLOP/s" not in out, "breakdowns of several models are shown when asked for"


def test_json_holds_everything_and_the_breakdown_adds_up(run):
    code, out, err = run(FORMER, "--batch", "1", "--threads", "1", "--json", *QUICK)
    told = json.loads(out)
    assert code == 0
    assert err.startswith("[1/1]")
    assert (told["rounds"], told["threads"], told["seconds"]) == (1, 1, 0.01)
    assert told["peaks"] == {"gflops": 200.0, "gbytes_cache": 100.0, "gbytes_memory": 40.0}
    assert set(told["versions"]) == {"npformer", "numpy"}
    (result,) = told["results"]
    assert (result["model"], result["batch"], result["size"], result["ratios"]) == (FORMER, 1, 224, {})
    ours = result["contestants"]["npformer"]
    low, high = ours["quartiles"]
    assert low <= ours["milliseconds"] <= high
    assert ours["pictures_per_second"] == pytest.approx(1000 / ours["milliseconds"])
    assert 20 < ours["peak_mb"] < 500
    parts = result["breakdown"]
    assert sum(part["share"] for part in parts) == pytest.approx(1, abs=0.02)
    kinds = [part["kind"] for part in parts]
    assert kinds[-1] == REST
    product = parts[kinds.index("matrix product")]
    assert product["gflops"] > 0
    assert product["gbytes"] > 0
    # With one thread a picture's 72 million multiply-adds all take their turn.
    done = product["gflops"] * product["milliseconds"] * 1e6
    assert 0.8 * 2 * 71.7e6 < done < 1.2 * 2 * 71.7e6


def test_directories_and_other_sizes(run, tmp_path):
    tiny.model(SWIFT).save_pretrained(tmp_path / "model")
    code, out, _ = run(tmp_path / "model", "--size", "80", "--batch", "1", *QUICK)
    assert code == 0
    assert f"{tmp_path / 'model'}, 1 picture of 80 x 80" in out
    code, out, _ = run(tmp_path / "model", "--batch", "1", *QUICK)
    assert code == 0
    assert "1 picture of 64 x 64" in out, "without a processor config.image_size decides"


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["nosuch"], "model 'nosuch' is neither a known name nor a directory"),
        (["swiftformer-xx"], "did you mean"),
        (["efficientnet-b0", "nosuch"], "model 'nosuch'"),
        (["--batch", "0"], "--batch must be whole numbers of at least 1, with a comma between them, got '0'"),
        (["--batch", "1,x"], "got '1,x'"),
        (["--batch", "1,"], "got '1,'"),
        (["--batch", "-1"], "got '-1'"),
        (["--batch", ""], "got ''"),
        (["--rounds", "0"], "--rounds must be at least 1, got 0"),
        (["--threads", "0"], "--threads must be at least 1, got 0"),
        (["--size", "8"], "--size must be at least 32, got 8"),
        (["--seconds", "0"], "--seconds must be a number above 0, got 0.0"),
        (["--seconds", "nan"], "--seconds must be a number above 0, got nan"),
        (["--seconds", "inf"], "got inf"),
        (["--against", "tensorflow"], "--against must name torch or onnxruntime, with a comma between them"),
        (["--against", ""], "got ''"),
        ([FORMER, "--size", "300"], "--size must make 7 x 7 tokens of the pictures of efficientformer-fashion"),
        (["--plot", "bars.jpg"], "--plot must be a file that ends in .png, .svg, .pdf, got bars.jpg"),
        (["--plot", ""], "--plot must be a file that ends in"),
        (["--plot", "nowhere/bars.png"], "--plot nowhere/bars.png lies in a folder that does not exist"),
        (["--scaling", "curves"], "--scaling must be a file that ends in"),
        (["--scaling", "a.png", "efficientnet-b0"], "so a MODEL cannot be given with it"),
        (["--scaling", "a.png", "--batch", "8"], "so --batch cannot be given with it"),
        (["--scaling", "a.png", "--plot", "b.png"], "so --plot cannot be given with it"),
        (["--scaling", "a.png", "--unfused"], "so --unfused cannot be given with it"),
    ],
)
def test_bad_input_is_refused_in_a_sentence_before_anything_is_timed(run, untimed, arguments, sentence):
    code, out, err = run(*arguments)
    assert (code, out) == (2, "")
    assert err.startswith("npformer: error: ")
    assert len(err.splitlines()) == 1
    assert sentence in err


@pytest.mark.parametrize("option", [["--rounds", "many"], ["--size", "1.5"], ["--threads", "two"], ["--bogus"]])
def test_what_is_no_number_is_refused_by_the_parser(run, option):
    with pytest.raises(SystemExit) as left:
        run(*option)
    assert left.value.code == 2


@pytest.fixture
def without(monkeypatch):
    """Pretend that some packages are not installed, and that all others are."""

    def hide(*packages):
        present = importlib.util.find_spec("json")
        for module in (contestants, plot):
            monkeypatch.setattr(module, "find_spec", lambda name: None if name in packages else present)

    return hide


def test_missing_rivals_and_matplotlib_are_named_before_anything_is_timed(run, untimed, without):
    without("transformers")
    code, _, err = run(NET, "--against", "torch")
    assert code == 2
    assert "--against torch needs transformers, which is not installed: python -m pip install" in err
    assert '"transformers==4.56.2"' in err
    without("onnxruntime", "onnx")
    code, _, err = run(NET, "--against", "torch,onnxruntime")
    assert code == 2
    assert "--against onnxruntime needs onnxruntime and onnx, which are not installed" in err
    without("matplotlib")
    for option in ("--plot", "--scaling"):
        code, _, err = run(option, "picture.png")
        assert code == 2
        assert f"{option} needs matplotlib, which is not installed: python -m pip install matplotlib" in err


def test_what_transformers_cannot_express_is_not_timed_against_it(run, untimed, without, tmp_path):
    without()
    tiny.model(SWIFT, attention_norm="l2").save_pretrained(tmp_path)
    code, _, err = run(NET, tmp_path, "--against", "torch")
    assert code == 2
    assert f"which has no attention_norm='l2', as {tmp_path} needs" in err
    code, _, err = run("tf_efficientnet_b0", "--against", "onnxruntime")
    assert code == 2
    assert "which has no padding='tf-same-dynamic', as tf_efficientnet_b0 needs" in err


def test_a_model_without_weights_is_one_sentence(run, tmp_path):
    tiny.config(SWIFT).save_pretrained(tmp_path)
    code, _, err = run(tmp_path, *QUICK)
    assert code == 2
    assert len(err.splitlines()) == 1
    assert str(tmp_path) in err


def test_the_default_models_are_all_but_the_largest():
    assert len(subject.DEFAULT_MODELS) == 12
    assert not set(subject.DEFAULT_MODELS) & {*shipped_models(), "efficientnet-b5", "efficientnet-b8"}


def test_a_variant_is_built_for_the_size_asked_for(tmp_path):
    made = subject.prepare("swiftformer-xs", 64, tmp_path)
    assert (made.size, made.channels) == (64, 3)
    assert SwiftFormerForImageClassification.from_pretrained(tmp_path).config.image_size == 64


def test_nothing_of_it_is_loaded_without_being_asked_for():
    script = (
        "import sys, npformer, npformer.cli; npformer.cli.main(['models', 'swift*']); "
        "assert not [name for name in sys.modules if name.startswith(('npformer.bench', 'matplotlib'))]"
    )
    subprocess.run([sys.executable, "-c", script], check=True, capture_output=True)
