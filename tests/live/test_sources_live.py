"""Weights of the libraries themselves, recognised and loaded, give their numbers.

Each library's own model is made with random weights of order one, its names and shapes are the only input of
`recognise`, and its logits are compared with ours in float64 (TensorFlow: float32). Every library is optional. The
authors' repositories are not on PyPI: their names are tested in tests/test_sources.py alone, their networks as timm's.
"""

from __future__ import annotations

import importlib.util
import os
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from npformer.convert.recognise import Recognised, recognise
from npformer.models import efficientformer, efficientnet, swiftformer
from tests.support import pixel_values, random_state

FAMILIES = (efficientformer, efficientnet, swiftformer)
SQUARE = (2, 3, 224, 224)


def needs(*libraries: str) -> pytest.MarkDecorator:
    missing = [library for library in libraries if not importlib.util.find_spec(library)]
    return pytest.mark.skipif(bool(missing), reason=f"needs {', '.join(missing)}")


def our_model(found: Recognised, dtype: Any = np.float64) -> Any:
    """The model that was recognised, without weights."""
    model_class = next(
        getattr(family, found.architecture) for family in FAMILIES if hasattr(family, found.architecture)
    )
    return model_class(found.config(), init_weights=False).astype(dtype)


def in_torch(model: Any, hint: str = "") -> tuple[Recognised, Any, Callable[[np.ndarray], Any]]:
    """A model of torch with random weights, drawn by our names: what it is, ours with the same, and how to run it."""
    import torch

    found = recognise({key: tuple(tensor.shape) for key, tensor in model.state_dict().items()}, hint=hint)
    drawn = random_state({name: model.state_dict()[key].numpy() for key, name in found.names.items()})
    model.double().load_state_dict({key: torch.from_numpy(drawn[name]) for key, name in found.names.items()})
    model.eval()
    arrays = {key: tensor.numpy() for key, tensor in model.state_dict().items()}
    ours = our_model(found).load_state_dict(found.state(arrays))

    def run(pixels: np.ndarray) -> Any:
        with torch.no_grad():
            return model(torch.from_numpy(pixels))

    return found, ours, run


def assert_equal(ours: np.ndarray, theirs: Any, tolerance: float = 1e-10) -> None:
    theirs = np.asarray(theirs)
    assert ours.shape == theirs.shape
    largest = np.abs(theirs).max()
    assert largest > 0.1
    assert np.abs(ours - theirs).max() <= tolerance * max(1.0, largest)


@pytest.fixture
def loud() -> Iterator[None]:
    """Ignore warnings, which other libraries raise."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


TRANSFORMERS = {
    "EfficientFormerForImageClassificationWithTeacher": {"depths": [1, 1, 2, 3], "num_meta3d_blocks": 2},
    "EfficientFormerForImageClassification": {"depths": [1, 1, 1, 2]},
    "EfficientFormerModel": {"num_channels": 4},
    "EfficientNetForImageClassification": {
        "width_coefficient": 1.0, "depth_coefficient": 1.0, "hidden_dim": 1280, "num_labels": 7,
    },
    "EfficientNetModel": {"width_coefficient": 1.0, "depth_coefficient": 1.0, "hidden_dim": 1280},
    "SwiftFormerForImageClassification": {"depths": [1, 2, 2, 1]},
    "SwiftFormerModel": {},
}  # fmt: skip


@needs("torch", "transformers")
@pytest.mark.parametrize("class_name", TRANSFORMERS)
def test_transformers(class_name: str) -> None:
    from tests.live import oracle
    from tests.support import Case

    settings = TRANSFORMERS[class_name]
    if class_name.startswith("EfficientFormer"):
        settings = {"hidden_sizes": [48, 96, 224, 448], **settings}
    found, ours, run = in_torch(oracle.build(Case(class_name, SQUARE, settings)))
    assert (found.source, found.architecture) == ("transformers", class_name)
    pixels = pixel_values((2, settings.get("num_channels", 3), 224, 224))
    expected, got = run(pixels), ours(pixels)
    main = "logits" if "logits" in expected else "last_hidden_state"
    assert_equal(getattr(got, main), expected[main])


@needs("torch", "timm", "torchvision")
@pytest.mark.parametrize(
    ("library", "name", "hint"),
    [
        ("timm", "efficientformer_l1", ""),
        ("timm", "swiftformer_xs", ""),
        ("timm", "efficientnet_b1", "efficientnet_b1.ft_in1k"),
        ("timm", "tf_efficientnet_b1", "tf_efficientnet_b1_ns"),
        ("torchvision", "efficientnet_b1", ""),
    ],
)
def test_timm_and_torchvision(library: str, name: str, hint: str, loud: None) -> None:
    from tests.live import torchvision_shim

    torchvision = torchvision_shim.load()
    import timm

    theirs = timm.create_model(name) if library == "timm" else torchvision.models.get_model(name)
    found, ours, run = in_torch(theirs, hint)
    assert found.source == library
    assert found.variant == name.removeprefix("tf_").replace("_", "-")
    assert_equal(ours(pixel_values(SQUARE)).logits, run(pixel_values(SQUARE)))


@needs("torch", "efficientnet_pytorch")
@pytest.mark.parametrize(
    ("name", "side"), [("efficientnet-b0", 224), ("efficientnet-b2", 260), ("efficientnet-b0", 240)]
)
def test_lukemelas(name: str, side: int, loud: None) -> None:
    from efficientnet_pytorch import EfficientNet

    found, ours, run = in_torch(EfficientNet.from_name(name, num_classes=9))
    assert (found.source, found.variant, found.settings["num_labels"]) == ("lukemelas", name, 9)
    pixels = pixel_values((1, 3, side, side))
    assert_equal(ours(pixels).logits, run(pixels))


@needs("torch", "efficientnet_pytorch")
def test_lukemelas_without_a_classifier(loud: None) -> None:
    from efficientnet_pytorch import EfficientNet

    theirs = EfficientNet.from_name("efficientnet-b1", include_top=False)
    found, ours, run = in_torch(theirs)
    assert found.architecture == "EfficientNetModel"
    pixels = pixel_values((1, 3, 240, 240))
    assert_equal(ours(pixels).pooler_output, run(pixels)[:, :, 0, 0])


@needs("torch", "mmpretrain", "mmengine", "mmcv")
@pytest.mark.parametrize("size", ["l1", "l3"])
def test_mmpretrain(size: str, loud: None) -> None:
    from mmpretrain import get_model

    found, ours, run = in_torch(get_model(f"efficientformer-{size}_3rdparty_8xb128_in1k"))
    assert (found.source, found.variant) == ("mmpretrain", f"efficientformer-{size}")
    assert_equal(ours(pixel_values(SQUARE)).logits, run(pixel_values(SQUARE)))


def read_h5(path: Path) -> dict[str, np.ndarray]:
    """All arrays of an HDF5 file by their paths."""
    import h5py

    arrays: dict[str, np.ndarray] = {}
    with h5py.File(path) as file:
        file.visititems(lambda name, item: arrays.update({name: item[()]}) if isinstance(item, h5py.Dataset) else None)
    return arrays


def randomise(variables: Any) -> None:
    """Variables of Keras, of order one."""
    generator = np.random.default_rng(5)
    for variable in variables:
        name, shape = getattr(variable, "path", variable.name), tuple(variable.shape)
        if "int" in str(variable.dtype) or name.split("/")[-2].startswith("normalization"):
            continue
        drawn = generator.standard_normal(shape)
        fan_in = np.prod(shape[:-1]) if "depthwise" not in name and "dwconv" not in name else 9
        if "kernel" in name:
            drawn /= np.sqrt(fan_in)
        if "variance" in name:
            drawn = 0.5 + np.abs(drawn)
        if "gamma" in name or "layer_scale" in name:
            drawn = 1 + 0.2 * drawn
        variable.assign(drawn)


@needs("keras", "tensorflow", "h5py")
@pytest.mark.parametrize("suffix", [".h5", ".weights.h5"])
@pytest.mark.parametrize("top", [True, False])
def test_keras(suffix: str, top: bool, tmp_path: Path, loud: None) -> None:
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")  # with torch's it computes partly in float32
    import keras

    keras.config.set_floatx("float64")
    options = {"classes": 9, "classifier_activation": None} if top else {"pooling": "avg"}
    theirs = keras.applications.EfficientNetB1(
        weights=None, include_top=top, input_shape=(None if top else (240, 240, 3)), **options
    )
    randomise(theirs.weights)
    path = tmp_path / f"weights{suffix}"
    (theirs.save_weights if suffix == ".weights.h5" else theirs.save)(path)
    arrays = read_h5(path)
    found = recognise({key: array.shape for key, array in arrays.items()})
    assert (found.source, found.variant) == ("keras", "efficientnet-b1")
    assert len(found.dropped) >= 3
    ours = our_model(found).load_state_dict(found.state(arrays))
    pixels = pixel_values((2, 240, 240, 3))
    inside = keras.Model(theirs.get_layer("stem_conv_pad").input, theirs.output)  # behind the normalisation
    expected = inside(pixels)
    result = ours(np.ascontiguousarray(pixels.transpose(0, 3, 1, 2)))
    assert_equal(result.logits if top else result.pooler_output, expected)


@needs("tensorflow", "tf_keras", "transformers", "h5py")
@pytest.mark.parametrize("family", ["swiftformer", "efficientformer"])
def test_transformers_for_tensorflow(family: str, tmp_path: Path, loud: None) -> None:
    os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")
    import transformers
    from transformers.models.deprecated import efficientformer as deprecated

    if family == "swiftformer":
        theirs = transformers.TFSwiftFormerForImageClassification(transformers.SwiftFormerConfig(num_labels=9))
    else:
        config = deprecated.EfficientFormerConfig(num_labels=9, hidden_size=448)
        theirs = deprecated.TFEfficientFormerForImageClassificationWithTeacher(config)
    pixels = pixel_values((1, 3, 224, 224)).astype(np.float32)
    theirs(pixels)
    randomise(theirs.weights)
    theirs.save_pretrained(tmp_path)
    arrays = read_h5(tmp_path / "tf_model.h5")
    found = recognise({key: array.shape for key, array in arrays.items()})
    assert (found.source, found.family) == ("tensorflow", family)
    ours = our_model(found, np.float64).load_state_dict(found.state(arrays))
    assert_equal(ours(pixels).logits, theirs(pixels).logits, tolerance=1e-5)
