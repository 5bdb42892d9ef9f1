"""`npformer convert` and loading other libraries' files: what it says, what it writes, and how it refuses."""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from npformer import (
    AutoConfig,
    AutoImageProcessor,
    AutoModel,
    AutoModelForImageClassification,
    EfficientFormerForImageClassification,
    EfficientFormerForImageClassificationWithTeacher,
    EfficientNetConfig,
    EfficientNetForImageClassification,
    SwiftFormerModel,
    get_model,
    ops,
)
from npformer.assets.imagenet import imagenet_labels
from npformer.checkpoint import read_tensors, write_tensors
from npformer.checkpoint.files import read_weights
from npformer.checkpoint.sources import keras
from npformer.checkpoint.weights import CheckpointError
from npformer.cli import main
from npformer.convert.pipeline import load_checkpoint, read_labels
from npformer.image import EfficientFormerImageProcessor, ViTImageProcessor
from npformer.models.timm_config import TimmImageProcessor
from tests import tiny
from tests.support import SWIFT, TWO_HEADS, fill
from tests.test_sources import our_shapes, their_keys

ROOT = Path(__file__).parents[1]
FIXTURES = Path(__file__).parent / "fixtures"


def swift(num_labels: int = 7, **settings: Any) -> Any:
    """A SwiftFormer-XS with random weights."""
    return fill(get_model("swiftformer-xs", num_labels=num_labels, **settings), np.float32)


def as_timm(model: Any, architecture: str = "swiftformer_xs") -> dict[str, np.ndarray]:
    """Its arrays by timm's names."""
    family, ours = our_shapes("timm", architecture)
    state = model.state_dict()
    return {key: state[name] for key, name in their_keys("timm", family, ours).items()}


@pytest.fixture
def timm_file(tmp_path: Path) -> Path:
    path = tmp_path / "swiftformer_xs.safetensors"
    write_tensors(path, as_timm(swift(attention_norm="l2")))
    return path


PICTURES = np.random.default_rng(0).standard_normal((2, 3, 64, 64), np.float32)


def test_convert_writes_a_directory_that_loads(timm_file: Path, tmp_path: Path, capsys: Any) -> None:
    assert main(["convert", str(timm_file), str(tmp_path / "new" / "out"), "--verify"]) == 0
    out = capsys.readouterr().out
    folder = tmp_path / "new" / "out"
    assert sorted(p.name for p in folder.iterdir()) == [
        "config.json", "model.safetensors", "preprocessor_config.json",
    ]  # fmt: skip
    assert [p.name for p in folder.parent.iterdir()] == ["out"], "nothing else is left"
    digest = hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
    for said in (
        "316 arrays",
        "swiftformer-xs",
        "timm",
        "attention_norm='l2'",
        digest,
        "read back equal",
        "7 classes",
    ):
        assert said in out
    model = AutoModelForImageClassification.from_pretrained(folder)
    assert model.config.attention_norm == "l2"
    np.testing.assert_array_equal(model(PICTURES).logits, swift(attention_norm="l2")(PICTURES).logits)
    assert isinstance(AutoImageProcessor.from_pretrained(folder), EfficientFormerImageProcessor)


def test_the_script_does_the_same(timm_file: Path, tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "weights_convert.py"), str(timm_file), str(tmp_path / "out")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=1200)
    assert (done.returncode, done.stderr) == (0, "")
    assert "wrote" in done.stdout
    again = subprocess.run(command, capture_output=True, text=True, check=False, timeout=1200)
    assert again.returncode == 2
    assert "exists already" in again.stderr
    assert "Traceback" not in again.stderr


def test_half_precision(timm_file: Path, tmp_path: Path) -> None:
    assert main(["convert", str(timm_file), str(tmp_path / "out"), "--dtype", "float16"]) == 0
    halves = read_tensors(tmp_path / "out" / "model.safetensors")
    full = swift(attention_norm="l2").state_dict()
    for name, array in halves.items():
        is_float = full[name].dtype == np.float32
        assert array.dtype == (np.float16 if is_float else full[name].dtype)
        np.testing.assert_array_equal(array, full[name].astype(array.dtype))
    assert json.loads((tmp_path / "out" / "config.json").read_text())["torch_dtype"] == "float16"
    assert AutoModelForImageClassification.from_pretrained(tmp_path / "out").dtype == np.float32


def test_weights_beyond_float16_are_refused_and_leave_nothing(timm_file: Path, tmp_path: Path, capsys: Any) -> None:
    state = as_timm(swift())
    write_tensors(timm_file, {**state, "head.bias": state["head.bias"] * 1e6})
    assert main(["convert", str(timm_file), str(tmp_path / "out"), "--dtype", "float16"]) == 2
    assert "beyond float16" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == [timm_file.name]


def test_labels(timm_file: Path, tmp_path: Path) -> None:
    names = [f"class {n}" for n in range(7)]
    forms = {"lines.txt": "\n".join(names) + "\n", "list.json": json.dumps(names)}
    forms["mapping.json"] = json.dumps({str(n): name for n, name in enumerate(names)})
    for file, text in forms.items():
        (tmp_path / file).write_text(text)
        assert read_labels(tmp_path / file) == names
        assert main(["convert", str(timm_file), str(tmp_path / f"out-{file}"), "--labels", str(tmp_path / file)]) == 0
        config = AutoConfig.from_pretrained(tmp_path / f"out-{file}")
        assert config.id2label == dict(enumerate(names))
        assert config.label2id["class 3"] == 3
    with pytest.raises(ValueError, match="labels must name 7 classes, as many as the weights have, got 3"):
        load_checkpoint(timm_file, labels=["a", "b", "c"])
    (tmp_path / "bad.json").write_text('{"1": "no zero"}')
    with pytest.raises(ValueError, match="must hold names line by line"):
        read_labels(tmp_path / "bad.json")


def test_a_thousand_classes_without_names_are_imagenets(tmp_path: Path) -> None:
    write_tensors(tmp_path / "swiftformer_xs.safetensors", as_timm(swift(1000)))
    config = load_checkpoint(tmp_path / "swiftformer_xs.safetensors").model.config
    assert list(config.id2label.values()) == imagenet_labels()
    assert config.id2label[281].startswith("tabby")


@pytest.mark.parametrize("container", ["safetensors", "npz"])
@pytest.mark.parametrize("wrapper", ["", "module."])
def test_containers_and_prefixes(container: str, wrapper: str, tmp_path: Path) -> None:
    model = swift(attention_norm="l2")
    state = {wrapper + key: array for key, array in as_timm(model).items()}
    path = tmp_path / f"swiftformer_xs.{container}"
    write_tensors(path, state) if container == "safetensors" else np.savez(path, **state)
    checkpoint = load_checkpoint(path)
    assert checkpoint.container.startswith(container)
    np.testing.assert_array_equal(checkpoint.model(PICTURES).logits, model(PICTURES).logits)


def test_source_and_variant_can_be_given(timm_file: Path, tmp_path: Path) -> None:
    assert load_checkpoint(timm_file, variant="MBZUAI/swiftformer-xs").model.config.attention_norm == "ones"
    assert load_checkpoint(timm_file, overrides={"attention_norm": "ones"}).model.config.attention_norm == "ones"
    for options in ({"source": "torchvision"}, {"variant": "swiftformer-s"}, {"source": "tim"}, {"variant": "xs"}):
        with pytest.raises(CheckpointError) as error:
            load_checkpoint(timm_file, **options)  # type: ignore[arg-type]
        assert "\n" not in str(error.value)


def test_one_key_too_few_or_too_many_is_listed_and_nothing_is_written(
    timm_file: Path, tmp_path: Path, capsys: Any
) -> None:
    state = as_timm(swift())
    for change, named in (
        ({"head.extra": np.zeros(3, np.float32)}, "head.extra"),
        ({}, "stages.0.blocks.1.norm.weight"),
    ):
        changed = {key: array for key, array in {**state, **change}.items() if change or key != named}
        write_tensors(timm_file, changed)
        assert main(["convert", str(timm_file), str(tmp_path / "out")]) == 2
        err = capsys.readouterr().err
        assert named.replace("stages.0", "").split(".")[-2] in err
        assert err.startswith("npformer: error: ")
        assert err.count("\n") == 1
        assert not (tmp_path / "out").exists()


def test_bad_input_gets_one_sentence(tmp_path: Path, capsys: Any) -> None:
    (tmp_path / "text.pth").write_text("no weights")
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("")
    write_tensors(tmp_path / "other.safetensors", {"a": np.zeros(3, np.float32)})
    for arguments, said in [
        (["absent.pth", "out"], "there is no file"),
        (["text.pth", "out"], "no weight file"),
        (["empty", "out"], "holds no weights"),
        (["other.safetensors", "out"], "none of the keys is known"),
    ]:
        assert main(["convert", *(str(tmp_path / a) for a in arguments)]) == 2
        err = capsys.readouterr().err
        assert said in err
        assert err.count("\n") == 1
        assert not (tmp_path / "out").exists()


# --- directories of other libraries, by from_pretrained --------------------------------------------------------------


TIMM_CONFIG = {
    "architecture": "swiftformer_xs", "num_classes": 7, "num_features": 220,
    "pretrained_cfg": {
        "tag": "dist_in1k", "input_size": [3, 224, 224], "interpolation": "bicubic", "crop_pct": 0.95,
        "crop_mode": "center", "mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225], "num_classes": 7,
        "label_names": [f"thing {n}" for n in range(7)],
    },
}  # fmt: skip


@pytest.fixture
def timm_directory(tmp_path: Path) -> Path:
    folder = tmp_path / "timm"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(TIMM_CONFIG))
    write_tensors(folder / "model.safetensors", as_timm(swift(attention_norm="l2")))
    return folder


def test_timms_directories_load_by_every_way_in(timm_directory: Path) -> None:
    expected = swift(attention_norm="l2")
    for load in (AutoModelForImageClassification.from_pretrained, lambda p: get_model(p, pretrained=True)):
        model = load(timm_directory)
        assert model.config.attention_norm == "l2"
        assert model.config.id2label[6] == "thing 6"
        np.testing.assert_array_equal(model(PICTURES).logits, expected(PICTURES).logits)
    for cls in (AutoModel, SwiftFormerModel):
        bare = cls.from_pretrained(timm_directory, dtype=np.float64)
        assert bare.dtype == np.float64
        wide = expected.astype(np.float64).swiftformer(PICTURES).last_hidden_state
        np.testing.assert_allclose(bare(PICTURES).last_hidden_state, wide, rtol=1e-12)
    config = AutoConfig.from_pretrained(timm_directory)
    assert (config.num_labels, config.attention_norm, config.id2label[0]) == (7, "l2", "thing 0")
    processor = AutoImageProcessor.from_pretrained(timm_directory)
    assert type(processor) is TimmImageProcessor
    assert processor.size == {"shortest_edge": 235}
    with pytest.raises(ValueError, match="holds a SwiftFormerForImageClassification, which EfficientFormer"):
        EfficientFormerForImageClassification.from_pretrained(timm_directory)


def test_timms_directories_convert(timm_directory: Path, tmp_path: Path) -> None:
    assert main(["convert", str(timm_directory), str(tmp_path / "out")]) == 0
    processor = AutoImageProcessor.from_pretrained(tmp_path / "out")
    picture = np.random.default_rng(0).integers(0, 256, (300, 260, 3), np.uint8)
    before = AutoImageProcessor.from_pretrained(timm_directory)(picture)["pixel_values"]
    np.testing.assert_array_equal(processor(picture)["pixel_values"], before)
    assert AutoConfig.from_pretrained(tmp_path / "out").id2label[2] == "thing 2"


def test_the_class_that_a_config_asks_for_is_kept(tmp_path: Path) -> None:
    """A file with two heads whose config names the class with one: as transformers reads it."""
    tiny.model(TWO_HEADS).save_pretrained(tmp_path / "in")
    path = tmp_path / "in" / "config.json"
    path.write_text(
        json.dumps({**json.loads(path.read_text()), "architectures": ["EfficientFormerForImageClassification"]})
    )
    ViTImageProcessor(size=64).save_pretrained(tmp_path / "in")
    assert main(["convert", str(tmp_path / "in"), str(tmp_path / "out")]) == 0
    with pytest.warns(UserWarning, match="does not use distillation_classifier"):
        model = AutoModelForImageClassification.from_pretrained(tmp_path / "out")
    assert type(model) is EfficientFormerForImageClassification
    both = EfficientFormerForImageClassificationWithTeacher.from_pretrained(tmp_path / "out")
    np.testing.assert_array_equal(both(tiny.pictures()).logits, tiny.model(TWO_HEADS)(tiny.pictures()).logits)
    assert type(AutoImageProcessor.from_pretrained(tmp_path / "out")) is ViTImageProcessor


def test_settings_of_a_config_json_are_believed(tmp_path: Path) -> None:
    """eps and activations leave no trace in the weights."""
    model = tiny.model(SWIFT, batch_norm_eps=0.01, hidden_act="relu", id2label={n: f"x{n}" for n in range(5)})
    model.save_pretrained(tmp_path / "in")
    checkpoint = load_checkpoint(tmp_path / "in")
    assert checkpoint.model.config.id2label[4] == "x4"
    np.testing.assert_array_equal(checkpoint.model(tiny.pictures()).logits, model(tiny.pictures()).logits)


def test_names_of_the_hub_are_fetched(timm_directory: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    asked: list[tuple[str, str | None]] = []

    def download(repo_id: str, *, revision: str | None = None, weights: bool = True) -> Path:
        asked.append((repo_id, revision))
        return timm_directory

    monkeypatch.setattr("npformer.checkpoint.hub.download", download)
    name = "timm/swiftformer_xs.dist_in1k"
    model = AutoModelForImageClassification.from_pretrained(name, revision="v2")
    assert set(asked) == {(name, "v2")}
    np.testing.assert_array_equal(model(PICTURES).logits, swift(attention_norm="l2")(PICTURES).logits)
    assert get_model(name, pretrained=True).config.num_labels == 7
    assert get_model(name).config.num_labels == 1000, "without pretrained nothing is fetched"
    assert AutoImageProcessor.from_pretrained(name).size == {"shortest_edge": 235}
    assert main(["classify", "--model", name, "--top", "1"]) == 0
    assert "thing" in capsys.readouterr().out


# --- recorded files of Keras and TensorFlow --------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["tf-efficientformer", "tf-swiftformer"])
def test_tensorflows_recorded_files_give_its_logits(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In float64. TensorFlow's GELU multiplies by a square root of 1/2 that stays rounded to float32."""
    pytest.importorskip("h5py")
    root = np.float64(np.float32(0.5**0.5))
    monkeypatch.setitem(ops.ACT2FN, "gelu", lambda x: x * (1 + ops.erf(x * root)) / 2)
    recorded = np.load(FIXTURES / f"{name}.npz")
    pixel_values = recorded["pixel_values"].astype(np.float64)
    model = AutoModelForImageClassification.from_pretrained(FIXTURES / name, dtype=np.float64)
    logits = model(pixel_values).logits
    np.testing.assert_allclose(logits, recorded["logits_float64"], atol=1e-10, rtol=0)
    assert main(["convert", str(FIXTURES / name), str(tmp_path / "out")]) == 0
    again = AutoModelForImageClassification.from_pretrained(tmp_path / "out", dtype=np.float64)
    np.testing.assert_allclose(again(pixel_values).logits, logits, rtol=1e-12)


KERAS_FILES = sorted(path for path in FIXTURES.glob("keras*") if path.suffix != ".npz")


@pytest.mark.parametrize("path", KERAS_FILES, ids=lambda path: path.name)
def test_every_recorded_keras_file_gives_keras_logits(path: Path) -> None:
    """Three of B0's stages, a quarter as wide: too little to be recognised, so the config is written out."""
    pytest.importorskip("h5py")
    config = EfficientNetConfig(
        width_coefficient=0.25, depth_coefficient=1.0, depth_divisor=4, hidden_dim=320, num_labels=5,
        in_channels=[32, 16, 24], out_channels=[16, 24, 40], kernel_sizes=[3, 3, 5], strides=[1, 2, 2],
        num_block_repeats=[1, 2, 1], expand_ratios=[1, 6, 6], padding="tf-same-dynamic",
    )  # fmt: skip
    arrays = read_weights(path).arrays
    kept = [key for key in arrays if not any(re.match(pattern, key) for pattern in keras.LEFT_OUT)]
    names = keras.rename(kept, "efficientnet")
    state = {name: keras.arrange(name, arrays[key]) for key, name in names.items()}
    model = EfficientNetForImageClassification(config).astype(np.float64).load_state_dict(state)
    recorded = np.load(FIXTURES / "keras-efficientnet.npz")
    mean, variance = (recorded[f"weights/normalization/{name}"].astype(np.float64) for name in ("mean", "variance"))
    for size in ("even", "odd"):
        pictures = recorded[f"pictures_{size}"] * np.float64(np.float32(1 / 255))  # Keras keeps it in float32
        pixel_values = ((pictures - mean) / np.sqrt(variance)).transpose(0, 3, 1, 2)
        expected = recorded[f"logits_{size}_float64"]
        np.testing.assert_allclose(model(pixel_values).logits, expected, atol=1e-10, rtol=0)


def test_there_is_a_file_of_every_keras_layout() -> None:
    assert [path.name for path in KERAS_FILES] == [
        "keras2-model.h5", "keras2-weights.h5", "keras2.keras", "keras2.weights.h5", "keras3-model.h5", "keras3.keras",
        "keras3.weights.h5",
    ]  # fmt: skip


def test_every_container_says_what_it_is(timm_file: Path, tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", a=np.zeros(2, np.float32))
    assert read_weights(tmp_path / "x.npz").container == "npz"
    assert read_weights(timm_file).container == "safetensors"
    with pytest.raises(CheckpointError, match="several files that may be the weights"):
        read_weights(tmp_path)
