"""Checks of the exercises of lesson 11, and the faulty ports for them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

import npformer
from npformer import ops
from npformer.models.pretrained import PreTrainedModel

from .. import check, expect, expect_array
from ..exercises import Wrong

Faults = dict[str, Callable[..., np.ndarray]]


# --- The mystery ports. The answers follow: find them with the report first.


def port(number: int) -> tuple[PreTrainedModel, np.ndarray, dict[str, np.ndarray]]:
    """Return a model, an input, and the values that a faulty port of the model computes from it."""
    name = ("swiftformer-fashion", "efficientformer-fashion")[number > 1]
    model = npformer.get_model(name, pretrained=True)
    processor = npformer.AutoImageProcessor.from_pretrained(name)
    path = list(npformer.assets.sample_pictures())[5 * number - 2]
    pixel_values = processor(npformer.load_image(path), return_tensors="np")["pixel_values"]
    faults = dict(_planted(model, number))
    trace = _run(model, pixel_values, faults)
    return model, pixel_values, _anonymous(model, trace) if number == 2 else _plain(trace)


def _planted(model: PreTrainedModel, number: int) -> list[tuple[str, Callable[..., np.ndarray]]]:
    names = [name for name, _ in model.named_modules()]
    if number == 1:
        return [([name for name in names if name.endswith(".act")][7], _function(1))]
    pools = [name for name in names if name.endswith(".pool")]
    if number == 3:
        return [(pools[3], _function(4))]
    norms = [name for name in names if name.endswith(".norm")]
    acts = [name for name in names if name.endswith("mlp.activation")]
    return [(norms[0], _function(3)), (acts[5], _function(2))]


def _function(number: int) -> Callable[..., np.ndarray]:
    return [
        lambda module, x: ops.ACT2FN["quick_gelu"](x),
        lambda module, x: ops.gelu(x, "tanh"),
        lambda module, x: _norm(module, x, 1e-3),
        lambda module, x: ops.avg_pool2d(x, 5, 1, 2, count_include_pad=False),
    ][number - 1]


def _norm(module: Any, x: np.ndarray, eps: float) -> np.ndarray:
    return ops.batch_norm(x, module.running_mean, module.running_var, module.weight, module.bias, eps)


def _run(model: PreTrainedModel, pixel_values: np.ndarray, faults: Faults) -> npformer.Trace:
    def observe(name: str, module: Any, inputs: tuple[Any, ...], output: np.ndarray, layout: str | None) -> np.ndarray:
        return faults[name](module, *inputs) if name in faults else output

    with npformer.watch(model, observe):
        return npformer.record(model, pixel_values)


def _plain(trace: npformer.Trace) -> dict[str, np.ndarray]:
    """Return all values but those inside a module, which few ports have."""
    return {name: value for name, value in trace.items() if ":" not in name}


def _anonymous(model: PreTrainedModel, trace: npformer.Trace) -> dict[str, np.ndarray]:
    """Return layers' values only, under meaningless names, channels last, small maps as tokens."""
    modules, values = dict(model.named_modules()), {}
    for name, value in trace.items():
        module = modules[name.partition(":")[0].partition("#")[0]]
        layer = not any(module.named_children()) and not isinstance(module, npformer.nn.Identity)
        if name and (":" in name or not layer):
            continue
        if value.ndim == 4:
            value = value.transpose(0, 2, 3, 1)
            value = value.reshape(len(value), -1, value.shape[3]) if value.shape[1] <= 14 else value
        values[f"tensor_{len(values):03}"] = value
    return values


# --- The checks.


@check("only the layer that is wrong has a residual; what comes after it is right, on what it was given.")
def local_residuals(answer: Callable[..., Sequence[float]]) -> None:
    rng = np.random.default_rng()
    weights = [rng.standard_normal((5, 5)) for _ in range(4)]
    layers = [
        lambda v: ops.linear(v, weights[0]),
        ops.relu,
        lambda v: ops.linear(v, weights[1]),
        lambda v: ops.softmax(v),
        lambda v: ops.linear(v, weights[2]),
    ]
    wrong = dict(enumerate(layers)) | {1: ops.gelu, 4: lambda v: ops.linear(v, weights[3])}
    x = rng.standard_normal((3, 5))
    port, ours, before, value = [], [], [], x
    for place in range(len(layers)):
        value = wrong[place](value)
        port.append(value)
        before.append(layers[place](port[place - 1] if place else x))
        ours.append(layers[place](ours[-1] if place else x))
    truth = [np.abs(p - b).max() for p, b in zip(port, before, strict=True)]
    expect_array(
        answer(layers, x, port),
        truth,
        "local_residuals(layers, x, port)",
        hints={
            "that is the cumulative difference: your run went on with its own values. Give each layer the port's "
            "value of the layer before.": [np.abs(p - o).max() for p, o in zip(port, ours, strict=True)],
            "take the absolute value of the differences before the largest one.": [
                (p - b).max() for p, b in zip(port, before, strict=True)
            ],
            "take the absolute value of the differences before the largest one (yours are the other way round).": [
                (b - p).max() for p, b in zip(port, before, strict=True)
            ],
            "that is the mean of the differences; the largest is asked for.": [
                np.abs(p - b).mean() for p, b in zip(port, before, strict=True)
            ],
            "a layer's input is the port's value of the layer before it, not its own.": [
                np.abs(p - layer(p)).max() for p, layer in zip(port, layers, strict=True)
            ],
        },
    )


@check("an error means nothing until you know how large rounding may make it, at this op, in this dtype.")
def is_rounding(answer: Callable[..., bool]) -> None:
    rng = np.random.default_rng()
    x = rng.standard_normal((40, 60)).astype(np.float32)
    wide = x.astype(np.float64)
    normed = ops.layer_norm(wide, (60,))
    plain = ops.gelu(wide)
    floor = float(np.sqrt(np.mean((ops.gelu(x) - plain) ** 2)))
    signs = np.where(np.arange(x.size).reshape(x.shape) % 2, 1.0, -1.0)
    broken = ops.gelu(x).copy()
    broken[3, 4] = np.nan

    def norm(v: np.ndarray) -> np.ndarray:
        return ops.layer_norm(v, (60,))

    cases = [
        ("the exact result of GELU, rounded to float32", ops.gelu, plain.astype(np.float32), True, ""),
        ("our own float32 GELU", ops.gelu, ops.gelu(x), True, ""),
        ("a layer norm in float32", norm, normed.astype(np.float32), True, ""),
        ("GELU by its tanh formula", ops.gelu, ops.gelu(x, "tanh"), False, ""),
        ("a layer norm with another eps", norm, ops.layer_norm(x, (60,), eps=1e-3), False, ""),
        ("GELU in float16", ops.gelu, plain.astype(np.float16).astype(np.float32), False, ""),
        ("GELU with errors of two floors", ops.gelu, plain + 2 * floor * signs, True, "allow four floors, not one"),
        ("GELU with errors of three and a half floors", ops.gelu, plain - 3.5 * (ops.gelu(x) - plain), True,
         "measure both distances to the float64 result, not to our own float32 one"),
        ("GELU with errors of twenty floors, up and down in turn", ops.gelu, plain + 20 * floor * signs, False,
         "square the errors before taking the mean, or those of opposite sign cancel"),
        ("ReLU, exactly right", ops.relu, ops.relu(x), True,
         "ReLU rounds nothing, so the floor is 0; an error of 0 is still fine (<=, not <)"),
        ("GELU with one NaN", ops.gelu, broken, False, "a comparison with NaN is never true; make sure that it fails"),
    ]  # fmt: skip
    for what, op, got, truth, advice in cases:
        said = answer(op, x, got)
        if said is None or said is Ellipsis:
            raise Wrong("is_rounding gives nothing back yet; put your code in the place of the three dots.")
        expect(
            isinstance(said, bool | np.bool_),
            f"is_rounding should say True or False, yours gives {type(said).__name__}.",
        )
        told = "is within rounding, yours says it is not" if truth else "is more than rounding, yours says it is not"
        expect(bool(said) == truth, f"{what} {told}" + (f": {advice}." if advice else "."))


def _same(op: Any, cause: Any, truth: tuple[str, str], number: str = "") -> None:
    for what, value in (("op", op), ("cause", cause)):
        expect(isinstance(value, str), f"the {what} should be a text, yours is {type(value).__name__}.")
    names = {name for name, _ in port_model(1).named_modules()} | {name for name, _ in port_model(2).named_modules()}
    expect(op.partition(":")[0] in names, f"{op!r} is none of the model's modules: copy the name from the report.")
    expect(
        op == truth[0],
        f"{op!r} is not where the{number} fault is made. Look for the first value that is faulty, not inherited.",
    )
    expect(cause == truth[1], f"the place is right, but the cause is not {cause!r}: give the key of the first cause.")


def port_model(number: int) -> PreTrainedModel:
    """Return the model of a mystery port, without its values."""
    return npformer.get_model(("swiftformer-fashion", "efficientformer-fashion")[number > 1], pretrained=True)


@check("one line of the report is the whole hunt.")
def mystery_1(op: str, cause: str) -> None:
    _same(op, cause, (_planted(port_model(1), 1)[0][0], "gelu-sigmoid"))


@check("two faults, no names, another layout: and still each is found where it is made.")
def mystery_2(found: Sequence[tuple[str, str]]) -> None:
    expect(
        isinstance(found, list | tuple) and all(isinstance(pair, list | tuple) and len(pair) == 2 for pair in found),
        "give a list of pairs, [(op, cause), ...].",
    )
    if any(part is Ellipsis for pair in found for part in pair):
        raise Wrong("there is no answer yet; put yours in the place of the three dots.")
    expect(len(found) > 1, "there is more than one fault in this port: a fault does not hide the next one.")
    expect(len(found) == 2, f"there are two faults, you give {len(found)}.")
    truth = [(name, cause) for (name, _), cause in zip(_planted(port_model(2), 2), _CAUSES, strict=True)]
    if tuple(map(tuple, found)) == tuple(truth[::-1]):
        return
    for pair, right, number in zip(found, truth, (" first", " second"), strict=True):
        _same(*pair, right, number)


_CAUSES = ("bn-eps", "gelu-tanh")


@check("you have found what no catalogue holds. That is how catalogues grow.")
def mystery_3(answer: Callable[[np.ndarray], np.ndarray]) -> None:
    x = np.random.default_rng().standard_normal((2, 3, 9, 8))
    expect_array(
        answer(x),
        _function(4)(None, x),
        "what_the_port_did(x)",
        tolerance=1e-6,
        hints={
            "that is what the op should do; the port does something else.": ops.avg_pool2d(
                x, 3, 1, 1, count_include_pad=False
            ),
            "counting the padding is in the catalogue, the checker would have said so.": ops.avg_pool2d(x, 3, 1, 1),
            "inside it is right, but at the border the port counts real pixels only.": ops.avg_pool2d(x, 5, 1, 2),
            "the port's window is smaller than that.": ops.avg_pool2d(x, 7, 1, 3, count_include_pad=False),
            "the port means over that window, it does not take the largest value.": ops.max_pool2d(x, 5, 1, 2),
            "at this op it is the mean alone; the input is subtracted one value later.": ops.pool_mixer(x, 5),
        },
    )
