"""The tables of names, without the libraries they are for: pairs looked up by hand, and whole models inverted."""

import functools
import re
from collections.abc import Container
from typing import Any

import numpy as np
import pytest

from npformer.checkpoint.sources import (
    SOURCES,
    keras,
    lukemelas,
    mmpretrain,
    original,
    tensorflow,
    timm,
    torchvision,
    transformers,
)
from npformer.checkpoint.sources.rules import NamesError, Rule, apply
from npformer.models.efficientformer import EfficientFormerConfig, EfficientFormerForImageClassificationWithTeacher
from npformer.models.efficientnet import EfficientNetConfig, EfficientNetForImageClassification
from npformer.models.swiftformer import SwiftFormerConfig, SwiftFormerForImageClassification

CLASSES: dict[str, tuple[Any, Any]] = {
    "efficientformer": (EfficientFormerConfig, EfficientFormerForImageClassificationWithTeacher),
    "efficientnet": (EfficientNetConfig, EfficientNetForImageClassification),
    "swiftformer": (SwiftFormerConfig, SwiftFormerForImageClassification),
}

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
TRANSFORMERS_EFFICIENTFORMER = {
    "efficientformer.patch_embed.convolution1.weight": f"{STEM}.convolution1.weight",
    "efficientformer.encoder.last_stage.meta3D_layers.blocks.0.layer_scale_2": (
        f"{LAST}.meta3D_layers.blocks.0.layer_scale_2"
    ),
    "distillation_classifier.bias": "distillation_classifier.bias",
}
ORIGINAL_EFFICIENTFORMER = {
    "patch_embed.0.weight": f"{STEM}.convolution1.weight",
    "patch_embed.1.running_mean": f"{STEM}.batchnorm_before.running_mean",
    "patch_embed.3.bias": f"{STEM}.convolution2.bias",
    "patch_embed.4.running_var": f"{STEM}.batchnorm_after.running_var",
    "network.0.2.layer_scale_1": f"{STAGES}.0.meta4D_layers.blocks.2.layer_scale_1",
    "network.1.proj.weight": f"{STAGES}.1.projection.weight",
    "network.3.norm.bias": f"{STAGES}.3.norm.bias",
    "network.4.5.mlp.fc2.bias": f"{STAGES}.4.meta4D_layers.blocks.5.mlp.convolution2.bias",
    "network.6.2.mlp.norm1.weight": f"{LAST}.meta4D_layers.blocks.2.mlp.batchnorm_before.weight",
    "network.6.4.norm1.weight": f"{LAST}.meta3D_layers.blocks.0.layernorm1.weight",
    "network.6.4.token_mixer.attention_biases": f"{LAST}.meta3D_layers.blocks.0.token_mixer.attention_biases",
    "network.6.4.token_mixer.proj.bias": f"{LAST}.meta3D_layers.blocks.0.token_mixer.projection.bias",
    "network.6.4.mlp.fc1.bias": f"{LAST}.meta3D_layers.blocks.0.mlp.linear_in.bias",
    "norm.bias": "efficientformer.layernorm.bias",
    "head.weight": "classifier.weight",
    "dist_head.bias": "distillation_classifier.bias",
}
ORIGINAL_EFFICIENTFORMER_L7 = {
    "network.6.1.token_mixer.qkv.weight": f"{LAST}.meta3D_layers.blocks.0.token_mixer.qkv.weight",
    "network.6.8.layer_scale_2": f"{LAST}.meta3D_layers.blocks.7.layer_scale_2",
}
MMPRETRAIN_EFFICIENTFORMER = {
    "backbone.patch_embed.0.conv.weight": f"{STEM}.convolution1.weight",
    "backbone.patch_embed.0.bn.bias": f"{STEM}.batchnorm_before.bias",
    "backbone.patch_embed.1.conv.bias": f"{STEM}.convolution2.bias",
    "backbone.patch_embed.1.bn.running_var": f"{STEM}.batchnorm_after.running_var",
    "backbone.network.0.0.ls1.weight": f"{STAGES}.0.meta4D_layers.blocks.0.layer_scale_1",
    "backbone.network.1.0.conv.weight": f"{STAGES}.1.projection.weight",
    "backbone.network.2.0.bn.running_mean": f"{STAGES}.3.norm.running_mean",
    "backbone.network.1.1.mlp.fc1.weight": f"{STAGES}.2.meta4D_layers.blocks.0.mlp.convolution1.weight",
    "backbone.network.2.6.mlp.norm2.bias": f"{STAGES}.4.meta4D_layers.blocks.5.mlp.batchnorm_after.bias",
    "backbone.network.3.0.conv.bias": f"{STAGES}.5.projection.bias",
    "backbone.network.3.3.ls2.weight": f"{LAST}.meta4D_layers.blocks.2.layer_scale_2",
    "backbone.network.3.5.norm2.weight": f"{LAST}.meta3D_layers.blocks.0.layernorm2.weight",
    "backbone.network.3.5.token_mixer.qkv.bias": f"{LAST}.meta3D_layers.blocks.0.token_mixer.qkv.bias",
    "backbone.norm3.weight": "efficientformer.layernorm.weight",
    "head.head.bias": "classifier.bias",
    "head.dist_head.weight": "distillation_classifier.weight",
}
MMPRETRAIN_EFFICIENTFORMER_L3 = {
    "backbone.network.3.2.mlp.fc1.weight": f"{LAST}.meta4D_layers.blocks.1.mlp.convolution1.weight",
    "backbone.network.3.4.mlp.fc1.weight": f"{LAST}.meta3D_layers.blocks.0.mlp.linear_in.weight",
    "backbone.network.3.7.ls1.weight": f"{LAST}.meta3D_layers.blocks.3.layer_scale_1",
}
LUKEMELAS_EFFICIENTNET = {
    "_conv_stem.weight": f"{NET}.embeddings.convolution.weight",
    "_bn0.running_mean": f"{NET}.embeddings.batchnorm.running_mean",
    "_blocks.0._depthwise_conv.weight": f"{BLOCKS}.0.depthwise_conv.depthwise_conv.weight",
    "_blocks.0._bn1.weight": f"{BLOCKS}.0.depthwise_conv.depthwise_norm.weight",
    "_blocks.1._expand_conv.weight": f"{BLOCKS}.1.expansion.expand_conv.weight",
    "_blocks.1._bn0.bias": f"{BLOCKS}.1.expansion.expand_bn.bias",
    "_blocks.7._se_reduce.bias": f"{BLOCKS}.7.squeeze_excite.reduce.bias",
    "_blocks.7._se_expand.weight": f"{BLOCKS}.7.squeeze_excite.expand.weight",
    "_blocks.15._project_conv.weight": f"{BLOCKS}.15.projection.project_conv.weight",
    "_blocks.15._bn2.running_var": f"{BLOCKS}.15.projection.project_bn.running_var",
    "_conv_head.weight": f"{NET}.encoder.top_conv.weight",
    "_bn1.bias": f"{NET}.encoder.top_bn.bias",
    "_fc.weight": "classifier.weight",
}
KERAS_EFFICIENTNET = {
    "stem_conv/stem_conv/kernel:0": f"{NET}.embeddings.convolution.weight",
    "stem_bn/stem_bn/moving_variance:0": f"{NET}.embeddings.batchnorm.running_var",
    "block1a_dwconv/block1a_dwconv/depthwise_kernel:0": f"{BLOCKS}.0.depthwise_conv.depthwise_conv.weight",
    "block1a_bn/block1a_bn/gamma:0": f"{BLOCKS}.0.depthwise_conv.depthwise_norm.weight",
    "block1a_se_reduce/block1a_se_reduce/bias:0": f"{BLOCKS}.0.squeeze_excite.reduce.bias",
    "block2a_expand_conv/block2a_expand_conv/kernel:0": f"{BLOCKS}.1.expansion.expand_conv.weight",
    "block2b_expand_bn/block2b_expand_bn/beta:0": f"{BLOCKS}.2.expansion.expand_bn.bias",
    "block5c_se_expand/block5c_se_expand/kernel:0": f"{BLOCKS}.10.squeeze_excite.expand.weight",
    "block6a_project_conv/block6a_project_conv/kernel:0": f"{BLOCKS}.11.projection.project_conv.weight",
    "block7a_project_bn/block7a_project_bn/moving_mean:0": f"{BLOCKS}.15.projection.project_bn.running_mean",
    "top_conv/top_conv/kernel:0": f"{NET}.encoder.top_conv.weight",
    "top_bn/top_bn/beta:0": f"{NET}.encoder.top_bn.bias",
    "predictions/predictions/bias:0": "classifier.bias",
}
TF = "tf_efficient_former_for_image_classification_with_teacher/efficientformer"
TENSORFLOW_EFFICIENTFORMER = {
    f"{TF}/patch_embed/convolution1/kernel:0": f"{STEM}.convolution1.weight",
    f"{TF}/patch_embed/batchnorm_after/moving_variance:0": f"{STEM}.batchnorm_after.running_var",
    f"{TF}/encoder/intermediate_stages.0/meta4D_layers/blocks.2/layer_scale_1:0": (
        f"{STAGES}.0.meta4D_layers.blocks.2.layer_scale_1"
    ),
    f"{TF}/encoder/intermediate_stages.3/projection/kernel:0": f"{STAGES}.3.projection.weight",
    f"{TF}/encoder/last_stage/meta3D_layers/blocks.0/token_mixer/attention_bias_idxs:0": (
        f"{LAST}.meta3D_layers.blocks.0.token_mixer.attention_bias_idxs"
    ),
    f"{TF}/encoder/last_stage/meta3D_layers/blocks.0/layernorm1/gamma:0": (
        f"{LAST}.meta3D_layers.blocks.0.layernorm1.weight"
    ),
    f"{TF}/layernorm/beta:0": "efficientformer.layernorm.bias",
    f"{TF.removesuffix('efficientformer')}distillation_classifier/kernel:0": "distillation_classifier.weight",
}
TFS = "tf_swift_former_for_image_classification"
TENSORFLOW_SWIFTFORMER = {
    f"{TFS}/swiftformer/patch_embed/patch_embedding/0/kernel:0": "swiftformer.patch_embed.patch_embedding.0.weight",
    f"{TFS}/swiftformer/encoder/network_._0/blocks_._1/layer_scale:0": f"{NETWORK}.0.blocks.1.layer_scale",
    f"{TFS}/swiftformer/encoder/network_._2/blocks_._2/attn/w_g:0": f"{NETWORK}.2.blocks.2.attn.w_g",
    f"{TFS}/swiftformer/encoder/network_._2/blocks_._2/local_representation/norm/moving_mean:0": (
        f"{NETWORK}.2.blocks.2.local_representation.norm.running_mean"
    ),
    f"{TFS}/swiftformer/encoder/network_._5/proj/bias:0": f"{NETWORK}.5.proj.bias",
    f"{TFS}/norm/gamma:0": "norm.weight",
    f"{TFS}/dist_head/kernel:0": "dist_head.weight",
}
ORIGINAL_SWIFTFORMER = {
    "patch_embed.3.weight": "swiftformer.patch_embed.patch_embedding.3.weight",
    "network.0.0.dwconv.weight": f"{NETWORK}.0.blocks.0.depth_wise_conv.weight",
    "network.2.1.pwconv1.bias": f"{NETWORK}.2.blocks.1.point_wise_conv1.bias",
    "network.4.4.layer_scale": f"{NETWORK}.4.blocks.4.layer_scale",
    "network.4.5.layer_scale_1": f"{NETWORK}.4.blocks.5.layer_scale_1",
    "network.4.5.local_representation.layer_scale": f"{NETWORK}.4.blocks.5.local_representation.layer_scale",
    "network.4.5.local_representation.pwconv2.weight": (
        f"{NETWORK}.4.blocks.5.local_representation.point_wise_conv2.weight"
    ),
    "network.4.5.attn.Proj.weight": f"{NETWORK}.4.blocks.5.attn.proj.weight",
    "network.4.5.attn.to_key.bias": f"{NETWORK}.4.blocks.5.attn.to_key.bias",
    "network.6.3.linear.fc1.weight": f"{NETWORK}.6.blocks.3.linear.fc1.weight",
    "network.5.norm.running_mean": f"{NETWORK}.5.norm.running_mean",
    "norm.weight": "norm.weight",
    "dist_head.bias": "dist_head.bias",
}

PAIRS = {
    ("transformers", "snap-research/efficientformer-l1-300"): TRANSFORMERS_EFFICIENTFORMER,
    ("original", "efficientformer_l1"): ORIGINAL_EFFICIENTFORMER,
    ("original", "efficientformer_l7"): ORIGINAL_EFFICIENTFORMER_L7,
    ("original", "SwiftFormer_XS"): ORIGINAL_SWIFTFORMER,
    ("mmpretrain", "efficientformer-l1_3rdparty_8xb128_in1k"): MMPRETRAIN_EFFICIENTFORMER,
    ("mmpretrain", "efficientformer-l3_3rdparty_8xb128_in1k"): MMPRETRAIN_EFFICIENTFORMER_L3,
    ("lukemelas", "efficientnet-b0"): LUKEMELAS_EFFICIENTNET,
    ("keras", "EfficientNetB0"): KERAS_EFFICIENTNET,
    ("tensorflow", "snap-research/efficientformer-l1-300"): TENSORFLOW_EFFICIENTFORMER,
    ("tensorflow", "MBZUAI/swiftformer-xs"): TENSORFLOW_SWIFTFORMER,
    ("timm", "efficientformer_l1"): TIMM_EFFICIENTFORMER,
    ("timm", "efficientformer_l3"): TIMM_EFFICIENTFORMER_L3,
    ("timm", "efficientformer_l7"): TIMM_EFFICIENTFORMER_L7,
    ("timm", "efficientnet_b0"): TIMM_EFFICIENTNET,
    ("timm", "efficientnet_b8"): TIMM_EFFICIENTNET_B8,
    ("timm", "swiftformer_xs"): TIMM_SWIFTFORMER,
    ("torchvision", "efficientnet_b0"): TORCHVISION_EFFICIENTNET,
}


@functools.cache
def our_shapes(source: str, architecture: str) -> tuple[str, dict[str, tuple[int, ...]]]:
    """The family, and all that a file of the source holds of the model here that the architecture is."""
    variant, settings = SOURCES[source].architectures[architecture]
    family = variant.split("-")[0]
    config_class, model_class = CLASSES[family]
    model = model_class(config_class.for_variant(variant, **settings, num_labels=1000), init_weights=False)
    untracked = source in ("keras", "tensorflow")
    return family, {
        name: array.shape
        for name, array in model.state_dict().items()
        if not (untracked and name.endswith("num_batches_tracked"))
    }


def their_keys(source: str, family: str, ours: Container[str]) -> dict[str, str]:
    """Our keys by theirs, written the other way round and by other means than the tables."""
    inverse = {
        ("original", "efficientformer"): _original_efficientformer,
        ("original", "swiftformer"): _original_swiftformer,
        ("mmpretrain", "efficientformer"): _mmpretrain_efficientformer,
        ("lukemelas", "efficientnet"): _lukemelas_efficientnet,
        ("keras", "efficientnet"): _keras_efficientnet,
        ("tensorflow", "efficientformer"): _tensorflow,
        ("tensorflow", "swiftformer"): _tensorflow,
        ("timm", "efficientformer"): _timm_efficientformer,
        ("timm", "efficientnet"): _timm_efficientnet,
        ("timm", "swiftformer"): _timm_swiftformer,
        ("torchvision", "efficientnet"): _torchvision_efficientnet,
    }.get((source, family), lambda key, ours: key)
    return {inverse(key, ours): key for key in ours}


def their_shape(source: str, name: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape that the array of this name here has in a file of the source."""
    if source not in ("keras", "tensorflow"):
        return shape
    if len(shape) == 4:
        out, group, height, width = shape
        return (
            (height, width, out, group)
            if source == "keras" and "depthwise_conv." in name
            else (height, width, group, out)
        )
    if len(shape) == 3:  # SwiftFormer's layer scales
        return shape[:1]
    return shape[::-1] if name.endswith(".weight") else shape


def _replaced(key: str, *pairs: tuple[str, str]) -> str:
    for old, new in pairs:
        key = key.replace(old, new)
    return key


def _timm_efficientformer(key: str, ours: Container[str]) -> str:
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


REPEATS = {
    16: (1, 2, 2, 3, 3, 4, 1), 23: (2, 3, 3, 4, 4, 5, 2), 26: (2, 3, 3, 5, 5, 6, 2), 32: (2, 4, 4, 6, 6, 8, 2),
    39: (3, 5, 5, 7, 7, 9, 3), 45: (3, 6, 6, 8, 8, 11, 3), 55: (4, 7, 7, 10, 10, 13, 4),
    61: (4, 8, 8, 11, 11, 15, 4),
}  # fmt: skip


def _place(number: int, ours: Container[str]) -> tuple[int, int]:
    """Stage and index of an EfficientNet's block."""
    blocks = max(count for count in REPEATS if f"{BLOCKS}.{count - 1}.projection.project_conv.weight" in ours)
    repeats, stage = REPEATS[blocks], 0
    while number >= repeats[stage]:
        number -= repeats[stage]
        stage += 1
    return stage, number


def _efficientnet_block(key: str, ours: Container[str]) -> tuple[int, int, bool, str] | None:
    """Stage, index, whether the block has an expansion, and the rest of the key."""
    match = re.fullmatch(r"efficientnet\.encoder\.blocks\.(\d+)\.(.+)", key)
    if match is None:
        return None
    expands = f"efficientnet.encoder.blocks.{match[1]}.expansion.expand_conv.weight" in ours
    return *_place(int(match[1]), ours), expands, match[2]


def _timm_efficientnet(key: str, ours: Container[str]) -> str:
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


def _torchvision_efficientnet(key: str, ours: Container[str]) -> str:
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


def _timm_swiftformer(key: str, ours: Container[str]) -> str:
    match = re.fullmatch(r"swiftformer\.encoder\.network\.(\d)\.(.+)", key)
    if match is None:
        return _replaced(key, ("swiftformer.patch_embed.patch_embedding", "stem"), ("dist_head", "head_dist"))
    number, rest = int(match[1]), match[2]
    if number % 2:
        return f"stages.{(number + 1) // 2}.downsample.{rest}"
    if "layer_scale" in rest:
        rest += ".gamma"
    return f"stages.{number // 2}.{_replaced(rest, ('depth_wise_', 'dw'), ('point_wise_', 'pw'))}"


def _original_efficientformer(key: str, ours: Container[str]) -> str:
    theirs = _timm_efficientformer(key, ours).replace("head_dist", "dist_head")
    if match := re.fullmatch(r"stem\.(conv|norm)(\d)\.(.+)", theirs):
        return f"patch_embed.{3 * int(match[2]) - 3 + (match[1] == 'norm')}.{match[3]}"
    if match := re.fullmatch(r"stages\.(\d)\.downsample\.(.+)", theirs):
        return f"network.{2 * int(match[1]) - 1}.{match[2].replace('conv.', 'proj.')}"
    if match := re.fullmatch(r"stages\.(\d)\.blocks\.(.+)", theirs):
        rest = match[2].replace("ls1.gamma", "layer_scale_1").replace("ls2.gamma", "layer_scale_2")
        return f"network.{2 * int(match[1])}.{rest}"
    return theirs


def _mmpretrain_efficientformer(key: str, ours: Container[str]) -> str:
    theirs = _timm_efficientformer(key, ours)
    if theirs.startswith("head"):
        return f"head.{theirs.replace('head_dist', 'dist_head')}"
    if match := re.fullmatch(r"stem\.(conv|norm)(\d)\.(.+)", theirs):
        return f"backbone.patch_embed.{int(match[2]) - 1}.{match[1].replace('norm', 'bn')}.{match[3]}"
    if match := re.fullmatch(r"stages\.(\d)\.downsample\.(.+)", theirs):
        return f"backbone.network.{match[1]}.0.{match[2].replace('norm.', 'bn.')}"
    if match := re.fullmatch(r"stages\.(\d)\.blocks\.(\d+)\.(.+)", theirs):
        number = int(match[2]) + (match[1] != "0")
        return f"backbone.network.{match[1]}.{number}.{match[3].replace('gamma', 'weight')}"
    return theirs.replace("norm.", "backbone.norm3.")


def _original_swiftformer(key: str, ours: Container[str]) -> str:
    pairs = [
        ("swiftformer.patch_embed.patch_embedding", "patch_embed"), ("swiftformer.encoder.", ""), ("blocks.", ""),
        ("attn.proj.", "attn.Proj."), ("depth_wise_", "dw"), ("point_wise_", "pw"),
    ]  # fmt: skip
    return _replaced(key, *pairs)


def _lukemelas_efficientnet(key: str, ours: Container[str]) -> str:
    block = re.fullmatch(r"efficientnet\.encoder\.blocks\.(\d+)\.\w+\.(\w+)\.(\w+)", key)
    if block is None:
        pairs = [("embeddings.convolution", "_conv_stem"), ("embeddings.batchnorm", "_bn0"), ("classifier", "_fc")]
        pairs += [("efficientnet.", ""), ("encoder.top_conv", "_conv_head"), ("encoder.top_bn", "_bn1")]
        return _replaced(key, *pairs)
    layers = {
        "expand_bn": "bn0",
        "depthwise_norm": "bn1",
        "project_bn": "bn2",
        "reduce": "se_reduce",
        "expand": "se_expand",
    }
    return f"_blocks.{block[1]}._{layers.get(block[2], block[2])}.{block[3]}"


def _keras_variable(layer: str, array: str) -> str:
    names = {"weight": "kernel", "running_mean": "moving_mean", "running_var": "moving_variance"}
    if layer.endswith("bn"):
        names |= {"weight": "gamma", "bias": "beta"}
    if layer.endswith("dwconv"):
        names["weight"] = "depthwise_kernel"
    return f"{layer}/{names.get(array, array)}:0"


def _keras_efficientnet(key: str, ours: Container[str], classifier: str = "predictions") -> str:
    block = _efficientnet_block(key, ours)
    *_, layer, array = key.split(".")
    if block is None:
        layer = {"convolution": "stem_conv", "batchnorm": "stem_bn", "classifier": classifier}.get(layer, layer)
    else:
        renamed = {"depthwise_conv": "dwconv", "depthwise_norm": "bn", "reduce": "se_reduce", "expand": "se_expand"}
        layer = f"block{block[0] + 1}{chr(ord('a') + block[1])}_{renamed.get(layer, layer)}"
    return f"{layer}/{_keras_variable(layer, array)}"


def _tensorflow(key: str, ours: Container[str]) -> str:
    parts = key.split(".")
    if parts[0] == "swiftformer":
        path = re.sub(r"(network|blocks)/(\d+)", r"\1_._\2", "/".join(parts))
    else:
        path = re.sub(r"(intermediate_stages|blocks)/(\d+)", r"\1.\2", "/".join(parts))
    path = re.sub("running_mean$", "moving_mean", re.sub("running_var$", "moving_variance", path))
    if re.search(r"norm|patch_embedding/[14]/", "/".join(parts[-2:])) or re.search(r"patch_embedding\.[14]\.", key):
        path = re.sub("/bias$", "/beta", re.sub("/weight$", "/gamma", path))
    path = re.sub("/weight$", "/kernel", path)
    former = any(name.startswith("efficientformer") for name in ours)
    return f"{TF.removesuffix('/efficientformer') if former else TFS}/{path}:0"


MODELS = [(source, name) for source in SOURCES for name in SOURCES[source].architectures if not name.startswith("tf_")]


@pytest.mark.parametrize(("source", "architecture"), MODELS)
def test_every_key_of_a_model_gets_its_name(source: str, architecture: str) -> None:
    family, ours = our_shapes(source, architecture)
    theirs = their_keys(source, family, ours)
    assert len(theirs) == len(ours)
    assert SOURCES[source].rename(theirs, family) == theirs


@pytest.mark.parametrize(("source", "architecture"), PAIRS)
def test_known_pairs(source: str, architecture: str) -> None:
    pairs = PAIRS[source, architecture]
    family, ours = our_shapes(source, architecture)
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
        ("transformers", "efficientformer", "patch_embed.convolution1.weight"),  # of a bare model
        ("transformers", "efficientnet", "efficientnet.encoder.blocks.0.expansion.weight"),
        ("transformers", "swiftformer", "swiftformer.norm.weight"),
        ("original", "efficientformer", "network.6.3.layer_scale_1"),
        ("original", "efficientformer", "norm6.weight"),
        ("original", "swiftformer", "network.0.2.attn.proj.weight"),
        ("original", "swiftformer", "network.0.2.layer_scale_1.gamma"),
        ("mmpretrain", "efficientformer", "backbone.network.3.0.ls1.weight"),
        ("mmpretrain", "efficientformer", "backbone.network.1.0.mlp.fc1.weight"),
        ("mmpretrain", "efficientformer", "backbone.norm0.weight"),
        ("lukemelas", "efficientnet", "_blocks.0._bn3.weight"),
        ("keras", "efficientnet", "block1a_bn/momentum:0"),
        ("keras", "efficientnet", "layers/conv2d/vars/2"),
        ("tensorflow", "efficientformer", f"{TF}/encoder/last_stage/flat/kernel:0"),
        ("tensorflow", "swiftformer", f"{TFS}/swiftformer/encoder/network_._0/blocks_._0/gelu:0"),
    ],
)
def test_unknown_keys_are_refused_and_listed(source: str, family: str, key: str) -> None:
    architectures = SOURCES[source].architectures.items()
    _, ours = our_shapes(source, next(name for name, known in architectures if known.variant.startswith(f"{family}-")))
    keys = [*their_keys(source, family, ours), key, "optimizer.lr"]
    with pytest.raises(NamesError, match=re.escape(f"weights named {key}, optimizer.lr") + "$") as error:
        SOURCES[source].rename(keys, family)
    assert error.value.keys == [key, "optimizer.lr"]


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
    for name, (variant, settings) in SOURCES[source].architectures.items():
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
    assert transformers.ARCHITECTURES["MBZUAI/swiftformer-l3"] == ("swiftformer-l3", {"attention_norm": "ones"})
    assert original.ARCHITECTURES["SwiftFormer_L3"] == ("swiftformer-l3", {"attention_norm": "l2"})
    assert mmpretrain.ARCHITECTURES["efficientformer-l3_3rdparty_8xb128_in1k"].settings == {"layer_norm_eps": 1e-5}
    assert lukemelas.ARCHITECTURES["efficientnet-b8"] == (
        "efficientnet-b8",
        {"batch_norm_eps": 1e-3, "padding": "hf-static"},
    )
    assert keras.ARCHITECTURES["EfficientNetB7"].settings == {"batch_norm_eps": 1e-3, "padding": "tf-same-dynamic"}


def test_marks_belong_to_one_source_and_family() -> None:
    every = {(source, family): mark for source, known in SOURCES.items() for family, mark in known.marks.items()}
    for source, architecture in MODELS:
        family, ours = our_shapes(source, architecture)
        keys = list(their_keys(source, family, ours))
        marked = {scheme for scheme, mark in every.items() if any(re.match(mark, key) for key in keys)}
        assert marked == {(source, family)}, architecture


def counted(keys: list[str]) -> dict[str, str]:
    """Keys as Keras 3 writes them, by those with layers' names, given in a model's order."""
    numbers: dict[str, list[str]] = {}
    arrays: dict[str, int] = {}
    new = {}
    for key in keys:
        layer = key.split("/")[0]
        kind = "batch_normalization" if layer.endswith("bn") else "depthwise_conv2d" if "dwconv" in layer else "conv2d"
        kind = "dense" if layer == "predictions" else kind
        row = numbers.setdefault(kind, [])
        if layer not in row:
            row.append(layer)
        number = row.index(layer)
        arrays[layer] = arrays.get(layer, -1) + 1
        new[key] = f"layers/{kind}{f'_{number}' * bool(number)}/vars/{arrays[layer]}"
    return new


@pytest.mark.parametrize("architecture", ["EfficientNetB0", "EfficientNetB3", "EfficientNetB7"])
def test_layers_that_keras_only_counts(architecture: str) -> None:
    family, ours = our_shapes("keras", architecture)
    theirs = their_keys("keras", family, ours)
    renamed = counted(list(theirs))
    assert renamed["stem_conv/stem_conv/kernel:0"] == "layers/conv2d/vars/0"
    assert renamed["block1a_bn/block1a_bn/moving_variance:0"] == "layers/batch_normalization_1/vars/3"
    expected = {new: theirs[key] for key, new in renamed.items()}
    assert keras.rename(expected, family) == expected


@pytest.mark.parametrize(
    ("key", "name"),
    [
        ("model_weights/top_bn/top_bn/moving_mean:0", "efficientnet.encoder.top_bn.running_mean"),
        ("top_bn/moving_mean", "efficientnet.encoder.top_bn.running_mean"),
        ("top_bn/vars/2", "efficientnet.encoder.top_bn.running_mean"),
        ("layers/block3a_dwconv/vars/0", f"{BLOCKS}.0.depthwise_conv.depthwise_conv.weight"),  # the only block
        ("block3a_dwconv/kernel", f"{BLOCKS}.0.depthwise_conv.depthwise_conv.weight"),
        ("probs/probs/kernel:0", "classifier.weight"),
    ],
)
def test_spellings_of_keras(key: str, name: str) -> None:
    assert keras.rename([key], "efficientnet") == {key: name}


@pytest.mark.parametrize("before", ["", "efficientformer/", "model_weights/efficientformer/"])
def test_groups_of_the_file_before_the_names_of_tensorflow(before: str) -> None:
    key = f"{before}{TF}/layernorm/gamma:0"
    assert tensorflow.rename([key], "efficientformer") == {key: "efficientformer.layernorm.weight"}


@pytest.mark.parametrize("family", CLASSES)
def test_bare_models_of_transformers_lack_the_prefix(family: str) -> None:
    architectures = {
        "efficientformer": "snap-research/efficientformer-l1-300",
        "efficientnet": "google/efficientnet-b0",
    }
    _, ours = our_shapes("transformers", architectures.get(family, "MBZUAI/swiftformer-xs"))
    theirs = {name.removeprefix(f"{family}."): name for name in ours if name.startswith(f"{family}.")}
    assert transformers.rename(theirs, family) == theirs


ARRAY = np.arange(2 * 3 * 4 * 5, dtype=np.float32)


def test_arrays_of_keras() -> None:
    kernel = ARRAY.reshape(2, 3, 4, 5)  # (H, W, I, O)
    ours = keras.arrange(f"{BLOCKS}.1.expansion.expand_conv.weight", kernel)
    assert ours.shape == (5, 4, 2, 3)
    assert ours[1, 2, 0, 1] == kernel[0, 1, 2, 1]
    depthwise = ARRAY.reshape(2, 3, 20, 1)  # (H, W, C, 1)
    ours = keras.arrange(f"{BLOCKS}.1.depthwise_conv.depthwise_conv.weight", depthwise)
    assert ours.shape == (20, 1, 2, 3)
    assert ours[7, 0, 1, 2] == depthwise[1, 2, 7, 0]
    assert np.array_equal(keras.arrange("classifier.weight", ARRAY.reshape(6, 20)), ARRAY.reshape(6, 20).T)
    for name in ("classifier.bias", f"{BLOCKS}.1.expansion.expand_bn.weight"):
        assert keras.arrange(name, ARRAY) is ARRAY


def test_arrays_of_tensorflow() -> None:
    kernel = ARRAY.reshape(2, 3, 1, 20)  # depthwise: (H, W, 1, C)
    ours = tensorflow.arrange(f"{NETWORK}.0.blocks.0.depth_wise_conv.weight", kernel)
    assert ours.shape == (20, 1, 2, 3)
    assert ours[7, 0, 1, 2] == kernel[1, 2, 0, 7]
    table = ARRAY.reshape(20, 6)
    assert np.array_equal(tensorflow.arrange(f"{NETWORK}.0.blocks.2.attn.to_key.weight", table), table.T)
    for name in (f"{LAST}.meta3D_layers.blocks.0.token_mixer.attention_biases", f"{NETWORK}.0.blocks.2.attn.w_g"):
        assert tensorflow.arrange(name, table) is table
    for name in ("layer_scale", "local_representation.layer_scale", "layer_scale_2"):
        assert tensorflow.arrange(f"{NETWORK}.0.blocks.2.{name}", ARRAY).shape == (120, 1, 1)
        assert tensorflow.arrange(f"encoder.network.0.blocks.2.{name}", ARRAY).shape == (120, 1, 1)
    assert tensorflow.arrange(f"{STAGES}.0.meta4D_layers.blocks.0.layer_scale_1", ARRAY) is ARRAY


@pytest.mark.parametrize(
    ("family", "architecture", "head", "copies"),
    [
        ("efficientformer", "efficientformer_l1", "dist_head.", "distillation_classifier."),
        ("swiftformer", "SwiftFormer_XS", "dist_head.", "dist_head."),
    ],
)
def test_one_head_of_the_original_serves_as_both(family: str, architecture: str, head: str, copies: str) -> None:
    _, ours = our_shapes("original", architecture)
    theirs = their_keys("original", family, ours)
    assert original.copies_of_head(theirs) == {}
    one = {key: name for key, name in theirs.items() if not key.startswith(head)}
    assert original.copies_of_head(one) == {f"{copies}weight": "head.weight", f"{copies}bias": "head.bias"}
    none = {key: name for key, name in one.items() if not key.startswith("head.")}
    assert original.copies_of_head(none) == {}
