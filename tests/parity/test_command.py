"""`npformer parity`: what it hands to the comparison, what it prints and writes, and its exit codes."""

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from npformer import EfficientFormerImageProcessor
from npformer.cli import main
from npformer.models.registry import get_model
from npformer.parity import command
from npformer.parity.names import read_map
from npformer.parity.report import Finding
from npformer.parity.show import format_report, verdict
from tests import tiny
from tests.parity.test_show import make_report, odd_report
from tests.support import NET, SWIFT, TWO_HEADS, command_line

EQUAL, DIFFERENT = make_report(30), make_report(60, faulty=(31, 40), untested=(7, 8))


@pytest.fixture
def run(capsys):
    return command_line(capsys, "parity")


@pytest.fixture
def seen(monkeypatch):
    """Stub of the comparison: it answers with `report` and keeps its arguments."""

    class Seen:
        report, calls = DIFFERENT, []

        def compare(self, *arguments, **options):
            self.calls = [*self.calls, (arguments, options)]
            if isinstance(self.report, Exception):
                raise self.report
            return self.report

    standing_in = Seen()
    monkeypatch.setattr(command, "compare", standing_in.compare)
    monkeypatch.setattr(command, "compare_traces", standing_in.compare)
    return standing_in


@pytest.fixture
def files(tmp_path):
    """A model directory, an input, a picture, a dump, class names and weights; and the arguments to use them."""
    model = tiny.model(TWO_HEADS)
    model.save_pretrained(tmp_path / "model")
    size = {"height": 64, "width": 64}
    EfficientFormerImageProcessor(size=size, do_center_crop=False).save_pretrained(tmp_path / "model")
    pixels = np.random.default_rng(0).integers(0, 256, (37, 53, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "noise.PNG")
    np.save(tmp_path / "x.npy", tiny.pictures())
    np.savez(tmp_path / "dump.npz", a=np.zeros(3))
    (tmp_path / "labels.txt").write_text("ant\nbee\ncat\ndog\neel\n")
    (tmp_path / "map.json").write_text('{"a": "b"}')
    return tmp_path


def asked(files, **options):
    given = {"model": files / "model", "input": files / "x.npy", "port": files / "dump.npz", **options}
    return [part for name, value in given.items() for part in (f"--{name.replace('_', '-')}", value)]


# --- exit codes and what is printed ----------------------------------------------------------------------------------


def test_a_different_port_gives_code_1_and_the_report(run, seen, files):
    code, out, err = run(*asked(files))
    assert (code, err) == (1, "")
    assert out == format_report(DIFFERENT) + "\n"
    assert run(*asked(files), "--all") == (1, format_report(DIFFERENT, verbose=True) + "\n", "")


def test_an_equal_port_gives_code_0(run, seen, files):
    seen.report = EQUAL
    code, out, err = run(*asked(files))
    assert (code, err) == (0, "")
    assert out.splitlines()[0] == verdict(EQUAL)


def test_a_finding_alone_can_make_the_difference(run, seen, files):
    seen.report = make_report(5, findings=[Finding("labels", "in another order", True)])
    assert run(*asked(files))[0] == 1
    seen.report = make_report(5, findings=[Finding("labels", "in the same order")])
    assert run(*asked(files))[0] == 0


@pytest.mark.parametrize(
    "error", [ValueError("the dump is empty"), FileNotFoundError("no dump"), TypeError("no float")]
)
def test_unusable_input_gives_code_2_and_writes_nothing(run, seen, files, error):
    seen.report = error
    outputs = ["--report", files / "r.html", "--repro", files / "op.npz", "--write-names", files / "n.yaml"]
    before = sorted(files.iterdir())
    assert run(*asked(files), *outputs) == (2, "", f"npformer: error: {error}\n")
    assert sorted(files.iterdir()) == before


def test_a_comparison_that_tested_nothing_is_unusable(run, seen, files):
    seen.report = make_report(5, untested=range(5))
    code, out, err = run(*asked(files), "--report", files / "r.html")
    assert (code, out) == (2, "")
    assert err == "npformer: error: nothing compared: none of the 5 values was found in the port's dump\n"
    assert not (files / "r.html").exists()


# --- what is compared ------------------------------------------------------------------------------------------------


def test_an_array_is_handed_on_as_it_is(run, seen, files):
    run(*asked(files))
    ((model, pixel_values, port), options), = seen.calls  # fmt: skip
    np.testing.assert_array_equal(pixel_values, tiny.pictures())
    assert port == files / "dump.npz"
    assert tiny.state_bytes(model) == tiny.state_bytes(tiny.model(TWO_HEADS))
    processor = options.pop("processor")
    assert processor.size == {"height": 64, "width": 64}
    assert options == {
        "names": None, "layout": "auto", "dtype": "auto", "port_weights": None, "port_labels": None, "picture": None,
    }  # fmt: skip


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_one_picture_without_a_batch_becomes_a_batch_of_one(run, seen, files, dtype):
    array = np.random.default_rng(2).standard_normal((3, 64, 64)).astype(dtype)
    np.save(files / "one.npy", array)
    (files / "one.npy").rename(files / "one.NPY")
    run(*asked(files, input=files / "one.NPY"))
    np.testing.assert_array_equal(seen.calls[0][0][1], array[None])
    assert seen.calls[0][0][1].dtype == dtype


def test_a_picture_goes_through_the_models_processor(run, seen, files):
    run(*asked(files, input=files / "noise.PNG"))
    (_, pixel_values, _), options = seen.calls[0]
    expected = options["processor"](Image.open(files / "noise.PNG"), return_tensors="np")["pixel_values"]
    np.testing.assert_array_equal(pixel_values, expected)
    assert pixel_values.shape == (1, 3, 64, 64)
    np.testing.assert_array_equal(np.asarray(options["picture"]), np.asarray(Image.open(files / "noise.PNG")))


def test_all_options_are_handed_on(run, seen, files):
    model = tiny.model(TWO_HEADS)
    options = {
        "names": files / "map.json", "layout": "NHWC", "dtype": "float16",
        "port_weights": files / "model" / "model.safetensors", "port_labels": files / "labels.txt",
        "picture": files / "noise.PNG",
    }  # fmt: skip
    run(*asked(files, **options))
    told = seen.calls[0][1]
    assert told["names"] == files / "map.json"
    assert (told["layout"], told["dtype"]) == ("NHWC", "float16")
    assert told["port_labels"] == ["ant", "bee", "cat", "dog", "eel"]
    np.testing.assert_array_equal(np.asarray(told["picture"]), np.asarray(Image.open(files / "noise.PNG")))
    weights = told["port_weights"]
    assert weights.keys() == model.state_dict().keys()
    np.testing.assert_array_equal(weights["classifier.weight"], model.state_dict()["classifier.weight"])


def test_two_traces_are_compared_without_a_model(run, seen, tmp_path):
    first, second = tmp_path / "a.safetensors", tmp_path / "b.safetensors"
    assert run(first, second)[0] == 1
    assert seen.calls == [((first, second), {"dtype": "auto"})]
    code, out, _ = run(first, second, "--dtype", "float16", "--report", tmp_path / "r.json", "--all")
    assert code == 1
    assert f"wrote {tmp_path / 'r.json'}" in out
    assert seen.calls[1] == ((first, second), {"dtype": "float16"})


# --- models and weights ----------------------------------------------------------------------------------------------


def test_a_shipped_model_needs_no_weights(run, seen, files):
    run(*asked(files, model="efficientnet-fashion"))
    model = seen.calls[0][0][0]
    assert tiny.state_bytes(model) == tiny.state_bytes(get_model("efficientnet-fashion", pretrained=True))


@pytest.mark.parametrize("variant", ["efficientnet-b0", "EfficientNet_B0", "swiftformer-l3"])
def test_a_variant_without_weights_is_refused(run, seen, files, variant):
    code, out, err = run(*asked(files, model=variant))
    assert (code, out, seen.calls) == (2, "", [])
    assert f"--model {variant} has no weights here; give them with --weights" in err


@pytest.mark.parametrize("whole", [True, False], ids=["directory", "file"])
def test_a_variant_takes_weights_from_a_directory_or_a_file(run, seen, files, whole):
    stored = get_model("swiftformer-xs", seed=5, num_labels=11)
    stored.save_pretrained(files / "weights")
    weights = files / "weights" / ("" if whole else "model.safetensors")
    run(*asked(files, model="swiftformer-xs", weights=weights, input=files / "noise.PNG"))
    (model, pixel_values, _), _ = seen.calls[0]
    assert tiny.state_bytes(model) == tiny.state_bytes(stored)
    assert pixel_values.shape == (1, 3, 224, 224)


def test_weights_of_another_network_are_refused(run, seen, files):
    get_model("swiftformer-xs", seed=5).save_pretrained(files / "weights")
    code, out, err = run(*asked(files, model="swiftformer-s", weights=files / "weights"))
    assert (code, out, seen.calls) == (2, "", [])
    assert f"--model is swiftformer-s, but --weights {files / 'weights'} holds swiftformer-xs" in err
    (files / "weights" / "config.json").unlink()
    code, _, err = run(*asked(files, model="swiftformer-s", weights=files / "weights"))
    assert (code, seen.calls) == (2, [])
    assert err.startswith("npformer: error: ")
    assert run(*asked(files, model="efficientnet-b0", weights=files / "weights"))[0] == 2


@pytest.mark.parametrize("name", [TWO_HEADS, NET, SWIFT])
def test_a_directory_takes_other_weights_too(run, seen, files, name):
    model = tiny.model(name)
    model.save_pretrained(files / "first")
    EfficientFormerImageProcessor().save_pretrained(files / "first")
    other = model.astype(np.float32).load_state_dict(
        {key: value + 1 if value.dtype.kind == "f" else value for key, value in model.state_dict().items()}
    )
    other.save_pretrained(files / "second")
    run(*asked(files, model=files / "first", weights=files / "second" / "model.safetensors"))
    assert seen.calls, "nothing was compared"
    assert tiny.state_bytes(seen.calls[0][0][0]) == tiny.state_bytes(other)


# --- files -----------------------------------------------------------------------------------------------------------


def test_files_are_written_and_named(run, seen, files):
    outputs = ["--report", files / "r.html", "--report", files / "r.xml", "--repro", files / "op.npz"]
    code, out, _ = run(*asked(files), *outputs, "--write-names", files / "n.json")
    assert code == 1
    assert out.splitlines()[-4:] == [f"wrote {files / name}" for name in ("r.html", "r.xml", "n.json", "op.npz")]
    assert verdict(DIFFERENT) in (files / "r.xml").read_text()
    assert "<!DOCTYPE html>" in (files / "r.html").read_text()
    assert read_map(files / "n.json") == DIFFERENT.names
    with np.load(files / "op.npz") as stored:
        assert json.loads(str(stored["about"]))["value"] == DIFFERENT.faults[0].value.name


def test_names_are_written_with_their_confidence(run, seen, files):
    seen.report = make_report(names=["a.conv", "b.conv"], confidence={"b.conv": 0.75})
    assert run(*asked(files), "--write-names", files / "n.yml")[0] == 0
    text = (files / "n.yml").read_text()
    assert '"a.conv": "port/a.conv"\n' in text
    assert '"b.conv": "port/b.conv"  # aligned, confidence 0.75\n' in text


def test_an_equal_port_has_no_op_to_write_alone(run, seen, files):
    seen.report = EQUAL
    code, out, _ = run(*asked(files), "--repro", files / "op.npz")
    assert code == 0
    assert "no faulty op" in out.splitlines()[-1]
    assert not (files / "op.npz").exists()


def test_odd_names_are_printed_whatever_the_encoding(seen, files, monkeypatch):
    seen.report = odd_report()
    stream = io.TextIOWrapper(io.BytesIO(), "ascii")
    monkeypatch.setattr(sys, "stdout", stream)
    assert main(["parity", *map(str, asked(files))]) == 1
    assert "\\u017c" in stream.buffer.getvalue().decode("ascii")


# --- what is refused -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ([], "got no --model nor --input nor --port"),
        (["--model", "m", "--input", "x.npy"], "got no --port"),
        (["a.safetensors"], "two traces are compared with each other, got 1"),
        (["a", "b", "c"], "got 3"),
        (["a", "b", "--model", "m"], "two traces are compared without a model, so --model cannot"),
        (["a", "b", "--port-labels", "m"], "so --port-labels cannot"),
        (["a", "b", "--layout", "NCHW"], "so --layout cannot"),
        (["a", "b", "--report", "r.pdf"], "--report must end in .html or .json or .xml or .txt, got 'r.pdf'"),
        (["a", "b", "--report", "r.html", "--report", "r"], "--report must end in"),
        (["a", "b", "--repro", "r.npy"], "--repro must end in .npz"),
        (["a", "b", "--write-names", "r.txt"], "--write-names must end in .json or .yaml or .yml"),
    ],
)
def test_half_a_request_is_refused_before_anything_is_computed(run, seen, tmp_path, monkeypatch, arguments, told):
    monkeypatch.chdir(tmp_path)
    code, out, err = run(*arguments)
    assert (code, out, seen.calls) == (2, "", [])
    assert told in err
    assert len(err.splitlines()) == 1
    assert not list(tmp_path.iterdir())


ARRAYS = {
    "whole numbers": np.zeros((1, 3, 64, 64), np.uint8), "five axes": np.zeros((1, 1, 3, 4, 4)),
    "flat": np.zeros((3, 4)), "empty": np.zeros((0, 3, 64, 64)), "nan": np.full((1, 3, 4, 4), np.nan),
    "complex": np.zeros((3, 4, 4), complex),
}  # fmt: skip


@pytest.mark.parametrize("kind", [*ARRAYS, "objects", "text", "nothing", "archive", "cut", "absent"])
def test_an_input_that_is_no_batch_of_pictures_is_refused(run, seen, files, kind):
    path = files / "bad.npy"
    if kind in ARRAYS:
        np.save(path, ARRAYS[kind])
    elif kind == "objects":
        np.save(path, np.array([{}, None]), allow_pickle=True)
    elif kind in ("text", "nothing"):
        path.write_text("no array" * (kind == "text"))
    elif kind == "archive":
        path.write_bytes((files / "dump.npz").read_bytes())
    elif kind == "cut":
        path.write_bytes((files / "x.npy").read_bytes()[:-5])
    code, out, err = run(*asked(files, input=path))
    assert (code, out, seen.calls) == (2, "", [])
    assert "bad.npy" in err
    assert len(err.splitlines()) == 1


@pytest.mark.parametrize("option", ["picture", "port_labels", "port_weights", "weights", "model"])
def test_a_file_that_is_not_there_is_named(run, seen, files, option):
    code, out, err = run(*asked(files, **{option: files / "absent"}))
    assert (code, out, seen.calls) == (2, "", [])
    assert "absent" in err


# --- the program -----------------------------------------------------------------------------------------------------


def test_the_command_line_stays_lean():
    program = (
        "import sys, npformer.cli; npformer.cli._parser();"
        "print([m for m in sys.modules if m.startswith('npformer.parity') or m == 'PIL.Image' or m == 'xml'])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_a_reader_that_leaves_changes_no_exit_code(files):
    """`npformer parity … | head -1` must not turn "different" into "equal"."""
    program = (
        "import sys; from npformer.parity import command; from tests.parity.test_show import make_report\n"
        "command.compare_traces = lambda *_, **__: make_report(3000, faulty=(4,))\n"
        "from npformer.cli import main; sys.exit(main(['parity', 'a', 'b', '--all']))"
    )
    root = Path(__file__).parents[2]
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "w") as closed:
        done = subprocess.run(
            [sys.executable, "-c", program], cwd=root, stdout=closed, stderr=subprocess.PIPE, text=True
        )
    assert (done.returncode, done.stderr) == (1, "")
