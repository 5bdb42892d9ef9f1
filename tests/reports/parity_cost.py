"""Time and memory of comparing EfficientFormer-L1 with a port of it: `python -m tests.reports.parity_cost`."""

import resource
import tempfile
import time
from pathlib import Path

import numpy as np

from npformer.parity import compare, write_dump
from tests.ports import nhwc
from tests.support import CASES, fill, pixel_values


def main() -> None:
    case = CASES["l1"]
    model = fill(case.model(), np.float32)
    x = pixel_values((1, *case.shape[1:])).astype(np.float32)
    fault = next(fault for fault in nhwc.sites(model, x) if fault.key == "act-relu" and "meta3D" in fault.at)
    for name, faults in (("without a fault", []), ("with a fault", [fault])):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "dump.npz"
            write_dump(nhwc.run(model.config, model.state_dict(), x, "float32", faults), path)
            started = time.perf_counter()
            report = compare(model, x, path)
            seconds = time.perf_counter() - started
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
        print(f"L1 {name}: {seconds:.1f} s, peak {peak:.2f} GB, {report.tested} values, {len(report.faults)} faults")


if __name__ == "__main__":
    main()
