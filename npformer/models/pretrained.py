"""The common part of every model: random or stored weights, saving, and the loss."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np

from .. import ops
from ..assets import model_directory
from ..checkpoint import read_checkpoint, write_checkpoint, write_text
from ..checkpoint.safetensors_file import INDEX_NAME, WEIGHTS_NAME
from ..fast.threads import num_threads_for, run, sharing
from ..nn import Conv2d, Identity, Linear, Module, is_watched
from ..ops import Array
from ..picture import warn
from .config import CONFIG_NAME, PretrainedConfig, is_whole, read_config, require, to_json
from .outputs import Arrays, ModelOutput, concatenate, none_of
from .timm_config import is_timm_config

BRIGHTEST = 32.0  # beyond any normalised picture
_SEEN: ContextVar[bool] = ContextVar("npformer_seen", default=False)  # inside a call that has checked the pictures


class PreTrainedModel(Module):
    """Base class of all models: a config, and weights that are random until loaded.

    `base_model_prefix` is the attribute under which models with a head keep the base model. `heads_left_out` names
    heads that a checkpoint may hold and this class does not use; loading then warns.
    """

    config_class: ClassVar[type[PretrainedConfig]]
    base_model_prefix: ClassVar[str]
    heads_left_out: ClassVar[tuple[str, ...]] = ()
    config: Any
    source: Path | None = None  # the directory it was loaded from
    pictures_at_once: int | None = None  # on one thread; set by `fuse`, so that memory does not grow with the batch
    pixels_for_threads: float = 0.0  # of a picture, from which threads pay; set by `fuse`

    def __call__(self, pixel_values: Array | None = None, *inputs: Any, **options: Any) -> Any:
        """Run `forward`; a fused model distributes its work over threads: the pictures of a batch, or parts of one."""
        if not self.is_fused:
            return super().__call__(pixel_values, *inputs, **options)
        pixel_values = self.check_pixel_values(pixel_values)
        with _seen():
            return self._call_fused(pixel_values, *inputs, **options)

    def _call_fused(self, pixel_values: Array, *inputs: Any, **options: Any) -> Any:
        call = super().__call__
        if self.pictures_at_once is not None and not len(pixel_values):  # nothing to distribute
            return none_of(call(np.zeros((1, *pixel_values.shape[1:]), self.dtype), *inputs, **options))
        threads = num_threads_for(math.prod(pixel_values.shape[2:]) >= self.base_model.pixels_for_threads)
        if self.pictures_at_once is None or is_watched() or len(pixel_values) == 1:
            with sharing(threads):  # the blocks of one picture are split into pieces
                return call(pixel_values, *inputs, **options)
        step = min(self.pictures_at_once, -(-len(pixel_values) // threads))
        starts = range(0, len(pixel_values), step)
        results: list[Any] = [None] * len(starts)

        def part(number: int, some: Array) -> None:
            with _seen():  # context variables are per thread
                results[number] = call(some, *inputs, **options)

        with sharing(threads):
            run([partial(part, number, pixel_values[start : start + step]) for number, start in enumerate(starts)])
        return concatenate(results)

    def __init__(self, config: PretrainedConfig) -> None:
        if not isinstance(config, self.config_class):
            raise TypeError(f"config must be {self.config_class.__name__}, got {type(config).__name__}")
        config.validate()
        self.config = config

    @property
    def base_model(self) -> PreTrainedModel:
        """The model without its heads: itself, where it has none."""
        model: PreTrainedModel = getattr(self, self.base_model_prefix, self)
        return model

    @property
    def is_fused(self) -> bool:
        """True if `npformer.fuse` made this model: fast, and without the layers that were folded."""
        return self.base_model.pictures_at_once is not None

    def refuse_fused(self, doing: str) -> None:
        """Raise ValueError on a fused model, for an operation that needs every layer."""
        if self.is_fused:
            raise ValueError(f"{doing} needs every layer, and model is fused; give the model it was fused from")

    def init_weights(self, seed: int | None = None) -> None:
        """Draw convolution and linear weights from a normal distribution of deviation `config.initializer_range`.

        Everything else is initialised as in PyTorch: biases 0, norms 1 and 0. The same seed gives the same weights.
        """
        generator = np.random.default_rng(seed)
        for _, module in self.named_modules():
            self.init_module(module, generator)

    def init_module(self, module: Module, generator: np.random.Generator) -> None:
        """Draw the random weights of one module, if it has any."""
        if isinstance(module, Conv2d | Linear):
            module.weight = generator.standard_normal(module.weight.shape, np.float32)
            module.weight *= np.float32(getattr(self.config, "initializer_range", 0.02))

    def extract_feat(self, pixel_values: Array) -> Arrays:
        """Return feature maps at strides 4, 8, 16 and 32: those of the base model, whose docstring has the shapes."""
        return getattr(self, self.base_model_prefix).extract_feat(pixel_values)

    def as_asked(self, output: ModelOutput, return_dict: bool | None) -> Any:
        """Return the output itself or, if `return_dict` (or, if None, the config) is false, its values as a tuple."""
        return output if chosen(return_dict, self.config.return_dict) else output.to_tuple()

    @classmethod
    def from_pretrained(
        cls, name_or_path: str | Path, *, dtype: Any = np.float32, revision: str | None = None, **overrides: Any
    ) -> Self:
        """Load a model: `config.json` and the weights of a directory, a shipped model, or a repository on the hub.

        Weights are `model.safetensors`, `pytorch_model.bin` (read without executing its code), either single or in
        shards, or `tf_model.h5`; directories of timm's are supported, too. Weights of the requested dtype stay mapped
        in the file; others are converted. `overrides` change the config. A checkpoint with a head loads into the base
        model too; a head that this class does not use is ignored with a warning. `revision` is a branch, tag or commit
        on the hub.

        Raises FileNotFoundError; ValueError for a damaged file or weights that do not fit (all of them listed); or
        TypeError for an override that is no setting of the config.
        """
        directory = model_directory(name_or_path, revision)
        settings = read_config(directory)
        if is_timm_config(settings):
            from ..convert.pipeline import load_checkpoint  # which imports this module

            foreign = load_checkpoint(directory, overrides=overrides).model
            if not isinstance(foreign.config, cls.config_class):
                raise ValueError(f"{directory} holds a {type(foreign).__name__}, which {cls.__name__} cannot load")
            twin = cls(foreign.config, init_weights=False)  # type: ignore[call-arg]
            twin = twin.astype(dtype) if np.dtype(dtype) != np.float32 else twin
            twin.source = directory
            return twin.load_state_dict(twin._select(foreign.state_dict()))
        cls.config_class.check_overrides(overrides, known=settings)
        config = cls.config_class.from_dict(settings, **overrides)
        model = cls(config, init_weights=False)  # type: ignore[call-arg]
        if np.dtype(dtype) != np.float32:
            model = model.astype(dtype)
        model.source = directory
        try:
            return model.load_state_dict(model._select(_read_state(directory)))
        except ValueError as error:
            raise ValueError(f"{directory}: {error}") from None

    def _select(self, state: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Select the part of a checkpoint that belongs to this class."""
        prefix = f"{self.base_model_prefix}."
        is_bare = not hasattr(self, self.base_model_prefix)
        if is_bare and any(name.startswith(prefix) for name in state):
            return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
        if not is_bare and not any(name.startswith(prefix) for name in state):  # saved from the bare model
            state = {prefix + name: value for name, value in state.items()}
        unused = [name for name in state if name.startswith(self.heads_left_out)] if self.heads_left_out else []
        if unused:
            warnings.warn(
                f"{type(self).__name__} does not use {', '.join(unused)} of this checkpoint, so its logits differ "
                f"from those of {type(self).__name__}WithTeacher, which averages both heads",
                stacklevel=3,
            )
        return {name: value for name, value in state.items() if name not in unused}

    def save_pretrained(self, directory: str | Path, max_shard_size: int = 5 * 10**9) -> None:
        """Write `config.json` and `model.safetensors`, which `from_pretrained` and transformers read.

        Weights of more than `max_shard_size` bytes are split into several files with an index.

        Raises OSError where they cannot be written, ValueError, or TypeError for a config that JSON cannot hold.
        """
        self.refuse_fused("saving")
        directory = Path(directory)
        require(is_whole(max_shard_size, 1), "max_shard_size", max_shard_size, "a whole number of bytes")
        settings = {**self.config.to_dict(), "architectures": [type(self).__name__], "torch_dtype": str(self.dtype)}
        settings.pop("dtype", None)  # newer transformers' name of torch_dtype, from the file of this model
        text = to_json(settings)  # may raise, before anything is written
        directory.mkdir(parents=True, exist_ok=True)
        write_checkpoint(directory, self.state_dict(), max_shard_size)
        write_text(directory / CONFIG_NAME, text)

    def check_pixel_values(self, pixel_values: Array | None) -> Array:
        """Refuse an input that is no batch of pictures; convert it to the dtype of the weights."""
        if pixel_values is None:
            raise ValueError("pixel_values must be given: an array (B, C, H, W), as an image processor returns it")
        if not isinstance(pixel_values, np.ndarray):
            raise TypeError(
                'pixel_values must be a NumPy array, as an image processor returns it with return_tensors="np", '
                f"got {type(pixel_values).__name__}"
            )
        if not np.issubdtype(pixel_values.dtype, np.floating):
            raise TypeError(
                f"pixel_values must hold floats, as an image processor returns them, got dtype {pixel_values.dtype}"
            )
        channels = self.config.num_channels
        if pixel_values.ndim != 4 or pixel_values.shape[1] != channels:
            raise ValueError(
                f"pixel_values must have shape (B, {channels}, H, W), {channels} being config.num_channels, "
                f"got {pixel_values.shape}"
            )
        _warn_of_wrong_preprocessing(pixel_values)
        return pixel_values.astype(self.dtype, copy=False)

    def loss(self, logits: Array, labels: Any) -> Array:
        """Return the loss of `logits` (B, K) for `labels`, the mean of one of three losses.

        `config.problem_type`, or where it is None the labels, decide: "regression" (K = 1, or requested) is the
        squared distance; "single_label_classification" (integers) the cross-entropy; and "multi_label_classification"
        (floats shaped like logits) a binary cross-entropy per class.

        Raises ValueError, TypeError or IndexError as the losses do.
        """
        try:
            return self._loss(logits, np.asarray(labels))
        except (ValueError, TypeError, IndexError) as error:  # which names the labels as the loss does, target
            raise type(error)(f"labels do not fit: {error}") from None

    def _loss(self, logits: Array, labels: np.ndarray) -> Array:
        problem = self.config.problem_type
        if problem is None:  # decided for every call; transformers stores its first decision in the config
            classes = np.issubdtype(labels.dtype, np.integer) and self.config.num_labels > 1
            kind = "single_label_classification" if classes else "multi_label_classification"
            problem = "regression" if self.config.num_labels == 1 else kind
        if problem == "single_label_classification":
            return ops.cross_entropy(logits.reshape(-1, self.config.num_labels), labels.reshape(-1))
        labels = labels.astype(logits.dtype)
        if problem == "multi_label_classification":
            return ops.binary_cross_entropy_with_logits(logits, labels)
        if self.config.num_labels == 1:
            return ops.mse_loss(logits.reshape(-1), labels.reshape(-1))
        return ops.mse_loss(logits, labels)


def _warn_of_wrong_preprocessing(pixel_values: Array) -> None:
    """Warn about pictures that were not rescaled, or not normalised, judged by the range of their values.

    Normalised values have both signs, and even EfficientNet's, divided by the standard deviation twice, stay within 12
    (within 30 where `rescale_offset` maps them to -1..1 before). Those of a bright picture may all be positive, but
    they rarely range from near 0 to below 1, as those of a picture that was only rescaled do.
    """
    if _SEEN.get() or not pixel_values.size:
        return
    low, high = float(pixel_values.min()), float(pixel_values.max())
    if high > BRIGHTEST or low < -BRIGHTEST:
        symptom = f"reach from {low:.3g} to {high:.3g}, as if they were neither rescaled to 0..1 nor normalised"
    elif 0 <= low < 0.1 and 0.5 < high <= 1:
        symptom = f"lie between 0 and 1 (mean {float(pixel_values.mean()):.2f}), as if they were not normalised"
    else:
        return
    warn(f"pixel_values {symptom}; if that is not meant, let the model's image processor prepare the pictures")


@contextmanager
def _seen() -> Iterator[None]:
    """Suppress checks of the pictures: a model calls its base model, on several threads, with parts of a batch."""
    token = _SEEN.set(True)
    try:
        yield
    finally:
        _SEEN.reset(token)


def _read_state(directory: Path) -> dict[str, np.ndarray]:
    """Return the weights of a directory by their names here."""
    if any((directory / name).is_file() for name in (WEIGHTS_NAME, INDEX_NAME)):
        return read_checkpoint(directory)
    from ..convert.pipeline import read_state  # which imports this module

    return read_state(directory)


def chosen(argument: bool | None, default: bool) -> bool:
    """Return an argument of a call, or the config's value where it is None."""
    return default if argument is None else argument


def classifier_head(config: PretrainedConfig, width: int) -> Linear | Identity:
    """Return a linear classifier (B, D) -> (B, K), or nothing where the config has no labels (as in transformers)."""
    return Linear(width, config.num_labels) if config.num_labels else Identity()


@contextmanager
def naming_the_picture(height: int, width: int) -> Iterator[None]:
    """Raise "pixel_values of HxW are too small" where an inner layer's map is too small."""
    try:
        yield
    except ValueError as error:  # which is about x, an inner map
        raise ValueError(f"pixel_values of {height}x{width} are too small for this model: {error}") from None


def downsampling(channels: Sequence[int], asked: Sequence[bool]) -> list[bool]:
    """Return whether a downsampling follows each stage but the last: if configured, and wherever channels change."""
    return [bool(asked[i]) or channels[i] != channels[i + 1] for i in range(len(channels) - 1)]


def stage_positions(channels: Sequence[int], asked: Sequence[bool]) -> list[int]:
    """Return the indices of the stages' outputs among the hidden states: the embeddings, then stage, downsampling, ...

    The arguments are those of `downsampling`.
    """
    positions = [1]
    for follows in downsampling(channels, asked):
        positions.append(positions[-1] + 1 + follows)
    return positions
