"""Faults planted in an independent port of narrow networks, and what the checker says of each.

The checker gets the port's dump and nothing else. A fault counts as identifiable where its exact effect is more than
eight times the rounding of the dtype at that value.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from npformer.parity import compare
from npformer.parity.noise import judge, round_to
from npformer.parity.report import Report
from tests.ports import nhwc
from tests.support import NET, SWIFT, TWO_HEADS, Case, fill, pixel_values

# Narrow networks with all that a real one has; the pictures are odd and not square where the family allows it.
FAMILIES = {
    "EfficientFormer": Case(
        TWO_HEADS,
        (2, 3, 128, 128),
        {
            "depths": [2, 1, 2, 3], "hidden_sizes": [12, 16, 24, 32], "dim": 32, "num_meta3d_blocks": 2,
            "resolution": 4, "num_attention_heads": 4, "key_dim": 6, "attention_ratio": 2, "mlp_expansion_ratio": 2,
            "image_size": 128, "num_labels": 11,
        },
    ),
    "EfficientNet": Case(
        NET,
        (2, 3, 97, 130),
        {"width_coefficient": 0.25, "depth_coefficient": 0.6, "hidden_dim": 320, "num_labels": 11},
    ),
    "SwiftFormer": Case(
        SWIFT, (2, 3, 97, 130), {"depths": [1, 2, 1, 2], "embed_dims": [12, 20, 28, 36], "num_labels": 11}
    ),
}  # fmt: skip
# The same on fewer blocks and smaller pictures, which shows every kind of fault in a quarter of the time.
SMALL: dict[str, Case] = {
    f"small {name}": replace(FAMILIES[name], shape=shape, settings={**FAMILIES[name].settings, **settings})
    for name, shape, settings in (
        ("EfficientFormer", (2, 3, 96, 96), {"depths": [1, 1, 1, 3], "resolution": 3, "image_size": 96}),
        ("EfficientNet", (2, 3, 64, 45), {"depth_coefficient": 0.3}),
        ("SwiftFormer", (2, 3, 49, 66), {"depths": [1, 1, 1, 2]}),
    )
}
NETWORKS = {**FAMILIES, **SMALL}
PLACES = 3  # of every kind, spread over the network


@dataclass
class Result:
    """The outcome for one planted fault."""

    family: str
    dtype: str
    fault: nhwc.Fault
    identifiable: bool
    located: bool
    explained: bool
    said: str


class Network:
    """One of `NETWORKS`: its model, its input, and what its port gives without a fault."""

    def __init__(self, family: str) -> None:
        self.family, case = family, NETWORKS[family]
        self.model = fill(case.model(), np.float32)
        self.pixels = round_to(pixel_values(case.shape), "float16").astype(np.float32)
        self.state = self.model.state_dict()
        self.exact = self.port("float64")
        for array in (*self.state.values(), *self.exact.values(), self.pixels):
            array.flags.writeable = False  # tests share them
        self.by_kind: dict[str, list[nhwc.Fault]] = {}
        for fault in nhwc.sites(self.model, self.pixels):
            self.by_kind.setdefault(fault.key, []).append(fault)

    def port(self, dtype: str, *faults: nhwc.Fault, **options: Any) -> dict[str, np.ndarray]:
        return nhwc.run(self.model.config, self.state, self.pixels, dtype, faults, **options)

    def compare(self, dtype: str, *faults: nhwc.Fault, **options: Any) -> Report:
        return compare(self.model, self.pixels, self.port(dtype, *faults, **options))

    def faults(self, places: int = PLACES, of: Collection[str] | None = None) -> Iterator[nhwc.Fault]:
        """Every kind (`of` these) that changes anything, at that many places, spread from the first to the last."""
        for key, faults in self.by_kind.items():
            if of is not None and key not in of:
                continue
            seen: dict[str, list[nhwc.Fault]] = {}
            for fault in faults:  # one version per place, another one at the next
                seen.setdefault(fault.at, []).append(fault)
            one_each = [versions[i % len(versions)] for i, versions in enumerate(seen.values())]
            chosen = np.linspace(0, len(one_each) - 1, min(places, len(one_each))).round().astype(int)
            yield from (one_each[i] for i in sorted(set(chosen)) if self.shows(one_each[i]))

    def shows(self, fault: nhwc.Fault) -> bool:
        """Whether the value it is planted at is another one, in exact arithmetic."""
        return nhwc.largest_change(self.exact[fault.at], self.wrong(fault)) > 1e-6

    def wrong(self, fault: nhwc.Fault) -> np.ndarray:
        """What it makes of the value it is planted at, in exact arithmetic."""
        return self.port("float64", fault, until=fault.at)[fault.at]

    def effect(self, fault: nhwc.Fault, dtype: str) -> float:
        """Return the size of the fault at its value, over the dtype's rounding there."""
        right = self.exact[fault.at]
        wrong = self.wrong(fault)
        if right.shape != wrong.shape:
            return np.inf
        return judge(wrong, right, round_to(right, dtype), "", dtype).ratio


def try_one(network: Network, dtype: str, fault: nhwc.Fault) -> Result:
    report = network.compare(dtype, fault)
    ops = [found.op for found in report.faults]
    located = bool(ops) and ops[0] == fault.at and set(ops) <= set(fault.shows_at)
    causes = [cause.key for cause in report.faults[0].causes] if report.faults else []
    explained = located and fault.key in causes and len(set(causes)) <= 2
    return Result(
        network.family, dtype, fault, network.effect(fault, dtype) > 8, located, explained,
        f"{ops[:3]} {causes}",
    )  # fmt: skip


def try_two(network: Network, dtype: str, pair: tuple[nhwc.Fault, nhwc.Fault]) -> bool:
    ops = {found.op for found in network.compare(dtype, *pair).faults}
    allowed = {at for fault in pair for at in fault.shows_at}
    return {fault.at for fault in pair} <= ops <= allowed


def pairs(network: Network, count: int) -> list[tuple[nhwc.Fault, nhwc.Fault]]:
    """Two faults of different values, drawn at random."""
    rng = np.random.default_rng(5)
    faults = [fault for fault in network.faults(2) if network.effect(fault, "float16") > 8]
    drawn = []
    while len(drawn) < count:
        first, second = (faults[i] for i in rng.choice(len(faults), 2, replace=False))
        if not set(first.shows_at) & set(second.shows_at):
            drawn.append((first, second))
    return drawn
