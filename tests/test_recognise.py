"""Weights of every source and variant are recognised, their names and shapes made by other means than the tables."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest

from npformer.checkpoint.sources import SOURCES, original
from npformer.checkpoint.weights import CheckpointError
from npformer.convert.recognise import Recognised, recognise
from npformer.models import auto
from npformer.models.efficientnet import EfficientNetConfig, EfficientNetForImageClassification, block_shapes
from tests import tiny
from tests.sweep import first_of_each, sweep
from tests.test_sources import CLASSES, counted, our_shapes, their_keys, their_shape

Shapes = dict[str, tuple[int, ...]]
ARCHITECTURES = [(source, name) for source, known in SOURCES.items() for name in known.architectures]


def file_of(source: str, architecture: str) -> Shapes:
    """Names and shapes of a file."""
    family, ours = our_shapes(source, architecture)
    return as_file(source, family, ours)


def as_file(source: str, family: str, ours: Shapes) -> Shapes:
    return {key: their_shape(source, name, ours[name]) for key, name in their_keys(source, family, ours).items()}


def without(file: Shapes, pattern: str) -> Shapes:
    return {key: shape for key, shape in file.items() if not re.search(pattern, key)}


def refused(file: Shapes, *parts: str, **options: Any) -> str:
    with pytest.raises(CheckpointError) as error:
        recognise(file, **options)
    message = str(error.value)
    assert all(part in message for part in parts), message
    assert "\n" not in message
    return message


def shapes_of(model: Any) -> Shapes:
    return {name: array.shape for name, array in model.state_dict().items()}


def source_and_family(case: tuple[str, str]) -> tuple[str, str]:
    source, architecture = case
    return source, SOURCES[source].architectures[architecture].variant.partition("-")[0]


@pytest.mark.parametrize(
    ("source", "architecture"), sweep(ARCHITECTURES, first_of_each(ARCHITECTURES, source_and_family))
)
def test_every_variant_of_every_source(source: str, architecture: str) -> None:
    family, ours = our_shapes(source, architecture)
    keys = their_keys(source, family, ours)
    found = recognise(as_file(source, family, ours), hint=architecture)
    variant, settings = SOURCES[source].architectures[architecture]
    assert (found.source, found.family, found.variant) == (source, family, variant)
    assert found.names == keys  # each key its name; no two the same
    assert len(set(found.names.values())) == len(keys)
    assert found.dropped == found.copies == {}
    assert found.architecture == CLASSES[family][1].__name__
    expected = CLASSES[family][0].for_variant(variant, **settings, num_labels=1000)
    assert vars(found.config()) == vars(expected)
    assert variant in found.rests_on
    doubtful = (source, family) == ("original", "swiftformer")
    assert [text for text in found.warnings if "attention_norm='ones'" in text] == found.warnings
    assert len(found.warnings) == doubtful


@pytest.mark.parametrize(("source", "architecture"), [(s, a) for s, a in ARCHITECTURES if "b0" in a.lower()])
def test_bare_efficientnets(source: str, architecture: str) -> None:
    file = without(file_of(source, architecture), "^(_fc|classifier|predictions)")
    found = recognise(file, hint=architecture)
    assert found.architecture == "EfficientNetModel"
    assert found.variant == "efficientnet-b0"
    model = auto.BARE_MODELS["efficientnet"](found.config(), init_weights=False)
    assert {name for name in model.state_dict() if "tracked" not in name} <= set(found.names.values())
    assert set(found.names.values()) <= set(model.state_dict())


@pytest.mark.parametrize("family", CLASSES)
def test_bare_models_of_transformers(family: str) -> None:
    name = next(a for s, a in ARCHITECTURES if s == "transformers" and family in a)
    _, ours = our_shapes("transformers", name)
    bare = {key.removeprefix(f"{family}."): shape for key, shape in ours.items() if key.startswith(f"{family}.")}
    found = recognise(bare)
    assert found.architecture == auto.BARE_MODELS[family].__name__
    assert found.names == {key: key for key in bare}
    assert shapes_of(auto.BARE_MODELS[family](found.config(), init_weights=False)) == bare


def test_heads_of_efficientformers() -> None:
    for source in ("timm", "original", "mmpretrain", "transformers"):
        file = file_of(source, next(a for s, a in ARCHITECTURES if s == source and "efficientformer" in a))
        one = without(file, "head_dist|dist_head|distillation")
        assert recognise(one).architecture == "EfficientFormerForImageClassification"
        assert recognise(one).copies == {}
        assert recognise(one).settings["num_labels"] == 1000
        assert recognise(without(one, "^(head|classifier)")).architecture == "EfficientFormerModel"
        refused(without(file, r"^(head\.(head\.)?|classifier\.)(weight|bias)"), "is missing")


def test_one_head_of_the_authors_swiftformers_serves_as_both() -> None:
    file = without(file_of("original", "SwiftFormer_XS"), "dist_head")
    found = recognise(file)
    assert found.copies == {"dist_head.weight": "head.weight", "dist_head.bias": "head.bias"}
    assert any("one head" in text for text in found.warnings)
    assert found.architecture == "SwiftFormerForImageClassification"
    arrays = {key: np.zeros(shape, np.float32) for key, shape in file.items()} | {
        "head.weight": np.ones((1000, 220), np.float32)
    }
    state = found.state(arrays)
    assert state["dist_head.weight"].min() == 1
    assert set(state) == set(our_shapes("original", "SwiftFormer_XS")[1])
    timms = without(file_of("timm", "swiftformer_xs"), "head_dist")  # there both are always present
    refused(timms, "dist_head.weight is missing")


def test_swiftformer_without_heads_keeps_its_norm() -> None:
    found = recognise(without(file_of("timm", "swiftformer_s"), "head"))
    assert (found.architecture, found.settings["num_labels"]) == ("SwiftFormerForImageClassification", 0)
    assert recognise(without(file_of("timm", "swiftformer_s"), "head|^norm")).architecture == "SwiftFormerModel"


@pytest.mark.parametrize(
    ("hint", "padding", "warned"),
    [
        ("tf_efficientnet_b0", "tf-same-dynamic", False),
        ("tf_efficientnet_b0_ns-c0e6a31c.pth", "tf-same-dynamic", False),
        ("timm/tf_efficientnet_b0.ns_jft_in1k", "tf-same-dynamic", False),
        ("TF_EfficientNet_B0.bin", "tf-same-dynamic", False),
        ("efficientnet_b0_ra-3dd342df.pth", "symmetric", False),
        ("my efficientnet_b0, fine-tuned", "symmetric", False),
        ("", "symmetric", True),
        ("model.safetensors", "symmetric", True),
        ("efficientnet-b0.pth", "symmetric", True),  # as others write it, too
        ("efficientnet_b0 from tf_efficientnet_b0", "symmetric", True),
    ],
)
def test_the_name_tells_how_timm_pads(hint: str, padding: str, warned: bool) -> None:
    found = recognise(file_of("timm", "efficientnet_b0"), hint=hint)
    assert found.settings["padding"] == padding
    assert found.settings["batch_norm_eps"] == (1e-5 if padding == "symmetric" else 1e-3)
    assert bool(found.warnings) == warned
    assert ("guess" in found.rests_on) == warned
    if not warned:
        assert "rests on the name" in found.rests_on


def test_without_a_name_timm_pads_as_what_it_published() -> None:
    paddings = [recognise(file_of("timm", f"efficientnet_b{n}")).settings["padding"] for n in (0, 5, 6, 7, 8)]
    assert paddings == ["symmetric"] * 2 + ["tf-same-dynamic"] * 3


def test_variant_and_settings_win() -> None:
    file = file_of("timm", "efficientnet_b0")
    found = recognise(file, hint="efficientnet_b0", variant="tf_efficientnet_b0")
    assert found.settings["padding"] == "tf-same-dynamic"
    assert "as given" in found.rests_on
    found = recognise(file, settings={"padding": "hf-static"})
    assert found.settings["padding"] == "hf-static"
    assert found.warnings == []
    assert "padding='hf-static' as given" in found.rests_on
    found = recognise(file_of("original", "SwiftFormer_S"), settings={"attention_norm": "ones"})
    assert (found.settings["attention_norm"], found.warnings) == ("ones", [])
    found = recognise(file, hint="efficientnet_b3.pth", variant="efficientnet-b0")  # a file by a wrong name
    assert found.variant == "efficientnet-b0"
    found = recognise(file, source="timm")
    assert found.source == "timm"


def test_overrides_that_contradict_the_weights() -> None:
    file = file_of("timm", "efficientnet_b0")
    refused(file, "torchvision", "conv_stem.weight", source="torchvision")
    refused(file, "source must be one of", "'nowhere'", source="nowhere")
    refused(file, "variant must be a name", "'b0'", variant="b0")
    refused(file, "'efficientformer-l1'", "EfficientNet in timm", variant="efficientformer-l1")
    refused(file, "do not fit efficientnet-b1", "more", variant="efficientnet-b1")
    refused(file, "classifier.weight has shape (1000, 1280) instead of (7, 1280)", settings={"num_labels": 7})
    refused(file, "no such model can be made", "padding", settings={"padding": "none"})


@pytest.mark.parametrize("hint", ["efficientnet_b3.pth", "swiftformer_l1", "tf_efficientnet_b8", "efficientformer_l3"])
def test_hints_that_contradict_the_weights(hint: str) -> None:
    refused(file_of("timm", "efficientnet_b0"), repr(hint), "efficientnet-b0", "variant", hint=hint)


def test_hints_that_say_nothing() -> None:
    for hint in ("efficientnetv2_rw_s", "efficientnet_b1 and efficientnet_b0", "efficientnet", "notswiftformer_l1x"):
        assert recognise(file_of("lukemelas", "efficientnet-b0"), hint=hint).variant == "efficientnet-b0"


NEGATIVES = [next((s, a) for s, a in ARCHITECTURES if s == source) for source in SOURCES]
NEGATIVES += [("original", "SwiftFormer_XS"), ("timm", "swiftformer_xs"), ("tensorflow", "MBZUAI/swiftformer-xs")]
NEGATIVES += [("timm", "efficientnet_b0"), ("transformers", "google/efficientnet-b0")]
# One source of each family: all the family's variants are tried for what fits best, which takes its time.
ONE_OF_EACH = [
    ("mmpretrain", "efficientformer-l1_3rdparty_8xb128_in1k"), ("timm", "swiftformer_xs"), ("timm", "efficientnet_b0")
]  # fmt: skip


@pytest.mark.parametrize(("source", "architecture"), sweep(NEGATIVES, ONE_OF_EACH))
def test_one_key_missing(source: str, architecture: str) -> None:
    family, ours = our_shapes(source, architecture)
    file, keys = file_of(source, architecture), their_keys(source, family, ours)
    needed = [key for key in file if not re.search("num_batches_tracked|attention_bias_idxs", key)]
    for key in needed[:: len(needed) // 5]:
        message = refused({k: shape for k, shape in file.items() if k != key}, f"{keys[key]} is missing")
        assert message.count(" is missing") == 1
        assert "not part" not in message
        assert SOURCES[source].architectures[architecture].variant in message


@pytest.mark.parametrize(("source", "architecture"), NEGATIVES)
def test_what_may_be_missing(source: str, architecture: str) -> None:
    file = without(file_of(source, architecture), "num_batches_tracked|attention_bias_idxs")
    found = recognise(file, hint=architecture)
    assert set(found.names) == set(file)


@pytest.mark.parametrize(("source", "architecture"), NEGATIVES)
def test_one_key_too_many(source: str, architecture: str) -> None:
    file = file_of(source, architecture)
    refused({**file, "extra.weight": (3,)}, "these are not: extra.weight")
    key = list(file)[len(file) // 2]
    refused({**file, f"{key}.more": (3,)}, f"{key}.more")


@pytest.mark.parametrize(("source", "architecture"), sweep(NEGATIVES, ONE_OF_EACH[:2]))
def test_one_key_misshapen(source: str, architecture: str) -> None:
    file = file_of(source, architecture)
    needed = [key for key, shape in file.items() if shape and "attention_biases" not in key]
    for key in needed[:: len(needed) // 5]:
        *sides, last = file[key]
        is_head = re.search("head|classifier|predictions|_fc", key)  # of whose arrays either may be the wrong one
        for shape in ((*sides, last + 1), ()):
            refused({**file, key: shape}, "has shape" if is_head else f"{key} has shape")


def test_classes_that_the_two_parts_of_a_head_disagree_on() -> None:
    file = {**file_of("timm", "efficientnet_b0"), "classifier.bias": (999,)}
    message = refused(file, "classifier.bias has shape (999,) instead of (1000,)")
    assert message.endswith("instead of (1000,)")


def test_two_models_in_one_file() -> None:
    efficientformer, swiftformer = file_of("timm", "efficientformer_l1"), file_of("timm", "swiftformer_xs")
    refused({**efficientformer, **swiftformer}, "several models", "EfficientFormer in timm", "SwiftFormer in timm")
    refused({**efficientformer, **file_of("original", "efficientformer_l1")}, "several models", "authors' repository")


def test_no_weights_and_unknown_ones() -> None:
    refused({}, "no weights", "EfficientNet in torchvision", "EfficientFormer in mmpretrain")
    many = {f"layer{n}.weight": (3,) for n in range(20)}
    message = refused(many, "none of the keys is known", "layer0.weight", "layer11.weight, and 8 more")
    assert "layer12" not in message
    refused(many, "looked for EfficientNet in lukemelas, found", source="lukemelas")


def test_long_lists_end_in_a_count() -> None:
    file = file_of("timm", "efficientformer_l3")
    message = refused(without(file, "mlp.fc1.bias"), "is missing", "and 14 more")
    assert message.count(" is missing") == 12
    message = refused({**file, **{f"extra{n}": (1,) for n in range(13)}}, "extra0, extra1", "and 1 more")
    assert "extra12" not in message


def test_backbones_for_detection_are_refused() -> None:
    norms = {f"norm{n}.weight": (48,) for n in (0, 2, 4, 6)}
    for name in ("efficientformer_l1", "SwiftFormer_XS"):
        file = without({**file_of("original", name), **norms}, r"head|^norm\.")
        refused(file, "norm0.weight", "detection or segmentation")
        refused({f"backbone.{key}": shape for key, shape in file.items()}, "detection or segmentation")
    file = file_of("mmpretrain", "efficientformer-l1_3rdparty_8xb128_in1k")
    refused({**file, "backbone.norm1.bias": (96,)}, "backbone.norm1.bias", "detection or segmentation")


def test_networks_that_resemble() -> None:
    file = file_of("timm", "efficientnet_b0")
    refused(without(file, r"\.se\."), "squeeze_excite.reduce.weight is missing")  # the "lite" ones
    refused({**file, "blocks.0.1.conv_exp.weight": (8, 8, 1, 1)}, "blocks.0.1.conv_exp.weight")
    refused({**file, "conv_head.bias": (1280,)}, "conv_head.bias is not part of it")


@pytest.mark.parametrize("wrapper", ["module.", "_orig_mod.", "model.", "module._orig_mod.", "module.model."])
@pytest.mark.parametrize(
    ("source", "architecture"), [("timm", "swiftformer_xs"), ("mmpretrain", "efficientformer-l1_3rdparty_8xb128_in1k")]
)
def test_what_training_tools_put_before_every_key(source: str, architecture: str, wrapper: str) -> None:
    family, ours = our_shapes(source, architecture)
    wrapped = {wrapper + key: name for key, name in their_keys(source, family, ours).items()}
    found = recognise({key: ours[name] for key, name in wrapped.items()})
    assert found.names == wrapped


def test_what_keras_models_hold_besides() -> None:
    file = file_of("keras", "EfficientNetB1")
    besides = {
        "normalization/normalization/mean:0": (3,), "normalization/normalization/variance:0": (3,),
        "normalization/normalization/count:0": (), "normalization_1/mean": (3,),
        "layers/normalization/vars/0": (3,), "layers/dropout/seed_generator/vars/0": (2,),
        "layers/normalization/mean": (3,), "optimizer/vars/0": (), "optimizer_weights/iteration:0": (),
    }  # fmt: skip
    found = recognise({**besides, **file})
    assert set(found.dropped) == set(besides)
    assert "image processor" in found.dropped["normalization/normalization/mean:0"]
    assert found.variant == "efficientnet-b1"
    probs = {key.replace("predictions", "probs"): shape for key, shape in file.items()}
    assert recognise(probs).names["probs/probs/bias:0"] == "classifier.bias"
    numbered = counted(list(file))
    assert recognise({numbered[key]: shape for key, shape in file.items()}).variant == "efficientnet-b1"
    refused({**besides, **file_of("timm", "efficientnet_b0")}, "normalization/normalization/mean:0")


@pytest.mark.parametrize(
    ("source", "architecture"),
    [
        ("timm", "efficientformer_l3"),
        ("tensorflow", "MBZUAI/swiftformer-s"),
        ("keras", "EfficientNetB2"),
        ("torchvision", "efficientnet_b0"),
    ],
)
def test_fine_tuned_models(source: str, architecture: str) -> None:
    """Other classes and channels: still the same variant."""
    variant, settings = SOURCES[source].architectures[architecture]
    family = variant.split("-")[0]
    config = CLASSES[family][0].for_variant(variant, **settings, num_labels=7, num_channels=1)
    state = shapes_of(CLASSES[family][1](config, init_weights=False))
    untracked = {name: shape for name, shape in state.items() if "num_batches_tracked" not in name}
    found = recognise(as_file(source, family, untracked))
    assert found.variant == variant
    assert vars(found.config()) == vars(config)


def same_network(found: Recognised, model: Any, **settings: Any) -> None:
    assert found.variant is None
    assert "no published variant" in found.rests_on
    assert any("strides" in text for text in found.warnings)
    assert found.architecture == type(model).__name__
    assert shapes_of(type(model)(found.config(), init_weights=False)) == shapes_of(model)
    for name, value in settings.items():
        assert getattr(found.config(), name) == value, name


FORMER_SIZES = {
    "depths": [1, 1, 1, 3], "hidden_sizes": [4, 6, 8, 10], "num_meta3d_blocks": 2, "resolution": 2,
    "num_attention_heads": 2, "key_dim": 3, "attention_ratio": 2, "mlp_expansion_ratio": 2, "image_size": 64,
    "num_labels": 5, "layer_norm_eps": 1e-12,
}  # fmt: skip


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"resolution": 3, "image_size": 96, "num_channels": 5},
        {"mlp_expansion_ratio": 2.5, "attention_ratio": 5 / 3},
        {"mlp_expansion_ratio": 8.3 / 7},
        {"use_layer_scale": False, "downsample_patch_size": 5},
        {"depths": [0, 2, 0, 1], "num_meta3d_blocks": 1},
        {"depths": [2, 3], "hidden_sizes": [6, 10], "num_meta3d_blocks": 3, "image_size": 16},
        {"depths": [2, 1, 2], "hidden_sizes": [6, 6, 10], "downsamples": [False, True, True], "image_size": 16},
        {"depths": [2, 1, 2], "hidden_sizes": [6, 10, 10], "downsamples": [True, False, True], "image_size": 16},
        {"depths": [2], "hidden_sizes": [10], "downsamples": [True], "image_size": 8},
    ],
)
def test_efficientformers_of_other_sizes(settings: dict[str, Any]) -> None:
    config = tiny.config(tiny.TWO_HEADS, **settings)
    model = CLASSES["efficientformer"][1](config, init_weights=False)
    found = recognise(shapes_of(model))
    same = {
        name: getattr(config, name) for name in FORMER_SIZES if name not in ("mlp_expansion_ratio", "attention_ratio")
    }
    same_network(found, model, **same)
    assert found.config().attention_ratio == pytest.approx(config.attention_ratio, abs=1e-9)


def test_efficientformer_without_attention() -> None:
    model = tiny.model(tiny.ONE_HEAD, num_meta3d_blocks=0)
    same_network(recognise(shapes_of(model)), model, num_meta3d_blocks=0, depths=[1, 1, 1, 3])


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"mlp_ratio": 2.7, "num_channels": 1},
        {"use_layer_scale": False, "down_patch_size": 5},
        {"down_patch_size": [3, 5]},
        {"depths": [1, 2], "embed_dims": [4, 4], "downsamples": [False, True]},
        {"depths": [1, 2, 1], "embed_dims": [4, 4, 6], "downsamples": [True, True, False]},
        {"depths": [3], "embed_dims": [4], "downsamples": [True]},
    ],
)
def test_swiftformers_of_other_sizes(settings: dict[str, Any]) -> None:
    model = tiny.model(tiny.SWIFT, **settings)
    names = ("depths", "embed_dims", "num_channels", "use_layer_scale", "down_patch_size", "num_labels")
    same_network(recognise(shapes_of(model)), model, **{name: getattr(model.config, name) for name in names})


@pytest.mark.parametrize(
    "settings",
    [
        tiny.NET_SETTINGS,
        {**tiny.NET_SETTINGS, "num_channels": 4, "squeeze_expansion_ratio": 0.5},
        {"width_coefficient": 4.3, "depth_coefficient": 5.3, "image_size": 800},  # L2
        {"width_coefficient": 0.5, "depth_coefficient": 0.5},
        {"width_coefficient": 1.0, "num_block_repeats": [1, 1, 3, 1, 2, 1, 2], "expand_ratios": [2, 6, 4, 6, 6, 3, 1]},
        {"width_coefficient": 1.1, "kernel_sizes": [5, 3, 3, 3, 7, 5, 3]},
        {
            "width_coefficient": 1.0,
            "out_channels": [16, 32, 40, 80, 112, 176, 320],
            "in_channels": [32, 16, 32, 40, 80, 112, 176],
        },
    ],
)
def test_efficientnets_of_other_sizes(settings: dict[str, Any]) -> None:
    config = EfficientNetConfig.for_variant("efficientnet-b0", **settings)
    model = EfficientNetForImageClassification(config, init_weights=False)
    found = recognise(shapes_of(model))
    same_network(found, model, num_channels=config.num_channels, hidden_dim=config.hidden_dim, strides=config.strides)
    theirs = [(b.stage, b.number, b.in_channels, b.out_channels, b.stride) for b in block_shapes(found.config())]
    ours = [(b.stage, b.number, b.in_channels, b.out_channels, b.stride) for b in block_shapes(config)]
    assert theirs == ours


def test_efficientnets_whose_strides_are_unknown() -> None:
    stages = {"kernel_sizes": [3, 5], "in_channels": [32, 16], "out_channels": [16, 24], "strides": [1, 2]}
    config = EfficientNetConfig.for_variant(
        "efficientnet-b0", **stages, num_block_repeats=[1, 2], expand_ratios=[1, 6]
    )
    refused(shapes_of(EfficientNetForImageClassification(config, init_weights=False)), "2 stages", "strided")


def test_sizes_beyond_any_model_are_refused_before_memory_is_set_aside() -> None:
    blocks = "efficientformer.encoder.last_stage.meta3D_layers.blocks.0"
    file = file_of("transformers", "snap-research/efficientformer-l1-300")
    refused({**file, f"{blocks}.token_mixer.attention_biases": (8, 10**10)}, "attention_biases has shape")
    refused(
        {**file, "efficientformer.encoder.intermediate_stages.5.projection.weight": (10**9, 224, 3, 3)}, "projection"
    )
    refused({**file, "efficientformer.encoder.intermediate_stages.999999999.norm.weight": (3,)}, "999999999")
    tops = {"efficientnet.encoder.top_conv.weight": (10**9, 320, 1, 1)}
    refused({**file_of("transformers", "google/efficientnet-b0"), **tops}, "top_conv.weight has shape")


@pytest.mark.parametrize(
    ("source", "architecture"),
    [
        ("keras", "EfficientNetB0"),
        ("tensorflow", "MBZUAI/swiftformer-xs"),
        ("tensorflow", "snap-research/efficientformer-l1-300"),
        ("original", "efficientformer_l1"),
        ("torchvision", "efficientnet_b0"),
    ],
)
def test_the_state_loads(source: str, architecture: str) -> None:
    generator = np.random.default_rng(0)
    arrays = {
        key: generator.standard_normal(shape).astype(np.float32)
        for key, shape in file_of(source, architecture).items()
    }
    found = recognise({key: array.shape for key, array in arrays.items()})
    state = found.state(arrays)
    assert all(array.flags.c_contiguous for array in state.values())
    model = CLASSES[found.family][1](found.config(), init_weights=False)
    model.load_state_dict(state)
    for key, name in found.names.items():
        assert state[name].size == arrays[key].size
        assert np.isclose(state[name].sum(dtype=np.float64), arrays[key].sum(dtype=np.float64))


def test_shapes_may_be_any_sequence_of_numbers() -> None:
    file = {key: list(map(np.int64, shape)) for key, shape in file_of("timm", "swiftformer_xs").items()}
    assert recognise(file).variant == "swiftformer-xs"  # type: ignore[arg-type]


def test_only_the_original_has_one_head() -> None:
    assert original.copies_of_head({"head.weight": "classifier.weight"}) == {
        "distillation_classifier.weight": "head.weight"
    }
