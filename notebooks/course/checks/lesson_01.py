"""Checks of lesson 1: sizes, nearest neighbours, inverting the preprocessing, EfficientNet's arithmetic, all steps."""

import numpy as np

from npformer.image import IMAGENET_MEAN, IMAGENET_STD, EfficientFormerImageProcessor, EfficientNetImageProcessor
from npformer.picture import BICUBIC, NEAREST, center_crop, normalize, rescale, resize, shortest_edge_size

from .. import check, expect, expect_array


@check("that is the size every picture gets before EfficientFormer's crop.")
def new_size(answer):
    for height, width, edge in [(480, 640, 224), (640, 427, 256), (37, 53, 30), (100, 100, 224), (29, 1000, 7)]:
        got, wanted = answer(height, width, edge), shortest_edge_size(height, width, edge)
        call = f"new_size({height}, {width}, {edge})"
        expect(got is not None and got is not ..., f"{call} gives nothing back yet: return a tuple of two numbers.")
        expect(np.shape(got) == (2,), f"{call} should be a tuple (height, width), not {got!r}.")
        got = tuple(got)
        longer = edge * max(height, width) / min(height, width)
        expect(
            got == wanted[::-1] == wanted or got != wanted[::-1],
            f"{call} gives {got}: the two are in the wrong order. Height first.",
        )
        expect(min(got) == edge, f"{call} gives {got}, but the shorter side should become {edge}.")
        expect(
            max(got) == int(longer) or max(got) not in (round(longer), int(np.ceil(longer))),
            f"{call} gives {got}: {longer:.3f} is to be cut off, not rounded.",
        )
        expect(got == wanted, f"{call} should be {wanted}, yours is {got}: the longer side keeps the proportion.")
        expect(
            all(isinstance(side, (int, np.integer)) for side in got), f"{call} should hold whole numbers, not {got}."
        )


@check("the same pixels that Pillow picks.")
def nearest(answer):
    rng = np.random.default_rng()
    for (h, w), (height, width) in [((5, 7), (13, 4)), ((28, 28), (96, 96)), ((11, 6), (3, 6)), ((9, 10), (10, 9))]:
        image = rng.integers(0, 256, (h, w), dtype=np.uint8)
        wanted = resize(image[None], (height, width), NEAREST)[0]

        def pick(place, image=image, height=height, width=width):
            ends = ((image.shape[0], height), (image.shape[1], width))
            rows, columns = (np.minimum(place(np.arange(new), old / new).astype(int), old - 1) for old, new in ends)
            return image[rows][:, columns]

        half = "you left out the half: new pixel i has its centre at i + 1/2."
        rounded = "the place should be cut off to a whole number, not rounded: old pixel j covers j to j + 1."
        hints = {
            half: pick(lambda i, s: i * s),
            rounded: pick(lambda i, s: np.rint((i + 0.5) * s)),
            "you rounded i * H / H'; take the centre, (i + 1/2) * H / H', and cut it off.": pick(
                lambda i, s: np.rint(i * s)
            ),
            "you laid the corners on the corners; here the edges of both rulers meet.": pick(
                lambda i, s: i * (s * len(i) - 1) / (len(i) - 1)
            ),
        }
        got = answer(image, height, width)
        expect(
            np.shape(got) != (width, height) or height == width or np.shape(got) == wanted.shape,
            f"the result has shape {np.shape(got)}: height and width are swapped.",
        )
        expect_array(got, wanted, f"nearest of {h} x {w} to {height} x {width}", hints=hints)


@check("every whole number came back; you can look at any network's input now.")
def to_picture(answer):
    rng = np.random.default_rng()
    image = rng.integers(0, 256, (17, 14, 3), dtype=np.uint8)
    image[0, :, 0], image[1, :, 1] = 0, 255
    mean, std = list(IMAGENET_MEAN), list(IMAGENET_STD)
    chw = normalize(rescale(np.moveaxis(image, -1, 0), 1 / 255), mean, std)
    kept = chw.copy()
    got = answer(chw, mean, std)
    expect(np.array_equal(chw, kept), "your function changes the array it was given: work on a copy.")
    back = chw * np.reshape(std, (3, 1, 1)) + np.reshape(mean, (3, 1, 1))
    cut = np.moveaxis((back * 255).clip(0, 255), 0, -1).astype(np.uint8)
    expect(
        np.shape(got) != chw.shape,
        f"the result still has the shape {chw.shape}, channels first; a picture has them last.",
    )
    values = np.asarray(got)
    hints = {
        "some values are one too small: a float that should be 7 may be 6.9999995; round before astype.": cut,
        "the values are fractions: multiply by 255.": np.moveaxis(back, 0, -1),
        "the values are fractions cut off to 0 and 1: multiply by 255 before astype.": np.moveaxis(
            np.rint(back), 0, -1
        ),
        "that is the right shape by reshape; the pixels are scrambled. Move the axis.": np.rint(back * 255)
        .clip(0, 255)
        .reshape(image.shape),
        "you normalised once more instead of undoing it: times the deviation first, then plus the mean.": np.moveaxis(
            np.rint((chw - np.reshape(mean, (3, 1, 1))) / np.reshape(std, (3, 1, 1)) * 255).clip(0, 255), 0, -1
        ),
    }
    hints["height and width are swapped; moveaxis keeps them in order, .T does not."] = image.swapaxes(0, 1)
    expect(
        values.shape != (14, 17, 3),
        "height and width are swapped: np.moveaxis(x, 0, -1) keeps their order, x.T turns it around.",
    )
    if values.dtype.kind == "f" and values.shape == image.shape and np.array_equal(np.rint(values), image):
        expect(
            np.array_equal(np.rint(values), values),
            "these are still fractions next to whole numbers: round them, then make them uint8.",
        )
    expect_array(values.astype(float) if values.dtype.kind in "biuf" else got, image, "to_picture", hints=hints)
    expect(values.dtype == np.uint8, f"the numbers are right, but their dtype is {values.dtype}; make it uint8.")


@check("one multiplication and one addition per pixel is all the arithmetic there is.")
def scale_and_shift(answer):
    rng = np.random.default_rng()
    x = np.arange(256, dtype=np.uint8).reshape(1, 16, 16)
    for offset, top in [(False, True), (False, False), (True, True), (True, False)]:
        factor = float(rng.choice([1 / 255, 1 / 127.5]))
        mean, std = float(rng.uniform(0.2, 0.6)), float(rng.uniform(0.2, 0.7))
        got = answer(factor, mean, std, offset, top)
        call = f"with offset={offset} and top={top}"
        expect(got is not None and got is not ..., "there is nothing back yet: return a tuple of two numbers.")
        expect(np.shape(got) == (2,), f"{call} the result should be (scale, shift), not {got!r}.")
        processor = EfficientNetImageProcessor(
            do_resize=False,
            rescale_factor=factor,
            image_mean=mean,
            image_std=std,
            rescale_offset=offset,
            include_top=top,
        )
        wanted = processor(np.repeat(x, 3, 0)).pixel_values[0][:1]
        flat = x.astype(float)
        o = float(offset)
        divisor = std * std if top else std
        hints = {
            f"{call}: the second division is missing; with top everything is divided by std twice.": (
                (flat * factor - o - mean) / std
            ),
            f"{call}: the mean, too, is divided twice; the second division comes after it was taken off.": (
                flat * factor / divisor - (mean + o) / std
            ),
            f"{call}: the offset is missing: 1 comes off after the rescaling.": (flat * factor - mean) / divisor,
            f"{call}: the 1 comes off after the rescaling, so the factor does not touch it.": (
                ((flat - o) * factor - mean) / divisor
            ),
            f"{call}: the sign of the shift is wrong; the mean is subtracted.": (flat * factor + o + mean) / divisor,
            f"{call}: offset is subtracted, not added.": (flat * factor + o - mean) / divisor,
            f"{call}: the mean is not divided by anything in yours.": flat * factor / divisor - mean - o,
            f"{call}: only top asks for the second division.": (flat * factor - o - mean) / std**2,
        }
        expect_array(flat * got[0] + got[1], wanted, f"{call}, x * scale + shift", tolerance=3e-6, hints=hints)


@check("every bit is the same as with EfficientFormer's processor; this is what L3 sees.")
def prepare_l3(answer):
    rng = np.random.default_rng()
    processor = EfficientFormerImageProcessor(size={"shortest_edge": 256})
    for height, width in [(61, 102), (int(rng.integers(91, 170)), int(rng.integers(30, 90)))]:
        image = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
        wanted = processor(image, return_tensors="np").pixel_values
        got = answer(image)
        what = f"prepare_l3 of a picture {height} x {width}"
        expect(np.shape(got) != wanted.shape[1:], f"{what} lacks the batch axis: the shape should be {wanted.shape}.")
        expect(np.shape(got) != (1, 224, 224, 3), f"{what} has its channels last; they go first, (1, 3, 224, 224).")
        chw = np.moveaxis(image, -1, 0)
        middle = (224, 224)

        def finish(x):
            return normalize(rescale(x, 1 / 255), IMAGENET_MEAN, IMAGENET_STD)[None]

        size = shortest_edge_size(height, width, 256)
        hints = {
            "the whole picture was squashed into the square; make the shortest edge 256, then crop.": finish(
                resize(chw, middle, BICUBIC)
            ),
            "it was squashed to 256 x 256 before the crop; keep the proportion.": finish(
                center_crop(resize(chw, (256, 256), BICUBIC), middle)
            ),
            "the shortest edge became 224; for L3 it is 256, and the crop cuts a rim off.": finish(
                center_crop(resize(chw, shortest_edge_size(height, width, 224), BICUBIC), middle)
            ),
            "that is the bilinear filter; the recipe says bicubic.": finish(center_crop(resize(chw, size, 2), middle)),
            "that is the nearest filter; the recipe says bicubic.": finish(center_crop(resize(chw, size, 0), middle)),
            "the values were never divided by 255.": finish(
                center_crop(resize(chw, size, BICUBIC), middle).astype(float) * 255
            ),
            "the values are not normalised.": rescale(center_crop(resize(chw, size, BICUBIC), middle), 1 / 255)[None],
            "red and blue are swapped.": finish(center_crop(resize(chw, size, BICUBIC), middle)[::-1]),
            "the channels were moved by reshape, which scrambles the picture; use moveaxis.": finish(
                center_crop(resize(image.reshape(chw.shape), size, BICUBIC), middle)
            ),
        }
        expect_array(got, wanted, what, tolerance=1e-6, hints=hints)
        expect(np.asarray(got).dtype == np.float32, f"{what} should be float32, not {np.asarray(got).dtype}.")
        expect(
            np.array_equal(got, wanted),
            f"{what} is right to six digits, but not to the bit: rescale, then normalize, with the imported steps.",
        )
