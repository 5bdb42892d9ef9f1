"""The smallest possible Module: named children, named arrays, and a call that observers can watch.

A module is a Python object whose attributes are arrays (its weights) and other modules (its children). Names follow
from attribute names, so `model.encoder.last_stage` is named "encoder.last_stage", as in PyTorch, and a state dict is a
flat mapping from such names to arrays. `forward` computes and never changes the module.

The tap: while `watch(model, observer)` is active, every call of a module below `model`, and every value it hands to
`self.tap`, passes through the observer, which may look at it or replace it. Recording, comparing and timing are all
small users of that one mechanism.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Protocol, Self

import numpy as np

from . import ops
from .ops import Array


class Observer(Protocol):
    """Interface of observers: called with each named value; returns the value to go on with (usually the same)."""

    def __call__(self, name: str, module: Module, inputs: tuple[Any, ...], output: Array, layout: str | None) -> Array:
        """Observe one value. `inputs` is empty, and `layout` given, for inner values ("<module>:<value>")."""


_WATCH: ContextVar[tuple[tuple[Observer, dict[int, str]], ...]] = ContextVar("npformer_watch", default=())


@contextmanager
def watch(model: Module, observer: Observer) -> Iterator[None]:
    """Let `observer` see, and replace, every named value computed below `model` in this thread or task.

    Watches nest: an inner observer sees the values as outer ones have replaced them.
    """
    names = {id(module): name for name, module in model.named_modules()}
    token = _WATCH.set((*_WATCH.get(), (observer, names)))
    try:
        yield
    finally:
        _WATCH.reset(token)


def is_watched() -> bool:
    """Return whether any observer is active in this thread or task."""
    return bool(_WATCH.get())


class Module:
    """Base class of all layers and models.

    Subclasses assign arrays and modules as attributes and define `forward`. `buffers` names the arrays that are not
    learned (they do not count as parameters), `optional` those that a state dict may omit (they are derived, or have
    no effect at inference), `derived` those that are always computed here and never read from a file.
    """

    buffers: tuple[str, ...] = ()
    optional: tuple[str, ...] = ()
    derived: tuple[str, ...] = ()

    def __call__(self, *inputs: Any, **options: Any) -> Any:
        """Run `forward`, letting active observers see, and replace, the result.

        For a result with several values an observer gets the main one: the first of a tuple, or the `main` of a model
        output.
        """
        output = self.forward(*inputs, **options)
        for observer, names in _WATCH.get():
            if id(self) not in names:
                continue
            name = names[id(self)]
            if isinstance(output, tuple):
                output = (observer(name, self, inputs, output[0], None), *output[1:])
            elif hasattr(output, "replace_main"):
                output = output.replace_main(observer(name, self, inputs, output.main, None))
            else:
                output = observer(name, self, inputs, output, None)
        return output

    def forward(self, *inputs: Any, **options: Any) -> Any:
        """Compute the module's output."""
        raise NotImplementedError(f"{type(self).__name__} defines no forward")

    def tap(self, value_name: str, value: Array, layout: str) -> Array:
        """Show an inner value to the observer as "<module>:<value_name>"; return it, or its replacement.

        `layout` spells its axes in the project's letters, such as "BhNN".
        """
        for observer, names in _WATCH.get():
            if id(self) in names:
                value = observer(f"{names[id(self)]}:{value_name}", self, (), value, layout)
        return value

    def multiply_adds(self, inputs: tuple[Any, ...], output: Any) -> int:
        """Return the multiply-adds of this module's own matrix products for one call, without children."""
        return 0

    def named_children(self) -> Iterator[tuple[str, Module]]:
        """Yield the modules that are attributes of this one, in order of definition."""
        for name, value in vars(self).items():
            if isinstance(value, Module):
                yield name, value

    def named_modules(self, prefix: str = "") -> Iterator[tuple[str, Module]]:
        """Yield the module itself (named "") and all below it, parents first, with dotted names."""
        yield prefix, self
        for name, child in self.named_children():
            yield from child.named_modules(f"{prefix}.{name}" if prefix else name)

    def named_arrays(self) -> Iterator[tuple[str, Module, str]]:
        """Yield every array below: its dotted name, the module that holds it, and the attribute it is stored under."""
        for prefix, module in self.named_modules():
            for attribute, value in vars(module).items():
                if isinstance(value, np.ndarray):
                    yield (f"{prefix}.{attribute}" if prefix else attribute), module, attribute

    def state_dict(self) -> dict[str, np.ndarray]:
        """Return all arrays by name: the parameters and buffers of a PyTorch state dict of the same model."""
        return {name: getattr(module, attribute) for name, module, attribute in self.named_arrays()}

    def load_state_dict(self, state: Mapping[str, np.ndarray]) -> Self:
        """Load the arrays of `state` by name, without copying those that already have the right dtype.

        Strict: a missing, extra or misshapen key is refused, all of them listed, and nothing is changed. Only arrays
        that are derived or have no effect at inference (`attention_bias_idxs`, `num_batches_tracked`) may be absent.
        Floats are converted to the dtype of the model.

        Raises ValueError.
        """
        slots = {name: (module, attribute) for name, module, attribute in self.named_arrays()}
        arrays = {name: np.asarray(value) for name, value in state.items()}
        missing = [name for name, (module, key) in slots.items() if name not in arrays and key not in module.optional]
        problems = [f"missing {name}" for name in missing]
        problems += [f"unexpected {name}" for name in arrays if name not in slots]
        for name, (module, attribute) in slots.items():
            expected = getattr(module, attribute).shape
            if name in arrays and arrays[name].shape != expected:
                problems.append(f"{name} has shape {arrays[name].shape} instead of {expected}")
            elif name in arrays and arrays[name].dtype.kind not in "biuf":
                problems.append(f"{name} holds {arrays[name].dtype}, which are no real numbers")
        if problems:
            raise ValueError(f"state does not fit {type(self).__name__}: " + "; ".join(problems))
        for name, (module, attribute) in slots.items():
            if name in arrays and attribute not in module.derived:
                setattr(module, attribute, arrays[name].astype(getattr(module, attribute).dtype, copy=False))
        return self

    def astype(self, dtype: Any) -> Self:
        """Return the same model with its floats in another dtype, as a new model; `np.float64` gives the exact twin.

        Raises ValueError or TypeError for anything but a float type.
        """
        if not np.issubdtype(np.dtype(dtype), np.floating):
            raise ValueError(f"dtype must be a float type such as np.float64, got {dtype!r}")
        twin = copy.deepcopy(self, {id(getattr(m, a)): getattr(m, a) for _, m, a in self.named_arrays()})
        for _, module, attribute in twin.named_arrays():
            array = getattr(module, attribute)
            setattr(module, attribute, array.astype(dtype if np.issubdtype(array.dtype, np.floating) else array.dtype))
        return twin

    def num_parameters(self) -> int:
        """Return how many numbers are learned: those of every array except buffers such as running statistics."""
        return sum(getattr(m, a).size for _, m, a in self.named_arrays() if a not in m.buffers)

    @property
    def dtype(self) -> np.dtype:
        """The dtype of the model's weights (float32 where it has none)."""
        for _, module, attribute in self.named_arrays():
            if np.issubdtype(getattr(module, attribute).dtype, np.floating):
                return getattr(module, attribute).dtype
        return np.dtype(np.float32)

    def __repr__(self) -> str:
        """Return the tree of children, one per line, in PyTorch's format."""
        lines = [f"({name}): {child!r}".replace("\n", "\n  ") for name, child in self.named_children()]
        own = ", ".join(f"{n}={v.shape}" for n, v in vars(self).items() if isinstance(v, np.ndarray) and v.ndim)
        body = "\n  " + "\n  ".join(lines) + "\n" if lines else ""
        return f"{type(self).__name__}({own}{body})"


class ModuleList(Module):
    """A list of modules, named "0", "1", ...; iterate or index it like a list. It has no forward of its own."""

    def __init__(self, modules: Iterable[Module] = ()) -> None:
        for index, module in enumerate(modules):
            setattr(self, str(index), module)

    def __iter__(self) -> Iterator[Module]:
        return (child for _, child in self.named_children())

    def __len__(self) -> int:
        return len(vars(self))

    def __getitem__(self, index: int) -> Module:
        return list(self)[index]


class Sequential(Module):
    """A chain of modules, named "0", "1", ..., each applied to the output of the one before."""

    def __init__(self, *modules: Module) -> None:
        for index, module in enumerate(modules):
            setattr(self, str(index), module)

    def forward(self, x: Array) -> Array:
        """Apply the modules in order."""
        for _, module in self.named_children():
            x = module(x)
        return x


class Identity(Module):
    """A layer that returns its input, in place of PyTorch's dropout or drop path, which do nothing at inference."""

    def forward(self, x: Array) -> Array:
        """Return x itself."""
        return x


class Activation(Module):
    """An element-wise function as a layer, by a config's name for it ("gelu", "relu", ...) or as a function."""

    def __init__(self, function: str | Callable[[Array], Array]) -> None:
        self.function = ops.ACT2FN[function] if isinstance(function, str) else function

    def forward(self, x: Array) -> Array:
        """Apply the function element by element; any shape."""
        return self.function(x)


class Linear(Module):
    """A fully connected layer, `ops.linear`: (..., in_features) -> (..., out_features)."""

    def __init__(self, in_features: int, out_features: int, bias: bool = True) -> None:
        self.weight = np.zeros((out_features, in_features), np.float32)
        self.bias = np.zeros(out_features, np.float32) if bias else None

    def forward(self, x: Array) -> Array:
        """Multiply each vector by the weight and add the bias."""
        return ops.linear(x, self.weight, self.bias)

    def multiply_adds(self, inputs: tuple[Any, ...], output: Any) -> int:
        """Count one multiply-add per input for every output number."""
        return output.size * self.weight.shape[1]


class Conv2d(Module):
    """A convolution, `ops.conv2d`: (B, in_channels, H, W) -> (B, out_channels, H', W')."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | ops.window.Pair,
        stride: int | ops.window.Pair = 1,
        padding: ops.window.Padding = 0,
        dilation: int = 1,
        groups: int = 1,
        bias: bool = True,
    ) -> None:
        kernel = ops.window.pair("kernel_size", kernel_size, 1)
        self.weight = np.zeros((out_channels, in_channels // groups, *kernel), np.float32)
        self.bias = np.zeros(out_channels, np.float32) if bias else None
        self.stride, self.padding, self.dilation, self.groups = stride, padding, dilation, groups

    def forward(self, x: Array) -> Array:
        """Convolve the map with the filters."""
        return ops.conv2d(x, self.weight, self.bias, self.stride, self.padding, self.dilation, self.groups)

    def multiply_adds(self, inputs: tuple[Any, ...], output: Any) -> int:
        """Count one multiply-add per weight of a filter for every output number."""
        return output.size * math.prod(self.weight.shape[1:])


class BatchNorm2d(Module):
    """Per-channel normalisation with stored statistics, `ops.batch_norm`: (B, C, H, W), same shape out."""

    buffers = ("running_mean", "running_var", "num_batches_tracked")
    optional = ("num_batches_tracked",)  # PyTorch counts training batches; unused at inference

    def __init__(self, num_features: int, eps: float = 1e-5) -> None:
        self.weight = np.ones(num_features, np.float32)
        self.bias = np.zeros(num_features, np.float32)
        self.running_mean = np.zeros(num_features, np.float32)
        self.running_var = np.ones(num_features, np.float32)
        self.num_batches_tracked = np.zeros((), np.int64)
        self.eps = eps

    def forward(self, x: Array) -> Array:
        """Shift and scale each channel."""
        return ops.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, self.eps)


class LayerNorm(Module):
    """Per-token normalisation, `ops.layer_norm` over the last axis: (..., D), same shape out."""

    def __init__(self, normalized_shape: int, eps: float = 1e-5) -> None:
        self.weight = np.ones(normalized_shape, np.float32)
        self.bias = np.zeros(normalized_shape, np.float32)
        self.eps = eps

    def forward(self, x: Array) -> Array:
        """Normalise each vector by its own mean and variance."""
        return ops.layer_norm(x, self.weight.shape, self.weight, self.bias, self.eps)


class AvgPool2d(Module):
    """Average pooling, `ops.avg_pool2d`: (B, C, H, W) -> (B, C, H', W')."""

    def __init__(
        self, kernel_size: int, stride: int | None = None, padding: int = 0, count_include_pad: bool = True
    ) -> None:
        self.kernel_size, self.stride, self.padding = kernel_size, stride, padding
        self.count_include_pad = count_include_pad

    def forward(self, x: Array) -> Array:
        """Average each window."""
        return ops.avg_pool2d(x, self.kernel_size, self.stride, self.padding, count_include_pad=self.count_include_pad)


class AdaptiveAvgPool2d(Module):
    """The mean over a grid of cells, `ops.adaptive_avg_pool2d`: (B, C, H, W) -> (B, C, *output_size)."""

    def __init__(self, output_size: int | ops.window.Pair) -> None:
        self.output_size = output_size

    def forward(self, x: Array) -> Array:
        """Average each cell."""
        return ops.adaptive_avg_pool2d(x, self.output_size)


class AdaptiveMaxPool2d(Module):
    """The maximum over a grid of cells, `ops.adaptive_max_pool2d`: (B, C, H, W) -> (B, C, *output_size)."""

    def __init__(self, output_size: int | ops.window.Pair) -> None:
        self.output_size = output_size

    def forward(self, x: Array) -> Array:
        """Take each cell's largest value."""
        return ops.adaptive_max_pool2d(x, self.output_size)
