"""EfficientFormer-L1 at batch 1, ours against PyTorch eager: `python -m tests.live.benchmark [VARIANT] [ROUNDS]`.

The two run in processes of their own, in turn, each reporting its median of 20 runs; what counts is the ratio within a
round, since machines drift. Weights are random and of order one: with freshly initialised ones denormal numbers would
be timed instead.
"""

import subprocess
import sys
import time

import numpy as np

from tests.support import CASES, fill

WARMUP, RUNS = 5, 20


def main() -> None:
    name = sys.argv[1] if len(sys.argv) > 1 else "l1"
    rounds = int(sys.argv[2]) if len(sys.argv) > 2 else 7
    ratios = []
    for number in range(rounds):
        theirs, ours = (measure(side, name) for side in ("torch", "npformer"))
        ratios.append(ours / theirs)
        print(f"round {number + 1}: PyTorch {theirs:6.1f} ms   npformer {ours:6.1f} ms   ratio {ratios[-1]:.2f}")
    print(f"{name}, batch 1: median ratio {np.median(ratios):.2f} of {rounds} rounds")


def measure(side: str, name: str) -> float:
    command = [sys.executable, "-m", "tests.live.benchmark", "--one", side, name]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def one(side: str, name: str) -> None:
    pixel_values = np.random.default_rng(7).standard_normal((1, 3, 224, 224)).astype(np.float32)
    if side == "npformer":
        model = fill(CASES[name].model(), np.float32)
        run = lambda: model(pixel_values)  # noqa: E731
    else:
        import torch

        from tests.live import oracle

        torch_model, tensor = oracle.random_model(CASES[name], torch.float32), torch.tensor(pixel_values)
        torch.inference_mode().__enter__()
        run = lambda: torch_model(tensor)  # noqa: E731
    seconds = []
    for _ in range(WARMUP + RUNS):
        started = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - started)
    print(1000 * np.median(seconds[WARMUP:]))


if __name__ == "__main__":
    one(*sys.argv[2:]) if sys.argv[1:2] == ["--one"] else main()
