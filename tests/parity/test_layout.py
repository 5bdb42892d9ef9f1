"""Layouts are found by comparing numbers, and undone: every way a port may lay out a whole dump, and single values."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np
import pytest

from npformer import Trace, record
from npformer.parity.layout import Laid, grids, readings, undo_layouts
from tests import support, tiny
from tests.sweep import sweep

Array = np.ndarray
CLASSES = [support.TWO_HEADS, support.NET, support.SWIFT]
SIZES = {support.TWO_HEADS: [(64, 64)], support.NET: [(64, 64), (47, 62)], support.SWIFT: [(64, 64), (70, 97)]}
CASES = [(name, size, batch) for name in CLASSES for size in SIZES[name] for batch in (1, 2)]


@cache
def trace(class_name: str, size: tuple[int, int] = (64, 64), batch: int = 2) -> Trace:
    model = tiny.model(class_name).astype(np.float64)
    return record(model, tiny.pictures(batch, 3, *size).astype(np.float64))


def maps(arrange: Callable[[Array], Array]) -> Callable[[Trace, str], Array]:
    return lambda t, name: arrange(t[name]) if t.layouts[name] == "BCHW" else t[name]


def heads(arrange: Callable[[Array], Array]) -> Callable[[Trace, str], Array]:
    return lambda t, name: arrange(t[name]) if t.layouts[name] == "BhNd" else t[name]


def nhwc(x: Array) -> Array:
    return x.transpose(0, 2, 3, 1)


def tokens_as_maps(t: Trace, name: str) -> Array:
    if t.layouts[name] not in ("BND", "BN1"):
        return t[name]
    height, width = grids(t)[name]
    return t[name].reshape(len(t[name]), height, width, -1).transpose(0, 3, 1, 2)


def numbered_across(t: Trace, name: str) -> Array:
    value = t[name]
    for axis, letter in enumerate(t.layouts[name]):
        if letter == "N":
            value = value.take(across(*grids(t)[name]), axis)
    return value


def across(height: int, width: int) -> Array:
    """The row-major numbers of tokens taken column by column."""
    return np.arange(height * width).reshape(height, width).T.reshape(-1)


WAYS: dict[str, tuple[Callable[[Trace, str], Array], str]] = {
    "ours": (lambda t, name: t[name], "NCHW"),
    "channels last": (maps(nhwc), "NHWC"),
    "token-major": (maps(lambda x: nhwc(x).reshape(len(x), -1, x.shape[1])), "NHWC"),
    "channels, then all pixels": (maps(lambda x: x.reshape(*x.shape[:2], -1)), "NCHW"),
    "flat": (lambda t, name: t[name].reshape(-1), "NCHW"),
    "flat, channels last": (lambda t, name: maps(nhwc)(t, name).reshape(-1), "NHWC"),
    "one row per picture": (maps(lambda x: nhwc(x).reshape(len(x), -1)), "NHWC"),
    "all axes reversed": (lambda t, name: t[name].T, "WHCN"),
    "height and width swapped": (maps(lambda x: x.swapaxes(2, 3)), "NCWH"),
    "width before tokens": (lambda t, name: t[name].swapaxes(1, 2) if t.layouts[name] == "BND" else t[name], "NCHW"),
    "heads after tokens": (heads(lambda x: x.swapaxes(1, 2)), "NCHW"),
    "heads merged": (heads(lambda x: x.swapaxes(1, 2).reshape(len(x), x.shape[2], -1)), "NCHW"),
    "no axes of size 1": (lambda t, name: t[name].squeeze(), "NCHW"),
    "one axis more": (lambda t, name: t[name][None], "NCHW"),
    "tokens as maps": (tokens_as_maps, "NCHW"),
    "tokens numbered across": (numbered_across, "NCHW"),
}


def undo(t: Trace, arrange: Callable[[Trace, str], Array], dtype: type = np.float16) -> Laid:
    port = {f"port/{name}": arrange(t, name).astype(dtype) for name in t}
    return undo_layouts(t, port, {name: f"port/{name}" for name in t})


ONE_OF_EACH_CLASS = [(support.TWO_HEADS, (64, 64), 2), (support.NET, (47, 62), 2), (support.SWIFT, (70, 97), 1)]
IN_TURN = [(*ONE_OF_EACH_CLASS[turn % 3], way) for turn, way in enumerate(WAYS)]


@pytest.mark.parametrize(
    ("class_name", "size", "batch", "way"), sweep([(*case, way) for case in CASES for way in WAYS], IN_TURN)
)
def test_any_way_of_laying_out_a_whole_dump(class_name: str, size: tuple[int, int], batch: int, way: str) -> None:
    arrange, vote = WAYS[way]
    t = trace(class_name, size, batch)
    laid = undo(t, arrange)
    assert not laid.misshapen
    for name, value in t.items():
        np.testing.assert_array_equal(laid.values[name], value.astype(np.float16), err_msg=name)
        assert laid.values[name].dtype == np.float16
    nobody_knows = batch == 1 and way == "height and width swapped"  # where the batch axis is
    assert laid.layout == vote or (nobody_knows and laid.layout.replace("N", "") == vote.replace("N", ""))
    renumbered = way == "tokens numbered across" and class_name != support.NET
    assert len(laid.findings) == renumbered, laid.findings


@pytest.mark.parametrize(
    ("way", "name", "spelled"),
    [
        ("channels last", "swiftformer.patch_embed", "BHWC"),
        ("token-major", "swiftformer.patch_embed", "B(HW)C"),
        ("channels, then all pixels", "swiftformer.patch_embed", "BC(HW)"),
        ("flat, channels last", "swiftformer.patch_embed", "(BHWC)"),
        ("all axes reversed", "swiftformer.patch_embed", "WHCB"),
        ("one axis more", "swiftformer.patch_embed", "1BCHW"),
        ("tokens as maps", "swiftformer.encoder.network.2.blocks.1.attn.proj", "BCHW"),
        ("width before tokens", "swiftformer.encoder.network.2.blocks.1.attn.proj", "BDN"),
        ("ours", "swiftformer.encoder.network.2.blocks.1.attn:weights", "BN1"),
    ],
)
def test_a_layout_is_spelled_in_our_letters(way: str, name: str, spelled: str) -> None:
    assert undo(trace(support.SWIFT), WAYS[way][0]).layouts[name] == spelled


def test_merged_and_moved_heads_are_spelled_too() -> None:
    t = trace(support.TWO_HEADS)
    query = next(name for name in t if name.endswith(":query"))
    assert undo(t, WAYS["heads merged"][0]).layouts[query] == "BN(hd)"
    assert undo(t, WAYS["heads after tokens"][0]).layouts[query] == "BNhd"
    scores = query.replace("query", "scores")
    assert undo(t, WAYS["all axes reversed"][0]).layouts[scores] == "NNhB"


def test_values_are_views_of_the_ports() -> None:
    t = trace(support.SWIFT)
    port = {name: np.ascontiguousarray(maps(nhwc)(t, name)) for name in t}
    laid = undo_layouts(t, port, {name: name for name in t})
    assert all(np.shares_memory(laid.values[name], port[name]) for name in t)


# --- values whose shapes say nothing -----------------------------------------------------------------------------


def synthetic(shapes: dict[str, tuple[int, ...]], seed: int = 0) -> Trace:
    random = np.random.default_rng(seed)
    letters = {4: "BCHW", 3: "BND", 2: "BD"}
    values = {name: random.standard_normal(shape) for name, shape in shapes.items()}
    return Trace(values, {name: letters[value.ndim] for name, value in values.items()})


def same_names(t: Trace) -> dict[str, str]:
    return {name: name for name in t}


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("shape", [(2, 7, 7, 7), (1, 5, 5, 5), (2, 2, 2, 2), (7, 7, 7, 7)])
@pytest.mark.parametrize("skew", [1.0, 1e-2])
def test_cubes_are_told_by_their_numbers_even_where_they_are_nearly_symmetric(
    shape: tuple[int, ...], channels_last: bool, skew: float
) -> None:
    noise = synthetic({"a": shape})["a"]
    symmetric = sum(noise.transpose(0, *axes) for axes in ((1, 2, 3), (2, 3, 1), (3, 1, 2)))
    symmetric = symmetric + symmetric.swapaxes(2, 3)
    t = Trace({"a": symmetric + skew * noise}, {"a": "BCHW"})
    port = {"a": (nhwc(t["a"]) if channels_last else t["a"]).astype(np.float16)}
    laid = undo_layouts(t, port, same_names(t))
    assert laid.layout == ("NHWC" if channels_last else "NCHW")
    np.testing.assert_array_equal(laid.values["a"], t["a"].astype(np.float16))
    assert not laid.findings


@pytest.mark.parametrize("arrange", [lambda x: nhwc(x).reshape(2, 49, 49), lambda x: x.reshape(2, 49, 49)])
def test_49_channels_on_7_by_7_pixels_flattened(arrange: Callable[[Array], Array]) -> None:
    t = synthetic({"a": (2, 49, 7, 7), "b": (2, 49, 49)})
    laid = undo_layouts(t, {"a": arrange(t["a"]), "b": t["b"]}, same_names(t))
    assert all(np.array_equal(laid.values[name], t[name]) for name in t)


def test_what_nothing_decides_is_said_and_read_as_ours() -> None:
    values = {"a": np.ones((2, 4, 4, 4)), "b": np.zeros((2, 3, 3, 3))}
    t = Trace(values, dict.fromkeys(values, "BCHW"))
    laid = undo_layouts(t, values, same_names(t))
    assert laid.layout == "NCHW"
    assert laid.layouts == {"a": "BCHW", "b": "BCHW"}
    (finding,) = laid.findings
    assert finding.kind == "layout"
    assert "maps" in finding.text
    assert not finding.bad


@pytest.mark.parametrize("seed", range(6))
def test_chance_decides_nothing(seed: int) -> None:
    t = synthetic({"a": (2, 4, 4, 4)})
    laid = undo_layouts(t, {"a": synthetic({"a": (2, 4, 4, 4)}, seed + 1)["a"]}, same_names(t))
    assert laid.layout == "NCHW"
    assert len(laid.findings) == 1


def test_without_maps_there_is_no_vote() -> None:
    t = synthetic({"a": (2, 5), "b": (2, 4, 3)})
    laid = undo_layouts(t, dict(t), same_names(t))
    assert laid.layout == ""
    assert not laid.findings


@pytest.mark.parametrize("arranged", [(2, 24), (2, 1, 1, 24), (2, 24, 1, 1), (2, 24, 1)])
def test_squeezed_vectors_come_in_any_shape_and_tell_nothing(arranged: tuple[int, ...]) -> None:
    t = synthetic({"a": (2, 24, 1, 1)})
    laid = undo_layouts(t, {"a": t["a"].reshape(arranged)}, same_names(t))
    np.testing.assert_array_equal(laid.values["a"], t["a"])
    assert laid.layout == ""
    assert not laid.findings


# --- faults are no layouts ---------------------------------------------------------------------------------------


def squares() -> Trace:
    shapes: dict[str, tuple[int, ...]] = {f"m{i}": (2, 6, 5, 5) for i in range(6)}
    shapes |= {"cube": (2, 5, 5, 5)} | {f"t{i}": (2, 25, 8) for i in range(6)} | {"wide": (2, 25, 25)}
    return synthetic(shapes)


def test_one_value_of_tokens_after_channels_is_read_right_and_reported() -> None:
    t = squares()
    laid = undo_layouts(t, {**t, "t3": t["t3"].swapaxes(1, 2)}, same_names(t))
    np.testing.assert_array_equal(laid.values["t3"], t["t3"])
    assert laid.layouts["t3"] == "BDN"
    assert len(laid.findings) == 1


def test_small_numbers_tell_as_much_as_large_ones() -> None:
    t = squares()
    t = Trace({name: 1e-9 * value for name, value in t.items()}, t.layouts)
    laid = undo_layouts(t, {**t, "cube": nhwc(t["cube"])}, same_names(t))
    np.testing.assert_array_equal(laid.values["cube"], t["cube"])


@pytest.mark.parametrize("seed", range(6))
def test_where_two_orders_read_alike_the_vote_counts(seed: int) -> None:
    t = squares()
    noise = np.random.default_rng(seed).standard_normal((2, 5, 5, 5))
    symmetric = np.add.outer(np.arange(5.0), np.add.outer(np.arange(5.0), np.arange(5.0))) + np.zeros((2, 1, 1, 1))
    t = Trace({**t, "cube": symmetric}, t.layouts)
    laid = undo_layouts(t, {**t, "cube": symmetric + 0.05 * noise}, same_names(t))
    assert laid.layouts["cube"] == "BCHW"
    assert not laid.findings


def test_one_value_of_the_other_usual_order_is_read_right_and_reported() -> None:
    t = squares()
    for changed in ("m3", "cube"):  # recognised by its shape, and by its numbers alone
        laid = undo_layouts(t, {**t, changed: nhwc(t[changed])}, same_names(t))
        np.testing.assert_array_equal(laid.values[changed], t[changed])
        assert (laid.layout, laid.layouts[changed]) == ("NCHW", "BHWC")
        (finding,) = laid.findings
        assert changed in finding.text
        assert "m2" not in finding.text


@pytest.mark.parametrize(
    ("name", "fault"),
    [
        ("m3", lambda x: x.swapaxes(2, 3)),
        ("cube", lambda x: x.swapaxes(2, 3)),
        ("cube", lambda x: x.swapaxes(1, 2)),
        ("m3", lambda x: x[:, ::-1]),
        ("t3", lambda x: x.take(across(5, 5), 1)),
        ("wide", lambda x: x.swapaxes(1, 2)),  # a wrong flattening, where it is no wider than long
    ],
)
def test_a_fault_of_one_value_is_left_in(name: str, fault: Callable[[Array], Array]) -> None:
    t = squares()
    laid = undo_layouts(t, {**t, name: fault(t[name])}, same_names(t))
    np.testing.assert_array_equal(laid.values[name], fault(t[name]))
    assert not laid.findings
    assert not laid.misshapen


def test_tokens_numbered_across_from_somewhere_on_are_a_fault() -> None:
    t = squares()
    port = {
        name: value.take(across(5, 5), 1) if name in ("t2", "t3", "t4", "t5") else value for name, value in t.items()
    }
    laid = undo_layouts(t, port, same_names(t))
    assert all(laid.values[name] is not None and np.array_equal(laid.values[name], port[name]) for name in t)


@pytest.mark.parametrize("count", [1, 2])
def test_few_swapped_maps_are_faults_even_if_there_are_no_others(count: int) -> None:
    t = synthetic({f"m{i}": (2, 6, 5, 5) for i in range(count)})
    port = {name: value.swapaxes(2, 3) for name, value in t.items()}
    laid = undo_layouts(t, port, same_names(t))
    assert all(np.array_equal(laid.values[name], port[name]) for name in t)
    assert laid.layout == "NCHW"


def test_what_not_nearly_all_maps_have_is_a_fault() -> None:
    t = synthetic({f"m{i}": (2, 6, 5, 5) for i in range(10)})
    port = {name: value.swapaxes(2, 3) if name < "m6" else value for name, value in t.items()}
    laid = undo_layouts(t, port, same_names(t))
    assert all(np.array_equal(laid.values[name], port[name]) for name in t)


def test_a_wrong_flattening_is_no_layout_if_all_goes_wrong_after_it() -> None:
    t = synthetic({"m": (2, 8, 5, 5)} | {f"t{i}": (2, 25, 8) for i in range(8)})
    random = np.random.default_rng(0)
    port = {name: value.take(across(5, 5), 1) if name < "t5" else value for name, value in t.items() if name != "m"}
    port |= {"m": t["m"]} | {f"t{i}": random.standard_normal((2, 25, 8)) for i in range(5, 8)}
    laid = undo_layouts(t, port, same_names(t))
    assert all(np.array_equal(laid.values[name], port[name]) for name in t)
    assert not laid.findings


def test_tokens_numbered_across_and_after_channels_at_once() -> None:
    t = synthetic({"m": (2, 3, 4, 4)} | {f"t{i}": (2, 16, 16) for i in range(4)})
    port = {"m": t["m"]} | {f"t{i}": t[f"t{i}"].take(across(4, 4), 1).swapaxes(1, 2) for i in range(4)}
    laid = undo_layouts(t, port, same_names(t))
    assert all(np.array_equal(laid.values[name], t[name]) for name in t)
    assert laid.layouts["t1"] == "BDN"


def test_transposed_scores_and_interleaved_heads_are_faults() -> None:
    t = trace(support.TWO_HEADS)
    scores = next(name for name in t if name.endswith(":scores"))
    query = next(name for name in t if name.endswith(":query"))
    port = {**t, scores: t[scores].swapaxes(2, 3)}
    np.testing.assert_array_equal(undo_layouts(t, port, same_names(t)).values[scores], port[scores])
    merged = {name: heads(lambda x: x.swapaxes(1, 2).reshape(len(x), x.shape[2], -1))(t, name) for name in t}
    merged[query] = t[query].transpose(0, 2, 3, 1).reshape(merged[query].shape)
    laid = undo_layouts(t, merged, same_names(t))
    assert laid.layouts[query] == "BN(hd)"
    assert not np.allclose(laid.values[query], t[query])


def test_transposed_keys_are_a_layout_of_their_own() -> None:
    t = trace(support.TWO_HEADS)
    port = {name: value.swapaxes(2, 3) if name.endswith(":key") else value for name, value in t.items()}
    laid = undo_layouts(t, port, same_names(t))
    key = next(name for name in t if name.endswith(":key"))
    np.testing.assert_array_equal(laid.values[key], t[key])
    assert laid.layouts[key] == "BhdN"
    assert [finding.kind for finding in laid.findings] == ["layout"]


def test_transposed_keys_as_wide_as_there_are_tokens() -> None:
    random = np.random.default_rng(0)
    values = {name: random.standard_normal((2, 3, 4, 4)) for name in ("q", "k", "v")}
    t = Trace(values, dict.fromkeys(values, "BhNd"))
    laid = undo_layouts(t, {**t, "k": t["k"].swapaxes(2, 3)}, same_names(t))
    assert all(np.array_equal(laid.values[name], t[name]) for name in t)
    assert laid.layouts == {"q": "BhNd", "k": "BhdN", "v": "BhNd"}


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("class_name", CLASSES)
@pytest.mark.parametrize("first", [0.2, 0.6])
def test_after_a_fault_the_vote_decides(class_name: str, channels_last: bool, first: float) -> None:
    t = trace(class_name)
    random = np.random.default_rng(1)
    port, expected = {}, {}
    for position, (name, value) in enumerate(t.items()):
        noise = random.standard_normal(value.shape) if position >= first * len(t) else 1.0
        expected[name] = value * noise
        port[name] = nhwc(expected[name]) if channels_last and value.ndim == 4 else expected[name]
        if t.layouts[name] == "BhNd" or t.layouts[name] == "BhNN":
            port[name] = expected[name]
    laid = undo_layouts(t, port, same_names(t))
    assert not laid.misshapen
    assert not laid.findings
    for name in t:
        np.testing.assert_array_equal(laid.values[name], expected[name], err_msg=name)


def test_few_cubes_before_a_fault_outweigh_many_after_it() -> None:
    """Values after the fault slightly favour the other order."""
    t = synthetic({f"m{i}": (2, 4, 4, 4) for i in range(60)})
    random = np.random.default_rng(2)
    port = {name: 0.4 * value + 0.7 * random.standard_normal(value.shape) for name, value in t.items()}
    port |= {name: nhwc(t[name]) for name in ("m0", "m1")}
    laid = undo_layouts(t, port, same_names(t))
    assert laid.layout == "NHWC"
    np.testing.assert_array_equal(nhwc(laid.values["m30"]), port["m30"])


def test_shapes_tell_an_unusual_order_even_after_a_fault() -> None:
    t = synthetic({f"m{i}": (2, 8, 5, 5) for i in range(10)})
    random = np.random.default_rng(2)
    made = {name: value if name < "m3" else random.standard_normal(value.shape) for name, value in t.items()}
    laid = undo_layouts(t, {name: value.T for name, value in made.items()}, same_names(t))
    assert laid.layout == "WHCN"
    assert all(np.array_equal(laid.values[name], made[name]) for name in t)


def test_nan_and_infinity_disturb_nothing() -> None:
    t = trace(support.SWIFT)
    random = np.random.default_rng(0)
    port = {}
    for position, name in enumerate(t):
        value = maps(nhwc)(t, name).astype(np.float32)
        value[random.random(value.shape) < 0.2] = (np.nan, np.inf)[position % 2]
        port[name] = np.full_like(value, np.nan) if position > 100 else value
    laid = undo_layouts(t, port, same_names(t))
    assert laid.layout == "NHWC"
    assert not laid.findings
    for name in t:
        assert laid.values[name].shape == t[name].shape
        finite = np.isfinite(laid.values[name])
        assert finite.sum() == np.isfinite(port[name]).sum()
        np.testing.assert_array_equal(laid.values[name][finite], t[name].astype(np.float32)[finite])


# --- shapes ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "wrong",
    [
        lambda x: x[:1], lambda x: x[:, :, :1, :1], lambda x: x[..., :-1], lambda x: x[0, 0, 0, 0],
        lambda x: x.swapaxes(2, 3), lambda x: np.concatenate([x, x]),
    ],
)  # fmt: skip
def test_nothing_is_broadcast_or_guessed(wrong: Callable[[Array], Array]) -> None:
    t = synthetic({f"m{i}": (2, 6, 5, 3) for i in range(5)})
    port = {**t, "m2": wrong(t["m2"])}
    laid = undo_layouts(t, port, same_names(t))
    assert list(laid.misshapen) == ["m2"]
    assert str(port["m2"].shape) in laid.misshapen["m2"]
    assert str(t["m2"].shape) in laid.misshapen["m2"]
    assert "m2" not in laid.values
    assert "m2" not in laid.layouts


def test_a_batch_of_one_that_is_missing_is_no_matter() -> None:
    t = synthetic({"m": (1, 6, 5, 3), "t": (1, 15, 4), "v": (1, 7)})
    laid = undo_layouts(t, {name: value[0] for name, value in t.items()}, same_names(t))
    assert all(np.array_equal(laid.values[name], t[name]) for name in t)
    assert laid.layouts == {"m": "CHW", "t": "ND", "v": "D"}


def test_axes_without_letters_must_have_our_shape() -> None:
    t = Trace({"a": np.arange(24.0).reshape(2, 3, 4)}, {"a": ""})
    assert np.array_equal(undo_layouts(t, dict(t), same_names(t)).values["a"], t["a"])
    assert undo_layouts(t, {"a": t["a"].T}, same_names(t)).misshapen
    empty = Trace({"a": np.zeros((0, 3))}, {"a": "BD"})
    assert undo_layouts(empty, dict(empty), same_names(empty)).values["a"].shape == (0, 3)
    assert undo_layouts(empty, {"a": np.zeros((3, 0))}, same_names(empty)).misshapen


def test_readings_of_a_shape() -> None:
    spelled = [reading.spelled for reading in readings("BCHW", (2, 6, 5, 5), (2, 5, 5, 6))]
    assert spelled == ["BHWC", "BWHC"]
    assert readings("BCHW", (2, 6, 5, 5), (2, 6, 5, 4)) == ()
    assert {reading.spelled for reading in readings("BhNN", (1, 2, 3, 3), (2, 3, 3))} == {"hNN"}


# --- what is said about layouts ----------------------------------------------------------------------------------


def test_the_users_layout_wins() -> None:
    t = synthetic({f"m{i}": (2, 4, 4, 4) for i in range(4)})
    for layout, read in (("NCHW", lambda x: x), ("NHWC", nhwc)):
        laid = undo_layouts(t, dict(t), same_names(t), layout)
        assert laid.layout == layout
        np.testing.assert_array_equal(read(laid.values["m1"]), t["m1"])
    with pytest.raises(ValueError, match="layout must be auto, NCHW or NHWC, got 'CHWN'"):
        undo_layouts(t, dict(t), same_names(t), "CHWN")


def test_where_the_users_layout_does_not_fit_the_shape_decides() -> None:
    t = synthetic({f"m{i}": (2, 6, 4, 3) for i in range(4)})
    laid = undo_layouts(t, {**{name: nhwc(value) for name, value in t.items()}, "m1": t["m1"]}, same_names(t), "NHWC")
    np.testing.assert_array_equal(laid.values["m1"], t["m1"])
    assert len(laid.findings) == 1


@pytest.mark.parametrize("said", ["NHWC", "BHWC"])
def test_a_declared_layout_is_taken_at_its_word(said: str) -> None:
    t = synthetic({f"m{i}": (2, 4, 4, 4) for i in range(4)})
    names = {name: f"p/{name}" for name in t}
    laid = undo_layouts(t, {f"p/{name}": value for name, value in t.items()}, names, declared={"p/m1": said})
    np.testing.assert_array_equal(nhwc(laid.values["m1"]), t["m1"])
    np.testing.assert_array_equal(laid.values["m2"], t["m2"])
    assert laid.layouts["m1"] == "BHWC"
    assert not laid.findings
    by_our_name = undo_layouts(t, {f"p/{name}": value for name, value in t.items()}, names, declared={"m1": said})
    np.testing.assert_array_equal(by_our_name.values["m1"], laid.values["m1"])


def test_a_declared_layout_speaks_for_the_others() -> None:
    values = {name: np.ones((2, 4, 4, 4)) for name in ("m0", "m1")}
    t = Trace(values, dict.fromkeys(values, "BCHW"))
    laid = undo_layouts(t, values, same_names(t), declared={"m1": "NHWC"})
    assert (laid.layout, laid.layouts["m0"]) == ("NHWC", "BHWC")
    assert not laid.findings


def test_a_declared_layout_that_does_not_fit_is_reported() -> None:
    t = synthetic({"m0": (2, 6, 4, 3), "m1": (2, 6, 4, 3)})
    for said in ("NHWC", "BND", "nonsense"):
        laid = undo_layouts(t, dict(t), same_names(t), declared={"m1": said})
        np.testing.assert_array_equal(laid.values["m1"], t["m1"])
        (finding,) = laid.findings
        assert "m1" in finding.text
        assert said in finding.text
    assert not undo_layouts(t, dict(t), same_names(t), declared=t.layouts).findings


def test_large_values_are_compared_at_a_sample() -> None:
    t = synthetic({"a": (2, 40, 40, 40)})
    t = Trace({"a": t["a"] * (np.arange(40)[:, None] > 2)}, t.layouts)  # nothing at the upper border
    laid = undo_layouts(t, {"a": nhwc(t["a"])}, same_names(t))
    np.testing.assert_array_equal(laid.values["a"], t["a"])
