"""Recognition of weights: their source, model and settings, inferred from names and shapes.

    found = recognise({name: array.shape for name, array in arrays.items()}, hint="tf_efficientnet_b0_ns.pth")
    found.rests_on              in words: the conclusions and the evidence for them
    model = classes[found.architecture](found.config())
    model.load_state_dict(found.state(arrays))

Names give the source and the family, shapes the size; both are checked against the resulting model. Some settings
leave no trace in either, since models that pad or normalise differently have the same arrays: there `hint` decides
(a file's name or metadata), or else the most likely value is taken, and `warnings` says so.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from ..checkpoint.sources import SOURCES, original, timm
from ..checkpoint.sources.rules import NamesError
from ..checkpoint.weights import CheckpointError
from ..models import registry
from ..models.auto import BARE_MODELS, CLASSIFIERS, CONFIGS
from ..models.config import PretrainedConfig
from ..models.pretrained import PreTrainedModel
from ..words import listed
from .settings import (
    VARIANTS,
    Shapes,
    find_variant,
    free_settings,
    read_settings,
    variant_settings,
)

WRAPPERS = ("module.", "_orig_mod.", "model.")  # prefixes by DataParallel, torch.compile and Lightning
TITLES = {"efficientformer": "EfficientFormer", "efficientnet": "EfficientNet", "swiftformer": "SwiftFormer"}
PLACES = {"original": "its authors' repository", "keras": "Keras", "tensorflow": "transformers for TensorFlow"}
NAMED = re.compile(  # a model's name somewhere in a text
    r"(?<![a-z0-9])(?P<tf>tf[_-])?(?P<family>efficientformer|efficientnet|swiftformer)[_-]?(?P<size>b\d+|l\d+|xs|s)"
    r"(?![a-z0-9])"
)


@dataclass(frozen=True)
class Recognised:
    """The result of recognition.

    source: a name in `SOURCES`. family: the `model_type`. variant: the published network, or None for a model of
    another size. settings: those of the config that names, shapes and source determine. names: from the source's keys
    to the names in `architecture`, which is the name of the model's class. copies: by names there, the keys of the
    source whose arrays are used twice (a single head that serves as both). dropped: keys that no model here needs, and
    why. rests_on: a sentence on the evidence. warnings: sentences on what could not be determined.
    """

    source: str
    family: str
    variant: str | None
    settings: dict[str, Any]
    names: dict[str, str]
    dropped: dict[str, str]
    architecture: str
    rests_on: str
    copies: dict[str, str] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)

    def config(self) -> PretrainedConfig:
        """Return the config with these settings."""
        return CONFIGS[self.family](**self.settings)

    def state(self, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Return the arrays by their names here, with their axes in the order used here, for `load_state_dict`."""
        arrange = SOURCES[self.source].arrange
        pairs = [(name, key) for key, name in self.names.items()] + list(self.copies.items())
        return {name: np.asarray(arrange(name, arrays[key]), order="C") for name, key in pairs}


def recognise(
    names_and_shapes: Mapping[str, tuple[int, ...]],
    *,
    hint: str = "",
    source: str | None = None,
    variant: str | None = None,
    settings: Mapping[str, Any] | None = None,
) -> Recognised:
    """Infer the source, model and settings of weights from every array's name and shape.

    hint: text that may name the model where names and shapes leave it open, such as a file's name or an `architecture`
    from metadata. source, variant, settings: known facts; they take precedence over every conclusion.
    `variant` may be any name that `get_model` knows for a published network, and brings that name's settings.

    Raises CheckpointError for weights of no known model, of several, or incomplete ones, and where the given facts
    contradict them; one sentence says which.
    """
    known, meant = _known_variant(variant)
    weights = _Weights.read(names_and_shapes, source)
    size = weights.size(known)
    found = known or find_variant(weights.family, size)
    if known is None:
        _check_hint(hint, weights.family, found)
    given = {**meant, **(settings or {})}
    flavour = _flavour(weights.source, weights.family, found, hint).overruled(given)
    chosen = {**size, **flavour.settings, **given}
    weights.check(chosen, found, bool(known or given))
    sized = f"the shapes those of {found or 'no published variant'}{', as given' if known else ''}"
    return Recognised(
        source=weights.source,
        family=weights.family,
        variant=found,
        settings=chosen,
        names={key: weights.here(name) for name, key in weights.keys.items()},
        dropped=weights.dropped,
        architecture=weights.architecture.__name__,
        rests_on=f"the keys are those of {weights.model}, {sized}; {flavour.reason}",
        copies=weights.copies,
        warnings=[*flavour.warnings, *([] if found else [_UNSEEN]), *([_ONE_HEAD] if weights.copies else [])],
    )


_UNSEEN = "the model has no published size; what shapes do not tell, such as strides, is taken to be as published"
_IMPOSSIBLE = "no such model can be made"
_ONE_HEAD = "there is one head; it serves as both, whose average is the same"


@dataclass
class _Weights:
    """The shapes of weights by their names here, in a model with a head; `keys` maps these to the source's keys."""

    source: str
    family: str
    shapes: Shapes
    keys: dict[str, str]
    copies: dict[str, str]
    dropped: dict[str, str]

    @classmethod
    def read(cls, names_and_shapes: Shapes, source: str | None) -> _Weights:
        """Infer the source and the family from the keys, and rename them. Raises CheckpointError."""
        arrays = {str(key): tuple(int(side) for side in shape) for key, shape in names_and_shapes.items()}
        if not arrays:
            raise CheckpointError(f"there are no weights to recognise; looked for {_looked_for(source)}")
        plain = _without_wrappers(arrays)
        source, family = _scheme(list(plain.values()), source)
        names, dropped = _names(plain, source, family)
        copies = original.copies_of_head(names) if (source, family) == ("original", "swiftformer") else {}
        keys = {name: key for key, name in names.items()}
        empty = {name: np.broadcast_to(np.float32(0), arrays[key]) for name, key in {**keys, **copies}.items()}
        shapes = {name: SOURCES[source].arrange(name, array).shape for name, array in empty.items()}
        return cls(source, family, shapes, keys, copies, dropped)

    @property
    def model(self) -> str:
        """The kind of model the weights are of, in words."""
        return _model(self.source, self.family)

    @functools.cached_property
    def architecture(self) -> type[PreTrainedModel]:
        """The class with exactly these heads."""
        first, *more = CLASSIFIERS[self.family]
        heads = {name.split(".")[0] for name in self.shapes} - {self.family}
        if not heads:
            return BARE_MODELS[self.family]
        return more[0] if "distillation_classifier" in heads else first

    def here(self, name: str) -> str:
        """Return a name as it is in that class."""
        bare = self.architecture is BARE_MODELS[self.family]
        return name.removeprefix(f"{self.family}.") if bare else name

    def size(self, variant: str | None) -> dict[str, Any]:
        """Return the settings that the shapes, or the variant, determine. Raises CheckpointError."""
        if variant and not variant.startswith(f"{self.family}-"):
            raise CheckpointError(f"variant is {variant!r}, but the keys are those of {self.model}")
        if variant:
            return {**variant_settings(variant), **free_settings(self.family, self.shapes)}
        try:
            return read_settings(self.family, self.shapes)
        except (LookupError, ArithmeticError, ValueError, TypeError) as error:
            reason = str(error) if isinstance(error, ValueError) else ""
            raise self._misfit(VARIANTS[self.family], reason=reason) from None

    def check(self, settings: Mapping[str, Any], variant: str | None, given: bool) -> None:
        """Compare with the model of these settings and that variant. Raises CheckpointError.

        Unless one of them was `given`, the weights may be those of another variant: the best match is reported.
        """
        problems = self._problems(settings)
        if problems:
            raise self._misfit(() if given else VARIANTS[self.family], variant, problems)

    def _problems(self, settings: Mapping[str, Any]) -> list[str]:
        """Return the mismatches with the model of these settings, by the weights' own names where there are any."""
        try:
            model = self.architecture(CONFIGS[self.family](**settings), init_weights=False)  # type: ignore[call-arg]
        except (ValueError, TypeError, MemoryError) as error:
            return [f"{_IMPOSSIBLE}: {error}"]
        slots = {
            name: (getattr(module, key).shape, key in module.optional) for name, module, key in model.named_arrays()
        }
        shapes = {self.here(name): shape for name, shape in self.shapes.items()}
        keys = {self.here(name): key for name, key in self.keys.items()}
        missing = [name for name, (_, optional) in slots.items() if name not in shapes and not optional]
        problems = [f"{keys[name]} is not part of it" for name in shapes if name not in slots]
        problems += [
            f"{keys.get(name, name)} has shape {shapes[name]} instead of {shape}"
            for name, (shape, _) in slots.items()
            if name in shapes and shapes[name] != shape
        ]
        return problems + [f"{name} is missing (its name here)" for name in missing]

    def _misfit(
        self, variants: Iterable[str], best: str | None = None, problems: Iterable[str] = (), reason: str = ""
    ) -> CheckpointError:
        """Return the error with the mismatches: these problems of the best so far, or fewer of another variant."""
        candidates = {best: list(problems)} if problems else {}
        free = free_settings(self.family, self.shapes)
        for variant in variants:
            candidates.setdefault(variant, self._problems({**variant_settings(variant), **free}))
        best = min(candidates, key=lambda name: (_IMPOSSIBLE in candidates[name][0], len(candidates[name])))
        text = listed(candidates[best], "; ") + (f" ({reason})" if reason else "")
        return CheckpointError(f"the keys are those of {self.model}, but they do not fit {best or 'together'}: {text}")


class _Flavour(NamedTuple):
    """The settings that the source determines, not the shapes: the evidence for them, and warnings of doubts."""

    settings: dict[str, Any]
    reason: str
    warnings: tuple[str, ...] = ()

    def overruled(self, given: Mapping[str, Any]) -> _Flavour:
        """Return it with the `given` settings as reason, and without warnings, where any of its settings is given."""
        overruled = [f"{name}={given[name]!r}" for name in self.settings if name in given]
        return _Flavour(self.settings, f"{', '.join(overruled)} as given") if overruled else self


def _flavour(source: str, family: str, variant: str | None, hint: str) -> _Flavour:
    architectures = [a for a in SOURCES[source].architectures.values() if a.variant.startswith(f"{family}-")]
    if (source, family) == ("timm", "efficientnet"):
        return _timm_efficientnet(variant, hint)
    settings = next((a.settings for a in architectures if a.variant == variant), architectures[0].settings)
    values = ", ".join(f"{name}={value!r}" for name, value in settings.items())
    flavour = _Flavour(settings, f"{values}, as there")
    if (source, family) == ("original", "swiftformer"):
        warning = (
            "the authors published two kinds of SwiftFormers with the same names and shapes; these are taken for "
            "those since July 2023 (attention_norm='l2'); older ones need attention_norm='ones'"
        )
        return flavour._replace(warnings=(warning,))
    return flavour


def _timm_efficientnet(variant: str | None, hint: str) -> _Flavour:
    """Decide between `efficientnet_*` and `tf_efficientnet_*` by a name; the former has weights up to B5 only."""
    named = [match for match in NAMED.finditer(hint.lower()) if match["family"] == "efficientnet"]
    converted = {bool(match["tf"]) for match in named if match["tf"] or "_" in match[0]}
    settings = {tf: timm.ARCHITECTURES[f"{'tf_' * tf}efficientnet_b0"].settings for tf in (False, True)}
    if len(converted) == 1:
        tf = converted.pop()
        text = next(match[0] for match in named if bool(match["tf"]) == tf)
        return _Flavour(settings[tf], f"that it pads as {'tf_' * tf}efficientnet_* rests on the name {text!r}")
    tf = variant in ("efficientnet-b6", "efficientnet-b7", "efficientnet-b8")  # published only as tf_
    taken, other = "tf_" * tf + "efficientnet_*", "tf_" * (not tf) + "efficientnet_*"
    return _Flavour(
        settings[tf],
        f"that it pads as {taken} is a guess",
        (
            f"timm's efficientnet_* and tf_efficientnet_* have the same names and shapes but pad differently: these "
            f"are taken for {taken}; for {other} give the model's name there as the variant",
        ),
    )


def _check_hint(hint: str, family: str, variant: str | None) -> None:
    """Refuse a hint that names only other models. Raises CheckpointError."""
    named = {f"{match['family']}-{match['size']}" for match in NAMED.finditer(hint.lower())} & set(registry.VARIANTS)
    agree = variant in named if variant else any(name.startswith(f"{family}-") for name in named)
    if named and not agree:
        raise CheckpointError(
            f"{hint!r} names {', '.join(sorted(named))}, but keys and shapes are of {variant or TITLES[family]}: "
            f"give the variant to say which is right"
        )


def _known_variant(variant: str | None) -> tuple[str | None, dict[str, Any]]:
    """Return the published network of a name, and the settings that come with the name. Raises CheckpointError."""
    found = registry.find_variant(variant) if variant else (None, {})
    if found is None:
        raise CheckpointError(f"variant must be a name that list_models(aliases=True) has, got {variant!r}")
    return found


def _without_wrappers(arrays: Mapping[str, Any]) -> dict[str, str]:
    """Return, by key, the key without the prefixes that training tools add to all of them."""
    plain = {key: key for key in arrays}
    while wrapper := next((w for w in WRAPPERS if all(text.startswith(w) for text in plain.values())), None):
        plain = {key: text.removeprefix(wrapper) for key, text in plain.items()}
    prefix = "backbone."  # mmpretrain's own keys have it, too
    if all(text.startswith(prefix) for text in plain.values()) and not _marked(plain.values(), None):
        plain = {key: text.removeprefix(prefix) for key, text in plain.items()}
    return plain


def _marked(keys: Iterable[str], source: str | None) -> dict[tuple[str, str], str]:
    """Return the sources (all, or the given one) and families that keys belong to, each with the first key of it."""
    found = {}
    for name, known in SOURCES.items():
        for family, mark in known.marks.items():
            pattern = re.compile(mark)
            key = next((key for key in keys if pattern.match(key)), None)
            if key is not None and source in (None, name):
                found[name, family] = key
    return found


def _scheme(keys: list[str], source: str | None) -> tuple[str, str]:
    """Return the source and the family of the keys. Raises CheckpointError where there is none, or several."""
    if source is not None and source not in SOURCES:
        raise CheckpointError(f"source must be one of {', '.join(SOURCES)}, got {source!r}")
    found = _marked(keys, source)
    if not found:
        raise CheckpointError(f"none of the keys is known: looked for {_looked_for(source)}, found {listed(keys)}")
    if len(found) > 1:
        both = " and ".join(f"{_model(*scheme)} ({key})" for scheme, key in found.items())
        raise CheckpointError(f"the keys are those of several models: {both}")
    return next(iter(found))


def _names(plain: Mapping[str, str], source: str, family: str) -> tuple[dict[str, str], dict[str, str]]:
    """Return the names of the keys here, and the omitted keys with reasons.

    Raises CheckpointError for unknown keys.
    """
    known = SOURCES[source]
    dropped = {
        key: reason
        for pattern, reason in known.left_out.items()
        for key, text in plain.items()
        if re.match(pattern, text)
    }
    for pattern, reason in known.refused.items():
        refused = [key for key, text in plain.items() if re.match(pattern, text)]
        if refused:
            raise CheckpointError(
                f"the keys are those of {_model(source, family)}, but no classifier's: {listed(refused)} are {reason}"
            )
    try:
        names = known.rename([text for key, text in plain.items() if key not in dropped], family)
    except NamesError as error:
        raise CheckpointError(
            f"most keys are those of {_model(source, family)}, but these are not: {listed(error.keys)}"
        ) from None
    return {key: names[text] for key, text in plain.items() if key not in dropped}, dropped


def _model(source: str, family: str) -> str:
    return f"{TITLES[family]} in {PLACES.get(source, source)}"


def _looked_for(source: str | None) -> str:
    chosen = {name: known for name, known in SOURCES.items() if source in (None, name)}
    return ", ".join(_model(name, family) for name, known in chosen.items() for family in known.marks)
