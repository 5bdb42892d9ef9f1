"""Faults planted in an independent port, and what the checker says of them: `python -m tests.reports.parity_suite`.

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

from npformer.summary import align
from tests.parity.planted import FAMILIES, PLACES, Network, Result, pairs, try_one, try_two


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
