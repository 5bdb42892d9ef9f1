"""The tables of names, without the libraries they are for: pairs looked up by hand, and whole models inverted."""

import functools
import re
from typing import Any

import pytest

from npformer.checkpoint.sources import timm, torchvision
from npformer.checkpoint.sources.rules import Rule, apply
from npformer.models.efficientformer import EfficientFormerConfig, EfficientFormerForImageClassificationWithTeacher
from npformer.models.efficientnet import EfficientNetConfig, EfficientNetForImageClassification
from npformer.models.swiftformer import SwiftFormerConfig, SwiftFormerForImageClassification

CLASSES: dict[str, tuple[Any, Any]] = {
    "efficientformer": (EfficientFormerConfig, EfficientFormerForImageClassificationWithTeacher),
    "efficientnet": (EfficientNetConfig, EfficientNetForImageClassification),
    "swiftformer": (SwiftFormerConfig, SwiftFormerForImageClassification),
}
SOURCES = {"timm": timm, "torchvision": torchvision}

# One pair per rule, as checkpoints of these libraries have them. Of EfficientFormer the three variants differ in where
# the last stage changes from maps to tokens: at 3 of L1, at 2 of L3, at 0 of L7.
STEM, STAGES, LAST = (
    f"efficientformer.{part}" for part in ("patch_embed", "encoder.intermediate_stages", "encoder.last_stage")
)
TIMM_EFFICIENTFORMER = {
    "stem.conv1.weight": f"{STEM}.convolution1.weight",
    "stem.norm1.running_mean": f"{STEM}.batchnorm_before.running_mean",
    "stem.conv2.bias": f"{STEM}.convolution2.bias",
    "stem.norm2.num_batches_tracked": f"{STEM}.batchnorm_after.num_batches_tracked",
    "stages.0.blocks.2.ls1.gamma": f"{STAGES}.0.meta4D_layers.blocks.2.layer_scale_1",
    "stages.1.blocks.0.mlp.fc1.weight": f"{STAGES}.2.meta4D_layers.blocks.0.mlp.convolution1.weight",
    "stages.2.blocks.5.mlp.fc2.bias": f"{STAGES}.4.meta4D_layers.blocks.5.mlp.convolution2.bias",
    "stages.2.blocks.0.mlp.norm1.weight": f"{STAGES}.4.meta4D_layers.blocks.0.mlp.batchnorm_before.weight",
    "stages.1.blocks.1.mlp.norm2.running_var": f"{STAGES}.2.meta4D_layers.blocks.1.mlp.batchnorm_after.running_var",
    "stages.1.downsample.conv.weight": f"{STAGES}.1.projection.weight",
    "stages.2.downsample.norm.bias": f"{STAGES}.3.norm.bias",
    "stages.3.downsample.conv.bias": f"{STAGES}.5.projection.bias",
    "stages.3.blocks.2.ls2.gamma": f"{LAST}.meta4D_layers.blocks.2.layer_scale_2",
    "stages.3.blocks.4.norm1.weight": f"{LAST}.meta3D_layers.blocks.0.layernorm1.weight",
    "stages.3.blocks.4.norm2.bias": f"{LAST}.meta3D_layers.blocks.0.layernorm2.bias",
    "stages.3.blocks.4.ls1.gamma": f"{LAST}.meta3D_layers.blocks.0.layer_scale_1",
    "stages.3.blocks.4.mlp.fc1.bias": f"{LAST}.meta3D_layers.blocks.0.mlp.linear_in.bias",
    "stages.3.blocks.4.mlp.fc2.weight": f"{LAST}.meta3D_layers.blocks.0.mlp.linear_out.weight",
    "stages.3.blocks.4.token_mixer.qkv.weight": f"{LAST}.meta3D_layers.blocks.0.token_mixer.qkv.weight",
    "stages.3.blocks.4.token_mixer.proj.bias": f"{LAST}.meta3D_layers.blocks.0.token_mixer.projection.bias",
    "stages.3.blocks.4.token_mixer.attention_biases": f"{LAST}.meta3D_layers.blocks.0.token_mixer.attention_biases",
    "stages.3.blocks.4.token_mixer.attention_bias_idxs": (
        f"{LAST}.meta3D_layers.blocks.0.token_mixer.attention_bias_idxs"
    ),
    "norm.weight": "efficientformer.layernorm.weight",
    "head.weight": "classifier.weight",
    "head_dist.bias": "distillation_classifier.bias",
}
TIMM_EFFICIENTFORMER_L3 = {
    "stages.3.blocks.1.mlp.fc1.weight": f"{LAST}.meta4D_layers.blocks.1.mlp.convolution1.weight",
    "stages.3.blocks.3.token_mixer.qkv.bias": f"{LAST}.meta3D_layers.blocks.0.token_mixer.qkv.bias",
    "stages.3.blocks.6.token_mixer.qkv.bias": f"{LAST}.meta3D_layers.blocks.3.token_mixer.qkv.bias",
}
TIMM_EFFICIENTFORMER_L7 = {
    "stages.3.blocks.1.token_mixer.qkv.weight": f"{LAST}.meta3D_layers.blocks.0.token_mixer.qkv.weight",
    "stages.3.blocks.8.norm1.weight": f"{LAST}.meta3D_layers.blocks.7.layernorm1.weight",
}
NET, BLOCKS = "efficientnet", "efficientnet.encoder.blocks"
TIMM_EFFICIENTNET = {
    "conv_stem.weight": f"{NET}.embeddings.convolution.weight",
    "bn1.running_var": f"{NET}.embeddings.batchnorm.running_var",
    "blocks.0.0.conv_dw.weight": f"{BLOCKS}.0.depthwise_conv.depthwise_conv.weight",
    "blocks.0.0.bn1.weight": f"{BLOCKS}.0.depthwise_conv.depthwise_norm.weight",
    "blocks.0.0.se.conv_reduce.bias": f"{BLOCKS}.0.squeeze_excite.reduce.bias",
    "blocks.0.0.conv_pw.weight": f"{BLOCKS}.0.projection.project_conv.weight",
    "blocks.0.0.bn2.bias": f"{BLOCKS}.0.projection.project_bn.bias",
    "blocks.1.0.conv_pw.weight": f"{BLOCKS}.1.expansion.expand_conv.weight",
    "blocks.1.1.bn1.bias": f"{BLOCKS}.2.expansion.expand_bn.bias",
    "blocks.2.0.conv_dw.weight": f"{BLOCKS}.3.depthwise_conv.depthwise_conv.weight",
    "blocks.3.2.bn2.running_mean": f"{BLOCKS}.7.depthwise_conv.depthwise_norm.running_mean",
    "blocks.4.2.se.conv_reduce.weight": f"{BLOCKS}.10.squeeze_excite.reduce.weight",
    "blocks.5.0.se.conv_expand.bias": f"{BLOCKS}.11.squeeze_excite.expand.bias",
    "blocks.6.0.conv_pwl.weight": f"{BLOCKS}.15.projection.project_conv.weight",
    "blocks.6.0.bn3.num_batches_tracked": f"{BLOCKS}.15.projection.project_bn.num_batches_tracked",
    "conv_head.weight": f"{NET}.encoder.top_conv.weight",
    "bn2.weight": f"{NET}.encoder.top_bn.weight",
    "classifier.bias": "classifier.bias",
}
# B8 has more than ten blocks in a stage, so numbers must not be sorted as text. Stages of 4, 8, 8, 11 and 11 precede.
TIMM_EFFICIENTNET_B8 = {
    "blocks.5.2.conv_pw.weight": f"{BLOCKS}.44.expansion.expand_conv.weight",
    "blocks.5.10.conv_pw.weight": f"{BLOCKS}.52.expansion.expand_conv.weight",
    "blocks.6.3.bn3.weight": f"{BLOCKS}.60.projection.project_bn.weight",
}
TORCHVISION_EFFICIENTNET = {
    "features.0.0.weight": f"{NET}.embeddings.convolution.weight",
    "features.0.1.bias": f"{NET}.embeddings.batchnorm.bias",
    "features.1.0.block.0.0.weight": f"{BLOCKS}.0.depthwise_conv.depthwise_conv.weight",
    "features.1.0.block.0.1.running_var": f"{BLOCKS}.0.depthwise_conv.depthwise_norm.running_var",
    "features.1.0.block.1.fc1.bias": f"{BLOCKS}.0.squeeze_excite.reduce.bias",
    "features.1.0.block.1.fc2.weight": f"{BLOCKS}.0.squeeze_excite.expand.weight",
    "features.1.0.block.2.0.weight": f"{BLOCKS}.0.projection.project_conv.weight",
    "features.1.0.block.2.1.bias": f"{BLOCKS}.0.projection.project_bn.bias",
    "features.2.0.block.0.0.weight": f"{BLOCKS}.1.expansion.expand_conv.weight",
    "features.2.1.block.0.1.weight": f"{BLOCKS}.2.expansion.expand_bn.weight",
    "features.3.0.block.1.0.weight": f"{BLOCKS}.3.depthwise_conv.depthwise_conv.weight",
    "features.4.0.block.1.1.running_mean": f"{BLOCKS}.5.depthwise_conv.depthwise_norm.running_mean",
    "features.5.0.block.2.fc1.weight": f"{BLOCKS}.8.squeeze_excite.reduce.weight",
    "features.6.3.block.2.fc2.bias": f"{BLOCKS}.14.squeeze_excite.expand.bias",
    "features.7.0.block.3.0.weight": f"{BLOCKS}.15.projection.project_conv.weight",
    "features.7.0.block.3.1.weight": f"{BLOCKS}.15.projection.project_bn.weight",
    "features.8.0.weight": f"{NET}.encoder.top_conv.weight",
    "features.8.1.num_batches_tracked": f"{NET}.encoder.top_bn.num_batches_tracked",
    "classifier.1.weight": "classifier.weight",
}
NETWORK = "swiftformer.encoder.network"
TIMM_SWIFTFORMER = {
    "stem.0.weight": "swiftformer.patch_embed.patch_embedding.0.weight",
    "stem.4.running_mean": "swiftformer.patch_embed.patch_embedding.4.running_mean",
    "stages.0.blocks.0.dwconv.weight": f"{NETWORK}.0.blocks.0.depth_wise_conv.weight",
    "stages.1.blocks.1.norm.running_var": f"{NETWORK}.2.blocks.1.norm.running_var",
    "stages.2.blocks.4.pwconv1.bias": f"{NETWORK}.4.blocks.4.point_wise_conv1.bias",
    "stages.3.blocks.2.pwconv2.weight": f"{NETWORK}.6.blocks.2.point_wise_conv2.weight",
    "stages.3.blocks.0.layer_scale.gamma": f"{NETWORK}.6.blocks.0.layer_scale",
    "stages.0.blocks.2.local_representation.dwconv.bias": (
        f"{NETWORK}.0.blocks.2.local_representation.depth_wise_conv.bias"
    ),
    "stages.0.blocks.2.local_representation.norm.bias": f"{NETWORK}.0.blocks.2.local_representation.norm.bias",
    "stages.0.blocks.2.local_representation.pwconv2.weight": (
        f"{NETWORK}.0.blocks.2.local_representation.point_wise_conv2.weight"
    ),
    "stages.0.blocks.2.local_representation.layer_scale.gamma": (
        f"{NETWORK}.0.blocks.2.local_representation.layer_scale"
    ),
    "stages.1.blocks.2.attn.w_g": f"{NETWORK}.2.blocks.2.attn.w_g",
    "stages.1.blocks.2.attn.to_query.weight": f"{NETWORK}.2.blocks.2.attn.to_query.weight",
    "stages.1.blocks.2.attn.proj.bias": f"{NETWORK}.2.blocks.2.attn.proj.bias",
    "stages.2.blocks.5.linear.norm1.weight": f"{NETWORK}.4.blocks.5.linear.norm1.weight",
    "stages.2.blocks.5.linear.fc2.bias": f"{NETWORK}.4.blocks.5.linear.fc2.bias",
    "stages.2.blocks.5.layer_scale_1.gamma": f"{NETWORK}.4.blocks.5.layer_scale_1",
    "stages.3.blocks.3.layer_scale_2.gamma": f"{NETWORK}.6.blocks.3.layer_scale_2",
    "stages.1.downsample.proj.weight": f"{NETWORK}.1.proj.weight",
    "stages.3.downsample.norm.running_mean": f"{NETWORK}.5.norm.running_mean",
    "norm.weight": "norm.weight",
    "head.bias": "head.bias",
    "head_dist.weight": "dist_head.weight",
}

PAIRS = {
    ("timm", "efficientformer_l1"): TIMM_EFFICIENTFORMER,
    ("timm", "efficientformer_l3"): TIMM_EFFICIENTFORMER_L3,
    ("timm", "efficientformer_l7"): TIMM_EFFICIENTFORMER_L7,
    ("timm", "efficientnet_b0"): TIMM_EFFICIENTNET,
    ("timm", "efficientnet_b8"): TIMM_EFFICIENTNET_B8,
    ("timm", "swiftformer_xs"): TIMM_SWIFTFORMER,
    ("torchvision", "efficientnet_b0"): TORCHVISION_EFFICIENTNET,
}


@functools.cache
def our_keys(source: str, architecture: str) -> tuple[str, list[str]]:
    """The family and all keys of the model here that the architecture is."""
    variant, settings = SOURCES[source].ARCHITECTURES[architecture]
    family = variant.split("-")[0]
    config_class, model_class = CLASSES[family]
    config = config_class.for_variant(variant, **settings)
    return family, list(model_class(config, init_weights=False).state_dict())


def their_keys(source: str, family: str, ours: list[str]) -> dict[str, str]:
    """Our keys by theirs, written the other way round and by other means than the tables."""
    inverse = {
        ("timm", "efficientformer"): _timm_efficientformer,
        ("timm", "efficientnet"): _timm_efficientnet,
        ("timm", "swiftformer"): _timm_swiftformer,
        ("torchvision", "efficientnet"): _torchvision_efficientnet,
    }[source, family]
    return {inverse(key, ours): key for key in ours}


def _replaced(key: str, *pairs: tuple[str, str]) -> str:
    for old, new in pairs:
        key = key.replace(old, new)
    return key


def _timm_efficientformer(key: str, ours: list[str]) -> str:
    parts = key.removeprefix("efficientformer.").removeprefix("encoder.").split(".")
    if parts[0] == "intermediate_stages" and int(parts[1]) % 2:
        return f"stages.{(int(parts[1]) + 1) // 2}.downsample.{parts[2].replace('projection', 'conv')}.{parts[3]}"
    if parts[0] == "intermediate_stages":
        return f"stages.{int(parts[1]) // 2}.blocks.{parts[4]}.{_timm_meta(parts[5:])}"
    if parts[0] == "last_stage":
        maps = len({name.split("blocks.")[1].split(".")[0] for name in ours if "last_stage.meta4D" in name})
        number = int(parts[3]) + (maps + 1 if parts[1] == "meta3D_layers" else 0)
        return f"stages.3.blocks.{number}.{_timm_meta(parts[4:])}"
    pairs = [
        ("patch_embed.convolution", "stem.conv"), ("patch_embed.batchnorm_before", "stem.norm1"),
        ("patch_embed.batchnorm_after", "stem.norm2"), ("layernorm", "norm"),
        ("distillation_classifier", "head_dist"), ("classifier", "head"),
    ]  # fmt: skip
    return _replaced(".".join(parts), *pairs)


def _timm_meta(parts: list[str]) -> str:
    name = ".".join(parts)
    if name.startswith("layer_scale_"):
        return f"ls{name[-1]}.gamma"
    pairs = [
        ("convolution", "fc"), ("batchnorm_before", "norm1"), ("batchnorm_after", "norm2"), ("layernorm", "norm"),
        ("linear_in", "fc1"), ("linear_out", "fc2"), ("projection", "proj"),
    ]  # fmt: skip
    return _replaced(name, *pairs)


def _place(number: int, ours: list[str]) -> tuple[int, int]:
    """Stage and index of an EfficientNet's block."""
    repeats = {360: (1, 2, 2, 3, 3, 4, 1), 706: (2, 4, 4, 6, 6, 8, 2), 1332: (4, 8, 8, 11, 11, 15, 4)}[len(ours)]
    stage = 0
    while number >= repeats[stage]:
        number -= repeats[stage]
        stage += 1
    return stage, number


def _efficientnet_block(key: str, ours: list[str]) -> tuple[int, int, bool, str] | None:
    """Stage, index, whether the block has an expansion, and the rest of the key."""
    match = re.fullmatch(r"efficientnet\.encoder\.blocks\.(\d+)\.(.+)", key)
    if match is None:
        return None
    expands = f"efficientnet.encoder.blocks.{match[1]}.expansion.expand_conv.weight" in ours
    return *_place(int(match[1]), ours), expands, match[2]


def _timm_efficientnet(key: str, ours: list[str]) -> str:
    block = _efficientnet_block(key, ours)
    if block is None:
        pairs = [("embeddings.convolution", "conv_stem"), ("embeddings.batchnorm", "bn1")]
        pairs += [("efficientnet.", ""), ("encoder.top_conv", "conv_head"), ("encoder.top_bn", "bn2")]
        return _replaced(key, *pairs)
    stage, index, expands, rest = block
    pairs = [
        ("squeeze_excite.", "se.conv_"), ("depthwise_conv.depthwise_conv", "conv_dw"),
        ("depthwise_conv.depthwise_norm", "bn2" if expands else "bn1"), ("expansion.expand_conv", "conv_pw"),
        ("expansion.expand_bn", "bn1"), ("projection.project_conv", "conv_pwl" if expands else "conv_pw"),
        ("projection.project_bn", "bn3" if expands else "bn2"),
    ]  # fmt: skip
    return f"blocks.{stage}.{index}.{_replaced(rest, *pairs)}"


def _torchvision_efficientnet(key: str, ours: list[str]) -> str:
    block = _efficientnet_block(key, ours)
    if block is None:
        pairs = [("embeddings.convolution", "features.0.0"), ("embeddings.batchnorm", "features.0.1")]
        pairs += [("efficientnet.", ""), ("encoder.top_conv", "features.8.0"), ("encoder.top_bn", "features.8.1")]
        return _replaced(key, *pairs, ("classifier", "classifier.1"))
    stage, index, expands, rest = block
    first = 1 if expands else 0
    pairs = [
        ("expansion.expand_conv", "0.0"), ("expansion.expand_bn", "0.1"),
        ("depthwise_conv.depthwise_conv", f"{first}.0"), ("depthwise_conv.depthwise_norm", f"{first}.1"),
        ("squeeze_excite.reduce", f"{first + 1}.fc1"), ("squeeze_excite.expand", f"{first + 1}.fc2"),
        ("projection.project_conv", f"{first + 2}.0"), ("projection.project_bn", f"{first + 2}.1"),
    ]  # fmt: skip
    return f"features.{stage + 1}.{index}.block.{_replaced(rest, *pairs)}"


def _timm_swiftformer(key: str, ours: list[str]) -> str:
    match = re.fullmatch(r"swiftformer\.encoder\.network\.(\d)\.(.+)", key)
    if match is None:
        return _replaced(key, ("swiftformer.patch_embed.patch_embedding", "stem"), ("dist_head", "head_dist"))
    number, rest = int(match[1]), match[2]
    if number % 2:
        return f"stages.{(number + 1) // 2}.downsample.{rest}"
    if "layer_scale" in rest:
        rest += ".gamma"
    return f"stages.{number // 2}.{_replaced(rest, ('depth_wise_', 'dw'), ('point_wise_', 'pw'))}"


MODELS = [
    *PAIRS, ("timm", "efficientnet_b4"), ("timm", "tf_efficientnet_b0"), ("torchvision", "efficientnet_b4"),
    *(("timm", f"swiftformer_{size}") for size in ("s", "l1", "l3")),
]  # fmt: skip


@pytest.mark.parametrize(("source", "architecture"), MODELS)
def test_every_key_of_a_model_gets_its_name(source: str, architecture: str) -> None:
    family, ours = our_keys(source, architecture)
    theirs = their_keys(source, family, ours)
    assert len(theirs) == len(ours)
    assert SOURCES[source].rename(theirs, family) == theirs


@pytest.mark.parametrize(("source", "architecture"), PAIRS)
def test_known_pairs(source: str, architecture: str) -> None:
    pairs = PAIRS[source, architecture]
    family, ours = our_keys(source, architecture)
    renamed = SOURCES[source].rename(their_keys(source, family, ours), family)
    assert {key: renamed.get(key) for key in pairs} == pairs


@pytest.mark.parametrize(
    ("source", "family", "key"),
    [
        ("timm", "efficientformer", "stem.conv3.weight"),
        ("timm", "efficientformer", "stem.conv1.gamma"),
        ("timm", "efficientformer", "stages.0.downsample.conv.weight"),
        ("timm", "efficientformer", "stages.3.blocks.3.ls1.gamma"),  # where L1 turns maps into tokens
        ("timm", "efficientformer", "stages.3.blocks.4.mlp.norm1.weight"),  # Meta3D has no batch norm
        ("timm", "efficientformer", "stages.0.blocks.0.token_mixer.qkv.weight"),  # nor Meta4D attention
        ("timm", "efficientformer", "stages.0.blocks.0.ls1.gamma.weight"),
        ("timm", "efficientnet", "blocks.0.0.bn3.weight"),
        ("timm", "efficientnet", "blocks.1.0.conv_dw"),
        ("timm", "efficientnet", "classifier.1.weight"),
        ("timm", "efficientnet", "model.conv_stem.weight"),
        ("timm", "swiftformer", "patch_embed.0.weight"),
        ("timm", "swiftformer", "stages.0.blocks.0.attn.Proj.weight"),
        ("timm", "swiftformer", "stages.4.blocks.0.norm.weight"),
        ("torchvision", "efficientnet", "features.9.0.weight"),
        ("torchvision", "efficientnet", "features.2.0.block.1.fc1.weight"),  # of blocks without expansion
        ("torchvision", "efficientnet", "features.1.0.block.3.1.weight"),  # of blocks with one
        ("torchvision", "efficientnet", ""),
    ],
)
def test_unknown_keys_are_refused_and_listed(source: str, family: str, key: str) -> None:
    architecture = {"efficientformer": "efficientformer_l1", "swiftformer": "swiftformer_xs"}.get(family)
    _, ours = our_keys(source, architecture or "efficientnet_b0")
    keys = [*their_keys(source, family, ours), key, "optimizer.lr"]
    with pytest.raises(ValueError, match=re.escape(f"weights named {key}, optimizer.lr") + "$"):
        SOURCES[source].rename(keys, family)


def test_unknown_families_are_refused() -> None:
    with pytest.raises(ValueError, match="family must be one of efficientnet for weights of torchvision, got 'vit'"):
        torchvision.rename([], "vit")


def test_two_keys_never_share_a_name() -> None:
    tables = {"net": lambda keys: (Rule(r"(a|b)\.", "layer."),)}
    with pytest.raises(ValueError, match=r"same name: a\.bias \(layer\.bias\), b\.bias \(layer\.bias\)"):
        apply(tables, ["a.bias", "a.weight", "b.bias"], "net", "nowhere")


def test_names_come_for_any_iterable_in_its_order() -> None:
    keys = ["head.bias", "stem.0.weight"]
    assert list(timm.rename(iter(keys), "swiftformer").items()) == [
        ("head.bias", "head.bias"),
        ("stem.0.weight", "swiftformer.patch_embed.patch_embedding.0.weight"),
    ]


@pytest.mark.parametrize("source", SOURCES)
def test_every_architecture_makes_a_config(source: str) -> None:
    for name, (variant, settings) in SOURCES[source].ARCHITECTURES.items():
        config = CLASSES[variant.split("-")[0]][0].for_variant(variant, **settings)
        assert {setting: getattr(config, setting) for setting in settings} == settings, name


def test_architectures_that_differ_only_in_settings() -> None:
    native, converted = timm.ARCHITECTURES["efficientnet_b3"], timm.ARCHITECTURES["tf_efficientnet_b3"]
    assert native == ("efficientnet-b3", {"batch_norm_eps": 1e-5, "padding": "symmetric"})
    assert converted == ("efficientnet-b3", {"batch_norm_eps": 1e-3, "padding": "tf-same-dynamic"})
    assert torchvision.ARCHITECTURES["efficientnet_b4"].settings["batch_norm_eps"] == 1e-5
    assert torchvision.ARCHITECTURES["efficientnet_b5"].settings["batch_norm_eps"] == 1e-3
    assert timm.ARCHITECTURES["swiftformer_l3"] == ("swiftformer-l3", {"attention_norm": "l2"})
    assert timm.ARCHITECTURES["efficientformer_l7"] == ("efficientformer-l7", {"layer_norm_eps": 1e-5})
