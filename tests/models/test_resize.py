"""EfficientFormer's table of attention biases, resized to pictures of another size."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import npformer
from npformer import fuse, get_model, ops, resize_attention_biases
from npformer.models.efficientformer import EfficientFormerSelfAttention, picture_side, token_grid
from npformer.models.resize import cubic_weights, resize_table
from tests import tiny
from tests.support import BARE, ONE_HEAD, SWIFT, TWO_HEADS

FASHION = "efficientformer-fashion"
PAIRS = [(7, 5), (7, 6), (7, 8), (7, 9), (7, 14), (5, 9), (9, 2), (2, 7), (1, 4), (7, 1), (3, 3)]


def keys(distance: float) -> float:
    """Keys 1981, "Cubic convolution interpolation", equation 4, by parameter a = -3/4."""
    a, d = -0.75, abs(distance)
    if d <= 1:
        return (a + 2) * d**3 - (a + 3) * d**2 + 1
    return a * d**3 - 5 * a * d**2 + 8 * a * d - 4 * a if d < 2 else 0.0


def resized(table: np.ndarray, new: int) -> np.ndarray:
    """One head's table (R, R) -> (R', R'), number by number."""
    old = len(table)
    out = np.zeros((new, new))
    for i, j in np.ndindex(new, new):
        y, x = (k * (old - 1) / (new - 1) if new > 1 else 0.0 for k in (i, j))
        for row in range(math.floor(y) - 1, math.floor(y) + 3):
            for column in range(math.floor(x) - 1, math.floor(x) + 3):
                value = table[min(max(row, 0), old - 1), min(max(column, 0), old - 1)]
                out[i, j] += keys(y - row) * keys(x - column) * value
    return out


def table(side: int, heads: int = 3) -> np.ndarray:
    return np.random.default_rng(side).standard_normal((heads, side * side))


def attentions(model: Any) -> Iterator[tuple[str, Any]]:
    for name, module in model.named_modules():
        if isinstance(module, EfficientFormerSelfAttention):
            yield name, module


# --- the interpolation -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("old", "new"), PAIRS)
def test_tables_are_resampled_as_by_hand(old: int, new: int) -> None:
    before = table(old)
    after = resize_table(before, new)
    assert (after.shape, after.dtype) == ((3, new * new), np.float64)
    for head, row in zip(before, after, strict=True):
        np.testing.assert_allclose(row.reshape(new, new), resized(head.reshape(old, old), new), atol=1e-13)


@pytest.mark.parametrize(("old", "new"), [pair for pair in PAIRS if pair[1] > 1])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_corners_keep_their_values(old: int, new: int, dtype: Any) -> None:
    before = table(old).astype(dtype).reshape(3, old, old)
    after = resize_table(before.reshape(3, -1), new).reshape(3, new, new)
    assert after.dtype == dtype
    for row in (0, -1):
        for column in (0, -1):
            np.testing.assert_array_equal(after[:, row, column], before[:, row, column])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("side", [1, 2, 7, 12])
def test_the_same_size_gives_the_same_table(side: int, dtype: Any) -> None:
    before = table(side).astype(dtype)
    np.testing.assert_array_equal(resize_table(before, side), before)
    assert resize_table(before, side).dtype == dtype


def test_one_token_has_the_bias_of_no_offset() -> None:
    np.testing.assert_array_equal(resize_table(table(7), 1), table(7)[:, :1])
    np.testing.assert_allclose(resize_table(table(1), 4), np.repeat(table(1), 16, axis=1), rtol=1e-15)


@pytest.mark.parametrize(("old", "new"), PAIRS)
def test_weights_sum_to_one_and_are_those_of_four_neighbours(old: int, new: int) -> None:
    weights = cubic_weights(old, new)
    assert weights.shape == (new, old)
    np.testing.assert_allclose(weights.sum(1), 1, atol=1e-15)
    assert ((weights != 0).sum(1) <= 4).all()
    np.testing.assert_allclose(weights, weights[::-1, ::-1] if new > 1 else weights, atol=1e-14)  # both ends alike


def test_a_ramp_stays_one_but_for_what_the_parameter_bends() -> None:
    """With a = -1/2 a ramp would stay straight; PyTorch's -3/4 bends it between the points, by t (1-t) (1-2t) / 2."""
    ramp, places = np.arange(7.0), np.linspace(0, 6, 13)
    inside = slice(2, -2)  # elsewhere the ends, repeated, are no ramp
    np.testing.assert_allclose((cubic_weights(7, 13) @ ramp)[inside], places[inside], atol=1e-14)  # halves: straight
    places = np.linspace(0, 6, 25)
    t = places % 1
    expected = places + t * (1 - t) * (1 - 2 * t) / 2
    np.testing.assert_allclose((cubic_weights(7, 25) @ ramp)[4:-4], expected[4:-4], atol=1e-14)
    assert np.abs(expected - places).max() > 0.04


def test_beyond_the_ends_lies_the_end() -> None:
    """Half a step from the end: the point beyond it has the end's value, or the weights would not be these."""
    np.testing.assert_allclose(cubic_weights(4, 7)[1], [-0.09375 + 0.59375, 0.59375, -0.09375, 0], atol=1e-15)


@pytest.mark.parametrize("new", [5, 8, 9])
def test_rows_and_columns_are_not_confused(new: int) -> None:
    square = table(7, heads=2).reshape(2, 7, 7)
    turned = resize_table(square.swapaxes(1, 2).reshape(2, 49), new).reshape(2, new, new)
    np.testing.assert_allclose(
        turned.swapaxes(1, 2), resize_table(square.reshape(2, 49), new).reshape(2, new, new), atol=1e-14
    )
    symmetric = square + square.swapaxes(1, 2)
    after = resize_table(symmetric.reshape(2, 49), new).reshape(2, new, new)
    np.testing.assert_allclose(after, after.swapaxes(1, 2), atol=1e-14)
    rows = np.repeat(square[:, :, :1], 7, axis=2)  # depends on |dy| alone
    after = resize_table(rows.reshape(2, 49), new).reshape(2, new, new)
    np.testing.assert_allclose(after, np.repeat(after[:, :, :1], new, axis=2), atol=1e-14)
    assert np.ptp(after, axis=1).min() > 0.1


# --- the model -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("class_name", [BARE, ONE_HEAD, TWO_HEADS])
@pytest.mark.parametrize("resolution", [1, 5, 8, 9])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_new_model_with_other_tables_and_nothing_else(class_name: str, resolution: int, dtype: Any) -> None:
    settings = {"resolution": 7, "image_size": 224, "num_labels": 4, "layer_norm_eps": 1e-3, "hidden_act": "relu"}
    model = tiny.model(class_name, **settings, id2label={n: f"thing {n}" for n in range(4)}).astype(dtype)
    before, config = tiny.state_bytes(model), model.config.to_dict()
    twin = resize_attention_biases(model, resolution)
    assert type(twin) is type(model)
    assert twin is not model
    assert twin.config.to_dict() == {**config, "resolution": resolution, "image_size": 32 * resolution}

    assert len(list(attentions(twin))) == 2
    for (name, new), (_, old) in zip(attentions(twin), attentions(model), strict=True):
        assert new.attention_biases.dtype == dtype, name
        expected = resize_table(old.attention_biases, resolution)
        np.testing.assert_array_equal(new.attention_biases, expected)
        np.testing.assert_array_equal(new.attention_bias_idxs, ops.attention_bias_index(resolution))
    state = model.state_dict()
    for name, array in twin.state_dict().items():
        if "attention_bias" not in name:
            assert array.dtype == state[name].dtype, name
            np.testing.assert_array_equal(array, state[name])
    assert twin.state_dict().keys() == state.keys()

    pictures = tiny.pictures(height=32 * resolution, width=32 * resolution).astype(dtype)
    output = twin(pictures).main
    assert output.dtype == dtype
    assert np.isfinite(output).all()
    tolerance = 1e-10 if dtype == np.float64 else 1e-3
    np.testing.assert_allclose(fuse(twin)(pictures).main, output, atol=tolerance * np.abs(output).max())
    assert tiny.state_bytes(model) == before
    assert model.config.to_dict() == config
    model(tiny.pictures(height=224, width=224).astype(dtype))  # still for its own size


def test_the_same_resolution_gives_the_same_answers() -> None:
    model = tiny.model(TWO_HEADS)
    twin = resize_attention_biases(model, 2)
    assert tiny.state_bytes(twin) == tiny.state_bytes(model)
    np.testing.assert_array_equal(twin(tiny.pictures()).logits, model(tiny.pictures()).logits)


def test_tables_that_do_not_depend_on_the_offset_are_those_of_any_size() -> None:
    """The resized model is the one that has these tables from the start."""
    model = tiny.model(ONE_HEAD, resolution=4, image_size=128)
    state = {n: np.full_like(a, 0.7) if n.endswith("attention_biases") else a for n, a in model.state_dict().items()}
    twin = resize_attention_biases(model.load_state_dict(state), 3)
    direct = tiny.model(ONE_HEAD, resolution=3, image_size=96)
    shared = {name: array for name, array in direct.state_dict().items() if "attention_bias" in name}
    constant = {n: np.full_like(a, 0.7) if n.endswith("attention_biases") else a for n, a in shared.items()}
    direct.load_state_dict({**state, **constant})
    pictures = tiny.pictures(height=96, width=96)
    np.testing.assert_allclose(twin(pictures).logits, direct(pictures).logits, rtol=1e-5, atol=1e-6)


def test_other_strides_need_pictures_of_another_side() -> None:
    settings: dict[str, Any] = {
        "resolution": 4, "downsample_patch_size": 5, "downsample_stride": 3, "downsample_pad": 2,
        "downsamples": [True, True, True, True],
    }  # fmt: skip
    twin = resize_attention_biases(tiny.model(ONE_HEAD, **settings), 2)
    side = twin.config.image_size
    assert token_grid(twin.config, side, side) == (2, 2)
    assert token_grid(twin.config, side + 1, side + 1) == (3, 3)
    assert side == picture_side(twin.config)
    twin(tiny.pictures(1, 3, side, side))


def test_whole_numbers_of_numpy_count() -> None:
    twin = resize_attention_biases(tiny.model(), np.int64(3))  # type: ignore[arg-type]
    assert (twin.config.resolution, type(twin.config.resolution)) == (3, int)
    assert json.loads(twin.config.to_json_string())["resolution"] == 3
    model = get_model(FASHION, pretrained=True, image_size=np.int64(256))
    assert (model.config.resolution, model.config.image_size) == (8, 256)


def test_a_resized_model_can_be_saved(tmp_path: Path) -> None:
    twin = resize_attention_biases(tiny.model(TWO_HEADS), 3)
    twin.save_pretrained(tmp_path)
    again = get_model(tmp_path, pretrained=True)
    assert (again.config.resolution, again.config.image_size) == (3, 96)
    pictures = tiny.pictures(height=96, width=96)
    np.testing.assert_array_equal(again(pictures).logits, twin(pictures).logits)


def one_sentence(error: pytest.ExceptionInfo[Exception]) -> bool:
    text = str(error.value)
    return "\n" not in text and 20 < len(text) < 200 and not text.endswith(".")


@pytest.mark.parametrize("resolution", [0, -1, True, 2.5, 7.0, "7", None, (7, 7)])
def test_no_resolution(resolution: Any) -> None:
    with pytest.raises(ValueError, match=r"^resolution must be a whole number of tokens of at least 1, got ") as error:
        resize_attention_biases(tiny.model(), resolution)
    assert one_sentence(error)


def test_no_model_to_resize() -> None:
    for model in (tiny.model(SWIFT), "efficientformer-fashion", None, tiny.config(), np.zeros(3)):
        with pytest.raises(TypeError, match=r"^model must be an EfficientFormer, got ") as error:
            resize_attention_biases(model, 8)  # type: ignore[arg-type]
        assert one_sentence(error)
    with pytest.raises(
        ValueError, match=r"^resizing attention biases needs every layer, and model is fused; "
    ) as error2:
        resize_attention_biases(fuse(tiny.model()), 8)
    assert one_sentence(error2)
    with pytest.raises(ValueError, match=r"^model has no attention block, so no table of biases; it takes ") as error2:
        resize_attention_biases(tiny.model(num_meta3d_blocks=0), 8)
    assert one_sentence(error2)


# --- by name ---------------------------------------------------------------------------------------------------------


# Sides, and the resulting tokens: five halvings, each rounded up.
@pytest.mark.parametrize(
    ("side", "tokens"), [(160, 5), (192, 6), (256, 8), (288, 9), (200, 7), (193, 7), (225, 8), (161, 6), (30, 1)]
)
def test_get_model_resizes_the_shipped_model(side: int, tokens: int) -> None:
    stored = get_model(FASHION, pretrained=True)
    model = get_model(FASHION, pretrained=True, image_size=side)
    assert (model.config.image_size, model.config.resolution) == (side, tokens)
    assert model.source == stored.source
    for (_, new), (_, old) in zip(attentions(model), attentions(stored), strict=True):
        np.testing.assert_array_equal(new.attention_biases, resize_table(old.attention_biases, tokens))
    pictures = tiny.pictures(1, 3, side, side)
    logits = model(pictures).logits
    assert np.isfinite(logits).all()
    fused = get_model(FASHION, pretrained=True, image_size=side, fused=True)
    np.testing.assert_allclose(fused(pictures).logits, logits, atol=1e-3)


@pytest.mark.parametrize("options", [{}, {"image_size": None}, {"image_size": 224}])
def test_nothing_is_resized_without_need(options: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    stored = npformer.AutoModelForImageClassification.from_pretrained(FASHION)
    monkeypatch.setattr("npformer.models.registry.resize_attention_biases", None)  # would be called in vain
    model = get_model(FASHION, pretrained=True, **options)
    assert model.config.to_dict() == stored.config.to_dict()
    assert tiny.state_bytes(model) == tiny.state_bytes(stored)


@pytest.mark.parametrize(("name", "side"), [("efficientnet-fashion", 120), ("swiftformer-fashion", 131)])
def test_the_other_families_take_any_size(name: str, side: int) -> None:
    stored, model = get_model(name, pretrained=True), get_model(name, pretrained=True, image_size=side)
    assert model.config.to_dict() == {**stored.config.to_dict(), "image_size": side}
    assert tiny.state_bytes(model) == tiny.state_bytes(stored)
    pictures = tiny.pictures(1, 3, side, side)
    np.testing.assert_array_equal(model(pictures).logits, stored(pictures).logits)
    with pytest.raises(ValueError, match=r"^image_size must be "):
        get_model(name, pretrained=True, image_size=0)


@pytest.mark.parametrize("side", [0, -224, True, 2.5, "256"])
def test_no_size(side: Any) -> None:
    with pytest.raises(ValueError, match=r"^image_size must be a whole number of pixels, got ") as error:
        get_model(FASHION, pretrained=True, image_size=side)
    assert one_sentence(error)


def test_an_efficientformer_without_attention_takes_any_size(tmp_path: Path) -> None:
    tiny.model(num_meta3d_blocks=0).save_pretrained(tmp_path)
    model = get_model(tmp_path, pretrained=True, image_size=97)
    assert model.config.image_size == 97
    assert np.isfinite(model(tiny.pictures(1, 3, 97, 97)).logits).all()


def test_other_overrides_and_dtypes_go_with_it(tmp_path: Path) -> None:
    tiny.model(TWO_HEADS).save_pretrained(tmp_path)
    labels = {n: f"thing {n}" for n in range(5)}
    model = get_model(tmp_path, pretrained=True, image_size=96, dtype=np.float64, id2label=labels, layer_norm_eps=0.1)
    assert model.dtype == np.float64
    assert (model.config.resolution, model.config.id2label, model.config.layer_norm_eps) == (3, labels, 0.1)


def test_random_weights_of_a_directory_fit_the_size_too(tmp_path: Path) -> None:
    """As those of a variant do."""
    tiny.model().config.save_pretrained(tmp_path)
    for options, tokens in [({}, 2), ({"image_size": 96}, 3), ({"resolution": 3}, 3)]:
        model = get_model(tmp_path, **options)
        assert model.config.resolution == tokens
        assert np.isfinite(model(tiny.pictures(1, 3, 32 * tokens, 32 * tokens)).logits).all()
    tiny.config(image_size=224).save_pretrained(tmp_path)  # a note that does not fit, as some files have it
    assert get_model(tmp_path).config.resolution == 2


def test_a_stored_model_of_another_resolution_is_refused(tmp_path: Path) -> None:
    tiny.model().save_pretrained(tmp_path)
    for refused in (
        lambda: get_model(tmp_path, pretrained=True, resolution=3),
        lambda: get_model(tmp_path, pretrained=True, resolution=3, image_size=96),
        lambda: npformer.AutoModelForImageClassification.from_pretrained(tmp_path, resolution=3),
        lambda: get_model(FASHION, pretrained=True, resolution=8),
    ):
        with pytest.raises(ValueError, match=r"attention_biases has shape \(\d, \d+\) instead of \(\d, \d+\)"):
            refused()
    settings = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**settings, "resolution": 3, "image_size": 96}))
    with pytest.raises(ValueError, match=r"attention_biases has shape \(2, 4\) instead of \(2, 9\)"):
        get_model(tmp_path, pretrained=True)


def test_from_pretrained_alone_does_not_resize() -> None:
    """As in transformers, image_size is a note there; pictures of that size are then refused, with a way out."""
    model = npformer.AutoModelForImageClassification.from_pretrained(FASHION, image_size=256)
    assert (model.config.image_size, model.config.resolution) == (256, 7)
    with pytest.raises(ValueError, match="their learned bias table is 7x7"):
        model(tiny.pictures(1, 3, 256, 256))
