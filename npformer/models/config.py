"""The common part of every model's config: labels, output switches, JSON in and out."""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Iterable, Mapping
from numbers import Integral, Real
from pathlib import Path
from typing import Any, Self

import numpy as np

from ..assets import model_directory
from ..checkpoint import read_json, write_text
from ..ops import ACT2FN

CONFIG_NAME = "config.json"
PROBLEM_TYPES = ("regression", "single_label_classification", "multi_label_classification")


class PretrainedConfig:
    """Settings of a model, as attributes.

    Common to all: `num_labels` with `id2label` and `label2id` (default: two labels, LABEL_0 and LABEL_1),
    `problem_type` (the loss, see `PreTrainedModel.loss`; None decides by the labels), `output_hidden_states`,
    `output_attentions`, `return_dict`, `architectures` (class names). Unknown keys are kept as they are, and
    written back, as in transformers.

    Raises ValueError or TypeError for an impossible value, naming it.
    """

    model_type = ""

    def __init__(
        self,
        *,
        output_hidden_states: bool = False,
        output_attentions: bool = False,
        return_dict: bool = True,
        num_labels: int | None = None,
        id2label: Mapping[Any, str] | None = None,
        label2id: Mapping[str, Any] | None = None,
        problem_type: str | None = None,
        architectures: list[str] | None = None,
        **unknown: Any,
    ) -> None:
        self.output_hidden_states = output_hidden_states
        self.output_attentions = output_attentions
        self.return_dict = return_dict
        self.problem_type = problem_type
        self.architectures = architectures
        self._set_labels(num_labels, id2label, label2id)
        unknown.pop("model_type", None)  # the class determines it
        for name, value in unknown.items():
            setattr(self, name, value)
        require(problem_type in (None, *PROBLEM_TYPES), "problem_type", problem_type, f"one of {PROBLEM_TYPES}")

    @property
    def num_labels(self) -> int:
        """The number of classes; setting another number renames them LABEL_0, LABEL_1, ..."""
        return len(self.id2label)

    @num_labels.setter
    def num_labels(self, number: int) -> None:
        if number != len(self.id2label):
            self._set_labels(number, None, None)

    def _set_labels(
        self, number: int | None, id2label: Mapping[Any, str] | None, label2id: Mapping[str, Any] | None
    ) -> None:
        if number is not None:
            require(is_whole(number, 0), "num_labels", number, "a whole number of at least 0")
        if id2label is None:
            id2label = {index: f"LABEL_{index}" for index in range(2 if number is None else number)}
            label2id = None
        require(isinstance(id2label, Mapping), "id2label", id2label, "a mapping from class number to name")
        # JSON turns the numbers into strings; here they are numbers again.
        names = {_class_number(index): str(label) for index, label in id2label.items()}
        expected = len(id2label)
        numbered = f"a mapping whose keys are the numbers 0 to {expected - 1}"
        require(set(names) == set(range(expected)), "id2label", id2label, numbered)
        require(number in (None, expected), "num_labels", number, f"{expected}, the number of labels in id2label")
        if label2id is None:
            label2id = {label: index for index, label in names.items()}
        numbers = isinstance(label2id, Mapping) and all(_class_number(index) >= 0 for index in label2id.values())
        require(numbers, "label2id", label2id, "a mapping from name to class number")
        self.id2label: dict[int, str] = names
        self.label2id: dict[str, int] = {str(label): int(index) for label, index in label2id.items()}

    @classmethod
    def check_overrides(cls, overrides: Iterable[str], known: Iterable[str] = ()) -> None:
        """Raise TypeError for a name that is neither a setting nor in `known`, hence most likely misspelt."""
        names = {"num_labels", *vars(cls()), *known}
        for name in overrides:
            if name not in names:
                raise TypeError(f"overrides must be settings of {cls.__name__}, got {name!r}")

    @classmethod
    def for_variant(cls, name: str, **overrides: Any) -> Self:
        """Return the config of a published variant, some settings replaced. Raises ValueError for an unknown name."""
        raise NotImplementedError(f"{cls.__name__} has no variants")

    def validate(self) -> None:
        """Refuse impossible values. Called when a config and when a model is created."""

    def to_dict(self) -> dict[str, Any]:
        """Return a copy of all settings, `model_type` included."""
        return {**copy.deepcopy(vars(self)), "model_type": self.model_type}

    def to_json_string(self) -> str:
        """Return all settings as JSON. Raises TypeError for one that JSON cannot hold (a function as `hidden_act`)."""
        return to_json(self.to_dict())

    def save_pretrained(self, directory: str | Path) -> None:
        """Write `config.json` into `directory`, which is created if needed."""
        write_text(Path(directory) / CONFIG_NAME, self.to_json_string())

    @classmethod
    def from_dict(cls, settings: Mapping[str, Any], **overrides: Any) -> Self:
        """Build a config from a dictionary; `overrides` take precedence.

        Raises ValueError for another model's settings.
        """
        found = settings.get("model_type", cls.model_type)
        if found != cls.model_type:
            raise ValueError(f"model_type must be {cls.model_type!r} for {cls.__name__}, got {found!r}")
        stale: tuple[str, ...] = ()  # stored settings of another number of classes
        if "id2label" in overrides:
            stale = ("num_labels", "label2id")
        elif "num_labels" in overrides and overrides["num_labels"] != len(settings.get("id2label") or ()):
            stale = ("id2label", "label2id")
        return cls(**{**{name: value for name, value in settings.items() if name not in stale}, **overrides})

    @classmethod
    def from_pretrained(cls, name_or_path: str | Path, *, revision: str | None = None, **overrides: Any) -> Self:
        """Read `config.json` of a directory, shipped model or repository. Raises FileNotFoundError or ValueError."""
        return cls.from_dict(read_config(name_or_path, revision), **overrides)

    def __repr__(self) -> str:
        """Return the class name and the settings."""
        return f"{type(self).__name__} {json.dumps(self.to_dict(), indent=2, sort_keys=True, default=repr)}"


def read_config(name_or_path: str | Path, revision: str | None = None) -> dict[str, Any]:
    """Read the `config.json` of a directory, shipped model or repository, whatever model it is for."""
    path = model_directory(name_or_path, revision, weights=False) / CONFIG_NAME
    if not path.is_file():
        raise FileNotFoundError(f"{path.parent} holds no {CONFIG_NAME}")
    return read_json(path)


def to_json(settings: Mapping[str, Any]) -> str:
    """Return settings as JSON. Raises TypeError naming the setting that JSON cannot hold."""
    for name, value in settings.items():
        if callable(value):
            raise TypeError(f"{name} must be a name to be saved, got the function {value!r}")
    return json.dumps(settings, indent=2, sort_keys=True, default=_plain_number) + "\n"


def require(condition: bool, name: str, value: Any, expected: str) -> None:
    """Raise ValueError, "<name> must be <expected>, got <value>", unless the condition holds."""
    if not condition:
        raise ValueError(f"{name} must be {expected}, got {value!r}")


def is_whole(value: Any, least: int) -> bool:
    """Return whether `value` is an integer, Python's or NumPy's but no bool, of at least `least`."""
    return isinstance(value, Integral) and not isinstance(value, bool) and int(value) >= least


def is_number(value: Any, least: float) -> bool:
    """Return whether `value` is a finite number, Python's or NumPy's but no bool, of at least `least`."""
    real = isinstance(value, int | float | np.integer | np.floating) and not isinstance(value, bool)
    return bool(real and least <= value < math.inf)


def require_activation(name: str, value: Any) -> None:
    """Raise ValueError unless `value` is a function or the name of one in `ops.ACT2FN`."""
    known = callable(value) or (isinstance(value, str) and value in ACT2FN)
    require(known, name, value, f"a function or one of {', '.join(ACT2FN)}")


def _class_number(key: Any) -> int:
    """Return the class index that 3, or JSON's "3", means; -1 for anything else."""
    try:
        return int(key)
    except (TypeError, ValueError):
        return -1


def _plain_number(value: Any) -> int | float:
    """Convert a NumPy number to the Python one that JSON can hold. Raises TypeError for anything else."""
    if isinstance(value, Integral):
        return int(value)
    if isinstance(value, Real):
        return float(value)
    raise TypeError(f"settings must be numbers, texts, lists and mappings to be saved, got {value!r}")
