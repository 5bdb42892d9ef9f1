"""The common contract of every op: the dtype it was given, unchanged inputs, any memory layout, no foreign types."""

from __future__ import annotations

import numpy as np
import pytest

from npformer import ops

from .helpers import draw, refuses, spread

# For each op the arrays it takes, by name, and its other arguments. Strides, odd sizes and every optional array.
PICTURE = draw(1, 2, 4, 7, 6, shift=0.3)
TOKENS = draw(2, 3, 5, 6)
ARRAYS: dict[str, dict[str, np.ndarray]] = {
    "adaptive_avg_pool2d": {"x": PICTURE},
    "adaptive_max_pool2d": {"x": PICTURE},
    "avg_pool2d": {"x": PICTURE},
    "batch_norm": {
        "x": PICTURE, "running_mean": draw(3, 4), "running_var": spread(4, 4), "weight": draw(5, 4), "bias": draw(6, 4)
    },
    "biased_attention": {
        "query": draw(3, 2, 3, 5, 4), "key": draw(4, 2, 3, 5, 4), "value": draw(5, 2, 3, 5, 6),
        "bias": draw(6, 3, 5, 5),
    },
    "binary_cross_entropy_with_logits": {
        "input": TOKENS, "target": spread(3, 3, 5, 6) / 2, "weight": spread(4, 6), "pos_weight": spread(5, 6)
    },
    "conv2d": {"x": PICTURE, "weight": draw(3, 6, 2, 3, 2), "bias": draw(4, 6)},
    "cross_entropy": {"input": draw(3, 7, 4), "weight": spread(4, 4)},
    "depthwise_conv2d": {"x": PICTURE, "weight": draw(3, 4, 1, 3, 2), "bias": draw(4, 4)},
    "efficient_additive_attention": {"query": TOKENS, "key": draw(3, 3, 5, 6), "w_g": draw(4, 6, 1)},
    "im2col": {"x": PICTURE},
    "layer_norm": {"x": TOKENS, "weight": draw(3, 6), "bias": draw(4, 6)},
    "linear": {"x": TOKENS, "weight": draw(3, 4, 6), "bias": draw(4, 4)},
    "max_pool2d": {"x": PICTURE},
    "mse_loss": {"input": TOKENS, "target": draw(3, 3, 5, 6)},
    "pool_mixer": {"x": PICTURE},
    "squeeze_excite": {
        "x": PICTURE, "reduce_weight": draw(3, 3, 4, 1, 1), "reduce_bias": draw(4, 3),
        "expand_weight": draw(5, 4, 3, 1, 1), "expand_bias": draw(6, 4),
    },
    "token_mean": {"x": TOKENS},
}  # fmt: skip
OTHERS: dict[str, dict[str, object]] = {
    "adaptive_avg_pool2d": {"output_size": (3, 4)},
    "adaptive_max_pool2d": {"output_size": (3, 4)},
    "avg_pool2d": {
        "kernel_size": (3, 2),
        "stride": (2, 1),
        "padding": 1,
        "ceil_mode": True,
        "count_include_pad": False,
    },
    "batch_norm": {"eps": 0.01},
    "conv2d": {"stride": (1, 2), "padding": ((1, 0), (2, 1)), "dilation": (2, 1), "groups": 2},
    "cross_entropy": {"target": np.array([2, 0, -100, 3, 3, 1, 0]), "label_smoothing": 0.2},
    "depthwise_conv2d": {"stride": (1, 2), "padding": ((1, 0), (2, 1)), "dilation": (2, 1)},
    "efficient_additive_attention": {"attention_norm": "l2"},
    "im2col": {"kernel_size": (2, 3), "padding": 1, "stride": 2},
    "layer_norm": {"normalized_shape": (6,)},
    "max_pool2d": {"kernel_size": (3, 2), "stride": (2, 1), "padding": 1, "ceil_mode": True},
}
ELEMENTWISE = [
    "erf", "gelu", "leaky_relu", "log_softmax", "mish", "normalize", "quick_gelu", "relu", "relu6", "selu", "sigmoid",
    "silu", "softmax", "tanh",
]  # fmt: skip
ARRAYS |= {name: {"x": TOKENS * 2} for name in ELEMENTWISE}
OPTIONAL = {
    ("batch_norm", "weight"), ("batch_norm", "bias"), ("binary_cross_entropy_with_logits", "weight"),
    ("binary_cross_entropy_with_logits", "pos_weight"), ("conv2d", "bias"), ("cross_entropy", "weight"),
    ("depthwise_conv2d", "bias"), ("layer_norm", "weight"), ("layer_norm", "bias"), ("linear", "bias"),
}  # fmt: skip
ARGUMENTS = [(name, argument) for name in sorted(ARRAYS) for argument in ARRAYS[name]]
DTYPES = [np.float32, np.float64]


def arrays_of(name, dtype=np.float64):
    return {argument: array.astype(dtype) for argument, array in ARRAYS[name].items()}


def run(name, arrays):
    out = getattr(ops, name)(**arrays, **OTHERS.get(name, {}))
    return out if isinstance(out, tuple) else (out,)


def test_no_op_is_left_out_here():
    without_arrays = {"ACT2FN", "Array", "attention_bias_index", "same_padding"}
    assert set(ARRAYS) | without_arrays == set(ops.__all__)
    assert all(callable(getattr(ops, name)) for name in ARRAYS)


def check_dtype(name, dtype):
    for out in run(name, arrays_of(name, dtype)):
        assert isinstance(out, np.ndarray)
        assert out.dtype == dtype


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", sorted(ARRAYS))
def test_every_op_gives_back_the_dtype_it_was_given(name, dtype):
    check_dtype(name, dtype)


def check_inputs_survive(name):
    arrays = arrays_of(name)
    before = {argument: array.tobytes() for argument, array in arrays.items()}
    outs = run(name, arrays)
    assert {argument: array.tobytes() for argument, array in arrays.items()} == before
    for out in outs:
        assert not any(np.shares_memory(out, array) for array in arrays.values())


@pytest.mark.parametrize("name", sorted(ARRAYS))
def test_every_op_leaves_its_inputs_alone_and_gives_back_memory_of_its_own(name):
    check_inputs_survive(name)


@pytest.mark.parametrize("name", sorted(ARRAYS))
def test_every_op_takes_arrays_that_may_not_be_written(name):
    arrays = arrays_of(name)
    expected = run(name, arrays)
    for array in arrays.values():
        array.flags.writeable = False
    for out, wanted in zip(run(name, arrays), expected):
        np.testing.assert_array_equal(out, wanted)


def as_fortran(array):
    return np.asfortranarray(array)


def as_every_second(array):
    """The same numbers, every second one of an array twice as long on its last axis."""
    room = np.full((*array.shape[:-1], 2 * array.shape[-1]), np.nan, array.dtype)
    room[..., ::2] = array
    return room[..., ::2]


def as_reversed(array):
    """The same numbers, stored backwards along every axis."""
    back = (slice(None, None, -1),) * array.ndim
    return array[back].copy()[back]


@pytest.mark.parametrize("layout", [as_fortran, as_every_second, as_reversed])
@pytest.mark.parametrize("name", sorted(ARRAYS))
def test_every_op_gives_the_same_for_arrays_that_are_not_contiguous(name, layout):
    arrays = arrays_of(name)
    moved = {argument: layout(array) for argument, array in arrays.items()}
    for out, wanted in zip(run(name, moved), run(name, arrays)):
        assert out.shape == wanted.shape
        np.testing.assert_allclose(out, wanted, rtol=0, atol=1e-14 * np.abs(wanted).max())


@pytest.mark.parametrize("name", sorted(ARRAYS))
def test_every_op_gives_nearly_the_same_in_float32(name):
    small = run(name, arrays_of(name, np.float32))
    wide = run(name, {argument: array.astype(np.float64) for argument, array in arrays_of(name, np.float32).items()})
    for out, wanted in zip(small, wide):
        np.testing.assert_allclose(out, wanted, rtol=0, atol=2e-6 * np.abs(wanted).max())


@pytest.mark.parametrize("name", [name for name in sorted(ARRAYS) if name != "cross_entropy"])
def test_every_op_treats_the_pictures_of_a_batch_on_their_own(name):
    arrays = arrays_of(name)
    batched = [argument for argument in arrays if argument in ("x", "input", "target", "query", "key", "value")]
    last = {argument: array[-1:] if argument in batched else array for argument, array in arrays.items()}
    if "loss" in name or "binary" in name:
        each = getattr(ops, name)(**arrays, reduction="none")
        np.testing.assert_allclose(getattr(ops, name)(**last, reduction="none"), each[-1:], rtol=1e-14)
        return
    for out, wanted in zip(run(name, last), run(name, arrays)):
        np.testing.assert_allclose(out, wanted[-1:], rtol=0, atol=1e-14 * np.abs(wanted).max())


# --- refusals --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "argument"), ARGUMENTS)
def test_every_array_must_be_an_array_of_floats(name, argument):
    arrays = arrays_of(name)
    with refuses(TypeError, argument, "NumPy array", "list"):
        run(name, arrays | {argument: arrays[argument].tolist()})
    for kind in (np.int64, np.bool_, np.complex128, np.str_):
        with refuses(TypeError, argument, "floats", str(np.dtype(kind)) if kind is not np.str_ else "<U"):
            run(name, arrays | {argument: arrays[argument].astype(kind)})


@pytest.mark.parametrize(("name", "argument"), ARGUMENTS)
def test_none_stands_for_an_optional_array_only(name, argument):
    arrays = arrays_of(name)
    if (name, argument) in OPTIONAL:
        with_all, without = run(name, arrays), run(name, arrays | {argument: None})
        assert any(np.abs(a - b).max() > 1e-3 for a, b in zip(with_all, without))
    else:
        with refuses(TypeError, argument, "NumPy array", "NoneType"):
            run(name, arrays | {argument: None})


@pytest.mark.parametrize(
    ("name", "argument"), [(name, argument) for name, argument in ARGUMENTS if argument != next(iter(ARRAYS[name]))]
)
def test_arrays_of_two_float_types_are_refused_in_the_name_of_the_later_one(name, argument):
    first = next(iter(ARRAYS[name]))
    arrays = arrays_of(name)
    with refuses(TypeError, argument, first, "float64", "got float32"):
        run(name, arrays | {argument: arrays[argument].astype(np.float32)})
