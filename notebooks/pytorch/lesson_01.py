"""Lesson 1: resizing by PyTorch, and three pictures prepared by transformers' own image processors."""

import hashlib
import json

import numpy as np

from npformer.assets import model_directory, sample_pictures

IMAGENET = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}


def values(torch):
    from PIL import Image
    from torch.nn.functional import interpolate
    from transformers import EfficientNetImageProcessor, ViTImageProcessor
    from transformers.models.deprecated.efficientformer import EfficientFormerImageProcessor

    def resized(array, size, **options):
        return interpolate(torch.from_numpy(array)[None, None], size, **options).numpy()[0, 0]

    rng = np.random.default_rng(1)
    small, large = rng.standard_normal((4, 5)), rng.standard_normal((17, 23))
    out = {"small": small, "large": large}
    for mode in ("bilinear", "bicubic"):
        out[f"enlarged:{mode}"] = resized(small, (7, 12), mode=mode, antialias=True)
        out[f"shrunk:{mode}"] = resized(large, (6, 7), mode=mode, antialias=True)
        out[f"shrunk, not antialiased:{mode}"] = resized(large, (6, 7), mode=mode, antialias=False)

    colours = rng.integers(0, 256, (37, 53, 3), dtype=np.uint8)
    out["colours"] = colours
    processors = {
        "EfficientFormer-L3": EfficientFormerImageProcessor(size={"shortest_edge": 256}),
        "EfficientNet-B0": EfficientNetImageProcessor(
            size={"height": 224, "width": 224},
            image_mean=IMAGENET["image_mean"],
            image_std=[std**0.5 for std in IMAGENET["image_std"]],
        ),
        "SwiftFormer-XS": ViTImageProcessor(**IMAGENET),
    }
    given = dict.fromkeys(processors, Image.fromarray(colours))
    boot = next(path for path in sample_pictures() if path.stem == "ankle-boot-1")
    for family, kind in (
        ("efficientformer", EfficientFormerImageProcessor),
        ("efficientnet", EfficientNetImageProcessor),
        ("swiftformer", ViTImageProcessor),
    ):
        name = f"{family}-fashion"
        settings = json.loads((model_directory(name) / "preprocessor_config.json").read_text())
        processors[name] = kind(**settings)
        given[name] = Image.open(boot).convert("RGB")
    for name, processor in processors.items():
        pixel_values = processor(given[name], return_tensors="np")["pixel_values"]
        out[f"{name}:shape"] = np.array(pixel_values.shape)
        out[f"{name}:sampled"] = pixel_values[:, :, ::9, ::9]
        out[f"{name}:sha256"] = np.frombuffer(hashlib.sha256(pixel_values.tobytes()).digest(), np.uint8)
    return out
