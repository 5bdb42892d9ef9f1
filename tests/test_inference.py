"""`inference_model`: every kind of model and picture, and the same numbers as the steps by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import npformer
from npformer import (
    AutoConfig,
    AutoImageProcessor,
    AutoModelForImageClassification,
    EfficientFormerImageProcessor,
    EfficientNetImageProcessor,
    ViTImageProcessor,
    fuse,
    get_model,
    inference_model,
    load_image,
    resize_attention_biases,
)
from npformer.assets import sample_pictures, shipped_models
from npformer.assets.imagenet import imagenet_labels
from npformer.checkpoint import write_tensors
from npformer.image import IMAGENET_MEAN, IMAGENET_STD
from npformer.inference import BATCH, final_size, for_size, processor_of
from npformer.models.timm_config import TimmImageProcessor
from tests import tiny
from tests.support import BARE, BARE_NET, BARE_SWIFT, NET, ONE_HEAD, SWIFT, TWO_HEADS
from tests.sweep import sweep
from tests.test_convert import as_timm

SHIPPED = "efficientformer-fashion"
SAMPLES = list(sample_pictures())
TRUTH = list(sample_pictures().values())
CLASSIFIERS = [ONE_HEAD, TWO_HEADS, NET, SWIFT]


def colours(number: int = 0, width: int = 90, height: int = 75) -> np.ndarray:
    """A picture whose channels and sides all differ, smooth enough to be resized; (H, W, 3)."""
    small = np.random.default_rng(number).integers(0, 256, (7, 7, 3), np.uint8)
    small[..., 0] //= 2
    return np.asarray(Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC))


def by_hand(model: Any, processor: Any, picture: Any) -> np.ndarray:
    """Probabilities (K,) of one RGB picture."""
    logits = model(processor(picture, return_tensors="np")["pixel_values"]).logits[0].astype(np.float64)
    exps = np.exp(logits - logits.max())
    return exps / exps.sum()


def assert_predicts(result: Any, scores: np.ndarray, labels: list[str], atol: float = 2e-5) -> None:
    """That is, mmpretrain's dict (`ImageClassificationInferencer.postprocess`) with these scores."""
    assert list(result) == ["pred_scores", "pred_label", "pred_score", "pred_class"]
    kinds = {"pred_scores": np.ndarray, "pred_label": int, "pred_score": float, "pred_class": str}
    assert {name: type(value) for name, value in result.items()} == kinds
    assert (result["pred_scores"].dtype, result["pred_scores"].shape) == (np.float32, scores.shape)
    np.testing.assert_allclose(result["pred_scores"], scores, atol=atol)
    assert abs(result["pred_scores"].sum() - 1) < 1e-5
    assert result["pred_label"] == scores.argmax()
    assert result["pred_score"] == result["pred_scores"].max()
    assert result["pred_class"] == labels[result["pred_label"]]


# --- models ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", shipped_models())
@pytest.mark.parametrize("kind", ["name", "directory", "directory as text", "model", "fused"])
def test_a_model_by_name_directory_or_itself(name: str, kind: str) -> None:
    readable = AutoModelForImageClassification.from_pretrained(name)
    given: Any = {
        "name": name, "directory": readable.source, "directory as text": str(readable.source), "model": readable,
        "fused": fuse(readable),
    }[kind]  # fmt: skip
    labels = [readable.config.id2label[n] for n in range(10)]
    picture = SAMPLES[3]
    scores = by_hand(readable, AutoImageProcessor.from_pretrained(name), load_image(picture))
    result = inference_model(given, picture)
    assert_predicts(result, scores, labels)
    assert result["pred_class"] == TRUTH[3]


def test_the_models_given_stay_as_they_are() -> None:
    model = tiny.model()
    fused = fuse(model)
    before, before_fused, config = tiny.state_bytes(model), tiny.state_bytes(fused), model.config.to_dict()
    for given in (model, fused):
        inference_model(given, colours())
    assert (tiny.state_bytes(model), tiny.state_bytes(fused), model.config.to_dict()) == (before, before_fused, config)
    assert not model.is_fused


def test_the_shipped_models_know_most_of_the_shipped_pictures() -> None:
    for name in shipped_models():
        results = inference_model(name, SAMPLES)
        assert sum(result["pred_class"] == truth for result, truth in zip(results, TRUTH, strict=True)) >= 17


def test_a_thousand_classes_without_names_are_imagenets() -> None:
    result = inference_model(tiny.model(num_labels=1000), colours())
    assert result["pred_class"] == imagenet_labels()[result["pred_label"]]
    assert len(result["pred_scores"]) == 1000


def test_classes_are_in_the_order_of_their_numbers() -> None:
    """However id2label was written."""
    names = {number: f"thing {number}" for number in range(12)}
    model = tiny.model(num_labels=12, id2label=dict(sorted(names.items(), key=lambda item: str(item[0]))))
    for number in range(8):
        result = inference_model(model, colours(number))
        assert result["pred_class"] == f"thing {result['pred_label']}"


def test_double_precision_stays_double() -> None:
    model = tiny.model().astype(np.float64)
    result = inference_model(model, colours())
    assert result["pred_scores"].dtype == np.float64
    processor = EfficientFormerImageProcessor(size=64, crop_size=64)
    np.testing.assert_allclose(result["pred_scores"], by_hand(model, processor, colours()), atol=1e-11)


# --- pictures --------------------------------------------------------------------------------------------------------


def test_every_kind_of_picture(tmp_path: Path) -> None:
    pixels = colours()
    path = tmp_path / "picture.png"
    Image.fromarray(pixels).save(path)
    scores = by_hand(tiny.model(), EfficientFormerImageProcessor(size=64, crop_size=64), pixels)
    model = fuse(tiny.model())
    backwards = inference_model(model, np.ascontiguousarray(pixels[..., ::-1]))["pred_scores"]
    assert np.abs(backwards - scores).max() > 0.01, "or blue for red would pass"
    for picture in (path, str(path), Image.open(path), Image.fromarray(pixels), pixels, pixels.transpose(2, 0, 1)):
        assert_predicts(inference_model(model, picture), scores, [f"LABEL_{n}" for n in range(5)])


def test_grey_pictures_and_others_become_rgb(tmp_path: Path) -> None:
    grey = colours()[..., 1]
    coloured = np.repeat(grey[..., None], 3, axis=2)
    model = tiny.model(SWIFT)
    wanted = inference_model(model, coloured)["pred_scores"]
    transparent = Image.fromarray(coloured).convert("RGBA")
    for picture in (grey, grey[..., None], grey[None], Image.fromarray(grey), transparent, transparent.convert("LA")):
        np.testing.assert_array_equal(inference_model(model, picture)["pred_scores"], wanted)
    turned = Image.fromarray(coloured).transpose(Image.Transpose.ROTATE_90)
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise
    turned.save(tmp_path / "turned.png", exif=exif)
    np.testing.assert_array_equal(inference_model(model, tmp_path / "turned.png")["pred_scores"], wanted)


@pytest.mark.parametrize(
    ("count", "kind"),
    sweep(
        [(count, kind) for count in (0, 1, 2, BATCH, BATCH + 1, 2 * BATCH + 5) for kind in (list, tuple)],
        [(0, list), (1, tuple), (2, list), (BATCH + 1, list)],
    ),
)
def test_a_list_gives_a_list(count: int, kind: Any) -> None:
    model = fuse(tiny.model(NET))
    pictures = [colours(number, 60 + number, 70) for number in range(count)]
    results = inference_model(model, kind(pictures))
    assert type(results) is list
    assert len(results) == count
    processor = processor_of(model)
    for picture, result in zip(pictures, results, strict=True):
        assert_predicts(result, by_hand(tiny.model(NET), processor, picture), [f"LABEL_{n}" for n in range(5)])


def test_a_list_may_be_mixed(tmp_path: Path) -> None:
    pixels = colours()
    Image.fromarray(pixels).save(tmp_path / "a.png")
    kinds = [tmp_path / "a.png", str(tmp_path / "a.png"), pixels, Image.fromarray(pixels), pixels.transpose(2, 0, 1)]
    results = inference_model(SHIPPED, kinds)
    for result in results:
        np.testing.assert_allclose(result["pred_scores"], results[0]["pred_scores"], atol=1e-6)


def test_never_more_than_a_batch_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many pictures: memory does not grow with them."""
    asked: list[int] = []
    monkeypatch.setattr("npformer.inference.load_image", lambda picture: picture)

    def processor(pictures: list[Any], return_tensors: str) -> dict[str, np.ndarray]:
        asked.append(len(pictures))
        return {"pixel_values": np.concatenate([tiny.pictures(1)] * len(pictures))}

    inference_model(tiny.model(), [None] * (2 * BATCH + 3), image_processor=processor)  # type: ignore[arg-type]
    assert asked == [BATCH, BATCH, 3]


# --- processors ------------------------------------------------------------------------------------------------------


def imagenet(family: str, side: int) -> Any:
    """The family's processor with ImageNet's statistics, written out."""
    statistics: dict[str, Any] = {"image_mean": IMAGENET_MEAN, "image_std": IMAGENET_STD}
    if family == "EfficientFormer":
        return EfficientFormerImageProcessor(size=side, crop_size=side, **statistics)
    if family == "SwiftFormer":
        return ViTImageProcessor(size=side, **statistics)
    return EfficientNetImageProcessor(size=side, include_top=False, **statistics)


@pytest.mark.parametrize("class_name", CLASSIFIERS)
@pytest.mark.parametrize("side", [64, 96])
def test_a_model_without_a_directory_gets_imagenets_processor_at_its_size(class_name: str, side: int) -> None:
    settings = {"resolution": side // 32} if class_name in (ONE_HEAD, TWO_HEADS) else {}
    model = tiny.model(class_name, image_size=side, **settings)
    family = tiny.case(class_name).family
    picture = colours(4)
    processor = imagenet(family, side)
    scores = by_hand(model, processor, picture)
    assert_predicts(inference_model(model, picture), scores, [f"LABEL_{n}" for n in range(5)], atol=1e-4)
    pixels, wanted = (p(picture, return_tensors="np")["pixel_values"] for p in (processor_of(model), processor))
    np.testing.assert_allclose(pixels, wanted, atol=1e-5)
    assert pixels.shape == (1, 3, side, side)
    expected = (np.asarray(Image.fromarray(picture).resize((side, side), wanted_filter(family))) / 255.0).astype(float)
    expected = (expected - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    np.testing.assert_allclose(pixels[0], expected.transpose(2, 0, 1), atol=1e-5)


def wanted_filter(family: str) -> Image.Resampling:
    """Return the default filter in each family's page."""
    filters = {
        "EfficientFormer": Image.Resampling.BICUBIC,
        "EfficientNet": Image.Resampling.NEAREST,
        "SwiftFormer": Image.Resampling.BILINEAR,
    }
    return filters[family]


@pytest.mark.parametrize("class_name", CLASSIFIERS)
def test_a_directory_without_a_processor_gets_imagenets_too(class_name: str, tmp_path: Path) -> None:
    tiny.model(class_name).save_pretrained(tmp_path)
    scores = by_hand(tiny.model(class_name), imagenet(tiny.case(class_name).family, 64), colours())
    loaded = AutoModelForImageClassification.from_pretrained(tmp_path)
    assert processor_of(loaded).to_dict() == processor_of(tiny.model(class_name)).to_dict()
    for given in (tmp_path, str(tmp_path), loaded):
        assert_predicts(inference_model(given, colours()), scores, [f"LABEL_{n}" for n in range(5)], atol=1e-4)


def test_a_directory_that_is_gone_is_not_guessed_at(tmp_path: Path) -> None:
    get_model("efficientnet-fashion", pretrained=True).save_pretrained(tmp_path / "saved")
    model = get_model(tmp_path / "saved", pretrained=True)
    (tmp_path / "saved").rename(tmp_path / "moved")
    with pytest.raises(FileNotFoundError, match="saved"):
        inference_model(model, SAMPLES[0])


def test_a_directorys_own_processor_is_used(tmp_path: Path) -> None:
    model = tiny.model(SWIFT)
    model.save_pretrained(tmp_path)
    processor = EfficientFormerImageProcessor(
        size={"shortest_edge": 70}, crop_size=64, image_mean=(0.1, 0.2, 0.3), image_std=(0.5, 0.6, 0.7), resample=2
    )
    processor.save_pretrained(tmp_path)
    scores = by_hand(model, processor, colours())
    assert np.abs(scores - by_hand(model, imagenet("SwiftFormer", 64), colours())).max() > 0.01
    loaded = get_model(tmp_path, pretrained=True)
    for given in (tmp_path, loaded, fuse(loaded), get_model(tmp_path, pretrained=True, fused=True)):
        assert_predicts(inference_model(given, colours()), scores, [f"LABEL_{n}" for n in range(5)], atol=1e-4)


def test_timms_directories_know_their_processor(tmp_path: Path) -> None:
    """It lies in their config.json: here halves, and an odd crop."""
    model = get_model("swiftformer_xs", num_labels=5, seed=1)
    model.save_pretrained(tmp_path)
    cfg = {"input_size": [3, 64, 64], "crop_pct": 0.9, "interpolation": "bicubic", "mean": [0.5] * 3, "std": [0.5] * 3}
    settings = {"architecture": "swiftformer_xs", "num_classes": 5, "pretrained_cfg": cfg}
    (tmp_path / "config.json").write_text(json.dumps(settings))
    write_tensors(tmp_path / "model.safetensors", as_timm(model))
    processor = AutoImageProcessor.from_pretrained(tmp_path)
    assert isinstance(processor, TimmImageProcessor)
    assert processor.size == {"shortest_edge": 71}
    picture = colours()
    loaded = get_model(tmp_path, pretrained=True)
    assert processor_of(loaded).to_dict() == processor.to_dict()
    scores = by_hand(loaded, processor, picture)
    assert_predicts(inference_model(tmp_path, picture), scores, [f"LABEL_{n}" for n in range(5)])
    larger = processor_of(get_model(tmp_path, pretrained=True, image_size=128))
    assert isinstance(larger, TimmImageProcessor)
    assert (larger.size, larger.crop_size) == ({"shortest_edge": 142}, {"height": 128, "width": 128})


@pytest.mark.parametrize("given", [SHIPPED, "model"])
def test_the_processor_that_is_given_wins(given: Any) -> None:
    model = AutoModelForImageClassification.from_pretrained(SHIPPED)
    processor = EfficientFormerImageProcessor(size=224, crop_size=224, image_mean=(0.9, 0.1, 0.5))
    scores = by_hand(model, processor, colours())
    assert np.abs(scores - by_hand(model, AutoImageProcessor.from_pretrained(SHIPPED), colours())).max() > 0.01
    result = inference_model(model if given == "model" else given, colours(), image_processor=processor)
    assert_predicts(result, scores, [model.config.id2label[n] for n in range(10)])


@pytest.mark.parametrize(("name", "side"), [(SHIPPED, 256), (SHIPPED, 160), (SHIPPED, 230)])
@pytest.mark.parametrize("fused", [False, True])
def test_an_efficientformer_of_another_size_gets_pictures_of_that_size(name: str, side: int, fused: bool) -> None:
    model = get_model(name, pretrained=True, image_size=side, fused=fused)
    assert final_size(processor_of(model)) == (side, side)
    stored = AutoImageProcessor.from_pretrained(name)
    own = type(stored).from_dict(
        {**stored.to_dict(), "size": {"height": side, "width": side}, "crop_size": {"height": side, "width": side}}
    )
    picture = load_image(SAMPLES[5])
    scores = by_hand(get_model(name, pretrained=True, image_size=side), own, picture)
    assert_predicts(inference_model(model, picture), scores, [model.config.id2label[n] for n in range(10)], atol=1e-4)


@pytest.mark.parametrize(("name", "side"), [("efficientnet-fashion", 128), ("swiftformer-fashion", 120)])
def test_the_others_too(name: str, side: int) -> None:
    model = get_model(name, pretrained=True, image_size=side)
    pixels = processor_of(model)(load_image(SAMPLES[5]), return_tensors="np")["pixel_values"]
    expected = AutoImageProcessor.from_pretrained(name)(load_image(SAMPLES[5]), size=side, return_tensors="np")
    np.testing.assert_array_equal(pixels, expected["pixel_values"])
    assert pixels.shape == (1, 3, side, side)
    scores = by_hand(model, processor_of(model), load_image(SAMPLES[5]))
    assert_predicts(inference_model(model, SAMPLES[5]), scores, [model.config.id2label[n] for n in range(10)])


def test_a_model_resized_by_hand_gets_pictures_of_its_new_size() -> None:
    model = resize_attention_biases(AutoModelForImageClassification.from_pretrained(SHIPPED), 9)
    assert final_size(processor_of(model)) == (288, 288)
    assert processor_of(model).image_mean == [0.286] * 3
    inference_model(model, SAMPLES[0])
    inference_model(resize_attention_biases(tiny.model(), 3), colours())


@pytest.mark.parametrize(
    ("processor", "before", "side", "size", "crop"),
    [
        (EfficientFormerImageProcessor(size={"shortest_edge": 248}), 224, 256, {"shortest_edge": 283}, 256),
        (EfficientFormerImageProcessor(size={"shortest_edge": 248}), 224, 250, {"shortest_edge": 277}, 250),
        (EfficientFormerImageProcessor(size={"shortest_edge": 256}), 224, 112, {"shortest_edge": 128}, 112),
        (EfficientFormerImageProcessor(size=224, do_center_crop=False), 224, 96, {"height": 96, "width": 96}, 96),
        (EfficientNetImageProcessor(size=96), 96, 33, {"height": 33, "width": 33}, None),
        (ViTImageProcessor(size=96), 96, 224, {"height": 224, "width": 224}, None),
    ],
)  # fmt: skip
def test_sizes_of_processors(processor: Any, before: int, side: int, size: dict[str, int], crop: Any) -> None:
    settings = processor.to_dict()
    other = for_size(processor, side)
    assert type(other) is type(processor)
    assert final_size(processor) == (before, before)
    assert final_size(other) == (side, side)
    assert other.size == size
    assert crop is None or other.crop_size == {"height": crop, "width": crop}  # type: ignore[attr-defined]
    unchanged = {name: value for name, value in other.to_dict().items() if name not in ("size", "crop_size")}
    assert unchanged == {name: value for name, value in settings.items() if name not in ("size", "crop_size")}
    assert processor.to_dict() == settings
    assert for_size(processor, before).to_dict() == settings
    pixels = other(colours(), return_tensors="np")["pixel_values"]
    assert pixels.shape == (1, 3, side, side)


# --- what goes wrong -------------------------------------------------------------------------------------------------


def refused(kind: type[Exception], match: str, model: Any, img: Any, **options: Any) -> None:
    with pytest.raises(kind, match=match) as error:
        inference_model(model, img, **options)
    text = str(error.value)
    assert "\n" not in text
    assert len(text) < 300


def test_models_that_cannot_be_had(tmp_path: Path) -> None:
    picture, misspelt, without = SAMPLES[0], "efficientformer-fashon", "efficientformer-l1"
    told = rf"^model '{misspelt}' is neither a known name nor a directory \(did you mean efficientformer-fashion"
    refused(ValueError, told, misspelt, picture)
    refused(ValueError, f"^pretrained must be a directory with weights of {without}, which npformer", without, picture)
    refused(FileNotFoundError, r" holds no config\.json$", tmp_path, picture)
    tiny.config().save_pretrained(tmp_path)
    refused(FileNotFoundError, r" holds no weights: ", tmp_path, picture)
    for model in (None, 3, tiny.config(), npformer.SwiftFormerModel, {"model": SHIPPED}, AutoConfig):
        refused(TypeError, "^model is .*, but inference_model takes a name, a directory or a model$", model, picture)


@pytest.mark.parametrize("class_name", [BARE, BARE_NET, BARE_SWIFT])
def test_models_without_classes(class_name: str) -> None:
    told = f"^model must be a classifier, got {class_name}, which has no head$"
    refused(TypeError, told, tiny.model(class_name), colours())
    refused(TypeError, told, fuse(tiny.model(class_name)), colours())


def test_a_head_without_classes() -> None:
    refused(TypeError, "^model must be a classifier, got .* with num_labels = 0$", tiny.model(num_labels=0), colours())


def test_pictures_that_cannot_be_had(tmp_path: Path) -> None:
    model = tiny.model()
    text = tmp_path / "text.png"
    text.write_text("no picture")
    for several in (False, True):

        def wrap(img: Any, several: bool = several) -> Any:
            return [colours(), img] if several else img

        missing = tmp_path / "missing.png"
        refused(FileNotFoundError, r"expected the path of a picture: .*missing\.png", model, wrap(missing))
        refused(FileNotFoundError, r"expected the path of a picture: .*missing\.png", model, wrap(str(missing)))
        refused(OSError, "expected the path of a picture", model, wrap(tmp_path))
        refused(ValueError, r"text\.png: not a picture in a format that Pillow knows", model, wrap(text))
        refused(ValueError, "is a web address, but load_image reads files only", model, wrap("https://a.b/c.png"))
        for wrong in (None, 3, {"picture": 1}, b"picture.png", iter(())):
            refused(TypeError, "but load_image takes a path, a Pillow picture or a NumPy array$", model, wrap(wrong))
        refused(TypeError, r"^source is b'picture\.png' ", model, wrap(b"picture.png"))
        for shape in [(5,), (2, 3, 8, 8), (9, 8, 8), (0, 8, 3)]:
            refused(ValueError, r"^source is an array of shape \(", model, wrap(np.zeros(shape, np.uint8)))
    refused(ValueError, "^pixel_values must have shape ", tiny.model(num_channels=1), colours())
    for wrong in ("imagenet", 224, {"size": 224}):
        refused(TypeError, "^image_processor is .*, but an image processor is needed$", model, colours(),
                image_processor=wrong)  # fmt: skip
