"""EfficientFormer, EfficientNet and SwiftFormer once more: plain NumPy, channels last, with faults to be planted.

An independently written port, to test the parity checker on. It shares no code with npformer: only the
papers' structure, a config's settings and the names of a state dict. `run` gives every value under the names that
`npformer.record` gives them, `sites` all faults that fit a network, `visible` those of them that show.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from .arithmetic import Arithmetic, Array
from .faults import PLANS, Fault
from .networks import NETWORKS, Port, Reached
from .preprocess import INPUT_KINDS, input_sites, preprocess

__all__ = ["VARIANTS", "Fault", "input_sites", "kinds", "largest_change", "preprocess", "run", "sites", "visible"]

VARIANTS = ("plain", "folded", "reordered", "sequential")


def kinds() -> list[str]:
    """The keys of all faults that can be planted in a network, then those of `preprocess`."""
    return [*dict.fromkeys(key for key, _ in PLANS), *INPUT_KINDS]


def run(
    config: Any,
    state: Mapping[str, Array],
    pixel_values: Array,
    dtype: str = "float32",
    faults: Sequence[Fault] = (),
    layout: str = "NHWC",
    variant: str = "plain",
    until: str | None = None,
) -> dict[str, Array]:
    """Run a network on pixel_values (B, C, H, W); every value by name, in order of execution.

    config: a config object or a dictionary of all its settings. dtype: "float32", "float16", "bfloat16" (float32
    arrays of such numbers) or "float64"; weights are rounded to it, and every op's result. layout: maps are (B, H, W,
    C) or, with "NCHW", (B, C, H, W); tokens (B, N, D) and what is inside attention have one layout. variant: "plain";
    "folded", batch norms folded into the convolution before, where there is one: both names then hold the result;
    "reordered" and "sequential", sums in another order, see `Arithmetic`. until: the last value wanted.

    A fault of the padding before one of EfficientNet's strided convolutions may be planted at the padded map's name,
    or at the convolution: then the port pads inside it, and the padded map is missing from the result.

    Raises ValueError for an unknown model type, dtype, variant or layout, and for a fault that does not fit.
    """
    if variant not in VARIANTS:
        raise ValueError(f"variant must be one of {', '.join(VARIANTS)}, got {variant!r}")
    if layout not in ("NHWC", "NCHW"):
        raise ValueError(f"layout must be NHWC or NCHW, got {layout!r}")
    order = variant if variant in ("reordered", "sequential") else "plain"
    port = Port(state, Arithmetic(dtype, order), faults, folded=variant == "folded", until=until)
    _compute(port, config, pixel_values)
    values = {name: port.arithmetic.dumped(value) for name, value in port.values.items()}
    if layout == "NHWC":
        return values
    return {
        name: value.transpose(0, 3, 1, 2) if port.axes[name] == "BHWC" else value for name, value in values.items()
    }


def sites(model: Any, pixel_values: Array | None = None) -> list[Fault]:
    """Every fault that fits a model, in order of execution, for pictures of a size (config.image_size if None).

    Whether it fits follows from settings and shapes; some do not show on given values (see `visible`).
    """
    config, state = model.config, model.state_dict()
    if pixel_values is None:
        side = config.image_size
        pixel_values = np.zeros((1, config.num_channels, side, side), np.float32)
    found: list[Fault] = []
    _compute(Port(state, Arithmetic(), collected=found), config, pixel_values)
    return found


def largest_change(right: Array, wrong: Array) -> float:
    """The largest difference over the largest right number; infinite where shapes differ or a number is not finite."""
    if right.shape != wrong.shape or not np.isfinite(wrong).all():
        return np.inf
    return float(np.abs(wrong - right).max() / max(np.abs(right).max(), 1e-300))


def visible(model: Any, pixel_values: Array, faults: Iterable[Fault], least: float = 1e-6) -> list[Fault]:
    """Return the faults that change their value by more than `least` of its largest number (float64)."""
    config, state = model.config, model.state_dict()
    clean = run(config, state, pixel_values, "float64")
    return [
        fault
        for fault in faults
        if largest_change(
            clean[fault.at], run(config, state, pixel_values, "float64", [fault], until=fault.at)[fault.at]
        )
        > least
    ]


def _compute(port: Port, config: Any, pixel_values: Array) -> None:
    """Run the network a config describes. Raises ValueError."""
    settings = config if isinstance(config, Mapping) else config.to_dict()
    if settings.get("model_type") not in NETWORKS:
        raise ValueError(f"model_type must be one of {', '.join(NETWORKS)}, got {settings.get('model_type')!r}")
    with np.errstate(all="ignore"):  # half precision overflows to infinity, and a planted NaN spreads
        x = port.arithmetic.round(np.asarray(pixel_values).transpose(0, 2, 3, 1))
        try:
            NETWORKS[settings["model_type"]](port, settings, x)
        except Reached:
            return
    idle = [fault for fault in port.faults if fault not in port.done]
    if idle:
        raise ValueError(f"nothing named {idle[0].at!r} is computed in a way that {idle[0]} fits")
