"""From a model directory to the right class."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from npformer import (
    AutoConfig,
    AutoImageProcessor,
    AutoModel,
    AutoModelForImageClassification,
    EfficientFormerConfig,
    EfficientFormerImageProcessor,
    EfficientFormerModel,
    ViTImageProcessor,
)
from tests import tiny
from tests.support import BARE, ONE_HEAD, TWO_HEADS

AUTO = [AutoConfig, AutoModel, AutoModelForImageClassification, AutoImageProcessor]


def rewrite(path: Path, **changes: Any) -> None:
    """Change some keys of a JSON file; None removes one."""
    settings = {**json.loads(path.read_text()), **changes}
    path.write_text(json.dumps({name: value for name, value in settings.items() if value is not None}))


@pytest.mark.parametrize("class_name", [ONE_HEAD, TWO_HEADS])
def test_the_class_is_the_one_that_was_saved(class_name: str, tmp_path: Path) -> None:
    tiny.model(class_name).save_pretrained(tmp_path)
    assert type(AutoConfig.from_pretrained(tmp_path, key_dim=3)) is EfficientFormerConfig
    assert type(AutoModelForImageClassification.from_pretrained(tmp_path)).__name__ == class_name
    assert type(AutoModel.from_pretrained(str(tmp_path))) is EfficientFormerModel


@pytest.mark.parametrize("architectures", [None, [], ["SomethingElse"], [["EfficientFormerModel"]], [BARE]])
def test_without_a_known_architecture_the_plain_classifier_is_taken(architectures: Any, tmp_path: Path) -> None:
    tiny.model(ONE_HEAD).save_pretrained(tmp_path)
    rewrite(tmp_path / "config.json", architectures=architectures)
    assert type(AutoModelForImageClassification.from_pretrained(tmp_path)).__name__ == ONE_HEAD


def test_options_reach_the_class(tmp_path: Path) -> None:
    tiny.model(ONE_HEAD).save_pretrained(tmp_path)
    model = AutoModelForImageClassification.from_pretrained(tmp_path, dtype="float64", output_attentions=True)
    assert model.dtype == "float64"
    assert model.config.output_attentions is True


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ({}, EfficientFormerImageProcessor),
        ({"image_processor_type": "ViTImageProcessor"}, ViTImageProcessor),
        ({"image_processor_type": "ViTImageProcessorFast"}, ViTImageProcessor),
        ({"image_processor_type": None, "feature_extractor_type": "ViTFeatureExtractor"}, ViTImageProcessor),
        ({"image_processor_type": None}, EfficientFormerImageProcessor),
    ],
)
def test_the_image_processor_is_the_one_named(keys: dict[str, Any], expected: type, tmp_path: Path) -> None:
    tiny.config().save_pretrained(tmp_path)
    EfficientFormerImageProcessor(crop_size=64, size={"shortest_edge": 72}).save_pretrained(tmp_path)
    rewrite(tmp_path / "preprocessor_config.json", **keys)
    processor = AutoImageProcessor.from_pretrained(tmp_path, do_normalize=False)
    assert type(processor) is expected
    assert processor.do_normalize is False


@pytest.mark.parametrize("auto", AUTO)
@pytest.mark.parametrize("content", ["", "[]", "null", "{", "[" * 100_000])
def test_a_damaged_file_is_refused_by_name(auto: Any, content: str, tmp_path: Path) -> None:
    for name in ("config.json", "preprocessor_config.json"):
        (tmp_path / name).write_text(content)
    with pytest.raises(ValueError, match=r"config\.json (is not valid JSON|must hold a JSON object)"):
        auto.from_pretrained(tmp_path)


@pytest.mark.parametrize("auto", AUTO)
@pytest.mark.parametrize("model_type", ["resnet", None, 3, ["efficientformer"], {}])
def test_another_family_is_refused(auto: Any, model_type: Any, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": model_type}))
    (tmp_path / "preprocessor_config.json").write_text("{}")
    with pytest.raises(
        ValueError, match=r"model_type must be one of efficientformer, efficientnet, swiftformer, got "
    ) as error:
        auto.from_pretrained(tmp_path)
    assert str(error.value).endswith(f"got {model_type!r}")
    assert tmp_path.name in str(error.value)


@pytest.mark.parametrize("kind", ["CLIPImageProcessor", 3, ["ViTImageProcessor"]])
def test_another_image_processor_is_refused(kind: Any, tmp_path: Path) -> None:
    (tmp_path / "preprocessor_config.json").write_text(json.dumps({"image_processor_type": kind}))
    with pytest.raises(
        ValueError, match="image_processor_type must be one of EfficientFormerImageProcessor, EfficientNet"
    ):
        AutoImageProcessor.from_pretrained(tmp_path)


@pytest.mark.parametrize("auto", AUTO)
def test_what_is_not_there_is_refused_by_name(auto: Any, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=rf"{tmp_path.name} holds no (preprocessor_)?config\.json"):
        auto.from_pretrained(tmp_path)
    with pytest.raises(FileNotFoundError, match="'no-such-model' is neither a directory nor a shipped model"):
        auto.from_pretrained("no-such-model")
