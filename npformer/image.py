"""Pictures in, `pixel_values` out: the image processors and the four small functions they are made of.

    picture --resize--> --center_crop--> --rescale--> --normalize--> pixel_values (B, C, H, W)

    pixel = (x · rescale_factor - image_mean[c]) / image_std[c]

Letters: B pictures, C colour channels, H height, W width.

The processors return bit for bit what the (slow) processors of transformers 4.56.2 return, and refuse what those
refuse. Where this module knowingly differs it is because the original would hand back nonsense or break its own page:

- a 4-D array is a batch for every processor (the original EfficientFormer processor takes it for one picture);
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
import sys
import warnings
from collections import UserDict
from collections.abc import Callable, Mapping, Sequence
from numbers import Integral, Real
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self, TypeAlias

import numpy as np
from numpy.typing import NDArray

from .checkpoint import write_text

if TYPE_CHECKING:  # Pillow costs 30 ms to import, so the functions that need it import it themselves
    from PIL.Image import Image as Picture

__all__ = [
    "BaseImageProcessor",
    "BatchFeature",
    "EfficientFormerImageProcessor",
    "ViTImageProcessor",
    "center_crop",
    "infer_data_format",
    "load_image",
    "normalize",
    "rescale",
    "resize",
    "shortest_edge_size",
]

Array: TypeAlias = NDArray[Any]
ImageInput: TypeAlias = "Picture | Array | Sequence[Picture | Array]"
Size: TypeAlias = "int | Sequence[int] | Mapping[str, int]"
Numbers: TypeAlias = "float | Sequence[float]"

CONFIG_NAME = "preprocessor_config.json"
NEAREST, LANCZOS, BILINEAR, BICUBIC, BOX, HAMMING = range(6)  # Pillow's numbers, as the JSON files store them
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
LAYOUTS = ("channels_first", "channels_last")
SIZE_KEYS: tuple[set[str], ...] = (
    {"height", "width"},
    {"shortest_edge"},
    {"shortest_edge", "longest_edge"},
    {"longest_edge"},
    {"max_height", "max_width"},
)


# --- the four steps: pure functions of one picture (C, H, W) ---------------------------------------------------------


def resize(image: Array, size: tuple[int, int], resample: int = BICUBIC) -> Array:
    """Resample a picture with Pillow: (C, H, W) -> (C, *size).

    The whole picture is squashed or stretched into `size` = (height, width); the aspect ratio is not kept (see
    `shortest_edge_size` for that). Pillow works in 8 bits, so

    - uint8 pictures, and others that hold whole numbers 0..255, give uint8;
    - fractions 0..1 become `uint8(x · 255)` (cut off, not rounded), are resampled and come back as float32 / 255:
      a float picture keeps only 256 levels.

    A float picture that holds nothing but 0.0 and 1.0 counts as whole numbers, and resampling it leaves 0s and 1s.
    Raises ValueError for values outside both ranges, for an unknown `resample` (0..5, Pillow's numbers), and unless
    C is 1 to 4; with 2 or 4 channels Pillow takes the last for transparency and weights the others by it.
    """
    from PIL import Image

    _require_chw(image)
    _require_filter(resample)
    pixels, were_fractions = _to_eight_bit(image)
    pixels = pixels[0] if len(pixels) == 1 else np.moveaxis(pixels, 0, -1)  # (C, H, W) -> (H, W) or (H, W, C)
    if pixels.ndim == 3 and pixels.shape[-1] not in (2, 3, 4):
        raise ValueError(
            f"the picture has {pixels.shape[-1]} channels (shape {image.shape}) but resizing, which goes through "
            "Pillow, needs 1 to 4: check input_data_format, or set do_resize=False"
        )
    height, width = size
    resized = np.array(Image.fromarray(pixels).resize((width, height), resample=resample))
    resized = resized[None] if resized.ndim == 2 else np.moveaxis(resized, -1, 0)
    return rescale(resized, 1 / 255) if were_fractions else resized


def shortest_edge_size(height: int, width: int, edge: int) -> tuple[int, int]:
    """Return the (height, width) that keeps the aspect ratio and makes the shorter side `edge`.

    long' = int(edge · long / short), cut off. Nothing bounds the longer side: a 1 x 1000 picture at edge 224 becomes
    224 x 224000.
    """
    longer = int(edge * max(height, width) / min(height, width))
    return (longer, edge) if width <= height else (edge, longer)


def center_crop(image: Array, size: tuple[int, int]) -> Array:
    """Cut the middle out of a picture, with zeros where the picture is smaller: (C, H, W) -> (C, *size).

    out[c, i, j] = image[c, i + top, j + left], or 0 outside, with top = floor((H - height) / 2) and left likewise.
    An odd remainder is cut at the bottom and right, and padded at the top and left (floor of a negative number).
    """
    _require_chw(image)
    out = np.zeros((len(image), *size), image.dtype)
    taken, placed = [], []
    for length, wanted in zip(image.shape[1:], size, strict=True):
        start, overlap = (length - wanted) // 2, min(length, wanted)
        taken.append(slice(max(start, 0), max(start, 0) + overlap))
        placed.append(slice(max(-start, 0), max(-start, 0) + overlap))
    out[:, placed[0], placed[1]] = image[:, taken[0], taken[1]]
    return out


def rescale(image: Array, scale: float) -> NDArray[np.float32]:
    """Multiply every value by `scale`: float32(float64(x) · scale), any shape.

    The product is taken in float64 and rounded once: in float32, 126 of the 256 levels times 1/255 come out a bit off.
    """
    scaled: NDArray[np.float32] = (image.astype(np.float64) * scale).astype(np.float32)
    return scaled


def normalize(image: Array, mean: Numbers, std: Numbers) -> Array:
    """Subtract the mean and divide by the standard deviation of each channel: (C, H, W) -> (C, H, W).

    out[c] = (x[c] - mean[c]) / std[c], in the picture's own float type, or float32 for whole numbers.
    Raises ValueError unless `mean` and `std` are one number or C of them.
    """
    _require_chw(image)
    if not np.issubdtype(image.dtype, np.floating):
        image = image.astype(np.float32)
    columns = []
    for name, values in (("image_mean", mean), ("image_std", std)):
        listed = [values] * len(image) if isinstance(values, Real) else list(values)  # type: ignore[arg-type]
        if len(listed) != len(image):
            raise ValueError(
                f"{name} has {len(listed)} values but the picture has {len(image)} channel(s), seen as (channels, "
                f"height, width) = {image.shape}: give one value per channel, convert the picture to RGB, or say "
                "where its channels are with input_data_format"
            )
        columns.append(np.array(listed, image.dtype)[:, None, None])  # (C, 1, 1)
    out: Array = (image - columns[0]) / columns[1]
    return out


def _to_eight_bit(image: Array) -> tuple[NDArray[np.uint8], bool]:
    """Return the picture as uint8, and whether it held fractions 0..1 (which were multiplied by 255)."""
    if image.dtype == np.uint8:
        return image, False
    low, high = image.min(), image.max()
    with np.errstate(invalid="ignore"):  # nan and inf have no whole part; they fail the range tests below
        whole = np.allclose(image, image.astype(int))  # close is enough: 200.001 counts as 200
    if whole and low >= 0 and high <= 255:
        return image.astype(np.uint8), False
    if not whole and low >= 0 and high <= 1:
        return rescale(image, 255).astype(np.uint8), True
    raise ValueError(
        f"the picture holds {'whole numbers' if whole else 'fractions'} from {low} to {high} but resizing goes "
        "through 8 bits and needs whole numbers 0..255 or fractions 0..1: scale the values first, or set "
        "do_resize=False"
    )


def _require_chw(image: Array) -> None:
    if image.ndim != 3:
        raise ValueError(f"image has shape {image.shape}, but one picture (channels, height, width) is needed")


def _require_filter(resample: int) -> None:
    from PIL import Image

    if resample not in list(Image.Resampling):
        known = ", ".join(f"{int(member)} ({member.name.lower()})" for member in Image.Resampling)
        raise ValueError(f"resample is {resample!r}, which is no Pillow filter: use one of {known}")


# --- reading pictures ------------------------------------------------------------------------------------------------


def load_image(source: str | os.PathLike[str] | Picture | Array) -> Picture:
    """Open a picture the way transformers' pipelines do before their processor: EXIF-rotated, then RGB.

    `source` is a path, a Pillow picture, or an array (H, W), (H, W, C) or (C, H, W); if both ends of an array could be
    the channels, the last is taken. Transparency is dropped, not blended; of an animation the first frame is taken.

    Greys beyond 8 bits are scaled, where Pillow (and so transformers) would turn everything above 255 white:

    - mode I;16 and uint16 arrays: the upper byte, x // 256;
    - mode I, mode F and other arrays: fractions 0..1 are multiplied by 255 (float types only), values 0..255 are
      kept, both rounded; values 0..65535 give the upper byte; anything else raises ValueError. Bool arrays: 0 and 255.

    Raises FileNotFoundError (or another OSError) for a path that cannot be opened, ValueError for a file that is no
    picture or a damaged one, TypeError for other sources.
    """
    from PIL import Image

    if isinstance(source, (str, os.PathLike)):
        return _open_picture(os.fspath(source))
    if isinstance(source, Image.Image):
        try:
            return _to_rgb(source)
        except Exception as error:  # Pillow opens lazily: a damaged file is noticed only now
            raise ValueError(f"the picture (mode {source.mode!r}) cannot be read: {error}") from None
    if isinstance(source, np.ndarray):
        return _array_to_picture(source).convert("RGB")
    raise TypeError(f"source is {_describe(source)}, but load_image takes a path, a Pillow picture or a NumPy array")


def _open_picture(path: str) -> Picture:
    from PIL import Image, UnidentifiedImageError

    if path.startswith(("http://", "https://", "data:")):
        raise ValueError(f"{path[:80]!r} is a web address, but load_image reads files only: download it first")
    try:
        with Image.open(path) as picture:
            return _to_rgb(picture)
    except UnidentifiedImageError:
        raise ValueError(f"{path}: not a picture in a format that Pillow knows") from None
    except OSError as error:
        if error.errno is None:  # raised by a decoder, not by the operating system
            raise ValueError(f"{path}: the picture is damaged or cannot be decoded: {error}") from None
        raise type(error)(error.errno, f"{error.strerror}; expected the path of a picture", path) from None
    except Exception as error:  # decoders raise nearly anything: SyntaxError, struct.error, IndexError, ...
        raise ValueError(f"{path}: the picture is damaged or cannot be decoded: {error}") from None


def _to_rgb(picture: Picture) -> Picture:
    from PIL import Image, ImageOps

    upright = ImageOps.exif_transpose(picture)
    if upright.mode.startswith("I") or upright.mode == "F":
        upright = Image.fromarray(_deep_to_eight_bit(np.asarray(upright)))
    return upright.convert("RGB")


def _array_to_picture(array: Array) -> Picture:
    from PIL import Image

    pixels = array[:, :, None] if array.ndim == 2 else array
    if pixels.ndim == 3 and pixels.shape[-1] not in (1, 3) and pixels.shape[0] in (1, 3):
        pixels = np.moveaxis(pixels, 0, -1)  # (C, H, W) -> (H, W, C)
    if pixels.ndim != 3 or pixels.shape[-1] not in (1, 2, 3, 4) or pixels.size == 0 or pixels.dtype.kind not in "buif":
        raise ValueError(
            f"source is an array of shape {array.shape} and dtype {array.dtype}, but a picture needs real numbers and "
            "the shape (H, W), (H, W, 1 to 4), (1, H, W) or (3, H, W), none of them 0"
        )
    pixels = _deep_to_eight_bit(pixels)
    return Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)


def _deep_to_eight_bit(array: Array) -> NDArray[np.uint8]:
    """Bring any real values to 0..255 by the rules in `load_image`."""
    kind = array.dtype.kind
    if array.dtype == np.uint8:
        return array
    if kind == "b":
        return np.where(array, 255, 0).astype(np.uint8)
    low, high = array.min(), array.max()
    if not (low >= 0 and high <= 65535):  # also true for nan
        raise ValueError(
            f"the values go from {low} to {high}, but 0..1 (fractions), 0..255 or 0..65535 is needed: scale them first"
        )
    if high >= 255.5 or (kind == "u" and array.dtype.itemsize == 2):
        return np.asarray(array // 256, np.uint8)
    return np.asarray(np.rint(array * np.float64(255) if kind == "f" and high <= 1 else array), np.uint8)


def infer_data_format(image: Array, label: str = "image") -> str:
    """Tell whether the channels of a 3-D array come first or last: the axis of length 1 or 3 holds them.

    If both ends qualify it warns and says "channels_first": an RGB picture 1 or 3 pixels high, (3, W, 3), is then
    read sideways, as in transformers. Raises ValueError if neither does.
    """
    first, last = image.shape[0] in (1, 3), image.shape[-1] in (1, 3)
    if first and last:
        _warn(
            f"{label} has shape {image.shape}, whose first and last axes could both be the channels: the first is "
            'taken; say input_data_format="channels_last" if it is the last'
        )
    if first or last:
        return LAYOUTS[0] if first else LAYOUTS[1]
    raise ValueError(
        f"{label} has shape {image.shape}, where neither the first nor the last axis has 1 or 3 entries, so the "
        'channels cannot be found: convert it with load_image or .convert("RGB"), or say '
        'input_data_format="channels_first" or "channels_last"'
    )


def _as_arrays(images: Any, to_rgb: bool | None, grey: bool) -> list[Array]:
    """Turn every accepted form of `images` into a list of 3-D arrays, each in the layout it came in."""
    if isinstance(images, (list, tuple)) or getattr(images, "ndim", None) == 4:  # (B, ...) is a batch
        if len(images) == 0:
            raise ValueError("images is empty: give at least one picture")
        return [_as_array(item, f"images[{i}]", to_rgb, grey) for i, item in enumerate(images)]
    return [_as_array(images, "images", to_rgb, grey)]


def _as_array(item: Any, label: str, to_rgb: bool | None, grey: bool) -> Array:
    from PIL import Image

    came = label
    if isinstance(item, Image.Image):
        came = f"{label} (a Pillow picture of mode {item.mode!r})"
        try:
            array = np.array(item.convert("RGB") if to_rgb and item.mode != "RGB" else item)
        except Exception as error:  # a damaged file, or a mode Pillow cannot convert
            raise ValueError(f"{came} cannot be read: {error}") from None
    elif hasattr(item, "__array__") and not isinstance(item, np.generic):  # arrays, and tensors on the CPU
        array = np.asarray(item)
    else:
        raise TypeError(
            f"{label} is {_describe(item)}, but a Pillow picture or a NumPy array is needed: open a file with "
            "load_image(path), turn nested lists into an array with np.asarray"
        )
    if grey and array.ndim == 2:
        array = array[:, :, None]  # (H, W) -> (H, W, 1)
    if array.ndim != 3:
        raise ValueError(
            f"{came} has {array.ndim} axes (shape {array.shape}), but three are needed, the colour channels first or "
            'last: use load_image(...) or picture.convert("RGB"), which also turn greys and palettes into colours'
        )
    if array.dtype.kind not in "buif":
        raise TypeError(f"{came} has dtype {array.dtype}, but real numbers are needed: bool, integers or floats")
    if array.size == 0:
        raise ValueError(f"{came} is empty (shape {array.shape}), but a picture needs at least one pixel")
    return array


# --- checking settings -----------------------------------------------------------------------------------------------


def _flag(name: str, value: Any) -> bool:
    if isinstance(value, (bool, np.bool_)) or (isinstance(value, Integral) and value in (0, 1)):
        return bool(value)
    raise TypeError(f"{name} is {_describe(value)}, but true or false is needed")


def _number(name: str, value: Any) -> float:
    if not isinstance(value, Real):
        raise TypeError(f"{name} is {_describe(value)}, but a number is needed")
    try:
        return float(value)
    except OverflowError:
        raise ValueError(f"{name} is {_describe(value)}, which is too large for a float") from None


def _numbers(name: str, value: Any) -> float | list[float]:
    if isinstance(value, np.ndarray):
        value = value.tolist()
    if isinstance(value, (list, tuple)) and all(isinstance(entry, Real) for entry in value):
        return [_number(name, entry) for entry in value]
    if isinstance(value, Real):
        return _number(name, value)
    raise TypeError(f"{name} is {_describe(value)}, but a number or a list with one number per channel is needed")


def _filter(name: str, value: Any) -> int:
    if not isinstance(value, Integral):
        raise TypeError(f"{name} is {_describe(value)}, but the number of a Pillow filter is needed, as 3 for bicubic")
    return int(value)


def _size(name: str, value: Any) -> dict[str, int]:
    """Bring 224, (height, width) or a dict to a dict; a lone number means a square, not the shortest edge."""
    if isinstance(value, Integral):
        value = {"height": value, "width": value}
    elif isinstance(value, (list, tuple)) and len(value) == 2:
        value = {"height": value[0], "width": value[1]}
    if not isinstance(value, Mapping):
        raise TypeError(
            f"{name} is {_describe(value)}, but a number, a (height, width) pair, or a dict such as "
            '{"height": 224, "width": 224} is needed'
        )
    if set(value) not in SIZE_KEYS:
        known = " or ".join(" + ".join(sorted(keys)) for keys in SIZE_KEYS)
        raise ValueError(f"{name} has the keys {sorted(map(str, value))}, but needs {known}")
    for key, length in value.items():
        if not isinstance(length, Integral) or isinstance(length, bool):
            raise TypeError(f"{name}[{key!r}] is {_describe(length)}, but a whole number of pixels is needed")
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


def _describe(value: Any) -> str:
    text = " ".join(repr(value).split())  # on one line
    return f"{text if len(text) <= 60 else text[:57] + '...'} (type {type(value).__name__})"


def _warn(message: str) -> None:
    """Warn at the first line outside this file, so that the reader sees the call that caused it."""
    level, frame = 1, sys._getframe()
    while frame.f_back is not None and frame.f_code.co_filename == __file__:
        level, frame = level + 1, frame.f_back
    warnings.warn(message, stacklevel=level)


# --- what comes out --------------------------------------------------------------------------------------------------


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
        if name != "data" and name in self.data:  # `data` itself is missing while a pickle is being read
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
    """What all image processors share: settings, their JSON file, and the order of the steps.

    A subclass writes out its arguments in `__init__` and `preprocess`, and overrides `_resize_keys`, `_rescale` or
    `_transform` where its model wants something else.
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
        """Same as `preprocess`."""
        return self.preprocess(images, **kwargs)

    def __repr__(self) -> str:
        """Show the settings as JSON."""
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
        """Resolve the settings of one call and send every picture through `_transform`."""
        settings = self._resolve(given, unknown)
        _check_tensor_type(return_tensors)
        _check_layout("data_format", data_format)
        _check_layout("input_data_format", input_data_format)
        arrays = _as_arrays(images, settings.get("do_convert_rgb"), input_data_format == LAYOUTS[1])
        if settings["do_rescale"] and arrays[0].dtype != np.uint8 and arrays[0].min() >= 0 and arrays[0].max() <= 1:
            _warn(
                "the values of images are already between 0 and 1 and will be multiplied by rescale_factor again: set "
                "do_rescale=False if that is not meant"
            )
        # one layout for all, told from the first picture alone
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
            _warn(f"{type(self).__name__} does not know {', '.join(unknown)}: ignored")
        settings = {
            name: _check(name, getattr(self, name) if value is None else value) for name, value in given.items()
        }
        for flag, names in _NEEDED.items():
            for name in names if settings.get(flag) else ():
                if settings[name] is None:
                    raise ValueError(f"{name} is None, but {flag}=True needs it: give {name}, or set {flag}=False")
        if settings["do_resize"]:
            _require_filter(settings["resample"])
            self._require_keys("size", settings["size"], self._resize_keys)
        if settings.get("do_center_crop"):
            self._require_keys("crop_size", settings["crop_size"], ("height",))
        return settings

    def _require_keys(self, name: str, size: Mapping[str, int], keys: tuple[str, ...]) -> None:
        if not any(key in size for key in keys):
            wanted = " or ".join("height and width" if key == "height" else key for key in keys)
            raise ValueError(f"{name} has the keys {sorted(size)}, but {type(self).__name__} needs {wanted}")

    def _transform(self, image: Array, settings: Mapping[str, Any]) -> Array:
        """Apply the steps that are switched on to one picture: (C, H, W) -> (C, H', W')."""
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
            raise TypeError(f"config is {_describe(config)}, but a dict of settings is needed")
        known = set(inspect.signature(cls).parameters) | set(config)
        unknown = [name for name in overrides if name not in known]
        if unknown:
            _warn(f"{cls.__name__} does not know {', '.join(unknown)}: ignored")
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
            config = json.loads(file.read_text(encoding="utf-8"))
        except OSError as error:
            hint = f"{error.strerror}; expected a directory that holds {CONFIG_NAME}, or that file"
            raise type(error)(error.errno, hint, str(file)) from None
        except (ValueError, RecursionError) as error:  # bad JSON or bad UTF-8
            raise ValueError(f"{file}: not a JSON file: {error}") from None
        if not isinstance(config, dict):
            raise ValueError(f"{file}: expected a JSON object with settings, got {_describe(config)}")
        config = config.get("image_processor", config)  # processor_config.json keeps them one level down
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
            raise TypeError(f"{_describe(value)} cannot be written as JSON: remove it from the settings")

        return json.dumps(self.to_dict(), indent=2, sort_keys=True, default=plain) + "\n"


class EfficientFormerImageProcessor(BaseImageProcessor):
    """Prepare pictures for EfficientFormer: resize, centre crop, rescale, normalise.

    Arguments (each can be replaced in a call):

    - `do_resize`, `size` (224 x 224), `resample` (3, bicubic). `{"height": h, "width": w}`, a number or a pair
      squashes the whole picture into that shape; `{"shortest_edge": n}` keeps the aspect ratio and leaves the rest to
      the crop. The published L3 and L7 use shortest edge 256, then the crop.
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
        """Keep the settings; raises TypeError or ValueError for those of the wrong type or range."""
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
        """Turn one picture or a batch into `pixel_values`: a list of B arrays (C, H', W'), or one (B, C, H', W').

        `images` is a Pillow picture, an array (H, W, C) or (C, H, W), a list or tuple of those, or a 4-D array (a
        batch); values 0..255, or 0..1 with `do_rescale=False`. `return_tensors` is None (a list) or "np" (one
        array); `data_format` is the layout that comes out, None to keep the input's; `input_data_format` is the layout
        that goes in, guessed from the first picture if None. Arguments left out take the constructor's value.
        Raises ValueError or TypeError in one sentence for anything it cannot use, greys and palettes included.
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


class ViTImageProcessor(BaseImageProcessor):
    """Prepare pictures for SwiftFormer (and ViT): convert, resize, rescale, normalise; no crop.

    Arguments (each can be replaced in a call):

    - `do_convert_rgb` (None): let Pillow convert pictures to RGB first; arrays are left alone. A 16-bit grey picture
      turns white above 255 (`load_image` does better).
    - `do_resize`, `size` (224 x 224), `resample` (2, bilinear): the whole picture is squashed into (height, width).
      `{"shortest_edge": n}` is accepted here but refused when a picture comes to be resized.
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
        """Keep the settings; raises TypeError or ValueError for those of the wrong type or range."""
        settings = {
            "do_resize": do_resize,
            "size": 224 if size is None else size,
            "resample": resample,
            "do_rescale": do_rescale,
            "rescale_factor": rescale_factor,
            "do_normalize": do_normalize,
            "image_mean": (0.5, 0.5, 0.5) if image_mean is None else image_mean,
            "image_std": (0.5, 0.5, 0.5) if image_std is None else image_std,
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
        """Turn one picture or a batch into `pixel_values`: a list of B arrays (C, H', W'), or one (B, C, H', W').

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
