"""The port that faults are planted in: right without one, wrong exactly where it says with one."""

from __future__ import annotations

from collections import defaultdict
from functools import cache
from typing import Any

import numpy as np
import pytest

import npformer
from npformer.nn import watch
from tests import tiny
from tests.ports import nhwc
from tests.ports.arithmetic import ORDERS, Arithmetic
from tests.ports.faults import Fault
from tests.support import BARE, BARE_NET, BARE_SWIFT, CASES, NET, ONE_HEAD, SWIFT, TWO_HEADS, fill, pixel_values
from tests.sweep import sweep

RIGHT = 1e-10  # of the largest value, in float64
SHOWS = 1e-6

# Three rows of three tokens: on 2 x 2 pixels a mean over 3 x 3 is one number, and nothing that moves pixels shows.
NINE = {"resolution": 3}
EQUAL_WIDTHS = {
    "in_channels": [32, 32, 24, 40, 80, 112, 192],
    "out_channels": [32, 24, 40, 80, 112, 192, 320],
}
# Models of each family with the settings that decide which faults fit, and the size of their pictures.
MODELS: dict[str, tuple[str, tuple[int, int], dict[str, Any]]] = {
    "two heads": (TWO_HEADS, (90, 84), NINE),
    "one head": (
        ONE_HEAD,
        (93, 96),
        {**NINE, "hidden_act": "relu", "use_layer_scale": False, "num_attention_heads": 1, "num_labels": 1},
    ),
    "bare": (BARE, (90, 90), {**NINE, "hidden_act": "gelu_new", "hidden_sizes": [6, 6, 10, 10], "pool_size": 5}),
    "net": (NET, (64, 64), {"depthwise_padding": [1]}),
    "net tf-same": (NET, (48, 40), {"padding": "tf-same-dynamic", "hidden_act": "gelu"}),
    "net symmetric": (NET, (42, 36), {"padding": "symmetric", "pooling_type": "max", **EQUAL_WIDTHS}),
    "bare net": (BARE_NET, (33, 40), {"padding": "tf-same-dynamic", "hidden_act": "mish"}),
    "swift": (SWIFT, (64, 64), {}),
    "swift l2": (SWIFT, (66, 53), {"attention_norm": "l2", "hidden_act": "silu"}),
    "bare swift": (BARE_SWIFT, (65, 52), {"use_layer_scale": False}),
}
# Pairs of equivalent kinds, see the docstring of tests.ports.faults.
ALIKE = [
    {"act-relu", "act-relu6"},
    {"pad-symmetric", "pad-other-side"},
    {"unflatten-column-major", "map-transposed"},
    {"heads-interleaved", "channels-permuted"},
]


@cache
def _model(key: str) -> Any:
    class_name, _, settings = MODELS[key]
    return tiny.model(class_name, **settings).astype(np.float64)


@cache
def _pictures(key: str) -> np.ndarray:
    height, width = MODELS[key][1]
    return tiny.pictures(height=height, width=width).astype(np.float64)


@cache
def _network(key: str) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    return _model(key).config.to_dict(), _model(key).state_dict()


def _run(key: str, *faults: Fault, **options: Any) -> dict[str, np.ndarray]:
    return nhwc.run(*_network(key), _pictures(key), **{"dtype": "float64", **options}, faults=faults)


@cache
def _sites(key: str) -> list[Fault]:
    return nhwc.sites(_model(key), _pictures(key))


def _some(key: str) -> list[Fault]:
    """Every kind and version that fits a model, each at one of its positions, drawn by chance."""
    places = defaultdict(list)
    for fault in _sites(key):
        places[fault.key, fault.detail].append(fault)
    generator = np.random.default_rng(5)
    return [faults[generator.integers(len(faults))] for faults in places.values()]


def _as_ours(value: np.ndarray, layout: str) -> np.ndarray:
    return value.transpose(0, 3, 1, 2) if layout == "BCHW" else value


def _wrong_on_their_own(key: str, dump: dict[str, np.ndarray]) -> set[str]:
    """Names of a dump whose values do not follow from the values dumped before them."""
    model, wrong, count = _model(key), set(), defaultdict(int)

    def judge(name: str, module: Any, inputs: Any, output: np.ndarray, layout: str | None) -> np.ndarray:
        count[name] += 1
        call = name if f"{name}#{count[name]}" not in dump else f"{name}#{count[name]}"
        if call not in dump:
            return output
        is_map = output.ndim == 4 and layout in (None, "BCHW")
        theirs = _as_ours(dump[call], "BCHW" if is_map else "")
        spread = output.shape == theirs.shape and not np.isfinite(output).all()  # from a planted NaN or infinity
        if not spread and nhwc.largest_change(output, theirs) > RIGHT:
            wrong.add(call)
        return theirs

    with watch(model, judge), np.errstate(all="ignore"):
        model(_pictures(key))
    return wrong


def _same(right: np.ndarray, ours: np.ndarray, where: str) -> None:
    assert ours.shape == right.shape, where
    assert nhwc.largest_change(right, ours) <= RIGHT, where


# --- without a fault -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", MODELS)
@pytest.mark.parametrize("variant", ["plain", "reordered", "sequential"])
def test_every_value_equals_ours(key: str, variant: str) -> None:
    trace = npformer.record(_model(key), _pictures(key))
    values = _run(key, variant=variant)
    assert list(values) == list(trace)
    for name, right in trace.items():
        _same(right, _as_ours(values[name], trace.layouts[name]), f"{key}, {variant}: {name}")


@pytest.mark.parametrize(
    "name",
    [
        "resolution-5", "no-layer-scale-relu-grey", "pool-5-other-eps-four-channels", "attention-only-last-stage",
        "three-stages-wide-kernel", "fractional-ratios", "resolution-9-four-blocks", "net-odd-sizes", "net-tf-same",
        "net-symmetric-torch-eps", "net-max-pooling-grey", "net-other-ratios", "net-three-stages", "net-one-label",
        "swift-odd-sizes", "swift-l2", "swift-no-layer-scale-relu-grey", "swift-other-ratio-other-eps",
        "swift-wide-kernel-three-stages", "swift-one-label",
    ],
)  # fmt: skip
def test_odd_settings(name: str) -> None:
    case = CASES[name]
    model, x = fill(case.model(), np.float64), pixel_values(case.shape)
    trace = npformer.record(model, x)
    values = nhwc.run(model.config.to_dict(), model.state_dict(), x, "float64", layout="NCHW")
    assert list(values) == list(trace)
    for value_name, right in trace.items():
        _same(right, values[value_name], f"{name}: {value_name}")


@pytest.mark.parametrize("key", MODELS)
def test_folded_norms_are_right_from_the_norm_on(key: str) -> None:
    plain, folded = _run(key), _run(key, variant="folded")
    assert list(folded) == list(plain)
    early = [name for name in plain if nhwc.largest_change(plain[name], folded[name]) > RIGHT]
    names = list(plain)
    norms = [names[names.index(name) + 1] for name in early]
    batch_norms = {fault.at for fault in _sites(key) if fault.key == "bn-missing"}
    assert early
    assert set(norms) <= batch_norms
    for name, norm in zip(early, norms):
        np.testing.assert_array_equal(folded[name], folded[norm])
    alone = {name for name in batch_norms if name.endswith("linear.norm1") or name == "norm"}
    assert set(norms) == batch_norms - alone  # every one that a convolution precedes


@pytest.mark.parametrize(("dtype", "bits"), [("float32", 24), ("float16", 11), ("bfloat16", 8)])
@pytest.mark.parametrize("key", ["two heads", "net", "swift"])
def test_each_value_is_rounded_to_the_dtype_and_follows_to_its_precision(key: str, dtype: str, bits: int) -> None:
    exact, values = _run(key), _run(key, dtype=dtype)
    assert {value.dtype for value in values.values()} == {np.dtype("float16" if dtype == "float16" else "float32")}
    if dtype == "bfloat16":
        assert all((value.view(np.uint32) & 0xFFFF == 0).all() for value in values.values())
    changes = [nhwc.largest_change(exact[name], values[name]) for name in exact]
    unit = 2.0**-bits
    assert unit / 100 < np.median(changes) < 30 * unit
    assert max(changes) < 200 * unit


def test_bfloat16_rounds_to_nearest_even() -> None:
    one, step = 1.0, 2.0**-7
    given = np.float32([one + step / 2, one + 3 * step / 2, one + 0.51 * step, -one - 0.49 * step, np.inf, np.nan])
    rounded = Arithmetic("bfloat16").round(given)
    np.testing.assert_array_equal(rounded, np.float32([one, one + 2 * step, one + step, -one, np.inf, np.nan]))


def test_sums_are_added_up_in_the_order_asked_for() -> None:
    a, b = (np.random.default_rng(i).standard_normal((7, 301)).astype(np.float32) for i in (1, 2))
    plain, reordered, sequential = (Arithmetic("float32", order) for order in ORDERS)
    total, product = np.zeros(7, np.float32), np.zeros((7, 7), np.float32)
    for k in range(301):
        total += a[:, k]
        product += a[:, k, None] * b[:, k]
    np.testing.assert_array_equal(sequential.total(a, 1)[:, 0], total)
    np.testing.assert_array_equal(sequential.product(a, b.T), product)
    np.testing.assert_array_equal(reordered.add_up(a.T), np.cumsum(a.T[::-1], axis=0)[-1])
    for results in (
        [order.total(a, 1) for order in (plain, reordered, sequential)],
        [order.product(a, b.T) for order in (plain, reordered, sequential)],
    ):
        for i, result in enumerate(results):
            assert result.dtype == np.float32
            np.testing.assert_allclose(result, results[0], rtol=0, atol=1e-4)
            assert all((result != other).any() for other in results[:i])


@pytest.mark.parametrize("variant", ["reordered", "sequential"])
@pytest.mark.parametrize("key", ["two heads", "net", "swift"])
def test_other_orders_differ_in_rounding_only(key: str, variant: str) -> None:
    plain, other = _run(key, dtype="float32"), _run(key, dtype="float32", variant=variant)
    changes = [nhwc.largest_change(plain[name], other[name]) for name in plain]
    assert sum(change > 0 for change in changes) > len(changes) / 2
    assert max(changes) < 1e-4


# --- with a fault ----------------------------------------------------------------------------------------------------


def _too_weak(fault: Fault, right: np.ndarray) -> bool:
    """Return whether a fault is known to be invisible on such values."""
    if fault.key == "ln-eps":
        return float(fault.detail) <= 1e-5
    return fault.key == "act-relu6" and right.max() <= 6


@pytest.mark.parametrize("key", sweep(MODELS, ["two heads", "net", "swift", "swift l2"]))
def test_a_fault_shows_where_it_says_and_nowhere_before(key: str) -> None:
    clean = _run(key)
    for fault in _some(key):
        wrong = _run(key, fault)
        names = list(clean)
        for name in names[: names.index(fault.at)]:
            if name in wrong:
                assert wrong[name].tobytes() == clean[name].tobytes(), f"{fault}: {name}"
        absent = set(clean) - set(wrong)
        assert all(fault.key.startswith("pad-") and name.endswith(("_pad", ".padding")) for name in absent), fault
        if nhwc.largest_change(clean[fault.at], wrong[fault.at]) > SHOWS:
            assert _wrong_on_their_own(key, wrong) == set(fault.shows_at), fault
        else:
            assert _too_weak(fault, clean[fault.at]), fault


@pytest.mark.parametrize("key", sweep(["two heads", "net", "swift"], ["swift"]))
def test_no_two_kinds_compute_the_same(key: str) -> None:
    clean, at_value = _run(key), defaultdict(list)
    for fault in _sites(key):
        at_value[fault.at].append(fault)
    # One value for each set of faults that fit: the one of most numbers, which are least alike.
    by_size = sorted(at_value, key=lambda name: clean[name].size)
    places = {tuple((fault.key, fault.detail) for fault in at_value[at]): at_value[at] for at in by_size}
    for faults in places.values():
        found: dict[Fault, np.ndarray] = {}
        for fault in faults:
            value = _run(key, fault, until=fault.at)[fault.at]
            if nhwc.largest_change(clean[fault.at], value) <= SHOWS:
                continue
            few = value.size < 16 and fault.key.startswith("act-")  # they may all be positive
            for other, others in found.items():
                if nhwc.largest_change(others, value) < RIGHT and not few:
                    assert {fault.key, other.key} in ALIKE, f"{other} and {fault}"
            found[fault] = value


def test_every_kind_fits_somewhere_and_most_in_each_family() -> None:
    found = {key: {fault.key for fault in _sites(key)} for key in MODELS}
    inputs = {fault.key for fault in nhwc.input_sites(_settings("swiftformer-fashion"))}
    assert set().union(inputs, *found.values()) == set(nhwc.kinds())
    for key in ("two heads", "net", "swift"):
        assert len(found[key]) >= 30, key


def test_kinds_stand_where_they_should() -> None:
    found = defaultdict(set)
    for key in MODELS:
        for fault in _sites(key):
            found[fault.key].add((key, fault.at))
    assert {at for key, at in found["head-sum"]} == {""}
    assert {key for key, at in found["head-sum"]} == {"two heads", "swift", "swift l2"}
    assert {key for key, at in found["residual-added"]} == {"net symmetric"}
    assert {key for key, at in found["additive-l2"]} == {"swift", "bare swift"}
    assert {key for key, at in found["additive-ones"]} == {"swift l2"}
    assert "one head" not in {key for key, at in found["layer-scale-missing"]}
    for stem in ("efficientnet.embeddings.padding", "efficientnet.embeddings.convolution"):
        assert ("net", stem) in found["pad-symmetric"]
    assert ("net", "efficientnet.encoder.blocks.1.depthwise_conv.depthwise_conv_pad") not in found["pad-symmetric"]
    assert ("net", "efficientnet.encoder.blocks.1.depthwise_conv.depthwise_conv_pad") in found["pad-onesided"]


def test_padding_that_would_give_another_size_does_not_fit() -> None:
    model, at = _model("net"), "efficientnet.embeddings.convolution"
    for height, fits in ((64, True), (65, False)):  # with one pixel more, 65 make 33 outputs instead of 32
        found = nhwc.sites(model, tiny.pictures(height=height, width=64))
        assert (Fault("pad-symmetric", at) in found) == fits


def test_two_faults_at_once() -> None:
    first = Fault("gelu-tanh", "swiftformer.encoder.network.2.blocks.0.act")
    second = Fault("pooled-max", ":pooled")
    assert _wrong_on_their_own("swift", _run("swift", first, second)) == {first.at, second.at}
    both = [Fault("bn-eps", "norm", "0.001"), Fault("channels-reversed", "norm")]
    expected = _run("swift", both[0])["norm"][..., ::-1]
    np.testing.assert_array_equal(_run("swift", *both)["norm"], expected)


def test_a_faulty_half_precision_port_differs_at_the_fault_only_from_there_on() -> None:
    fault = Fault("attn-no-scale", "efficientformer.encoder.last_stage.meta3D_layers.blocks.0.token_mixer:scores")
    clean, wrong = (_run("two heads", *faults, dtype="float16") for faults in ((), (fault,)))
    names = list(clean)
    changed = [name for name in names if not np.array_equal(clean[name], wrong[name])]
    assert changed[0] == fault.at
    assert nhwc.largest_change(clean[fault.at].astype(np.float64), wrong[fault.at].astype(np.float64)) > 0.05


def test_half_precision_overflows_quietly() -> None:
    (config, state), first = _network("swift"), "swiftformer.patch_embed.patch_embedding.0"
    louder = {**state, f"{first}.weight": 3e4 * state[f"{first}.weight"]}
    exact, value = (nhwc.run(config, louder, _pictures("swift"), dtype)[first] for dtype in ("float64", "float16"))
    assert np.isinf(value[np.abs(exact) > 66000]).all()
    assert np.isfinite(value[np.abs(exact) < 65000]).all()
    assert np.isinf(value).any()


def test_visible_leaves_out_what_cannot_be_seen() -> None:
    at = "efficientformer.patch_embed.activation"
    faults = [Fault("act-relu6", at), Fault("act-gelu", at), Fault("not-finite", at, "nan")]
    assert nhwc.visible(_model("two heads"), _pictures("two heads"), faults) == faults[1:]


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (Fault("gelu-tanh", "nowhere"), "nothing named 'nowhere'"),
        (Fault("no-such-key", "swiftformer.encoder.network.2.blocks.0.act"), "no-such-key"),
        (Fault("bn-eps", "norm", "0.5"), "does not fit: the versions possible there are"),
        (Fault("bn-eps", "swiftformer.encoder.network.2.blocks.0.act", "0.001"), "computed in a way that"),
        (Fault("conv-kernel-transposed", "swiftformer.encoder.network.2.blocks.0.point_wise_conv1"), "does not fit"),
    ],
)
def test_a_fault_that_does_not_fit_is_refused(fault: Fault, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        _run("swift", fault)


def test_one_fault_of_two_that_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="nothing named 'nowhere'"):
        _run("swift", Fault("bn-missing", "norm"), Fault("gelu-tanh", "nowhere"))


@pytest.mark.parametrize("options", [{"dtype": "float8"}, {"variant": "fast"}, {"layout": "CHWN"}])
def test_unknown_options_are_refused(options: dict[str, str]) -> None:
    with pytest.raises(ValueError, match=next(iter(options))):
        _run("swift", **options)


# --- the picture -----------------------------------------------------------------------------------------------------

SHIPPED = ("efficientformer-fashion", "efficientnet-fashion", "swiftformer-fashion")


def _settings(name: str) -> dict[str, Any]:
    """A shipped model's processor settings, with a mean and deviation of its own for each colour."""
    settings = npformer.AutoImageProcessor.from_pretrained(name).to_dict()
    return {**settings, "image_mean": [0.4, 0.5, 0.6], "image_std": [0.2, 0.25, 0.4]}


def _picture() -> np.ndarray:
    rows, columns, colours = np.indices((310, 275, 3))
    waves = np.sin(rows / (3 + colours)) + np.cos(columns / (5 - colours))
    return (127 + 60 * waves).astype(np.uint8)


@pytest.mark.parametrize("name", SHIPPED)
def test_pictures_are_prepared_as_ours_are(name: str) -> None:
    settings = _settings(name)
    processor = type(npformer.AutoImageProcessor.from_pretrained(name)).from_dict(settings)
    ours = processor(_picture(), return_tensors="np")["pixel_values"]
    theirs = nhwc.preprocess(_picture(), settings)
    assert theirs.dtype == np.float32
    np.testing.assert_allclose(theirs, ours, rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", SHIPPED)
def test_every_input_fault_shows_and_no_two_alike(name: str) -> None:
    settings = _settings(name)
    found = [nhwc.preprocess(_picture(), settings)]
    for fault in nhwc.input_sites(settings):
        found.append(nhwc.preprocess(_picture(), settings, [fault]))
        assert found[-1].shape == found[0].shape
        assert all(nhwc.largest_change(other, found[-1]) > 1e-3 for other in found[:-1]), fault


def test_input_faults_do_what_their_names_say() -> None:
    settings, picture = _settings("swiftformer-fashion"), _picture()
    mean, std = (np.array(settings[name])[:, None, None] for name in ("image_mean", "image_std"))
    right = nhwc.preprocess(picture, settings)
    between_0_and_1 = right * std + mean
    halves = {**settings, "image_mean": [0.5] * 3, "image_std": [0.5] * 3}
    expected = {
        Fault("input-bgr", "pixel_values"): nhwc.preprocess(picture[..., ::-1], settings),
        Fault("input-not-rescaled", "pixel_values"): (255 * between_0_and_1 - mean) / std,
        Fault("input-rescaled-twice", "pixel_values"): (between_0_and_1 / 255 - mean) / std,
        Fault("input-not-normalised", "pixel_values"): between_0_and_1,
        Fault("input-other-mean-std", "pixel_values", "halves"): nhwc.preprocess(picture, halves),
        Fault("input-resize-filter", "pixel_values", "bicubic"): nhwc.preprocess(picture, {**settings, "resample": 3}),
        Fault("input-layout", "pixel_values"): right[0].transpose(1, 2, 0).reshape(right.shape),
    }
    for fault, values in expected.items():
        np.testing.assert_allclose(nhwc.preprocess(picture, settings, [fault]), values, rtol=0, atol=1e-3)


def test_other_pictures_and_faults_are_refused() -> None:
    settings = _settings("swiftformer-fashion")
    with pytest.raises(ValueError, match="uint8"):
        nhwc.preprocess(_picture().astype(np.float32), settings)
    with pytest.raises(ValueError, match="no fault of the input"):
        nhwc.preprocess(_picture(), settings, [Fault("bn-missing", "norm")])
