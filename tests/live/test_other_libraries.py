"""Models of timm and torchvision, with the same random weights, give the same numbers as ours.

Every weight is drawn by the name it has here and put into the other library's model through the tables of
`npformer.checkpoint.sources`, so this tests the tables, their settings and the models at once. float64 throughout.
"""

from __future__ import annotations

import functools
import importlib.util
import re
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
if not all(importlib.util.find_spec(name) for name in ("timm", "torchvision")):
    pytest.skip("needs timm and torchvision", allow_module_level=True)

from npformer.checkpoint import sources  # noqa: E402
from npformer.models.efficientformer import (  # noqa: E402
    EfficientFormerConfig,
    EfficientFormerForImageClassification,
    EfficientFormerForImageClassificationWithTeacher,
)
from npformer.models.efficientnet import EfficientNetConfig, EfficientNetForImageClassification  # noqa: E402
from npformer.models.swiftformer import SwiftFormerConfig, SwiftFormerForImageClassification  # noqa: E402
from npformer.nn import watch  # noqa: E402
from npformer.ops import attention_bias_index  # noqa: E402
from tests.live import torchvision_shim  # noqa: E402
from tests.support import fill, pixel_values  # noqa: E402
from tests.sweep import sweep  # noqa: E402

torchvision = torchvision_shim.load()
import timm  # noqa: E402 - it imports torchvision

CLASSES: dict[str, tuple[Any, Any]] = {
    "efficientformer": (EfficientFormerConfig, EfficientFormerForImageClassificationWithTeacher),
    "efficientnet": (EfficientNetConfig, EfficientNetForImageClassification),
    "swiftformer": (SwiftFormerConfig, SwiftFormerForImageClassification),
}
SOURCES = {"timm": sources.timm, "torchvision": sources.torchvision}
SQUARE = (2, 3, 224, 224)


def family_of(source: str, architecture: str) -> str:
    return SOURCES[source].ARCHITECTURES[architecture].variant.split("-")[0]


def our_config(source: str, architecture: str, **overrides: Any) -> Any:
    """The config here that the source's table says is theirs, but for `overrides`."""
    variant, settings = SOURCES[source].ARCHITECTURES[architecture]
    config_class, _ = CLASSES[family_of(source, architecture)]
    return config_class.for_variant(variant, **{**settings, "num_labels": 1000, **overrides})


@functools.cache
def our_model(source: str, architecture: str) -> Any:
    _, model_class = CLASSES[family_of(source, architecture)]
    return fill(model_class(our_config(source, architecture), init_weights=False), np.float64)


def with_settings(source: str, architecture: str, **overrides: Any) -> Any:
    """Our model with the same arrays and other settings."""
    model = our_model(source, architecture)
    if not overrides:
        return model
    other = type(model)(our_config(source, architecture, **overrides), init_weights=False)
    return other.astype(np.float64).load_state_dict(model.state_dict())


def create(source: str, architecture: str, **options: Any) -> torch.nn.Module:
    with torch.device("meta"):  # names and shapes only: no time goes into initial weights
        if source == "timm":
            return timm.create_model(architecture, **options)
        return torchvision.models.get_model(architecture, **options)


@functools.cache
def their_model(source: str, architecture: str) -> torch.nn.Module:
    """Their model with our weights: every weight of ours goes in, and every one of theirs is set."""
    model = create(source, architecture)
    state = our_model(source, architecture).state_dict()
    names = SOURCES[source].rename(model.state_dict(), family_of(source, architecture))
    assert sorted(names.values()) == sorted(state)
    return load(model, {key: state[name] for key, name in names.items()})


def load(model: torch.nn.Module, state: dict[str, np.ndarray]) -> torch.nn.Module:
    model.load_state_dict({key: torch.from_numpy(array) for key, array in state.items()}, assign=True)
    return model.eval()


@torch.no_grad()
def run(model: torch.nn.Module, pixels: np.ndarray) -> Any:
    return model(torch.from_numpy(pixels))


@functools.cache
def their_logits(source: str, architecture: str, shape: tuple[int, ...]) -> torch.Tensor:
    logits = run(their_model(source, architecture), pixel_values(shape))
    assert logits.abs().max() > 0.3  # of order one, so that nothing hides in small numbers
    return logits


def difference(ours: np.ndarray, theirs: torch.Tensor) -> float:
    """The largest difference, over their largest value where that is below 1."""
    expected = theirs.numpy()
    assert ours.shape == expected.shape
    return float(np.abs(ours - expected).max() / min(1.0, np.abs(expected).max()))


def logits_difference(source: str, architecture: str, shape: tuple[int, ...], **overrides: Any) -> float:
    ours = with_settings(source, architecture, **overrides)(pixel_values(shape)).logits
    return difference(ours, their_logits(source, architecture, shape))


@pytest.mark.parametrize(
    ("source", "architecture"),
    [
        ("timm", "efficientformer_l1"),
        ("timm", "efficientnet_b0"),
        ("timm", "tf_efficientnet_b0"),
        ("timm", "swiftformer_xs"),
        ("torchvision", "efficientnet_b0"),
    ],
)
def test_logits(source: str, architecture: str) -> None:
    assert logits_difference(source, architecture, SQUARE) <= 1e-10


@pytest.mark.parametrize(
    ("source", "architecture", "override", "least"),
    [
        ("timm", "efficientformer_l1", {"layer_norm_eps": 1e-12}, 1e-9),
        ("timm", "efficientnet_b0", {"batch_norm_eps": 1e-3}, 1e-3),
        ("timm", "efficientnet_b0", {"padding": "hf-static"}, 1e-3),
        ("timm", "tf_efficientnet_b0", {"batch_norm_eps": 1e-5}, 1e-3),
        ("timm", "tf_efficientnet_b0", {"padding": "symmetric"}, 1e-3),
        ("timm", "swiftformer_xs", {"attention_norm": "ones"}, 1.0),
        ("torchvision", "efficientnet_b0", {"padding": "tf-same-dynamic"}, 1e-3),
    ],
)
def test_each_setting_is_needed(source: str, architecture: str, override: dict[str, Any], least: float) -> None:
    assert logits_difference(source, architecture, SQUARE, **override) > least


@pytest.mark.parametrize(
    ("architecture", "our_heads"),
    [("efficientformer_l1", ["classifier", "distillation_classifier"]), ("swiftformer_xs", ["head", "dist_head"])],
)
def test_both_heads_are_averaged(architecture: str, our_heads: list[str]) -> None:
    model = their_model("timm", architecture)
    theirs: list[torch.Tensor] = []
    handles = [h.register_forward_hook(lambda *call: theirs.append(call[2])) for h in (model.head, model.head_dist)]
    logits = run(model, pixel_values(SQUARE))
    for handle in handles:
        handle.remove()
    assert difference(((theirs[0] + theirs[1]) / 2).numpy(), logits) <= 1e-15

    ours: dict[str, np.ndarray] = {}

    def keep(name: str, module: Any, inputs: Any, output: Any, layout: Any) -> Any:
        ours[name] = output
        return output

    with watch(our_model("timm", architecture), keep):
        our_model("timm", architecture)(pixel_values(SQUARE))
    for name, tensor in zip(our_heads, theirs):  # an average would not show that they are swapped
        assert difference(ours[name], tensor) <= 1e-10
        assert difference(ours[name], logits) > 0.1


def test_one_head_of_efficientformer_is_another_answer() -> None:
    """Two heads in the file, one class that reads both (as timm) and one that reads the first."""
    config = our_config("timm", "efficientformer_l1")
    one_headed = fill(EfficientFormerForImageClassification(config, init_weights=False), np.float64)
    logits = their_logits("timm", "efficientformer_l1", SQUARE)
    assert difference(one_headed(pixel_values(SQUARE)).logits, logits) > 0.1


def test_index_of_attention_biases() -> None:
    """The one thing that is in files and not taken from them."""
    theirs = timm.models.efficientformer.Attention(dim=8, num_heads=2, key_dim=4, resolution=7).attention_bias_idxs
    assert np.array_equal(attention_bias_index(7), theirs.numpy())


@pytest.mark.parametrize(
    ("architecture", "height", "width", "static_is_right"),
    [
        ("tf_efficientnet_b0", 225, 225, False),
        ("tf_efficientnet_b0", 240, 240, False),
        ("tf_efficientnet_b0", 256, 256, True),  # halves to even sides throughout, as 224 does
        ("tf_efficientnet_b0", 299, 299, False),
        ("tf_efficientnet_b0", 231, 194, False),
        ("tf_efficientnet_b1", 240, 240, True),  # the size that its list of odd blocks is for
        ("tf_efficientnet_b1", 224, 224, False),
        ("tf_efficientnet_b1", 256, 256, False),
    ],
)
def test_dynamic_padding_at_other_resolutions(
    architecture: str, height: int, width: int, static_is_right: bool
) -> None:
    shape = (2, 3, height, width)
    assert logits_difference("timm", architecture, shape) <= 1e-10
    static = logits_difference("timm", architecture, shape, padding="hf-static")
    assert static <= 1e-10 if static_is_right else static > 1e-3


@pytest.mark.parametrize(
    ("source", "height", "width"), [("timm", 225, 225), ("timm", 193, 256), ("torchvision", 227, 190)]
)
def test_symmetric_padding_at_other_resolutions(source: str, height: int, width: int) -> None:
    assert logits_difference(source, "efficientnet_b0", (2, 3, height, width)) <= 1e-10


def test_swiftformer_at_another_resolution() -> None:
    assert logits_difference("timm", "swiftformer_xs", (2, 3, 193, 256)) <= 1e-10


@pytest.mark.parametrize(
    ("source", "architecture"),
    sweep(
        [
            *(("timm", f"efficientformer_{size}") for size in ("l3", "l7")),
            *(("timm", f"efficientnet_b{n}") for n in (1, 2, 3, 4)),
            *(("timm", f"swiftformer_{size}") for size in ("s", "l1", "l3")),
            *(("torchvision", f"efficientnet_b{n}") for n in (1, 4)),
        ],
        [("timm", "swiftformer_s"), ("torchvision", "efficientnet_b1")],
    ),
)
def test_names_and_shapes_of_larger_variants(source: str, architecture: str) -> None:
    _, model_class = CLASSES[family_of(source, architecture)]
    ours = model_class(our_config(source, architecture), init_weights=False).state_dict()
    theirs = create(source, architecture).state_dict()
    names = SOURCES[source].rename(theirs, family_of(source, architecture))
    shapes = {name: tuple(theirs[key].shape) for key, name in names.items()}
    assert shapes == {name: array.shape for name, array in ours.items()}


@pytest.mark.parametrize("architecture", ["efficientformer_l1", "efficientnet_b0", "swiftformer_xs"])
def test_feature_maps(architecture: str) -> None:
    """Raw maps of strides 4 to 32, before any final norm; timm's EfficientNet also has one of stride 2."""
    scales = (1, 2, 3, 4) if architecture.startswith("efficientnet") else (0, 1, 2, 3)
    model = create("timm", architecture, features_only=True, out_indices=scales)
    assert model.feature_info.reduction() == [4, 8, 16, 32]
    # These models hold the same layers under a prefix, or with the list's name and index run together.
    keys = {re.sub(r"^(stem|stages)_", r"\1.", key.removeprefix("model.")): key for key in model.state_dict()}
    names = sources.timm.rename(keys, family_of("timm", architecture))
    state = our_model("timm", architecture).state_dict()
    pixels = pixel_values(SQUARE)
    theirs = run(load(model, {keys[key]: state[name] for key, name in names.items()}), pixels)
    ours = our_model("timm", architecture).extract_feat(pixels)
    assert [feature.shape[2] for feature in ours] == [56, 28, 14, 7]
    assert len(ours) == len(theirs)
    for our_map, their_map in zip(ours, theirs):
        assert difference(our_map, their_map) <= 1e-10
