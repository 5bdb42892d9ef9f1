"""Configurations, weights and inputs that the golden values, the live comparison and the mutants all share.

Weights are random and of order one everywhere, layer scales, attention biases and norm statistics included: at their
usual initial values (1e-5, 0, 0 and 1) a wrong pooling divisor or a transposed bias table would pass unseen. They are
drawn by parameter *name*, so PyTorch and NumPy make the same ones without sharing a file.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from npformer.cli import main
from npformer.models import efficientformer, efficientnet, swiftformer
from npformer.models.config import PretrainedConfig
from npformer.models.efficientformer import VARIANTS

GOLDEN = Path(__file__).parent / "golden"
SAMPLES = 6
TOLERANCE = 1e-11  # of a layer's largest value, in float64

SMALL = {"depths": [1, 2, 1, 3], "hidden_sizes": [12, 20, 28, 36], "dim": 36, "num_labels": 11}


FAMILIES = {"EfficientFormer": efficientformer, "EfficientNet": efficientnet, "SwiftFormer": swiftformer}


@dataclass
class Case:
    """One model to compare: its class, config, and the shape of its input (odd and not square where it may be)."""

    class_name: str
    shape: tuple[int, int, int, int]
    settings: dict[str, Any] = field(default_factory=dict)
    # How many sets of weights the float32 comparison draws. One squeezed vector is a handful of numbers, too few to
    # distinguish one rounding error from another; the layers of small models are judged over several draws.
    draws: int = 1

    @property
    def family(self) -> str:
        return next(name for name in FAMILIES if self.class_name.startswith(name))

    def config(self) -> PretrainedConfig:
        return getattr(FAMILIES[self.family], f"{self.family}Config")(**self.settings)

    def model(self) -> Any:
        return getattr(FAMILIES[self.family], self.class_name)(self.config(), init_weights=False)


BARE = "EfficientFormerModel"
ONE_HEAD = "EfficientFormerForImageClassification"
TWO_HEADS = "EfficientFormerForImageClassificationWithTeacher"


def variant(name: str) -> dict[str, Any]:
    return {**VARIANTS[name], "dim": VARIANTS[name]["hidden_sizes"][-1], "num_labels": 1000}


def scaled(name: str) -> dict[str, Any]:
    """An EfficientNet variant in transformers' own settings."""
    config = efficientnet.EfficientNetConfig.for_variant(name, num_labels=1000)
    keys = ("width_coefficient", "depth_coefficient", "hidden_dim", "image_size", "dropout_rate", "depthwise_padding")
    return {**{key: getattr(config, key) for key in keys}, "num_labels": 1000}


EFFICIENTFORMERS = {
    "l1": Case(TWO_HEADS, (2, 3, 221, 199), variant("efficientformer-l1")),
    "l3": Case(TWO_HEADS, (2, 3, 197, 224), variant("efficientformer-l3")),
    "l7": Case(TWO_HEADS, (1, 3, 224, 211), variant("efficientformer-l7")),
    "resolution-5": Case(
        ONE_HEAD,
        (3, 3, 159, 131),
        {
            **SMALL, "resolution": 5, "num_attention_heads": 3, "key_dim": 10, "attention_ratio": 3,
            "num_meta3d_blocks": 2,
        },
    ),
    "no-layer-scale-relu-grey": Case(
        TWO_HEADS,
        (2, 1, 199, 222),
        {**SMALL, "use_layer_scale": False, "hidden_act": "relu", "num_channels": 1, "num_attention_heads": 4},
    ),
    "pool-5-other-eps-four-channels": Case(
        ONE_HEAD,
        (2, 4, 224, 193),
        {
            **SMALL, "pool_size": 5, "mlp_expansion_ratio": 2, "num_channels": 4, "layer_norm_eps": 1e-2,
            "batch_norm_eps": 1e-1, "num_meta3d_blocks": 2, "key_dim": 5,
        },
    ),
    "attention-only-last-stage": Case(
        TWO_HEADS,
        (2, 3, 223, 224),
        {**SMALL, "num_meta3d_blocks": 3, "hidden_act": "gelu_new", "num_attention_heads": 1, "key_dim": 9},
    ),
    "three-stages-wide-kernel": Case(
        ONE_HEAD,
        (7, 3, 117, 118),
        {
            "depths": [2, 1, 3], "hidden_sizes": [14, 14, 22], "downsamples": [False, True, True], "dim": 22,
            "resolution": 10, "downsample_patch_size": 5, "downsample_stride": 3, "downsample_pad": 2,
            "num_meta3d_blocks": 2, "num_attention_heads": 2, "key_dim": 8, "num_labels": 1, "hidden_act": "silu",
        },
    ),
    "fractional-ratios": Case(
        BARE,
        (2, 3, 220, 195),
        {**SMALL, "attention_ratio": 1.5, "key_dim": 7, "mlp_expansion_ratio": 2.5, "hidden_act": "quick_gelu"},
    ),
    "resolution-9-four-blocks": Case(
        ONE_HEAD,
        (1, 3, 287, 259),
        {
            **SMALL, "depths": [1, 0, 1, 5], "resolution": 9, "image_size": 288, "num_meta3d_blocks": 4,
            "num_attention_heads": 5, "key_dim": 3, "attention_ratio": 2, "hidden_act": "mish", "drop_path_rate": 0.1,
            "hidden_dropout_prob": 0.3,
        },
    ),
}  # fmt: skip

NET, BARE_NET = "EfficientNetForImageClassification", "EfficientNetModel"
NARROW = {"width_coefficient": 0.25, "depth_coefficient": 0.6, "hidden_dim": 320, "num_labels": 7}
THREE_STAGES = {
    "width_coefficient": 0.5, "depth_coefficient": 1.0, "depth_divisor": 4, "hidden_dim": 640,
    "in_channels": [32, 20, 36], "out_channels": [20, 36, 28], "num_block_repeats": [2, 1, 3], "num_labels": 3,
}  # fmt: skip

# Widths and depths are the published ones; the larger variants see smaller pictures than they were made for.
EFFICIENTNETS = {
    "efficientnet-b0": Case(NET, (2, 3, 224, 199), scaled("efficientnet-b0")),
    "efficientnet-b1": Case(NET, (2, 3, 131, 240), scaled("efficientnet-b1")),
    "efficientnet-b2": Case(NET, (2, 3, 129, 190), scaled("efficientnet-b2"), draws=2),
    "efficientnet-b3": Case(NET, (2, 3, 150, 127), scaled("efficientnet-b3")),
    "efficientnet-b4": Case(NET, (2, 3, 161, 128), scaled("efficientnet-b4"), draws=3),
    "efficientnet-b5": Case(NET, (1, 3, 130, 97), scaled("efficientnet-b5"), draws=4),
    "efficientnet-b6": Case(NET, (1, 3, 97, 130), scaled("efficientnet-b6"), draws=4),
    "efficientnet-b7": Case(NET, (1, 3, 97, 130), scaled("efficientnet-b7"), draws=2),
    "efficientnet-b8": Case(NET, (1, 3, 97, 130), scaled("efficientnet-b8")),
    "net-odd-sizes": Case(NET, (3, 3, 97, 130), {**NARROW, "depthwise_padding": [1, 5, 40]}, draws=16),
    "net-tf-same": Case(
        NET, (3, 3, 97, 130), {**NARROW, "padding": "tf-same-dynamic", "hidden_act": "gelu"}, draws=16
    ),
    "net-symmetric-torch-eps": Case(
        NET,
        (2, 3, 98, 131),
        {**NARROW, "padding": "symmetric", "batch_norm_eps": 1e-5, "hidden_act": "mish"},
        draws=16,
    ),
    "net-max-pooling-grey": Case(
        NET, (2, 1, 101, 64), {**NARROW, "pooling_type": "max", "num_channels": 1, "hidden_act": "relu"}, draws=16
    ),
    "net-other-ratios": Case(
        NET,
        (2, 3, 71, 93),
        {
            **NARROW, "squeeze_expansion_ratio": 0.6, "expand_ratios": [1, 4, 1, 3, 2, 5, 1],
            "kernel_sizes": [5, 7, 3, 5, 3, 3, 7], "strides": [2, 1, 2, 1, 1, 2, 1], "batch_norm_eps": 0.1,
        },
        draws=16,
    ),
    "net-three-stages": Case(
        BARE_NET,
        (2, 4, 45, 62),
        {
            **THREE_STAGES, "kernel_sizes": [3, 5, 3], "strides": [1, 2, 2], "expand_ratios": [2, 3, 1],
            "num_channels": 4, "pooling_type": "max", "hidden_act": "gelu_new", "squeeze_expansion_ratio": 0.12,
        },
        draws=16,
    ),
    "net-one-label": Case(
        NET,
        (4, 3, 33, 40),
        {
            **THREE_STAGES, "kernel_sizes": [5, 5, 5], "strides": [2, 1, 2], "expand_ratios": [1, 1, 6],
            "num_labels": 1, "hidden_act": "quick_gelu", "depthwise_padding": [0],
        },
        draws=16,
    ),
}  # fmt: skip

SWIFT, BARE_SWIFT = "SwiftFormerForImageClassification", "SwiftFormerModel"
LITTLE = {"depths": [1, 2, 1, 3], "embed_dims": [12, 20, 28, 36], "num_labels": 11}

SWIFTFORMERS = {
    "swiftformer-xs": Case(SWIFT, (2, 3, 221, 199), {**swiftformer.VARIANTS["swiftformer-xs"], "num_labels": 1000}),
    "swiftformer-s": Case(SWIFT, (2, 3, 197, 224), {**swiftformer.VARIANTS["swiftformer-s"], "num_labels": 1000}),
    "swiftformer-l1": Case(SWIFT, (1, 3, 224, 211), {**swiftformer.VARIANTS["swiftformer-l1"], "num_labels": 1000}),
    "swiftformer-l3": Case(SWIFT, (1, 3, 195, 160), {**swiftformer.VARIANTS["swiftformer-l3"], "num_labels": 1000}),
    "swift-odd-sizes": Case(SWIFT, (3, 3, 97, 130), LITTLE),
    "swift-l2": Case(SWIFT, (3, 3, 97, 130), {**LITTLE, "attention_norm": "l2"}),
    "swift-no-layer-scale-relu-grey": Case(
        SWIFT, (2, 1, 99, 122), {**LITTLE, "use_layer_scale": False, "hidden_act": "relu", "num_channels": 1}
    ),
    "swift-other-ratio-other-eps": Case(
        SWIFT,
        (2, 4, 64, 93),
        {**LITTLE, "mlp_ratio": 2.5, "num_channels": 4, "batch_norm_eps": 0.1, "hidden_act": "silu"},
    ),
    "swift-wide-kernel-three-stages": Case(
        BARE_SWIFT,
        (2, 3, 117, 83),
        {
            "depths": [2, 1, 3], "embed_dims": [14, 14, 22], "downsamples": [False, True, True], "mlp_ratio": 3,
            "down_patch_size": [5, 3], "down_stride": [3, 2], "down_pad": [2, 0], "hidden_act": "gelu_new",
            "attention_norm": "l2",
        },
    ),
    "swift-one-label": Case(
        SWIFT,
        (5, 3, 40, 31),
        {
            **LITTLE, "num_labels": 1, "depths": [3, 1, 2, 1], "hidden_act": "tanh", "drop_path_rate": 0.1,
            "drop_mlp_rate": 0.2, "drop_conv_encoder_rate": 0.3,
        },
    ),
}  # fmt: skip

CASES = {**EFFICIENTFORMERS, **EFFICIENTNETS, **SWIFTFORMERS}
SMALLEST = ("l1", "efficientnet-b0", "swiftformer-xs")  # of each family's published variants
ODD = [name for name, case in CASES.items() if case.settings.get("num_labels") != 1000]  # all but the published ones


def random_state(arrays: Mapping[str, np.ndarray], draw: int = 0) -> dict[str, np.ndarray]:
    """Random float64 values for every name of a state dict; integers (index tables, counters) stay as they are."""
    return {
        name: array if np.issubdtype(array.dtype, np.integer) else _draw(name, array.shape, draw)
        for name, array in arrays.items()
    }


def _draw(name: str, shape: tuple[int, ...], draw: int) -> np.ndarray:
    generator = np.random.default_rng(zlib.crc32(name.encode()) + draw)
    normal = generator.standard_normal(shape)
    last = name.rsplit(".", 1)[-1]
    if last == "running_var":
        return 0.5 + generator.random(shape)
    if last.startswith("layer_scale"):
        return np.sign(normal) * (0.3 + 0.5 * generator.random(shape))
    if last == "weight" and len(shape) == 1:  # of a norm
        # SiLU and the gates halve EfficientNet's signal again and again: made up for, or deep layers see only biases.
        gain = 1.75 if name.endswith("project_bn.weight") else 1
        return gain * np.sign(normal) * (0.6 + 0.6 * generator.random(shape))
    if last == "weight":
        # Outputs of order one, whatever the layer's width. SwiftFormer's global query is a sum over all tokens: scaled
        # down before it is added, or it would drive all that follows to where activations look alike.
        return normal / np.sqrt(np.prod(shape[1:])) * (0.1 if name.endswith("attn.proj.weight") else 1)
    return normal  # biases, running means, attention biases, w_g


def pixel_values(shape: tuple[int, ...], draw: int = 0) -> np.ndarray:
    return np.random.default_rng(7 + draw).standard_normal(shape)


def fill(model: Any, dtype: Any, draw: int = 0) -> Any:
    """The model with random weights in `dtype`."""
    return model.astype(dtype).load_state_dict(random_state(model.state_dict(), draw))


def sample_positions(name: str, size: int) -> np.ndarray:
    """Return the positions of a flattened value that the golden file keeps."""
    return np.random.default_rng(zlib.crc32(name.encode())).integers(0, size, SAMPLES)


def digest(name: str, value: np.ndarray) -> dict[str, Any]:
    """Return the record of one value in a golden file."""
    return {
        "shape": list(value.shape),
        "mean": _digits(value.mean()),
        "std": _digits(value.std()),
        "largest": _digits(np.abs(value).max()),
        "samples": [_digits(sample) for sample in value.reshape(-1)[sample_positions(name, value.size)]],
    }


def _digits(value: Any) -> float:
    """Fourteen digits: three more than the tolerance asks for."""
    return float(f"{value:.14g}")


def read_golden(name: str) -> dict[str, dict[str, Any]]:
    return json.loads((GOLDEN / f"{name}.json").read_text())


def write_golden(name: str, values: Iterable[tuple[str, np.ndarray]]) -> None:
    lines = [f"{json.dumps(key)}: {json.dumps(digest(key, value))}" for key, value in values]
    (GOLDEN / f"{name}.json").write_text("{\n" + ",\n".join(lines) + "\n}\n")


def assert_matches_golden(trace: Mapping[str, np.ndarray], golden: Mapping[str, dict[str, Any]]) -> None:
    """Every recorded value of PyTorch's is here under the same name, with the same shape and numbers."""
    missing = [name for name in golden if name not in trace]
    assert not missing, f"no value for {missing}"
    for name, expected in golden.items():
        value = trace[name]
        assert list(value.shape) == expected["shape"], name
        bound = TOLERANCE * expected["largest"]
        ours = digest(name, value)
        worst = np.abs(np.subtract(ours["samples"], expected["samples"])).max()
        assert worst <= bound, f"{name}: off by {worst:.1e}, {worst / expected['largest']:.1e} of its largest value"
        for statistic in ("mean", "std", "largest"):
            assert abs(ours[statistic] - expected[statistic]) <= bound, f"{name}: {statistic} differs"


def command_line(capsys: Any, command: str) -> Callable[..., tuple[int, str, str]]:
    """`npformer COMMAND ...` as a function of its arguments: the exit code, and what was printed to both streams."""

    def call(*arguments: object) -> tuple[int, str, str]:
        code = main([command, *map(str, arguments)])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call
