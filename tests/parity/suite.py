"""Faults planted in an independent port, and what the checker says of them: `python -m tests.parity.suite`.

Every kind of fault that the port of `tests/ports` can have is planted in each family's network, at several places, in
a float32 and a float16 port, one at a time and two at once. The checker gets the port's dump and nothing else. Counted
is whether it names the faulty op exactly (no other value is called faulty), and whether it names the cause: whether
what was planted is what it lists, alone or with at most one other that cannot be told apart.

A fault counts as identifiable where its exact effect is more than eight times the rounding of the dtype at that value.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from npformer.parity.compare import compare
from npformer.parity.noise import judge, round_to
from npformer.parity.report import Report
from npformer.summary import align
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
    """One family's model, its input, and what its port gives without a fault."""

    def __init__(self, family: str) -> None:
        self.family, case = family, FAMILIES[family]
        self.model = fill(case.model(), np.float32)
        self.pixels = round_to(pixel_values(case.shape), "float16").astype(np.float32)
        self.state = self.model.state_dict()
        self.exact = self.port("float64")

    def port(self, dtype: str, *faults: nhwc.Fault, **options: Any) -> dict[str, np.ndarray]:
        return nhwc.run(self.model.config, self.state, self.pixels, dtype, faults, **options)

    def compare(self, dtype: str, *faults: nhwc.Fault, **options: Any) -> Report:
        return compare(self.model, self.pixels, self.port(dtype, *faults, **options))

    def faults(self, places: int = PLACES) -> Iterator[nhwc.Fault]:
        """Every kind that changes anything, at that many places, spread from the first to the last that fit."""
        by_kind: dict[str, list[nhwc.Fault]] = {}
        for fault in nhwc.sites(self.model, self.pixels):
            by_kind.setdefault(fault.key, []).append(fault)
        for faults in by_kind.values():
            seen = {}
            for fault in faults:  # one version per place, another one at the next
                seen.setdefault(fault.at, []).append(fault)
            one_each = [versions[i % len(versions)] for i, versions in enumerate(seen.values())]
            chosen = np.linspace(0, len(one_each) - 1, min(places, len(one_each))).round().astype(int)
            yield from nhwc.visible(self.model, self.pixels, [one_each[i] for i in sorted(set(chosen))])

    def effect(self, fault: nhwc.Fault, dtype: str) -> float:
        """Return the size of the fault at its value, over the dtype's rounding there."""
        right = self.exact[fault.at]
        wrong = self.port("float64", fault, until=fault.at)[fault.at]
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


def run(families: list[str], dtypes: list[str], places: int, two: int) -> list[str]:
    """The table, line by line; misses after it."""
    kinds: dict[str, dict[tuple[str, str], list[Result]]] = {}
    totals, doubles = {}, {}
    for family in families:
        network = Network(family)
        for dtype in dtypes:
            results = [try_one(network, dtype, fault) for fault in network.faults(places)]
            for result in results:
                kinds.setdefault(result.fault.key, {}).setdefault((family, dtype), []).append(result)
            totals[family, dtype] = results
            doubles[family, dtype] = [try_two(network, dtype, pair) for pair in pairs(network, two)]
    columns = list(totals)
    heads = [["", *(family for family, _ in columns)], ["fault", *(dtype for _, dtype in columns)]]
    lines = [[kind, *(_cell(row.get(column, [])) for column in columns)] for kind, row in sorted(kinds.items())]
    sums = ["all", *(_cell(totals[column]) for column in columns)]
    both = ["two at once", *(f"{sum(doubles[column])}/{len(doubles[column])}" for column in columns)]
    table = align([*heads, *lines, sums, both], right=set(range(1, len(sums))))
    misses = [
        f"{r.family} {r.dtype} {r.fault.key} {r.fault.detail} at {r.fault.at}: {r.said}"
        for results in totals.values()
        for r in results
        if r.identifiable and not r.explained
    ]
    return [*table, "", "Each cell: op named exactly / cause named, of the identifiable ones. Missed:", *misses]


def _cell(results: list[Result]) -> str:
    seen = [result for result in results if result.identifiable]
    if not seen:
        return "-" if not results else "too small"
    return f"{sum(r.located for r in seen)}/{sum(r.explained for r in seen)} of {len(seen)}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--family", action="append", choices=list(FAMILIES))
    parser.add_argument("--dtype", action="append", choices=["float32", "float16", "bfloat16", "float64"])
    parser.add_argument("--places", type=int, default=PLACES)
    parser.add_argument("--pairs", type=int, default=20)
    args = parser.parse_args()
    started = time.perf_counter()
    lines = run(args.family or list(FAMILIES), args.dtype or ["float32", "float16"], args.places, args.pairs)
    print("\n".join(lines))
    print(f"{time.perf_counter() - started:.0f} s", file=sys.stderr)


if __name__ == "__main__":
    main()
