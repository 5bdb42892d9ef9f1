"""Model outputs: values by attribute, by key, or by position."""

from __future__ import annotations

from collections.abc import Callable, ItemsView, Iterator, KeysView, ValuesView
from dataclasses import dataclass, fields, replace
from typing import Any, Self

import numpy as np

Arrays = tuple[np.ndarray, ...]


class ModelOutput:
    """Base class of all outputs: `out.logits`, `out["logits"]` and, among the present values, `out[0]` are the same.

    Fields that are None are absent from keys, positions, iteration and length, as in transformers. As with a
    dictionary, iteration gives the keys; `to_tuple()` gives the values.
    """

    def _present(self) -> dict[str, Any]:
        values = {field.name: getattr(self, field.name) for field in fields(self)}  # type: ignore[arg-type]
        return {name: value for name, value in values.items() if value is not None}

    def to_tuple(self) -> tuple[Any, ...]:
        """Return the values that are present, in order."""
        return tuple(self._present().values())

    def keys(self) -> KeysView[str]:
        """Return the names of the values that are present."""
        return self._present().keys()

    def values(self) -> ValuesView[Any]:
        """Return the values that are present."""
        return self._present().values()

    def items(self) -> ItemsView[str, Any]:
        """Return (name, value) of the values that are present."""
        return self._present().items()

    def get(self, name: str, default: Any = None) -> Any:
        """Return the value of that name, or `default`."""
        return self._present().get(name, default)

    @property
    def main(self) -> np.ndarray:
        """The main value of the model: logits, or the last hidden state."""
        return self["logits"] if "logits" in self else self["last_hidden_state"]

    def replace_main(self, value: np.ndarray) -> Self:
        """Return the same output with another main value."""
        name = "logits" if "logits" in self else "last_hidden_state"
        return self if value is self[name] else replace(self, **{name: value})  # type: ignore[type-var]

    def __getitem__(self, key: str | int | slice) -> Any:
        """Return a value by name, or by position among those present."""
        return self._present()[key] if isinstance(key, str) else self.to_tuple()[key]

    def __iter__(self) -> Iterator[str]:
        """Iterate over the names."""
        return iter(self._present())

    def __len__(self) -> int:
        """Return the number of values that are present."""
        return len(self._present())

    def __contains__(self, name: object) -> bool:
        """Return whether a value of that name is present."""
        return name in self._present()


@dataclass(eq=False)
class BaseModelOutput(ModelOutput):
    """The output of an encoder.

    last_hidden_state (B, N, D); hidden_states, the embeddings and every stage's output; attentions, (B, h, N, N) per
    attention block, the probabilities after the softmax.
    """

    last_hidden_state: np.ndarray | None = None
    hidden_states: Arrays | None = None
    attentions: Arrays | None = None


@dataclass(eq=False)
class BaseModelOutputWithPooling(ModelOutput):
    """The output of a base model: as BaseModelOutput, with a pooled (B, D) vector where the architecture has one."""

    last_hidden_state: np.ndarray | None = None
    pooler_output: np.ndarray | None = None
    hidden_states: Arrays | None = None
    attentions: Arrays | None = None


@dataclass(eq=False)
class ImageClassifierOutput(ModelOutput):
    """The output of a classifier: loss (a scalar, if labels were given), logits (B, K), and as BaseModelOutput."""

    loss: np.ndarray | None = None
    logits: np.ndarray | None = None
    hidden_states: Arrays | None = None
    attentions: Arrays | None = None


@dataclass(eq=False)
class BaseModelOutputWithNoAttention(ModelOutput):
    """The output of a convolutional base model: last_hidden_state (B, C, H, W), hidden_states as BaseModelOutput."""

    last_hidden_state: np.ndarray | None = None
    hidden_states: Arrays | None = None


@dataclass(eq=False)
class BaseModelOutputWithPoolingAndNoAttention(ModelOutput):
    """The output BaseModelOutputWithNoAttention with pooler_output (B, C), the last map pooled over all its pixels."""

    last_hidden_state: np.ndarray | None = None
    pooler_output: np.ndarray | None = None
    hidden_states: Arrays | None = None


@dataclass(eq=False)
class ImageClassifierOutputWithNoAttention(ModelOutput):
    """The output of a classifier without attention maps: loss (a scalar, if labels were given) and logits (B, K)."""

    loss: np.ndarray | None = None
    logits: np.ndarray | None = None
    hidden_states: Arrays | None = None


def concatenate(parts: list[Any]) -> Any:
    """Concatenate a model's results for parts of a batch along axis 0: arrays, tuples or outputs of them."""
    return parts[0] if len(parts) == 1 else _each_array(np.concatenate, parts)


def none_of(output: Any) -> Any:
    """Return the result that a model would have for an empty batch, given its result for a non-empty one."""
    return _each_array(lambda arrays: arrays[0][:0], [output])


def _each_array(function: Callable[[list[np.ndarray]], np.ndarray], outputs: list[Any]) -> Any:
    first = outputs[0]
    if first is None:
        return None
    if isinstance(first, tuple):
        return tuple(_each_array(function, list(values)) for values in zip(*outputs, strict=True))
    if isinstance(first, ModelOutput):
        names = [field.name for field in fields(first)]  # type: ignore[arg-type]
        return type(first)(**{name: _each_array(function, [getattr(o, name) for o in outputs]) for name in names})
    return function(outputs)
