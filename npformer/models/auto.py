"""Auto classes: from the names in a model directory's JSON files to classes here."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NoReturn

from ..assets import model_directory
from ..checkpoint import read_json
from ..image import CONFIG_NAME as PROCESSOR_NAME
from ..image import (
    BaseImageProcessor,
    EfficientFormerImageProcessor,
    EfficientNetImageProcessor,
    ViTImageProcessor,
)
from .config import PretrainedConfig, read_config
from .efficientformer import (
    EfficientFormerConfig,
    EfficientFormerForImageClassification,
    EfficientFormerForImageClassificationWithTeacher,
    EfficientFormerModel,
)
from .efficientnet import EfficientNetConfig, EfficientNetForImageClassification, EfficientNetModel
from .pretrained import PreTrainedModel
from .swiftformer import SwiftFormerConfig, SwiftFormerForImageClassification, SwiftFormerModel
from .timm_config import TimmImageProcessor, is_timm_config, read_timm_config

CONFIGS: dict[str, type[PretrainedConfig]] = {
    "efficientformer": EfficientFormerConfig,
    "efficientnet": EfficientNetConfig,
    "swiftformer": SwiftFormerConfig,
}
BARE_MODELS: dict[str, type[PreTrainedModel]] = {
    "efficientformer": EfficientFormerModel,
    "efficientnet": EfficientNetModel,
    "swiftformer": SwiftFormerModel,
}
# The first of a family is the default where a config.json names no architecture.
CLASSIFIERS: dict[str, tuple[type[PreTrainedModel], ...]] = {
    "efficientformer": (EfficientFormerForImageClassification, EfficientFormerForImageClassificationWithTeacher),
    "efficientnet": (EfficientNetForImageClassification,),
    "swiftformer": (SwiftFormerForImageClassification,),
}
PROCESSORS: dict[str, type[BaseImageProcessor]] = {
    "EfficientFormerImageProcessor": EfficientFormerImageProcessor,
    "EfficientNetImageProcessor": EfficientNetImageProcessor,
    "TimmImageProcessor": TimmImageProcessor,
    "ViTImageProcessor": ViTImageProcessor,
}
# Default processor of each family, where a file names none.
DEFAULT_PROCESSORS: dict[str, str] = {
    "efficientformer": "EfficientFormerImageProcessor",
    "efficientnet": "EfficientNetImageProcessor",
    "swiftformer": "ViTImageProcessor",
}


class AutoConfig:
    """Loader of any supported model's config: `AutoConfig.from_pretrained(directory)`."""

    @staticmethod
    def from_pretrained(
        name_or_path: str | Path, *, revision: str | None = None, **overrides: Any
    ) -> PretrainedConfig:
        """Return the config in `config.json`, of the class its `model_type` names.

        Raises ValueError for an unknown one.
        """
        settings = read_config(name_or_path, revision)
        if is_timm_config(settings):
            return _timm_config(settings, overrides)
        return CONFIGS[_model_type(settings, name_or_path)].from_dict(settings, **overrides)


class AutoModel:
    """Loader of any supported model without its head: `AutoModel.from_pretrained(directory)`."""

    @staticmethod
    def from_pretrained(name_or_path: str | Path, *, revision: str | None = None, **options: Any) -> PreTrainedModel:
        """Return the base model for the `model_type` in `config.json`; options as in its own from_pretrained."""
        directory = model_directory(name_or_path, revision)
        model_type = _model_type(read_config(directory), name_or_path)
        return BARE_MODELS[model_type].from_pretrained(directory, **options)


class AutoModelForImageClassification:
    """Loader of any supported classifier: `AutoModelForImageClassification.from_pretrained(directory)`."""

    @staticmethod
    def from_pretrained(name_or_path: str | Path, *, revision: str | None = None, **options: Any) -> PreTrainedModel:
        """Return the classifier that `config.json` names under `architectures`, or else its family's first one.

        timm's directories name no class: for EfficientFormer it is the one that averages two heads, as timm does.
        """
        directory = model_directory(name_or_path, revision)
        settings = read_config(directory)
        model_type = _model_type(settings, name_or_path)
        named = [CLASSIFIERS[model_type][-1].__name__] if is_timm_config(settings) else settings.get("architectures")
        return classifier_named(model_type, named).from_pretrained(directory, **options)


class AutoImageProcessor:
    """Loader of a model directory's image processor: `AutoImageProcessor.from_pretrained(directory)`."""

    @staticmethod
    def from_pretrained(
        name_or_path: str | Path, *, revision: str | None = None, **overrides: Any
    ) -> BaseImageProcessor:
        """Return the processor in `preprocessor_config.json`, of the class its `image_processor_type` names.

        Files older than that key name a `feature_extractor_type`, or nothing; then `config.json`'s model type decides.
        timm's settings are in its config.json. Raises FileNotFoundError or ValueError.
        """
        directory = model_directory(name_or_path, revision, weights=False)
        path = directory / PROCESSOR_NAME
        if not path.is_file():
            config = directory / "config.json"
            timms = read_json(config) if config.is_file() else {}
            if is_timm_config(timms):
                return TimmImageProcessor.from_dict(read_timm_config(timms).processor.to_dict(), **overrides)
            raise FileNotFoundError(f"{path.parent} holds no {path.name}")
        settings = read_json(path)
        old_name = str(settings.get("feature_extractor_type", "")).replace("FeatureExtractor", "ImageProcessor")
        name = str(settings.get("image_processor_type", old_name)).removesuffix("Fast")
        if not name:
            model_type = _model_type(read_config(directory), name_or_path)
            name = DEFAULT_PROCESSORS[model_type]
        if name not in PROCESSORS:
            _unknown(path, "image_processor_type", name, PROCESSORS)
        return PROCESSORS[name].from_pretrained(path.parent, **overrides)


def classifier_named(model_type: str, architectures: Any) -> type[PreTrainedModel]:
    """Return a family's classifier in `architectures`, a config's list of class names, or else the family's first."""
    classes = CLASSIFIERS[model_type]
    named = {cls.__name__: cls for cls in classes}
    wanted = [named[str(name)] for name in architectures or () if str(name) in named]
    return (wanted or classes)[0]


def _timm_config(settings: dict[str, Any], overrides: dict[str, Any]) -> PretrainedConfig:
    """Return the config of the model that timm's config.json describes."""
    from .registry import model_config  # which imports this module

    found = read_timm_config(settings)
    labels = {"num_labels": found.num_labels} if found.labels is None else {"id2label": dict(enumerate(found.labels))}
    known = {"num_channels": found.num_channels, "image_size": found.image_size[0], **labels}
    return model_config(found.architecture, **{**known, **overrides})[0]


def _model_type(settings: dict[str, Any], name_or_path: str | Path) -> str:
    if is_timm_config(settings):
        return read_timm_config(settings).architecture.removeprefix("tf_").partition("_")[0]
    model_type = settings.get("model_type")
    if not isinstance(model_type, str) or model_type not in CONFIGS:
        _unknown(name_or_path, "model_type", model_type, CONFIGS)
    return model_type


def _unknown(where: Any, key: str, found: Any, known: dict[str, Any]) -> NoReturn:
    raise ValueError(f"{where}: {key} must be one of {', '.join(known)}, got {found!r}")
