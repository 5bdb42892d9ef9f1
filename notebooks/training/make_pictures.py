"""Write `course/fashion-500.npz`, the pictures that lessons measure accuracy on, from Fashion-MNIST's test set.

    python notebooks/training/make_pictures.py [--data DIRECTORY]

The first 50 of each class, in turn: any ten in a row, from the start, hold one of each.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from npformer.evaluate.data import read_idx

EACH = 50


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("/usr/share/datasets/fashion-mnist"))
    args = parser.parse_args()
    images = read_idx(args.data / "t10k-images-idx3-ubyte.gz")
    labels = read_idx(args.data / "t10k-labels-idx1-ubyte.gz")
    chosen = np.stack([np.flatnonzero(labels == number)[:EACH] for number in range(10)], axis=1).ravel()
    path = Path(__file__).parent.parent / "course" / "fashion-500.npz"
    np.savez_compressed(path, pictures=images[chosen], classes=labels[chosen])
    print(f"{path.name}: {len(chosen)} pictures, {path.stat().st_size / 1024:.0f} KB")


if __name__ == "__main__":
    main()
