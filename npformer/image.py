"""The image processors, from pictures to `pixel_values`; their four steps are in `npformer.picture`.

    picture --resize--> --center_crop--> --rescale--> --normalize--> pixel_values (B, C, H, W)

    pixel = (x · rescale_factor - image_mean[c]) / image_std[c]

Letters: B batch, C channels, H height, W width.

The processors return bit for bit what the (slow) processors of transformers 4.56.2 return, and refuse what those
refuse. The deliberate differences are cases in which the original would return nonsense or contradict its own page:

- a 4-D array is a batch for every processor (the original EfficientFormer processor reads it as one picture);
- `data_format=None` keeps the layout of the input, as the page promises (the original raises);
- numbers from NumPy count as numbers (the original refuses `size=np.int64(224)`);
- a grey (H, W) picture with `input_data_format="channels_last"` is (H, W, 1) (the original manages that only if it
  resizes, and not in all cases); without it grey is refused, as in the original;
- other pictures without exactly three axes, empty ones and complex ones are always refused, and so are
  `return_tensors="np"` for pictures of different shapes and settings of the wrong type, size 0 included.
"""

from __future__ import annotations

import copy
import inspect
import json
import os
from collections import UserDict
from collections.abc import Callable, Mapping, Sequence
from numbers import Integral, Real
from pathlib import Path
from typing import Any, ClassVar, Self, TypeAlias

import numpy as np

from .checkpoint import read_json, write_text
from .picture import (
    BICUBIC,
    BILINEAR,
    LAYOUTS,
    NEAREST,
    Array,
    ImageInput,
    Numbers,
    as_arrays,
    center_crop,
    describe,
    infer_data_format,
    load_image,
    normalize,
    require_filter,
    rescale,
    resize,
    shortest_edge_size,
    warn,
)

__all__ = [
    "BaseImageProcessor",
    "BatchFeature",
    "EfficientFormerImageProcessor",
    "EfficientNetImageProcessor",
    "ViTImageProcessor",
    "load_image",
]

Size: TypeAlias = "int | Sequence[int] | Mapping[str, int]"

CONFIG_NAME = "preprocessor_config.json"
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
HALVES = (0.5, 0.5, 0.5)
SIZE_KEYS: tuple[set[str], ...] = (
    {"height", "width"},
    {"shortest_edge"},
    {"shortest_edge", "longest_edge"},
    {"longest_edge"},
    {"max_height", "max_width"},
)


# --- checking settings -----------------------------------------------------------------------------------------------


def _flag(name: str, value: Any) -> bool:
    if isinstance(value, (bool, np.bool_)) or (isinstance(value, Integral) and value in (0, 1)):
        return bool(value)
    raise TypeError(f"{name} is {describe(value)}, but true or false is needed")


def _number(name: str, value: Any) -> float:
    if not isinstance(value, Real):
        raise TypeError(f"{name} is {describe(value)}, but a number is needed")
    try:
        return float(value)
    except OverflowError:
        raise ValueError(f"{name} is {describe(value)}, which is too large for a float") from None


def _numbers(name: str, value: Any) -> float | list[float]:
    if isinstance(value, np.ndarray):
        value = value.tolist()
    if isinstance(value, (list, tuple)) and all(isinstance(entry, Real) for entry in value):
        return [_number(name, entry) for entry in value]
    if isinstance(value, Real):
        return _number(name, value)
    raise TypeError(f"{name} is {describe(value)}, but a number or a list with one number per channel is needed")


def _filter(name: str, value: Any) -> int:
    if not isinstance(value, Integral):
        raise TypeError(f"{name} is {describe(value)}, but the number of a Pillow filter is needed, as 3 for bicubic")
    return int(value)


def _size(name: str, value: Any) -> dict[str, int]:
    """Convert 224, (height, width) or a dict to a dict; a single number means a square, not the shortest edge."""
    if isinstance(value, Integral):
        value = {"height": value, "width": value}
    elif isinstance(value, (list, tuple)) and len(value) == 2:
        value = {"height": value[0], "width": value[1]}
    if not isinstance(value, Mapping):
        raise TypeError(
            f"{name} is {describe(value)}, but a number, a (height, width) pair, or a dict such as "
            '{"height": 224, "width": 224} is needed'
        )
    if set(value) not in SIZE_KEYS:
        known = " or ".join(" + ".join(sorted(keys)) for keys in SIZE_KEYS)
        raise ValueError(f"{name} has the keys {sorted(map(str, value))}, but needs {known}")
    for key, length in value.items():
        if not isinstance(length, Integral) or isinstance(length, bool):
            raise TypeError(f"{name}[{key!r}] is {describe(length)}, but a whole number of pixels is needed")
        if length < 1:
            raise ValueError(f"{name}[{key!r}] is {length}, but at least 1 pixel is needed")
    return {key: int(length) for key, length in value.items()}


_CHECKS: dict[str, Callable[[str, Any], Any]] = {
    "size": _size,
    "crop_size": _size,
    "resample": _filter,
    "rescale_factor": _number,
    "image_mean": _numbers,
    "image_std": _numbers,
}
_NEEDED = {
    "do_resize": ("size", "resample"),
    "do_center_crop": ("crop_size",),
    "do_rescale": ("rescale_factor",),
    "do_normalize": ("image_mean", "image_std"),
    "include_top": ("image_std",),
}


def _check(name: str, value: Any) -> Any:
    """Return the setting in its plain form; None means unset and passes. Names not in the table are flags."""
    check: Callable[[str, Any], Any] = _CHECKS.get(name, _flag)
    return None if value is None else check(name, value)


def _check_layout(name: str, value: Any) -> None:
    if value is not None and value not in LAYOUTS:
        raise ValueError(f'{name} is {value!r}, but "channels_first", "channels_last" or None is needed')


def _check_tensor_type(value: Any) -> None:
    if value is not None and value != "np":
        raise ValueError(f'return_tensors is {value!r}, but npformer computes in NumPy: use "np", or None for a list')


# --- output ----------------------------------------------------------------------------------------------------------


class BatchFeature(UserDict[str, Any]):
    """A dict whose entries are attributes too: `inputs["pixel_values"]`, `inputs.pixel_values`, `model(**inputs)`.

    With `tensor_type="np"` every entry becomes one array: a list of B arrays (C, H, W) -> (B, C, H, W).
    Raises ValueError if their shapes differ, or for another tensor type.
    """

    def __init__(self, data: Mapping[str, Any] | None = None, tensor_type: str | None = None) -> None:
        """Hold `data`, turned into arrays if `tensor_type` is "np"."""
        _check_tensor_type(tensor_type)
        super().__init__(data or {})
        if tensor_type is not None:
            self.data = {name: self._stack(name, value) for name, value in self.data.items()}

    def __getattr__(self, name: str) -> Any:
        """Look an entry up by attribute."""
        if name != "data" and name in self.data:  # `data` itself is missing during unpickling
            return self.data[name]
        raise AttributeError(f"no entry {name!r}: there is {list(self.__dict__.get('data', ()))}")

    @staticmethod
    def _stack(name: str, value: Any) -> Array:
        shapes = list(dict.fromkeys(np.shape(entry) for entry in value)) if isinstance(value, (list, tuple)) else []
        if len(shapes) > 1:
            raise ValueError(
                f'return_tensors="np" puts all of {name} into one array, but their shapes differ ({shapes[0]} and '
                f"{shapes[1]}): resize or crop them to one size, or leave return_tensors out to get a list"
            )
        return np.array(value)


# --- the processors --------------------------------------------------------------------------------------------------


class BaseImageProcessor:
    """Base class of the image processors: settings, their JSON file, and the order of the steps.

    A subclass writes out its arguments in `__init__` and `preprocess`, and overrides `_resize_keys`, `_rescale` or
    `_transform` where its model needs something else.
    """

    model_input_names: ClassVar[list[str]] = ["pixel_values"]
    _resize_keys: ClassVar[tuple[str, ...]] = ("height",)  # a `size` dict must have one of these to resize with

    do_resize: bool | None
    size: dict[str, int]
    resample: int | None
    do_rescale: bool | None
    rescale_factor: float | None
    do_normalize: bool | None
    image_mean: float | list[float]
    image_std: float | list[float]

    def __init__(self, settings: Mapping[str, Any], extra: Mapping[str, Any]) -> None:
        """Check and keep `settings` as attributes, and `extra`, the unknown keys of a file, unchecked beside them."""
        for name, value in settings.items():
            setattr(self, name, _check(name, value))
        self._processor_class = extra.get("processor_class")
        for name, value in extra.items():
            if name.startswith("__") or callable(getattr(type(self), name, None)):
                raise ValueError(f"{name!r} cannot be a setting of {type(self).__name__}: the name is taken")
            if name not in ("processor_class", "feature_extractor_type", "_valid_processor_keys"):
                setattr(self, name, value)

    def __call__(self, images: ImageInput, **kwargs: Any) -> BatchFeature:
        """Prepare pictures, as `preprocess` does."""
        return self.preprocess(images, **kwargs)

    def __repr__(self) -> str:
        """Return the settings as JSON."""
        return f"{type(self).__name__} {self.to_json_string()}"

    def preprocess(self, images: ImageInput, **kwargs: Any) -> BatchFeature:
        """Turn pictures into `pixel_values`; see the subclasses."""
        raise NotImplementedError(f"{type(self).__name__} has no preprocess method")

    def _run(
        self,
        images: Any,
        given: Mapping[str, Any],
        unknown: Mapping[str, Any],
        return_tensors: str | None,
        data_format: str | None,
        input_data_format: str | None,
    ) -> BatchFeature:
        """Resolve the settings of one call and pass every picture through `_transform`."""
        settings = self._resolve(given, unknown)
        _check_tensor_type(return_tensors)
        _check_layout("data_format", data_format)
        _check_layout("input_data_format", input_data_format)
        arrays = as_arrays(images, settings.get("do_convert_rgb"), input_data_format == LAYOUTS[1])
        if settings["do_rescale"] and arrays[0].dtype != np.uint8 and arrays[0].min() >= 0 and arrays[0].max() <= 1:
            warn(
                "the values of images are already between 0 and 1 and will be multiplied by rescale_factor again: set "
                "do_rescale=False if that is not meant"
            )
        # one layout for all, inferred from the first picture
        layout = input_data_format or infer_data_format(arrays[0], "images")
        outputs = []
        for index, array in enumerate(arrays):
            try:
                out = self._transform(np.moveaxis(array, -1, 0) if layout == LAYOUTS[1] else array, settings)
            except ValueError as error:
                label = f"images[{index}]" if len(arrays) > 1 else "images"
                raise ValueError(f"{label}: {error}") from None
            outputs.append(np.moveaxis(out, 0, -1) if (data_format or layout) == LAYOUTS[1] else out)
        return BatchFeature({"pixel_values": outputs}, return_tensors)

    def _resolve(self, given: Mapping[str, Any], unknown: Mapping[str, Any]) -> dict[str, Any]:
        """Fill the arguments left out of a call from the attributes, and check that every step has what it needs."""
        if unknown:
            warn(f"{type(self).__name__} does not know {', '.join(unknown)}: ignored")
        settings = {
            name: _check(name, getattr(self, name) if value is None else value) for name, value in given.items()
        }
        for flag, names in _NEEDED.items():
            for name in names if settings.get(flag) else ():
                if settings[name] is None:
                    raise ValueError(f"{name} is None, but {flag}=True needs it: give {name}, or set {flag}=False")
        if settings["do_resize"]:
            require_filter(settings["resample"])
            self._require_keys("size", settings["size"], self._resize_keys)
        if settings.get("do_center_crop"):
            self._require_keys("crop_size", settings["crop_size"], ("height",))
        return settings

    def _require_keys(self, name: str, size: Mapping[str, int], keys: tuple[str, ...]) -> None:
        if not any(key in size for key in keys):
            wanted = " or ".join("height and width" if key == "height" else key for key in keys)
            raise ValueError(f"{name} has the keys {sorted(size)}, but {type(self).__name__} needs {wanted}")

    def _transform(self, image: Array, settings: Mapping[str, Any]) -> Array:
        """Apply the enabled steps to one picture: (C, H, W) -> (C, H', W')."""
        if settings["do_resize"]:
            size = settings["size"]
            edge = size.get("shortest_edge")
            height, width = image.shape[1:]
            target = shortest_edge_size(height, width, edge) if edge else (size["height"], size["width"])
            image = resize(image, target, settings["resample"])
        if settings.get("do_center_crop"):
            image = center_crop(image, (settings["crop_size"]["height"], settings["crop_size"]["width"]))
        if settings["do_rescale"]:
            image = self._rescale(image, settings)
        if settings["do_normalize"]:
            image = normalize(image, settings["image_mean"], settings["image_std"])
        return image

    def _rescale(self, image: Array, settings: Mapping[str, Any]) -> Array:
        return rescale(image, settings["rescale_factor"])

    @classmethod
    def from_dict(cls, config: Mapping[str, Any], **overrides: Any) -> Self:
        """Build a processor from the contents of a `preprocessor_config.json`, some of its keys replaced.

        Keys that the class does not know are kept as attributes; overrides that neither the class nor `config` knows
        are ignored with a warning.
        """
        if not isinstance(config, Mapping):
            raise TypeError(f"config is {describe(config)}, but a dict of settings is needed")
        known = set(inspect.signature(cls).parameters) | set(config)
        unknown = [name for name in overrides if name not in known]
        if unknown:
            warn(f"{cls.__name__} does not know {', '.join(unknown)}: ignored")
        merged = {**config, **{name: value for name, value in overrides.items() if name in known}}
        return cls(**copy.deepcopy(merged))

    @classmethod
    def from_pretrained(cls, path: str | os.PathLike[str], **overrides: Any) -> Self:
        """Read `preprocessor_config.json` from a directory, or a file of any name.

        Old files load too: `"size": 224` means a 224 x 224 square, and what is missing takes the class's default.
        Raises FileNotFoundError (or another OSError) if there is none, ValueError if it is no JSON object,
        ValueError or TypeError if a setting is wrong.
        """
        file = Path(path)
        file = file / CONFIG_NAME if file.is_dir() else file
        try:
            config = read_json(file)
        except OSError as error:
            hint = f"{error.strerror}; expected a directory that holds {CONFIG_NAME}, or that file"
            raise type(error)(error.errno, hint, str(file)) from None
        config = config.get("image_processor", config)  # processor_config.json nests them
        try:
            return cls.from_dict(config, **overrides)
        except (TypeError, ValueError) as error:
            kind = TypeError if isinstance(error, TypeError) else ValueError
            raise kind(f"{file}: {error}") from None

    def save_pretrained(self, directory: str | os.PathLike[str]) -> list[str]:
        """Write `preprocessor_config.json` into `directory` (made if missing) and return its path in a list.

        The file appears whole or not at all: it is written under another name first, then renamed.
        """
        text = self.to_json_string()
        folder = Path(directory)
        if folder.exists() and not folder.is_dir():
            raise NotADirectoryError(f"{folder}: is a file, but save_pretrained needs a directory")
        write_text(folder / CONFIG_NAME, text)
        return [str(folder / CONFIG_NAME)]

    def to_dict(self) -> dict[str, Any]:
        """Return the settings, unknown keys included, and `image_processor_type`, which tells which class to use."""
        settings = copy.deepcopy(vars(self))
        processor_class = settings.pop("_processor_class", None)
        named = {"processor_class": processor_class} if processor_class is not None else {}
        return {**settings, **named, "image_processor_type": type(self).__name__}

    def to_json_string(self) -> str:
        """Return the settings as the text of a `preprocessor_config.json`, keys sorted."""

        def plain(value: Any) -> Any:
            if isinstance(value, (np.ndarray, np.generic)):
                return value.tolist()
            raise TypeError(f"{describe(value)} cannot be written as JSON: remove it from the settings")

        return json.dumps(self.to_dict(), indent=2, sort_keys=True, default=plain) + "\n"


class EfficientFormerImageProcessor(BaseImageProcessor):
    """Image processor of EfficientFormer: resize, centre crop, rescale, normalise.

    Arguments (each can be replaced in a call):

    - `do_resize`, `size` (224 x 224), `resample` (3, bicubic). `{"height": h, "width": w}`, a number or a pair
      resizes the whole picture to that shape; `{"shortest_edge": n}` keeps the aspect ratio and leaves
      the rest to the crop. The published L3 and L7 use shortest edge 256, then the crop.
    - `do_center_crop`, `crop_size` (224 x 224): the middle of the picture, with black around it where it is smaller.
    - `do_rescale`, `rescale_factor` (1/255). Set `do_rescale=False` for pictures already between 0 and 1.
    - `do_normalize`, `image_mean`, `image_std`: one number, or one per channel. The defaults are ImageNet's mean and
      standard deviation, although the page names the 0.5s.

    Page: transformers 4.34, EfficientFormerImageProcessor. Further keyword arguments are kept as attributes.
    """

    _resize_keys = ("height", "shortest_edge")
    do_center_crop: bool | None
    crop_size: dict[str, int]

    def __init__(
        self,
        do_resize: bool | None = True,
        size: Size | None = None,
        resample: int | None = BICUBIC,
        do_center_crop: bool | None = True,
        do_rescale: bool | None = True,
        rescale_factor: float | None = 1 / 255,
        crop_size: Size | None = None,
        do_normalize: bool | None = True,
        image_mean: Numbers | None = None,
        image_std: Numbers | None = None,
        **kwargs: Any,
    ) -> None:
        """Check and store the settings; raises TypeError or ValueError for those of the wrong type or range."""
        settings = {
            "do_resize": do_resize,
            "size": 224 if size is None else size,
            "resample": resample,
            "do_center_crop": do_center_crop,
            "crop_size": 224 if crop_size is None else crop_size,
            "do_rescale": do_rescale,
            "rescale_factor": rescale_factor,
            "do_normalize": do_normalize,
            "image_mean": IMAGENET_MEAN if image_mean is None else image_mean,
            "image_std": IMAGENET_STD if image_std is None else image_std,
        }
        super().__init__(settings, kwargs)

    def preprocess(
        self,
        images: ImageInput,
        do_resize: bool | None = None,
        size: Size | None = None,
        resample: int | None = None,
        do_center_crop: bool | None = None,
        crop_size: Size | None = None,
        do_rescale: bool | None = None,
        rescale_factor: float | None = None,
        do_normalize: bool | None = None,
        image_mean: Numbers | None = None,
        image_std: Numbers | None = None,
        return_tensors: str | None = None,
        data_format: str | None = "channels_first",
        input_data_format: str | None = None,
        **kwargs: Any,
    ) -> BatchFeature:
        """Convert one picture or a batch to `pixel_values`: a list of B arrays (C, H', W'), or one (B, C, H', W').

        `images` is a Pillow picture, an array (H, W, C) or (C, H, W), a list or tuple of those, or a 4-D array (a
        batch); values 0..255, or 0..1 with `do_rescale=False`. `return_tensors` is None (a list) or "np" (one array);
        `data_format` is the layout of the output, None to keep the input's; `input_data_format` is the layout of the
        input, guessed from the first picture if None. Omitted arguments take the constructor's value.
        Raises ValueError or TypeError in one sentence for anything it cannot use, greyscale and palette pictures
        included.
        """
        given = {
            "do_resize": do_resize,
            "size": size,
            "resample": resample,
            "do_center_crop": do_center_crop,
            "crop_size": crop_size,
            "do_rescale": do_rescale,
            "rescale_factor": rescale_factor,
            "do_normalize": do_normalize,
            "image_mean": image_mean,
            "image_std": image_std,
        }
        return self._run(images, given, kwargs, return_tensors, data_format, input_data_format)


class EfficientNetImageProcessor(BaseImageProcessor):
    """Image processor of EfficientNet: resize, crop if asked to, rescale, normalise, divide once more.

        pixel = (x · rescale_factor - rescale_offset - image_mean[c]) / image_std[c] / (image_std[c] if include_top)

    Arguments (each can be replaced in a call):

    - `do_resize`, `size` (346 x 346), `resample` (0, nearest): the whole picture is resized to (height, width),
      regardless of its aspect ratio. The published B0 to B7 have sizes of their own, 224 to 600.
      `{"shortest_edge": n}` is accepted here but refused when a picture is to be resized.
    - `do_center_crop` (False), `crop_size` (289 x 289): the middle of the picture, with black around one that is
      smaller.
    - `do_rescale`, `rescale_factor` (1/255). Set `do_rescale=False` for pictures already between 0 and 1.
    - `rescale_offset` (False): subtract 1 after rescaling. Has no effect with `do_rescale=False`.
    - `do_normalize`, `image_mean`, `image_std` (0.5 each): one number, or one per channel. The published files have
      ImageNet's mean and the square roots of its standard deviations.
    - `include_top` (True): divide by `image_std` a second time, also with `do_normalize=False`. Pixels prepared with
      the 0.5s therefore lie between -2 and 2.

    Page: transformers 4.34, EfficientNetImageProcessor. Further keyword arguments are kept as attributes.
    """

    do_center_crop: bool | None
    crop_size: dict[str, int]
    rescale_offset: bool | None
    include_top: bool | None

    def __init__(
        self,
        do_resize: bool | None = True,
        size: Size | None = None,
        resample: int | None = NEAREST,
        do_center_crop: bool | None = False,
        crop_size: Size | None = None,
        rescale_factor: float | None = 1 / 255,
        rescale_offset: bool | None = False,
        do_rescale: bool | None = True,
        do_normalize: bool | None = True,
        image_mean: Numbers | None = None,
        image_std: Numbers | None = None,
        include_top: bool | None = True,
        **kwargs: Any,
    ) -> None:
        """Check and store the settings; raises TypeError or ValueError for those of the wrong type or range."""
        settings = {
            "do_resize": do_resize,
            "size": 346 if size is None else size,
            "resample": resample,
            "do_center_crop": do_center_crop,
            "crop_size": 289 if crop_size is None else crop_size,
            "do_rescale": do_rescale,
            "rescale_factor": rescale_factor,
            "rescale_offset": rescale_offset,
            "do_normalize": do_normalize,
            "image_mean": HALVES if image_mean is None else image_mean,
            "image_std": HALVES if image_std is None else image_std,
            "include_top": include_top,
        }
        super().__init__(settings, kwargs)

    def preprocess(
        self,
        images: ImageInput,
        do_resize: bool | None = None,
        size: Size | None = None,
        resample: int | None = None,
        do_center_crop: bool | None = None,
        crop_size: Size | None = None,
        do_rescale: bool | None = None,
        rescale_factor: float | None = None,
        rescale_offset: bool | None = None,
        do_normalize: bool | None = None,
        image_mean: Numbers | None = None,
        image_std: Numbers | None = None,
        include_top: bool | None = None,
        return_tensors: str | None = None,
        data_format: str | None = "channels_first",
        input_data_format: str | None = None,
        **kwargs: Any,
    ) -> BatchFeature:
        """Convert one picture or a batch to `pixel_values`: a list of B arrays (C, H', W'), or one (B, C, H', W').

        The arguments are those of `EfficientFormerImageProcessor.preprocess`, `rescale_offset` and `include_top`.
        """
        given = {
            "do_resize": do_resize,
            "size": size,
            "resample": resample,
            "do_center_crop": do_center_crop,
            "crop_size": crop_size,
            "do_rescale": do_rescale,
            "rescale_factor": rescale_factor,
            "rescale_offset": rescale_offset,
            "do_normalize": do_normalize,
            "image_mean": image_mean,
            "image_std": image_std,
            "include_top": include_top,
        }
        return self._run(images, given, kwargs, return_tensors, data_format, input_data_format)

    def _rescale(self, image: Array, settings: Mapping[str, Any]) -> Array:
        scaled = super()._rescale(image, settings)
        # The 1 is subtracted after scaling, whatever the factor: 0..255 becomes -1..1 with rescale_factor=1/127.5, but
        # -1..0 with the default 1/255, although the page promises a range about 0 in general.
        return scaled - 1 if settings["rescale_offset"] else scaled

    def _transform(self, image: Array, settings: Mapping[str, Any]) -> Array:
        image = super()._transform(image, settings)
        if settings["include_top"]:
            # EfficientNet's second division by the standard deviation. The Keras models preprocess their pictures
            # themselves: a normalisation layer divides by the square root of its variance, and the ImageNet
            # weights store the standard deviation as variance, 0.229 for red. So a further layer divides by
            # sqrt(0.229) again, and sqrt(0.229) · sqrt(0.229) = 0.229. Both layers are reproduced here, which is
            # why published files say image_std = 0.4785 = sqrt(0.229). The mean is subtracted already, so it is 0 now.
            image = normalize(image, 0, settings["image_std"])
        return image


class ViTImageProcessor(BaseImageProcessor):
    """Image processor of SwiftFormer (and ViT): convert, resize, rescale, normalise; no crop.

    Arguments (each can be replaced in a call):

    - `do_convert_rgb` (None): let Pillow convert pictures to RGB first; arrays are unchanged. A 16-bit greyscale
      picture turns white above 255 (`load_image` does better).
    - `do_resize`, `size` (224 x 224), `resample` (2, bilinear): the whole picture is resized to (height, width),
      regardless of its aspect ratio. `{"shortest_edge": n}` is accepted here but refused when a picture is to be
      resized.
    - `do_rescale`, `rescale_factor` (1/255). Set `do_rescale=False` for pictures already between 0 and 1.
    - `do_normalize`, `image_mean`, `image_std` (0.5 each, not ImageNet's): one number, or one per channel.

    Page: transformers 4.56, ViTImageProcessor. Further keyword arguments are kept as attributes.
    """

    do_convert_rgb: bool | None

    def __init__(
        self,
        do_resize: bool | None = True,
        size: Size | None = None,
        resample: int | None = BILINEAR,
        do_rescale: bool | None = True,
        rescale_factor: float | None = 1 / 255,
        do_normalize: bool | None = True,
        image_mean: Numbers | None = None,
        image_std: Numbers | None = None,
        do_convert_rgb: bool | None = None,
        **kwargs: Any,
    ) -> None:
        """Check and store the settings; raises TypeError or ValueError for those of the wrong type or range."""
        settings = {
            "do_resize": do_resize,
            "size": 224 if size is None else size,
            "resample": resample,
            "do_rescale": do_rescale,
            "rescale_factor": rescale_factor,
            "do_normalize": do_normalize,
            "image_mean": HALVES if image_mean is None else image_mean,
            "image_std": HALVES if image_std is None else image_std,
            "do_convert_rgb": do_convert_rgb,
        }
        super().__init__(settings, kwargs)

    def preprocess(
        self,
        images: ImageInput,
        do_resize: bool | None = None,
        size: Size | None = None,
        resample: int | None = None,
        do_rescale: bool | None = None,
        rescale_factor: float | None = None,
        do_normalize: bool | None = None,
        image_mean: Numbers | None = None,
        image_std: Numbers | None = None,
        return_tensors: str | None = None,
        data_format: str | None = "channels_first",
        input_data_format: str | None = None,
        do_convert_rgb: bool | None = None,
        **kwargs: Any,
    ) -> BatchFeature:
        """Convert one picture or a batch to `pixel_values`: a list of B arrays (C, H', W'), or one (B, C, H', W').

        The arguments are those of `EfficientFormerImageProcessor.preprocess`, without the crop, and `do_convert_rgb`.
        """
        given = {
            "do_resize": do_resize,
            "size": size,
            "resample": resample,
            "do_rescale": do_rescale,
            "rescale_factor": rescale_factor,
            "do_normalize": do_normalize,
            "image_mean": image_mean,
            "image_std": image_std,
            "do_convert_rgb": do_convert_rgb,
        }
        return self._run(images, given, kwargs, return_tensors, data_format, input_data_format)
