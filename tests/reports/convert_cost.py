"""Time and memory of converting EfficientFormer-L7's 330 MB, on Linux: `python -m tests.reports.convert_cost`.

Beside it, PyTorch's `torch.load` and `save_file` of the same weights; both without what importing takes.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROUNDS = 3


def main() -> None:
    import torch

    from tests.live import oracle
    from tests.support import CASES

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "efficientformer_l7.pth"
        torch.save(oracle.build(CASES["l7"]).state_dict(), path)
        size = path.stat().st_size / 1e6
        for number in range(ROUNDS):
            for side in ("npformer", "torch"):
                target = str(Path(folder) / f"{side}-{number}")
                command = [sys.executable, "-m", "tests.reports.convert_cost", side, str(path), target]
                seconds, peak = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()[-2:]
                ratio = float(peak) / size
                print(f"{side:9} {float(seconds):5.2f} s, peak {float(peak):5.0f} MB, {ratio:.2f} x the file")


def one(side: str, source: str, target: str) -> None:
    if side == "npformer":
        from npformer.convert.pipeline import load_checkpoint

        started = time.perf_counter()
        load_checkpoint(source).save(Path(target))
    else:
        import torch
        from safetensors.torch import save_file

        started = time.perf_counter()
        save_file(torch.load(source), target)
    seconds = time.perf_counter() - started
    # Linux' own figure for this process: getrusage would count what its parent held when it was started.
    peak = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    print(seconds, int(peak.split()[1]) * 1024 / 1e6)


if __name__ == "__main__":
    one(*sys.argv[1:]) if len(sys.argv) > 1 else main()
