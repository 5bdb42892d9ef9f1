"""Modules by themselves: names, state dicts, copies in another dtype, and the tap for observers."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from npformer import nn, ops, watch
from npformer.models.efficientformer import EfficientFormerPooling, EfficientFormerSelfAttention
from npformer.models.outputs import ImageClassifierOutput
from npformer.nn import (
    Activation,
    AdaptiveAvgPool2d,
    AdaptiveMaxPool2d,
    AvgPool2d,
    BatchNorm2d,
    Conv2d,
    Identity,
    LayerNorm,
    Linear,
    Module,
    ModuleList,
    Sequential,
)
from tests import tiny
from tests.support import BARE, ONE_HEAD

F32 = np.float32


class Scale(Module):
    """x * weight, with the factor tapped."""

    def __init__(self, factor: float) -> None:
        self.weight = np.full(3, factor, F32)

    def forward(self, x: Any) -> Any:
        return x * self.tap("factor", self.weight, "C")


class Net(Module):
    """Children of every kind, defined in another order than they are called in."""

    def __init__(self) -> None:
        self.last = Scale(2)
        self.shift = np.zeros(3, F32)
        self.blocks = ModuleList([Scale(3), Scale(5)])
        self.nothing = None

    def forward(self, x: Any) -> Any:
        for block in self.blocks:
            x = block(x)
        return self.last(x) + self.shift


class Several(Module):
    """Returns a tuple, like attention."""

    def forward(self, x: Any) -> Any:
        return x, "beside"


class Answer(Module):
    """Returns a model output."""

    def __init__(self) -> None:
        self.several = Several()

    def forward(self, x: Any) -> Any:
        x, beside = self.several(x)
        return ImageClassifierOutput(loss=np.asarray(7.0), logits=x, hidden_states=(beside,))


def look(name: str, module: Module, inputs: Any, output: Any, layout: Any) -> Any:
    return output


def putting(values: dict[str, Any]) -> Any:
    """An observer that replaces the values of some names."""

    def observer(name: str, module: Module, inputs: Any, output: Any, layout: Any) -> Any:
        return values.get(name, output)

    return observer


def noting(names: list[str]) -> Any:
    """An observer that writes down the names it sees."""

    def observer(name: str, module: Module, inputs: Any, output: Any, layout: Any) -> Any:
        names.append(name)
        return output

    return observer


# --- names -----------------------------------------------------------------------------------------------------------


def test_modules_are_named_by_attribute_parents_first_in_order_of_definition() -> None:
    net = Net()
    names = dict(net.named_modules())
    assert list(names) == ["", "last", "blocks", "blocks.0", "blocks.1"]
    assert names[""] is net
    assert names["blocks.1"] is net.blocks[1]
    assert [name for name, _ in net.named_children()] == ["last", "blocks"]


def test_a_state_dict_holds_the_arrays_themselves_in_order() -> None:
    net = Net()
    state = net.state_dict()
    assert list(state) == ["shift", "last.weight", "blocks.0.weight", "blocks.1.weight"]
    assert state["shift"] is net.shift
    assert state["blocks.1.weight"] is net.blocks[1].weight


def test_what_is_none_is_in_no_state_dict() -> None:
    assert list(Linear(2, 3, bias=False).state_dict()) == ["weight"]
    assert list(Conv2d(2, 3, 1, bias=False).state_dict()) == ["weight"]


@pytest.mark.parametrize(
    ("module", "shapes"),
    [
        (Linear(2, 3), {"weight": (3, 2), "bias": (3,)}),
        (Conv2d(4, 6, 5, groups=2), {"weight": (6, 2, 5, 5), "bias": (6,)}),
        (Conv2d(4, 6, (5, 3), groups=2, bias=False), {"weight": (6, 2, 5, 3)}),
        (Conv2d(1, 1, np.int64(2)), {"weight": (1, 1, 2, 2), "bias": (1,)}),
        (LayerNorm(4), {"weight": (4,), "bias": (4,)}),
        (
            BatchNorm2d(4),
            {"weight": (4,), "bias": (4,), "running_mean": (4,), "running_var": (4,), "num_batches_tracked": ()},
        ),
        (AvgPool2d(3), {}),
        (AdaptiveAvgPool2d(2), {}),
        (AdaptiveMaxPool2d((1, 2)), {}),
        (Sequential(), {}),
        (
            Sequential(Linear(2, 3), Activation("relu"), Linear(3, 1, bias=False)),
            {"0.weight": (3, 2), "0.bias": (3,), "2.weight": (1, 3)},
        ),
        (Activation("gelu"), {}),
        (Identity(), {}),
    ],
)
def test_stock_layers_hold_what_pytorch_holds(module: Module, shapes: dict[str, Any]) -> None:
    assert {name: array.shape for name, array in module.state_dict().items()} == shapes


def test_a_module_list_is_a_list() -> None:
    first, second = Scale(1), Scale(2)
    modules = ModuleList([first, second])
    assert list(modules) == [first, second]
    assert len(modules) == 2
    assert modules[-1] is second
    assert len(ModuleList()) == 0
    with pytest.raises(IndexError):
        modules[2]


def test_a_module_without_forward_says_so() -> None:
    with pytest.raises(NotImplementedError, match="ModuleList defines no forward"):
        ModuleList()(np.zeros(1))


def test_repr_shows_the_tree() -> None:
    assert repr(Net()) == (
        "Net(shift=(3,)\n"
        "  (last): Scale(weight=(3,))\n"
        "  (blocks): ModuleList(\n"
        "    (0): Scale(weight=(3,))\n"
        "    (1): Scale(weight=(3,))\n"
        "  )\n"
        ")"
    )
    assert repr(Identity()) == "Identity()"


# --- the layers compute what their ops do ----------------------------------------------------------------------------


def test_layers_pass_on_their_settings() -> None:
    x = tiny.pictures(channels=4, height=9, width=11)
    rng = np.random.default_rng(0)
    conv = Conv2d(4, 6, 3, stride=2, padding=1, dilation=2, groups=2)
    conv.weight, conv.bias = rng.random((6, 2, 3, 3), F32), rng.random(6, F32)
    np.testing.assert_array_equal(conv(x), ops.conv2d(x, conv.weight, conv.bias, 2, 1, 2, 2))
    pool = AvgPool2d(3, 2, 1, count_include_pad=False)
    np.testing.assert_array_equal(pool(x), ops.avg_pool2d(x, 3, 2, 1, count_include_pad=False))
    average, largest = AdaptiveAvgPool2d((2, 5)), AdaptiveMaxPool2d((2, 5))
    np.testing.assert_array_equal(average(x), ops.adaptive_avg_pool2d(x, (2, 5)))
    np.testing.assert_array_equal(largest(x), ops.adaptive_max_pool2d(x, (2, 5)))
    batch_norm, layer_norm = BatchNorm2d(4, eps=0.5), LayerNorm(11, eps=0.5)
    np.testing.assert_allclose(batch_norm(x), x / np.sqrt(1.5), rtol=1e-6)
    np.testing.assert_array_equal(layer_norm(x), ops.layer_norm(x, (11,), np.ones(11, F32), np.zeros(11, F32), 0.5))
    linear = Linear(11, 2)
    linear.bias = np.array([1, 2], F32)
    np.testing.assert_array_equal(linear(x), np.broadcast_to(linear.bias, (2, 4, 9, 2)))
    assert Identity()(x) is x


def test_a_convolution_takes_kernel_and_stride_as_a_pair_down_then_across() -> None:
    x = np.arange(12, dtype=F32).reshape(1, 1, 3, 4)
    conv = Conv2d(1, 1, (2, 1), stride=(1, 3), bias=False)
    assert conv.weight.shape == (1, 1, 2, 1)
    conv.weight[0, 0] = [[1], [100]]
    out = conv(x)  # columns 0 and 3 of each two rows
    assert out.tolist() == [[[[400, 703], [804, 1107]]]]
    assert conv.multiply_adds((x,), out) == 4 * 2
    wide = Conv2d(4, 6, (3, 1), stride=(2, 1), padding=(1, 0), groups=2)
    pictures = tiny.pictures(channels=4, height=9, width=5)
    wide.weight = np.random.default_rng(0).random((6, 2, 3, 1), F32)
    expected = ops.conv2d(pictures, wide.weight, wide.bias, (2, 1), (1, 0), 1, 2)
    np.testing.assert_array_equal(wide(pictures), expected)
    assert expected.shape == (2, 6, 5, 5)
    assert wide.multiply_adds((pictures,), expected) == 2 * 6 * 5 * 5 * (2 * 3 * 1)


def test_one_number_for_kernel_and_stride_is_the_pair_of_it() -> None:
    x = tiny.pictures(channels=2, height=7, width=6)
    one, two = Conv2d(2, 3, 3, stride=2), Conv2d(2, 3, (3, 3), stride=(2, 2))
    one.weight = two.weight = np.random.default_rng(0).random((3, 2, 3, 3), F32)
    np.testing.assert_array_equal(one(x), two(x))


@pytest.mark.parametrize("kernel", [0, (3, 0), 2.5, (1, 2, 3), True, None])
def test_a_convolution_refuses_what_is_no_kernel(kernel: Any) -> None:
    with pytest.raises((TypeError, ValueError), match=r"^kernel_size must be "):
        Conv2d(1, 1, kernel)


def test_adaptive_pooling_layers_on_numbers_worked_by_hand() -> None:
    x = np.arange(12, dtype=F32).reshape(1, 1, 3, 4)
    assert AdaptiveAvgPool2d((1, 2))(x).tolist() == [[[[4.5, 6.5]]]]
    assert AdaptiveMaxPool2d((1, 2))(x).tolist() == [[[[9, 11]]]]
    assert AdaptiveAvgPool2d(1)(x).tolist() == [[[[5.5]]]]
    assert AdaptiveMaxPool2d(1)(x).tolist() == [[[[11]]]]
    assert AdaptiveMaxPool2d(3)(-x)[0].shape == (1, 3, 3)
    for layer in (AdaptiveAvgPool2d(2), AdaptiveMaxPool2d(2)):
        assert layer(x).dtype == np.float32
        assert layer(x.astype(np.float64)).dtype == np.float64
        assert layer.num_parameters() == 0
        assert repr(layer) == f"{type(layer).__name__}()"


# --- one after the other ---------------------------------------------------------------------------------------------


class Digit(Module):
    """Layer that appends a digit: 10 x + digit, which shows the order of the calls."""

    def __init__(self, digit: int) -> None:
        self.digit = np.full(1, digit, F32)

    def forward(self, x: Any) -> Any:
        return 10 * x + self.digit


def test_a_sequence_feeds_each_module_with_what_the_one_before_returns() -> None:
    assert Sequential(Digit(1), Digit(2), Digit(3))(np.zeros(1, F32)).tolist() == [123]
    assert Sequential(Scale(3), Activation(np.negative), Scale(5))(np.ones(3, F32)).tolist() == [-15] * 3
    eleven = Sequential(*(Scale(1) for _ in range(9)), Activation(np.negative), Activation(np.square))
    assert eleven(np.full(3, 3, F32)).tolist() == [9] * 3  # "10" comes after "9", not after "1"


def test_a_sequence_of_nothing_gives_back_what_it_gets() -> None:
    x = np.ones(2)
    assert Sequential()(x) is x


def test_the_modules_of_a_sequence_are_named_by_number_and_may_be_sequences() -> None:
    inner = Sequential(Scale(2), Identity())
    net = Sequential(Digit(1), inner, Scale(3))
    assert [name for name, _ in net.named_modules()] == ["", "0", "1", "1.0", "1.1", "2"]
    assert dict(net.named_modules())["1"] is inner
    assert list(net.state_dict()) == ["0.digit", "1.0.weight", "2.weight"]
    assert [name for name, _ in Sequential(*(Identity() for _ in range(12))).named_children()] == [
        "0", "1", "2", "3", "4", "5", "6", "7", "8", "9", "10", "11",
    ]  # fmt: skip
    assert repr(net) == (
        "Sequential(\n"
        "  (0): Digit(digit=(1,))\n"
        "  (1): Sequential(\n"
        "    (0): Scale(weight=(3,))\n"
        "    (1): Identity()\n"
        "  )\n"
        "  (2): Scale(weight=(3,))\n"
        ")"
    )


def test_a_sequence_loads_its_weights_by_number_and_strictly() -> None:
    net = Sequential(Digit(1), Digit(2))
    net.load_state_dict({"0.digit": np.full(1, 7), "1.digit": np.full(1, 8)})
    assert net(np.zeros(1, F32)).tolist() == [78]
    assert net.astype(np.float64)(np.zeros(1)).dtype == np.float64
    with pytest.raises(ValueError, match=r"missing 1\.digit; unexpected 2\.digit"):
        net.load_state_dict({"0.digit": np.zeros(1), "2.digit": np.zeros(1)})
    assert net.num_parameters() == 2


def test_the_steps_of_a_sequence_are_watched_and_replaced() -> None:
    net, names = Sequential(Digit(1), Sequential(Digit(2)), Digit(3)), []
    with watch(net, noting(names)):
        assert net(np.zeros(1, F32)).tolist() == [123]
    assert names == ["0", "1.0", "1", "2", ""]
    with watch(net, putting({"0": np.full(1, 50, F32)})):
        assert net(np.zeros(1, F32)).tolist() == [5023]
    with watch(net, putting({"1": np.full(1, 4, F32), "1.0": np.full(1, 9, F32)})):
        assert net(np.zeros(1, F32)).tolist() == [43]
    with watch(net, putting({"": np.full(1, 6, F32)})):
        assert net(np.zeros(1, F32)).tolist() == [6]


def backwards(self: Sequential, x: Any) -> Any:
    for _, module in reversed(list(self.named_children())):
        x = module(x)
    return x


def in_the_order_of_the_alphabet(self: Sequential, x: Any) -> Any:
    for _, module in sorted(self.named_children()):
        x = module(x)
    return x


def unwatched(self: Sequential, x: Any) -> Any:
    for _, module in self.named_children():
        x = module.forward(x)
    return x


def the_last_alone(self: Sequential, x: Any) -> Any:
    out = x
    for _, module in self.named_children():
        out = module(x)
    return out


def a_square_kernel(self: Conv2d, inputs: int, outputs: int, kernel: Any, *args: Any, **kwargs: Any) -> None:
    CONV2D_INIT(self, inputs, outputs, np.max(kernel).item(), *args, **kwargs)


def a_kernel_across_then_down(self: Conv2d, inputs: int, outputs: int, kernel: Any, *args: Any, **kw: Any) -> None:
    CONV2D_INIT(self, inputs, outputs, ops.window.pair("kernel_size", kernel, 1)[::-1], *args, **kw)


def a_stride_of_the_first(self: Conv2d, x: Any) -> Any:
    stride = ops.window.pair("stride", self.stride, 1)[0]
    return ops.conv2d(x, self.weight, self.bias, stride, self.padding, self.dilation, self.groups)


CONV2D_INIT = Conv2d.__init__
STEPS = test_a_sequence_feeds_each_module_with_what_the_one_before_returns
WATCHED_STEPS = test_the_steps_of_a_sequence_are_watched_and_replaced
PAIRS = test_a_convolution_takes_kernel_and_stride_as_a_pair_down_then_across
CELLS = test_adaptive_pooling_layers_on_numbers_worked_by_hand
WRONG: dict[str, tuple[type[Module], str, Callable[..., Any], tuple[Callable[[], None], ...]]] = {
    "a sequence runs backwards": (nn.Sequential, "forward", backwards, (STEPS, WATCHED_STEPS)),
    "a sequence sorts its names": (nn.Sequential, "forward", in_the_order_of_the_alphabet, (STEPS,)),
    "a sequence hides its steps": (nn.Sequential, "forward", unwatched, (WATCHED_STEPS,)),
    "each step gets the first input": (nn.Sequential, "forward", the_last_alone, (STEPS, WATCHED_STEPS)),
    "every kernel is square": (nn.Conv2d, "__init__", a_square_kernel, (PAIRS,)),
    "a kernel is read across, then down": (nn.Conv2d, "__init__", a_kernel_across_then_down, (PAIRS,)),
    "one stride for both axes": (nn.Conv2d, "forward", a_stride_of_the_first, (PAIRS,)),
    "the adaptive maximum is a mean": (
        nn.AdaptiveMaxPool2d, "forward", AdaptiveAvgPool2d.forward, (CELLS, test_layers_pass_on_their_settings)
    ),
    "the adaptive mean is one of everything": (
        nn.AdaptiveAvgPool2d, "forward", lambda self, x: ops.adaptive_avg_pool2d(x, 1), (CELLS,)
    ),
    "the adaptive mean counts cells across, then down": (
        nn.AdaptiveAvgPool2d, "forward",
        lambda self, x: ops.adaptive_avg_pool2d(x, ops.window.pair("output_size", self.output_size, 1)[::-1]),
        (CELLS, test_layers_pass_on_their_settings),
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", WRONG)
def test_a_wrong_layer_is_caught(what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    layer, method, wrong, tests = WRONG[what]
    monkeypatch.setattr(layer, method, wrong)
    for test in tests:
        with pytest.raises(AssertionError):
            test()


def test_an_activation_is_a_name_or_a_function() -> None:
    x = np.array([-1.0, 2.0])
    assert Activation("relu")(x).tolist() == [0, 2]
    assert Activation(np.negative)(x).tolist() == [1, -2]


# --- loading ---------------------------------------------------------------------------------------------------------


def test_loading_takes_the_arrays_over_without_copying() -> None:
    net = Net()
    state = {name: np.arange(3, dtype=F32) for name in net.state_dict()}
    assert net.load_state_dict(state) is net
    assert all(net.state_dict()[name] is array for name, array in state.items())
    assert net(np.ones(3, F32)).tolist() == [0, 2, 10]


def test_loading_converts_floats_to_the_dtype_of_the_model() -> None:
    net = Net().load_state_dict({name: np.full(3, 0.1, np.float64) for name in Net().state_dict()})
    assert net.dtype == np.float32
    assert net.last.weight.tolist() == [F32(0.1)] * 3
    wide = Net().astype(np.float64).load_state_dict({name: np.full(3, 0.1, F32) for name in Net().state_dict()})
    assert wide.last.weight.tolist() == [float(F32(0.1))] * 3


def test_loading_takes_nested_lists() -> None:
    assert Net().load_state_dict({name: [1, 2, 3] for name in Net().state_dict()}).shift.tolist() == [1, 2, 3]


def test_loading_lists_every_misfit_in_one_error_and_changes_nothing() -> None:
    model = tiny.model()
    before = tiny.state_bytes(model)
    state = {name: array + 1 for name, array in model.state_dict().items()}
    prefix = "efficientformer.encoder.last_stage.meta3D_layers.blocks"
    del state["classifier.weight"], state[f"{prefix}.0.layer_scale_1"]
    state |= {"head.weight": np.zeros(1), "extra": np.zeros(2)}
    state["classifier.bias"] = np.zeros(6)
    state[f"{prefix}.1.token_mixer.attention_biases"] = np.zeros((4, 2))
    state["efficientformer.layernorm.bias"] = np.zeros(10, complex)
    with pytest.raises(ValueError, match=r"^state does not fit EfficientFormerForImageClassification: ") as error:
        model.load_state_dict(state)
    assert set(str(error.value).split(": ", 1)[1].split("; ")) == {
        "missing classifier.weight",
        f"missing {prefix}.0.layer_scale_1",
        "unexpected head.weight",
        "unexpected extra",
        "classifier.bias has shape (6,) instead of (5,)",
        f"{prefix}.1.token_mixer.attention_biases has shape (4, 2) instead of (2, 4)",
        "efficientformer.layernorm.bias holds complex128, which are no real numbers",
    }
    assert tiny.state_bytes(model) == before


def test_texts_are_no_weights() -> None:
    net = Net()
    with pytest.raises(ValueError, match=r"blocks\.1\.weight holds <U1"):
        net.load_state_dict({**net.state_dict(), "shift": np.ones(3), "blocks.1.weight": np.array(["a", "b", "c"])})
    assert net.shift.tolist() == [0, 0, 0]


@pytest.mark.parametrize("optional", ["num_batches_tracked", "attention_bias_idxs"])
def test_what_means_nothing_at_inference_may_be_absent(optional: str) -> None:
    model = tiny.model()
    state = {name: array for name, array in model.state_dict().items() if not name.endswith(optional)}
    assert len(state) < len(model.state_dict())
    again = tiny.model().load_state_dict(state)
    np.testing.assert_array_equal(again(tiny.pictures()).logits, model(tiny.pictures()).logits)


def test_counters_are_loaded_where_they_are_given() -> None:
    norm = BatchNorm2d(2)
    norm.load_state_dict({**norm.state_dict(), "num_batches_tracked": np.array(17)})
    assert norm.num_batches_tracked == 17
    assert norm.num_batches_tracked.dtype == np.int64


def test_a_stored_index_table_is_not_trusted() -> None:
    model = tiny.model()
    state = dict(model.state_dict())
    tables = [name for name in state if name.endswith("attention_bias_idxs")]
    assert tables
    again = tiny.model().load_state_dict({**state, **{name: np.zeros_like(state[name]) for name in tables}})
    assert tiny.state_bytes(again) == tiny.state_bytes(model)
    with pytest.raises(ValueError, match=r"attention_bias_idxs has shape \(9, 9\) instead of \(4, 4\)"):
        again.load_state_dict({**state, tables[0]: np.zeros((9, 9), np.int64)})


# --- copies and counts -----------------------------------------------------------------------------------------------


def test_astype_gives_a_new_independent_model() -> None:
    model = tiny.model()
    before = tiny.state_bytes(model)
    twin = model.astype(np.float64)
    assert type(twin) is type(model)
    assert (model.dtype, twin.dtype) == (np.float32, np.float64)
    assert twin.config is not model.config
    for (name, ours), theirs in zip(model.state_dict().items(), twin.state_dict().values(), strict=True):
        assert np.array_equal(ours, theirs), name
        assert theirs.dtype == (np.float64 if ours.dtype == np.float32 else ours.dtype), name
        theirs += 1
    twin.config.depths.append(1)
    assert tiny.state_bytes(model) == before
    assert model.config.depths == [1, 1, 1, 3]


def test_astype_to_the_same_dtype_copies_too() -> None:
    net = Net()
    net.astype(F32).shift[:] = 9
    assert net.shift.tolist() == [0, 0, 0]


def test_float64_is_close_and_float16_is_what_was_asked_for() -> None:
    model, x = tiny.model(), tiny.pictures()
    exact = model.astype(np.float64)(x).logits
    assert exact.dtype == np.float64
    np.testing.assert_allclose(model(x).logits, exact, rtol=1e-4, atol=1e-4)
    assert model.astype("float16")(x).logits.dtype == np.float16


@pytest.mark.parametrize("dtype", [int, "int8", bool, complex])
def test_astype_refuses_what_is_no_float(dtype: Any) -> None:
    with pytest.raises(ValueError, match="dtype must be a float type"):
        Net().astype(dtype)


def test_num_parameters_counts_what_was_learned() -> None:
    assert Net().num_parameters() == 12
    assert BatchNorm2d(4).num_parameters() == 8  # statistics and counter are not learned
    attention = EfficientFormerSelfAttention(tiny.config())
    assert attention.num_parameters() == (24 * 10 + 24) + (10 * 12 + 10) + 2 * 4  # qkv, projection, bias table


def test_the_dtype_of_a_model_without_weights_is_float32() -> None:
    assert Identity().dtype == np.float32
    assert BatchNorm2d(1).astype(np.float64).dtype == np.float64


# --- the tap ---------------------------------------------------------------------------------------------------------


def test_watch_sees_every_call_with_name_module_inputs_output_and_layout() -> None:
    net, seen, x = Net(), [], np.ones(3, F32)

    def observer(name: str, module: Module, inputs: Any, output: Any, layout: Any) -> Any:
        seen.append((name, module, inputs, output.tolist(), layout))
        return output

    with watch(net, observer):
        net(x)
    assert [call[0] for call in seen] == [
        "blocks.0:factor", "blocks.0", "blocks.1:factor", "blocks.1", "last:factor", "last", "",
    ]  # fmt: skip
    assert [call[3] for call in seen] == [[3] * 3, [3] * 3, [5] * 3, [15] * 3, [2] * 3, [30] * 3, [30] * 3]
    assert [call[4] for call in seen] == ["C", None, "C", None, "C", None, None]
    modules = dict(net.named_modules())
    assert all(module is modules[name.split(":")[0]] for name, module, *_ in seen)
    assert seen[0][2] == ()
    assert seen[1][2][0] is x


def test_nothing_is_seen_before_or_after() -> None:
    net, names = Net(), []
    observer = noting(names)
    net(np.ones(3, F32))
    with watch(net, observer):
        pass
    net(np.ones(3, F32))
    assert names == []


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"blocks.0": np.full(3, 100, F32)}, 1000),
        ({"blocks.1:factor": np.full(3, 7, F32)}, 42),
        ({"": np.full(3, 1, F32)}, 1),
        ({"blocks.0": np.full(3, 100, F32), "last:factor": np.full(3, 1, F32)}, 500),
    ],
)
def test_watch_replaces_outputs_and_inner_values(values: dict[str, Any], expected: float) -> None:
    net = Net()
    with watch(net, putting(values)):
        assert net(np.ones(3, F32)).tolist() == [expected] * 3
    assert net(np.ones(3, F32)).tolist() == [30] * 3


def test_of_a_tuple_the_first_is_seen_and_replaced() -> None:
    with watch(several := Several(), putting({"": "other"})):
        assert several("x") == ("other", "beside")


def test_of_a_model_output_the_main_value_is_seen_and_replaced() -> None:
    answer = Answer()
    with watch(answer, putting({"several": np.ones(1), "": np.full(2, 5.0)})):
        output = answer(np.zeros(1))
    assert isinstance(output, ImageClassifierOutput)
    assert output.logits.tolist() == [5, 5]
    assert output.loss == 7
    assert output.hidden_states == ("beside",)
    with watch(answer, putting({"several": np.ones(1)})):
        assert answer(np.zeros(1)).logits.tolist() == [1]


def test_replacing_the_tokens_of_a_real_model_moves_its_logits() -> None:
    model, x = tiny.model(), tiny.pictures()
    tokens = np.ones((2, 4, 10), F32)
    with watch(model, putting({"efficientformer": tokens})):
        output = model(x, output_hidden_states=True)
    expected = tokens[:, 0] @ model.classifier.weight.T + model.classifier.bias
    np.testing.assert_allclose(output.logits, expected, atol=1e-6)
    np.testing.assert_array_equal(output.hidden_states[-1], model(x, output_hidden_states=True).hidden_states[-1])
    with watch(model, putting({"": np.zeros((2, 5), F32)})):
        logits, hidden_states = model(x, output_hidden_states=True, return_dict=False)
    assert not logits.any()
    assert len(hidden_states) == 8


def test_inner_values_of_the_layers_can_be_replaced() -> None:
    x = tiny.pictures(channels=2, height=5, width=6)
    with watch(pooling := EfficientFormerPooling(3), putting({":pooled": np.zeros_like(x)})):
        np.testing.assert_array_equal(pooling(x), -x)
    attention = tiny.model(BARE).encoder.last_stage.meta3D_layers.blocks[0].token_mixer
    tokens = np.random.default_rng(0).standard_normal((2, 4, 10), F32)
    uniform = np.full((2, 2, 4, 4), 0.25, F32)
    with watch(attention, putting({":probs": uniform})):
        mixed, probs = attention(tokens)
    assert probs is uniform
    np.testing.assert_allclose(mixed, np.broadcast_to(mixed[:, :1], mixed.shape), rtol=1e-5)  # all tokens see the same
    with watch(attention, putting({":query": np.zeros((2, 2, 4, 3), F32), ":bias": np.zeros((2, 4, 4), F32)})):
        np.testing.assert_allclose(attention(tokens)[0], mixed, rtol=1e-5)


def test_an_inner_watch_sees_what_the_outer_one_made() -> None:
    net, seen, names = Net(), [], []

    def inner(name: str, module: Module, inputs: Any, output: Any, layout: Any) -> Any:
        seen.append((name, output.tolist()))
        return output + 1 if name == "last" else output

    with watch(net, putting({"blocks.1": np.full(3, 4, F32)})), watch(net, noting(names)):
        with watch(net, inner):
            assert net(np.ones(3, F32)).tolist() == [9] * 3
        assert net(np.ones(3, F32)).tolist() == [8] * 3
    assert ("blocks.1", [4] * 3) in seen
    assert len(seen) == 7
    assert len(names) == 14
    assert net(np.ones(3, F32)).tolist() == [30] * 3


def test_watching_another_model_hides_neither() -> None:
    outer, inner, outer_names, inner_names = Net(), Scale(2), [], []
    with watch(outer, noting(outer_names)), watch(inner, noting(inner_names)):
        outer(inner(np.ones(3, F32)))
    assert len(outer_names) == 7
    assert inner_names == [":factor", ""]


def test_a_part_of_a_model_can_be_watched_by_itself() -> None:
    net, names = Net(), []
    with watch(net.blocks, noting(names)):
        net(np.ones(3, F32))
    assert names == ["0:factor", "0", "1:factor", "1"]


def test_an_exception_ends_the_watch_and_only_that() -> None:
    net, outer, inner = Net(), [], []

    def inside() -> None:
        with watch(net, noting(inner)):
            net("no array")

    with watch(net, noting(outer)):
        with pytest.raises(TypeError):
            inside()
        outer.clear()
        inner.clear()
        net(np.ones(3, F32))
    assert len(outer) == 7
    assert inner == []
    net(np.ones(3, F32))
    assert len(outer) == 7


def test_an_observers_own_error_comes_through() -> None:
    def observer(*call: Any) -> Any:
        raise KeyError("mine")

    net = Net()
    with pytest.raises(KeyError, match="mine"), watch(net, observer):
        net(np.ones(3, F32))
    assert net(np.ones(3, F32)).tolist() == [30] * 3


def test_two_threads_that_watch_two_models_do_not_see_each_other() -> None:
    models = [Net(), Net()]
    seen: list[list[int]] = [[], []]
    results: list[Any] = [None, None]
    both_inside = threading.Barrier(2, timeout=30)

    def run(number: int) -> None:
        def observer(name: str, module: Module, inputs: Any, output: Any, layout: Any) -> Any:
            both_inside.wait()  # every value of one is computed while the other watch is on too
            seen[number].append(id(module))
            return output * 2 if name == "" and number else output

        with watch(models[number], observer):
            results[number] = models[number](np.ones(3, F32)).tolist()

    threads = [threading.Thread(target=run, args=(number,)) for number in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [[30] * 3, [60] * 3]
    for number in (0, 1):
        assert len(seen[number]) == 7
        assert set(seen[number]) <= {id(module) for _, module in models[number].named_modules()}


def test_another_thread_is_not_watched() -> None:
    net, names, result = Net(), [], []
    with watch(net, noting(names)):
        thread = threading.Thread(target=lambda: result.append(net(np.ones(3, F32)).tolist()))
        thread.start()
        thread.join()
    assert result == [[30] * 3]
    assert names == []


# --- forward changes nothing -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("watched", [False, True])
@pytest.mark.parametrize("class_name", tiny.CLASSES)
def test_forward_changes_neither_the_model_nor_its_input(class_name: str, watched: bool) -> None:
    model, x = tiny.model(class_name), tiny.pictures()
    attributes = {name: list(vars(module)) for name, module in model.named_modules()}
    arrays = {name: id(array) for name, array in model.state_dict().items()}
    weights, settings, pixels = tiny.state_bytes(model), model.config.to_dict(), x.tobytes()
    options = {"labels": np.array([0, 4])} if class_name == ONE_HEAD else {}
    if watched:
        with watch(model, look):
            model(x, **options)
    else:
        model(x, output_attentions=True, output_hidden_states=True, **options)
    assert tiny.state_bytes(model) == weights
    assert x.tobytes() == pixels
    assert model.config.to_dict() == settings
    assert {name: list(vars(module)) for name, module in model.named_modules()} == attributes
    assert {name: id(array) for name, array in model.state_dict().items()} == arrays


@pytest.mark.parametrize("class_name", tiny.CLASSES)
def test_forward_works_on_read_only_weights_and_input(class_name: str) -> None:
    model, x = tiny.model(class_name), tiny.pictures()
    expected = model(x)[0].copy()
    for array in [x, *model.state_dict().values()]:
        array.flags.writeable = False
    np.testing.assert_array_equal(model(x)[0], expected)
