"""Operations on single pictures: opening, finding the channels, and the preprocessing steps.

    resize         (C, H, W) -> (C, height, width)    Pillow's filters, in 8 bits
    center_crop    (C, H, W) -> (C, height, width)    the middle, zeros around it where it is smaller
    rescale        x -> x · scale                     float32
    normalize      x -> (x - mean[c]) / std[c]        each channel by its own

Letters: C channels, H height, W width. The steps are pure functions of one picture, channels first; `npformer.image`
chains them, bit for bit as transformers 4.56.2 does.
"""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Sequence
from numbers import Real
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:  # Pillow costs 30 ms to import, so the functions that need it import it themselves
    from PIL.Image import Image as Picture

__all__ = [
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
Numbers: TypeAlias = "float | Sequence[float]"

NEAREST, LANCZOS, BILINEAR, BICUBIC, BOX, HAMMING = range(6)  # Pillow's numbers, as the JSON files store them
LAYOUTS = ("channels_first", "channels_last")


# --- the four steps: pure functions of one picture (C, H, W) ---------------------------------------------------------


def resize(image: Array, size: tuple[int, int], resample: int = BICUBIC) -> Array:
    """Resample a picture with Pillow: (C, H, W) -> (C, *size).

    The whole picture is resized to `size` = (height, width); the aspect ratio is not kept (see `shortest_edge_size`
    for that). Pillow works in 8 bits, so

    - uint8 pictures, and others that hold integers 0..255, give uint8;
    - fractions 0..1 become `uint8(x · 255)` (truncated, not rounded), are resampled and come back as float32 / 255:
      a float picture keeps only 256 levels.

    A float picture that holds nothing but 0.0 and 1.0 counts as integers, and resampling it leaves 0s and 1s.
    Raises ValueError for values outside both ranges, for an unknown `resample` (0..5, Pillow's numbers), and unless
    C is 1 to 4; with 2 or 4 channels Pillow treats the last as transparency and weights the others by it.
    """
    from PIL import Image

    _require_chw(image)
    require_filter(resample)
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

    long' = int(edge · long / short), truncated. The longer side is unbounded: a 1 x 1000 picture at edge 224 becomes
    224 x 224000.
    """
    longer = int(edge * max(height, width) / min(height, width))
    return (longer, edge) if width <= height else (edge, longer)


def center_crop(image: Array, size: tuple[int, int]) -> Array:
    """Crop the centre of a picture, with zeros where the picture is smaller: (C, H, W) -> (C, *size).

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

    The product is taken in float64 and rounded once: in float32, 126 of the 256 levels times 1/255 would be off by one
    bit.
    """
    scaled: NDArray[np.float32] = (image.astype(np.float64) * scale).astype(np.float32)
    return scaled


def normalize(image: Array, mean: Numbers, std: Numbers) -> Array:
    """Subtract the mean and divide by the standard deviation of each channel: (C, H, W) -> (C, H, W).

    out[c] = (x[c] - mean[c]) / std[c], in the picture's own float type, or float32 for integers.
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
    with np.errstate(invalid="ignore"):  # nan and inf have no integer part; they fail the range tests below
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


def require_filter(resample: int) -> None:
    """Refuse a `resample` that is none of Pillow's filters. Raises ValueError."""
    from PIL import Image

    if resample not in list(Image.Resampling):
        known = ", ".join(f"{int(member)} ({member.name.lower()})" for member in Image.Resampling)
        raise ValueError(f"resample is {resample!r}, which is no Pillow filter: use one of {known}")


# --- reading pictures ------------------------------------------------------------------------------------------------


def load_image(source: str | os.PathLike[str] | Picture | Array) -> Picture:
    """Open a picture as transformers' pipelines do before their processor: EXIF-rotated, then RGB.

    `source` is a path, a Pillow picture, or an array (H, W), (H, W, C) or (C, H, W); if the first and the last axis
    of an array could both be the channels, the last is used. Transparency is dropped, not blended; an animation is
    represented by its first frame.

    Greyscale beyond 8 bits is scaled, where Pillow (and so transformers) would turn everything above 255 white:

    - mode I;16 and uint16 arrays: the upper byte, x // 256;
    - mode I, mode F and other arrays: fractions 0..1 are multiplied by 255 (float types only), values 0..255 are
      kept, both rounded; values 0..65535 give the upper byte; anything else raises ValueError. Bool arrays: 0 and 255.

    Raises FileNotFoundError (or another OSError) for a path that cannot be opened, ValueError for a file that is not a
    picture or is damaged, TypeError for other sources.
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
    raise TypeError(f"source is {describe(source)}, but load_image takes a path, a Pillow picture or a NumPy array")


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
    """Convert any real values to 0..255 by the rules in `load_image`."""
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
    """Return whether the channels of a 3-D array come first or last: the axis of length 1 or 3 holds them.

    If both ends qualify it warns and returns "channels_first": an RGB picture 1 or 3 pixels high, (3, W, 3), is then
    read sideways, as in transformers. Raises ValueError if neither does.
    """
    first, last = image.shape[0] in (1, 3), image.shape[-1] in (1, 3)
    if first and last:
        warn(
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


def as_arrays(images: Any, to_rgb: bool | None, grey: bool) -> list[Array]:
    """Convert every accepted form of `images` to a list of 3-D arrays, each in its original layout.

    `images` is the argument of `preprocess`; `to_rgb` lets Pillow convert Pillow pictures first, `grey` gives (H, W) a
    channel axis, (H, W, 1). Raises ValueError, or TypeError for other kinds of objects, giving the index of the
    picture.
    """
    if isinstance(images, (list, tuple)) or getattr(images, "ndim", None) == 4:  # (B, ...) is a batch
        if len(images) == 0:
            raise ValueError("images is empty: give at least one picture")
        return [_as_array(item, f"images[{i}]", to_rgb, grey) for i, item in enumerate(images)]
    return [_as_array(images, "images", to_rgb, grey)]


def _as_array(item: Any, label: str, to_rgb: bool | None, grey: bool) -> Array:
    from PIL import Image

    text = label
    if isinstance(item, Image.Image):
        text = f"{label} (a Pillow picture of mode {item.mode!r})"
        try:
            array = np.array(item.convert("RGB") if to_rgb and item.mode != "RGB" else item)
        except Exception as error:  # a damaged file, or a mode Pillow cannot convert
            raise ValueError(f"{text} cannot be read: {error}") from None
    elif hasattr(item, "__array__") and not isinstance(item, np.generic):  # arrays, and tensors on the CPU
        array = np.asarray(item)
    else:
        raise TypeError(
            f"{label} is {describe(item)}, but a Pillow picture or a NumPy array is needed: open a file with "
            "load_image(path), turn nested lists into an array with np.asarray"
        )
    if grey and array.ndim == 2:
        array = array[:, :, None]  # (H, W) -> (H, W, 1)
    if array.ndim != 3:
        raise ValueError(
            f"{text} has {array.ndim} axes (shape {array.shape}), but three are needed, the colour channels first or "
            'last: use load_image(...) or picture.convert("RGB"), which also turn greys and palettes into colours'
        )
    if array.dtype.kind not in "buif":
        raise TypeError(f"{text} has dtype {array.dtype}, but real numbers are needed: bool, integers or floats")
    if array.size == 0:
        raise ValueError(f"{text} is empty (shape {array.shape}), but a picture needs at least one pixel")
    return array


# --- messages --------------------------------------------------------------------------------------------------------


def describe(value: Any) -> str:
    """Return a value and its type as text, on one line and truncated to 60 characters, for an error message."""
    text = " ".join(repr(value).split())  # on one line
    return f"{text if len(text) <= 60 else text[:57] + '...'} (type {type(value).__name__})"


def warn(message: str) -> None:
    """Warn with the first line outside npformer as the location, so that the reader sees the call that caused it."""
    package = os.path.dirname(__file__) + os.sep
    level, frame = 1, sys._getframe()
    while frame.f_back is not None and frame.f_code.co_filename.startswith(package):
        level, frame = level + 1, frame.f_back
    warnings.warn(message, stacklevel=level)
