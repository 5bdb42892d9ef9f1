"""Record PyTorch's float64 values for every case: `python -m tests.golden.make_golden [CASE...]`.

Needs torch 2.13.0 and transformers 4.56.2. The files it writes let every layer be checked where neither is installed.
"""

import sys

import numpy as np
import torch

from npformer.assets import shipped_models
from tests.live import oracle
from tests.live.shipped import oracle_model, sample_input
from tests.support import CASES, pixel_values, write_golden


def main() -> None:
    wanted = sys.argv[1:] or [*CASES, *shipped_models()]
    for name in wanted:
        if name in CASES:
            model = oracle.random_model(CASES[name], torch.float64)
            values = oracle.record(model, pixel_values(CASES[name].shape))
        else:
            values = oracle.record(oracle_model(name, torch.float64), sample_input(name).astype(np.float64))
        write_golden(name, values.items())
        print(f"{name}: {len(values)} values")


if __name__ == "__main__":
    main()
