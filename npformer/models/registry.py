"""Registry of models by name: the published variants, the shipped models, and other libraries' names for them."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..assets import is_hub_name, model_directory, shipped_models
from ..checkpoint.sources import mmpretrain, timm, transformers
from ..image import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    BaseImageProcessor,
    EfficientFormerImageProcessor,
    EfficientNetImageProcessor,
    ViTImageProcessor,
)
from . import efficientformer, efficientnet, swiftformer
from .auto import AutoConfig, AutoImageProcessor, AutoModelForImageClassification, classifier_named
from .config import PretrainedConfig, is_whole, require
from .pretrained import PreTrainedModel
from .resize import resize_attention_biases


class Variant(NamedTuple):
    """A published network.

    Its classifier here; learned parameters; multiply-adds for one picture of image_size x image_size, counted as in
    `npformer summary`; and the published top-1 accuracy on ImageNet-1k, in percent.
    """

    architecture: type[PreTrainedModel]
    parameters: int
    multiply_adds: int
    image_size: int
    top1: float


_FORMER = efficientformer.EfficientFormerForImageClassificationWithTeacher
_NET = efficientnet.EfficientNetForImageClassification
_SWIFT = swiftformer.SwiftFormerForImageClassification

# Top-1 from the papers' main tables (EfficientFormer: trained for 300 epochs). B8 is not in EfficientNet's: its 85.5
# is from Xie et al. 2020, "Adversarial Examples Improve Image Recognition".
VARIANTS: dict[str, Variant] = {
    "efficientformer-l1": Variant(_FORMER, 12_289_928, 1_291_284_736, 224, 79.2),
    "efficientformer-l3": Variant(_FORMER, 31_406_000, 3_906_573_312, 224, 82.4),
    "efficientformer-l7": Variant(_FORMER, 82_229_328, 10_119_325_696, 224, 83.3),
    "efficientnet-b0": Variant(_NET, 5_288_548, 385_814_752, 224, 77.1),
    "efficientnet-b1": Variant(_NET, 7_794_184, 686_802_832, 240, 79.1),
    "efficientnet-b2": Variant(_NET, 9_109_994, 993_561_872, 260, 80.1),
    "efficientnet-b3": Variant(_NET, 12_233_232, 1_827_141_392, 300, 81.6),
    "efficientnet-b4": Variant(_NET, 19_341_616, 4_393_771_024, 380, 82.9),
    "efficientnet-b5": Variant(_NET, 30_389_784, 10_266_384_752, 456, 83.6),
    "efficientnet-b6": Variant(_NET, 43_040_704, 19_067_593_536, 528, 84.0),
    "efficientnet-b7": Variant(_NET, 66_347_960, 37_745_884_192, 600, 84.3),
    "efficientnet-b8": Variant(_NET, 87_413_142, 62_597_461_568, 672, 85.5),
    "swiftformer-xs": Variant(_SWIFT, 3_475_360, 602_434_988, 224, 75.7),
    "swiftformer-s": Variant(_SWIFT, 6_092_128, 984_604_768, 224, 78.5),
    "swiftformer-l1": Variant(_SWIFT, 12_057_920, 1_595_988_480, 224, 80.9),
    "swiftformer-l3": Variant(_SWIFT, 28_494_736, 4_008_367_872, 224, 83.0),
}

# Other libraries' names: the variant, and the settings in which their weights differ from its defaults.
ALIASES: dict[str, tuple[str, dict[str, Any]]] = {
    name: (here.variant, here.settings)
    for source in (transformers, mmpretrain, timm)
    for name, here in source.ARCHITECTURES.items()
}


def list_models(pattern: str | None = None, *, aliases: bool = False) -> list[str]:
    """Return the names that `get_model` knows: variants, shipped models, and with `aliases` other libraries' names.

    `pattern` selects the names that match, with * for any text and ? for any character: `list_models("*former-l?")`.
    """
    names = [*VARIANTS, *shipped_models(), *(ALIASES if aliases else ())]
    return names if pattern is None else [name for name in names if fnmatchcase(name.lower(), pattern.lower())]


def get_model(
    name: str | Path,
    pretrained: bool | str | Path = False,
    *,
    seed: int | None = None,
    dtype: Any = None,
    fused: bool = False,
    **overrides: Any,
) -> PreTrainedModel:
    """Build a classifier by name: a variant, a shipped model, another library's name for a variant, or a directory.

    Weights are random (repeatable with `seed`), unless `pretrained` is True, which loads those of the shipped model or
    directory, or of a repository on the hub ("google/efficientnet-b0"), or is itself a directory or repository to load
    them from. npformer ships no weights of the published variants. `overrides` change settings of the config, such as
    `num_labels` (1000 for a variant) or `image_size`, for which a pretrained EfficientFormer's attention biases are
    resized (`resize_attention_biases`); `dtype` is float32 by default. `fused` makes the model fast and hides the
    layers inside its blocks (`npformer.fuse`). timm's names imply timm's settings: "efficientnet_b0" pads
    symmetrically.

    Raises ValueError for an unknown name, naming the nearest, or for missing weights; TypeError for an override that
    is no setting.
    """
    if fused:
        from ..fuse import fuse  # which imports the models

        return fuse(get_model(name, pretrained, seed=seed, dtype=dtype, **overrides))
    if pretrained is not False:
        found = None if is_hub_name(name) else find_variant(name)
        if pretrained is True and found and str(name) not in mmpretrain.WEIGHTS:
            raise ValueError(
                f"pretrained must be a directory with weights of {found[0]}, which npformer does not ship, got True"
            )
        source = _directory(name if pretrained is True else pretrained)
        settings = {**found[1], **overrides} if found else overrides
        size = settings.pop("image_size", None)
        model = AutoModelForImageClassification.from_pretrained(source, dtype=dtype or np.float32, **settings)
        return model if size is None else _for_pictures_of(model, size)
    config, architecture = model_config(name, **overrides)
    model = architecture(config, seed=seed)  # type: ignore[call-arg]
    return model if dtype is None else model.astype(dtype)


def _for_pictures_of(model: PreTrainedModel, size: Any) -> PreTrainedModel:
    """Return the model for another size of picture: EfficientFormer's attention biases resized, others unchanged."""
    if isinstance(model.config, efficientformer.EfficientFormerConfig) and model.config.num_meta3d_blocks:
        require(is_whole(size, 1), "image_size", size, "a whole number of pixels")
        size = int(size)
        tokens = max(efficientformer.token_grid(model.config, size, size))
        model = model if tokens == model.config.resolution else resize_attention_biases(model, tokens)
    model.config.image_size = size
    model.config.validate()
    return model


def model_config(name: str | Path, **overrides: Any) -> tuple[PretrainedConfig, type[PreTrainedModel]]:
    """Return the config and the classifier's class of a name. Raises as `get_model`."""
    found = find_variant(name)
    if found is None:
        config = AutoConfig.from_pretrained(_directory(name), **overrides)
        if "image_size" in overrides:
            _fit_bias_table(config, overrides)
        return config, classifier_named(config.model_type, config.architectures)
    variant, settings = found
    architecture = VARIANTS[variant].architecture
    architecture.config_class.check_overrides(overrides)
    labels = {} if "id2label" in overrides else {"num_labels": 1000}
    config = architecture.config_class.for_variant(variant, **{**labels, **settings, **overrides})
    _fit_bias_table(config, overrides)
    return config, architecture


def _fit_bias_table(config: PretrainedConfig, overrides: dict[str, Any]) -> None:
    """Set the resolution of an EfficientFormer from its image_size: its bias table is for one size of picture."""
    if isinstance(config, efficientformer.EfficientFormerConfig) and "resolution" not in overrides:
        config.resolution = max(efficientformer.token_grid(config, config.image_size, config.image_size))


def image_processor(name: str | Path, image_size: int | None = None) -> BaseImageProcessor:
    """Return the image processor of a model by name; a variant's has ImageNet's statistics, its size or `image_size`.

    Raises ValueError for an unknown name, or FileNotFoundError.
    """
    found = find_variant(name)
    if found is None:
        return AutoImageProcessor.from_pretrained(_directory(name))
    variant = VARIANTS[found[0]]
    return PROCESSORS[variant.architecture.config_class.model_type](image_size or variant.image_size)


def find_variant(name: str | Path) -> tuple[str, dict[str, Any]] | None:
    """Return the variant of a name, with the settings that the name implies; None for any other name.

    Case is ignored, and so are timm's prefix "timm/" and its tag: "timm/swiftformer_xs.dist_in1k".
    """
    if Path(name).is_dir():
        return None
    text = str(name).lower()
    if text in VARIANTS:
        return text, {}
    plain = text.removeprefix("timm/").partition(".")[0]
    for alias, found in ALIASES.items():
        if text == alias.lower() or (plain == alias and alias in timm.ARCHITECTURES):
            return found
    return None


def _directory(name: str | Path) -> Path:
    """Return the path of a shipped model or a directory. Raises ValueError naming the nearest known names."""
    try:
        return model_directory(name)
    except FileNotFoundError:
        if is_hub_name(name):
            raise  # the hub's error
        known = {known.lower(): known for known in list_models(aliases=True)}
        parts = [full for low, full in known.items() if low.endswith(f"-{str(name).lower()}")]
        near = parts or [known[low] for low in difflib.get_close_matches(str(name).lower(), known, 2, 0.5)]
        hint = f"did you mean {' or '.join(near)}?" if near else "list_models() names them"
        raise ValueError(f"model {str(name)!r} is neither a known name nor a directory ({hint})") from None


def _efficientformer_processor(side: int) -> BaseImageProcessor:
    return EfficientFormerImageProcessor(size=side, crop_size=side)


def _efficientnet_processor(side: int) -> BaseImageProcessor:
    roots = [deviation**0.5 for deviation in IMAGENET_STD]  # include_top divides by them twice
    return EfficientNetImageProcessor(size=side, image_mean=IMAGENET_MEAN, image_std=roots)


def _swiftformer_processor(side: int) -> BaseImageProcessor:
    return ViTImageProcessor(size=side, image_mean=IMAGENET_MEAN, image_std=IMAGENET_STD)


# By family: the image processor for pictures of a given side, with ImageNet's statistics.
PROCESSORS: dict[str, Callable[[int], BaseImageProcessor]] = {
    "efficientformer": _efficientformer_processor,
    "efficientnet": _efficientnet_processor,
    "swiftformer": _swiftformer_processor,
}
