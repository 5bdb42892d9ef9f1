"""Lesson 8: depthwise convolution, squeeze-and-excitation, two whole blocks, padding, and a trained network."""

import numpy as np

from npformer import AutoImageProcessor, load_image
from npformer.assets import model_directory, sample_pictures


def values(torch) -> dict[str, np.ndarray]:
    from transformers import EfficientNetConfig, EfficientNetForImageClassification
    from transformers.models.efficientnet import modeling_efficientnet as theirs

    rng = np.random.default_rng(8)
    out: dict[str, np.ndarray] = {}

    def normal(name: str, *shape: int):
        out[name] = rng.normal(size=shape).round(2)  # few digits compress well
        return torch.from_numpy(out[name])

    conv2d = torch.nn.functional.conv2d
    x = normal("depthwise/x", 2, 3, 6, 7)
    weight = normal("depthwise/weight3", 3, 1, 3, 3)
    out["depthwise/y3"] = conv2d(x, weight, padding=1, groups=3).numpy()
    weight = normal("depthwise/weight5", 3, 1, 5, 5)
    out["depthwise/y5"] = conv2d(x, weight, stride=2, padding=2, groups=3).numpy()

    config = EfficientNetConfig.from_pretrained(model_directory("efficientnet-fashion"))
    layer = theirs.EfficientNetSqueezeExciteLayer(config, in_dim=8, expand_dim=12, expand=True).double()
    _randomise(torch, layer, rng, "gate", out)
    out["gate/y"] = layer(normal("gate/x", 2, 12, 5, 4)).numpy()

    for name, kernel, stride, channels, first in (("plain", 3, 1, 8, False), ("strided", 5, 2, 12, True)):
        block = theirs.EfficientNetBlock(
            config, in_dim=8, out_dim=channels, stride=stride, expand_ratio=2, kernel_size=kernel, drop_rate=0.0,
            id_skip=first, adjust_padding=True,
        )  # fmt: skip
        _randomise(torch, block.double().eval(), rng, name, out)
        out[f"{name}/y"] = block(normal(f"{name}/x", 2, 8, 6, 8)).numpy()

    out["static"] = np.array([theirs.correct_pad(k, adjust) for k in (3, 5) for adjust in (True, False)])

    folder = model_directory("efficientnet-fashion")
    model = EfficientNetForImageClassification.from_pretrained(folder, dtype=torch.float32).double().eval()
    pictures = [load_image(path) for path in list(sample_pictures())[:2]]
    pixels = AutoImageProcessor.from_pretrained(folder)(pictures, return_tensors="np")["pixel_values"]
    out["logits"] = model(torch.from_numpy(pixels.astype(np.float64))).logits.numpy()
    return out


def _randomise(torch, module, rng: np.random.Generator, prefix: str, out: dict[str, np.ndarray]) -> None:
    """Weights and statistics of order one, kept in `out` under their names."""
    state = {}
    for name, value in module.state_dict().items():
        if name.endswith("num_batches_tracked"):
            continue
        drawn = rng.uniform(0.5, 2, value.shape) if name.endswith("running_var") else rng.normal(size=value.shape)
        out[f"{prefix}/weights/{name}"] = drawn.round(2)
        state[name] = torch.from_numpy(out[f"{prefix}/weights/{name}"])
    module.load_state_dict(state, strict=False)
