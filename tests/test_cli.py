"""The command line: what it prints for the shipped model, and how it refuses bad input."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from npformer import EfficientFormerConfig, EfficientFormerForImageClassification, EfficientFormerImageProcessor, Trace
from npformer.assets import DEFAULT_MODEL, sample_pictures, shipped_models
from npformer.cli import main
from npformer.models.registry import VARIANTS
from tests.support import SMALL
from tests.sweep import sweep


@pytest.fixture
def run(capsys):
    def call(*arguments):
        code = main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


@pytest.fixture
def directory(tmp_path):
    """A tiny model of its own: random weights, eleven labels."""
    config = EfficientFormerConfig(**SMALL)
    EfficientFormerForImageClassification(config, seed=3).save_pretrained(tmp_path / "model")
    EfficientFormerImageProcessor().save_pretrained(tmp_path / "model")
    return tmp_path / "model"


@pytest.fixture
def picture(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (37, 53, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "noise.png")
    return tmp_path / "noise.png"


def test_classify_without_arguments_gets_most_of_the_shipped_pictures_right(run):
    code, out, err = run("classify")
    lines = out.splitlines()
    assert (code, err) == (0, "")
    assert len(lines) == 20 + 3, "a head, a line per picture, an empty line, the total"
    assert all(path.name in out and label in out for path, label in sample_pictures().items())
    right = int(lines[-1].split(" of ")[0])
    assert right >= 17
    assert sum("! " in line for line in lines[1:-2]) == 20 - right, "wrong guesses are marked"
    assert "20 pictures" in lines[-1]
    assert DEFAULT_MODEL in lines[-1]


def test_classify_as_json_holds_the_same_guesses(run):
    code, out, _ = run("classify", "--json", "--top", 10)
    results = json.loads(out)
    assert code == 0
    assert len(results) == 20
    for result in results:
        probabilities = [guess["probability"] for guess in result["predictions"]]
        assert probabilities == sorted(probabilities, reverse=True)
        assert sum(probabilities) == pytest.approx(1, abs=1e-5)
        assert result["truth"] in {guess["label"] for guess in result["predictions"]}
        assert result["milliseconds"] > 0


def test_one_picture_is_classified_as_in_the_batch(run):
    path = next(iter(sample_pictures()))
    alone = json.loads(run("classify", "--json", path)[1])[0]
    together = json.loads(run("classify", "--json")[1])[0]
    assert alone["truth"] is None, "only the shipped pictures, unasked for, come with their truth"
    assert alone["predictions"][0]["label"] == together["predictions"][0]["label"]
    assert alone["predictions"][0]["probability"] == pytest.approx(together["predictions"][0]["probability"], abs=1e-5)


def test_classify_with_a_model_directory(run, directory, picture):
    code, out, _ = run("classify", picture, picture, "--model", directory, "--top", 2)
    assert code == 0
    assert "noise.png" in out
    assert "LABEL_" in out
    assert "truth" not in out, "no column for what is not known"
    assert "2 pictures" in out


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["classify", "absent.png"], "absent.png"),
        (["classify", "."], "."),
        (["classify", "--model", "no-such-model"], "no-such-model"),
        (["classify", "--model", "efficientformer-fashoin"], "efficientformer-fashion"),
        (["classify", "--model", "efficientnet-b0"], "no weights"),
        (["classify", "--top", "0"], "--top"),
        (["classify", "--top", "11"], "--top"),
        (["summary", "no-such-model"], "no-such-model"),
        (["summary", "--size", "256"], "256x256"),
        (["summary", "efficientformer-l1", "--size", "0"], "--size"),
        (["summary", "l1"], "efficientformer-l1 or swiftformer-l1"),
        (["summary", "effcientnet-b0"], "efficientnet-b0"),
        (["models", "resnet*"], "resnet*"),
        (["record", "swiftformer-xs", "absent.png", "-o", "trace.safetensors"], "absent.png"),
    ],
)
def test_bad_input_gets_one_sentence_and_code_2(run, tmp_path, monkeypatch, arguments, expected):
    monkeypatch.chdir(tmp_path)
    code, out, err = run(*arguments)
    assert (code, out) == (2, "")
    assert expected in err.splitlines()[-1]
    assert err.splitlines()[-1].startswith("npformer: error: ")
    assert not list(tmp_path.iterdir()), "nothing written"


def test_a_file_that_is_no_picture_is_refused_by_name(run, tmp_path):
    fake = tmp_path / "fake.png"
    fake.write_text("no picture")
    code, out, err = run("classify", fake)
    assert (code, out) == (2, "")
    assert "fake.png" in err


@pytest.mark.parametrize(
    ("variant", "parameters", "giga"),
    sweep(
        [
            ("efficientformer-l1", "12,289,928", "1.291 G"),
            ("efficientformer-l3", "31,406,000", "3.907 G"),
            ("efficientformer-l7", "82,229,328", "10.119 G"),
            ("efficientnet-b0", "5,288,548", "0.386 G"),
            ("swiftformer-xs", "3,475,360", "0.602 G"),
        ],
        lambda case: not case[0].endswith(("-l3", "-l7")),
    ),
)
def test_summary_totals_are_the_published_models(run, variant, parameters, giga):
    code, out, err = run("summary", variant)
    assert (code, err) == (0, "")
    assert f"{parameters} parameters, {giga} multiply-adds" in out
    root = next(line for line in out.splitlines() if line.startswith("(model)"))
    assert root.split()[2:6] == ["1", "x", "1000", parameters]


def test_summary_counts_by_hand(run):
    """The stem of L1: 24 filters of 3x3x3 at 112x112, then 48 of 24x3x3 at 56x56, each with a bias and a norm."""
    out = run("summary", "efficientformer-l1")[1].splitlines()
    stem = next(line.split() for line in out if "EfficientFormerConvStem" in line)
    assert stem[-2] == f"{24 * 28 + 48 * (24 * 9 + 1) + 2 * 24 + 2 * 48:,}"
    assert stem[-1] == f"{24 * 27 * 112**2 + 48 * 24 * 9 * 56**2:,}"


def test_summary_at_another_size(run):
    code, out, _ = run("summary", "efficientformer-l1", "--size", 256)
    assert code == 0
    assert "1 x 64 x 448" in out, "8 x 8 tokens"


def test_summary_of_the_shipped_model(run):
    code, out, _ = run("summary")
    assert code == 0
    assert "742,658 parameters" in out


def test_record_writes_a_trace(run, directory, picture, tmp_path):
    target = tmp_path / "trace.safetensors"
    code, out, err = run("record", directory, picture, "-o", target, "--dtype", "float64")
    trace = Trace.load(target)
    assert (code, err) == (0, "")
    assert f"{len(trace)} values" in out
    assert trace[""].shape == (1, 11)
    assert trace[""].dtype == np.float64


def test_record_of_a_variant_says_that_its_weights_are_random(run, picture, tmp_path):
    code, _, err = run("record", "efficientformer-l1", picture, "-o", tmp_path / "trace.safetensors")
    assert code == 0
    assert "random" in err


def test_models_lists_variants_and_shipped_models(run):
    code, out, err = run("models")
    assert (code, err) == (0, "")
    table = out.split("\n\n")[0].splitlines()
    assert [line.split()[0] for line in table[1:]] == [*VARIANTS, *shipped_models()]
    b4 = next(line for line in table if line.startswith("efficientnet-b4 "))
    assert b4.split() == ["efficientnet-b4", "19,341,616", "4.394", "G", "380", "x", "380", "82.9", "ImageNet-1k"]
    shipped = next(line for line in table if line.startswith("efficientformer-fashion"))
    assert shipped.split()[1:] == ["742,658", "0.072", "G", "224", "x", "224", "92.11", "Fashion-MNIST"]


def test_models_takes_a_pattern_and_prints_json(run):
    rows = json.loads(run("models", "Swift*-?s", "--json")[1])
    assert rows == [
        {
            "name": "swiftformer-xs", "parameters": 3475360, "multiply_adds": 602434988, "image_size": 224,
            "top1": 75.7, "data_set": "ImageNet-1k",
        }
    ]  # fmt: skip


@pytest.mark.parametrize("name", shipped_models())
def test_every_shipped_model_classifies_the_shipped_pictures(run, name):
    out = run("classify", "--model", name)[1].splitlines()
    assert int(out[-1].split(" of ")[0]) >= 17
    assert name in out[-1]


def test_another_librarys_name_is_understood(run):
    ours = run("summary", "efficientnet-b0", "--size", 64)[1].splitlines()
    assert run("summary", "timm/tf_efficientnet_b0.ns_jft_in1k", "--size", 64)[1].splitlines()[2:] == ours[2:]


def shell(*arguments, **environment):
    return subprocess.run(
        [sys.executable, "-m", "npformer", *arguments],
        capture_output=True,
        env={**os.environ, **environment},
        timeout=1200,
        check=False,
    )


def test_the_module_runs_as_a_program_even_where_only_ascii_can_be_printed():
    done = shell("classify", PYTHONIOENCODING="ascii")
    assert done.returncode == 0, done.stderr.decode()
    assert b"#####" in done.stdout
    assert shell("classify", "absent.png").returncode == 2
    assert b"Traceback" not in shell("classify", "absent.png").stderr
    assert shell("--version").stdout.startswith(b"npformer ")


def test_a_reader_that_leaves_early_causes_no_complaint():
    command = f'"{sys.executable}" -m npformer summary efficientformer-l1 | head -1'
    done = subprocess.run(
        ["bash", "-c", f"set -o pipefail; {command}"], capture_output=True, timeout=1200, check=False
    )
    assert done.stderr == b""
