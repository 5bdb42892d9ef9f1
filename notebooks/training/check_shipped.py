"""Check a shipped model on all 10,000 test pictures of Fashion-MNIST: its accuracy, and that PyTorch sees the same.

    python notebooks/training/check_shipped.py

Every picture goes through npformer's image processor and model; where torch and transformers are installed the same
pixels go through transformers' model too, and the two must name the same class for every picture. Exits with 1 if not.
"""

from __future__ import annotations

import argparse
import gzip
import sys
import time
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from npformer import AutoImageProcessor, AutoModelForImageClassification
from npformer.assets import DEFAULT_MODEL, model_directory


def read_idx(path: Path) -> np.ndarray:
    """Read one gzipped IDX file of unsigned bytes: 2 zero bytes, type 8, rank, big-endian sizes, data."""
    with gzip.open(path) as file:
        raw = file.read()
    rank = raw[3]
    return np.frombuffer(raw, np.uint8, offset=4 + 4 * rank).reshape(np.frombuffer(raw, ">u4", rank, 4))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=DEFAULT_MODEL)
    parser.add_argument("--data", type=Path, default=Path("/usr/share/datasets/fashion-mnist"))
    parser.add_argument("--batch-size", type=int, default=20)
    args = parser.parse_args()
    pictures = read_idx(args.data / "t10k-images-idx3-ubyte.gz")
    labels = read_idx(args.data / "t10k-labels-idx1-ubyte.gz")
    model = AutoModelForImageClassification.from_pretrained(args.model)
    processor = AutoImageProcessor.from_pretrained(args.model)
    theirs = pytorch_model(args.model)

    ours_said, theirs_said, largest, seconds = [], [], 0.0, 0.0
    for start in tqdm(range(0, len(pictures), args.batch_size), unit="batch"):
        batch = [Image.fromarray(picture).convert("RGB") for picture in pictures[start : start + args.batch_size]]
        begun = time.perf_counter()
        pixel_values = processor(batch, return_tensors="np")["pixel_values"]
        logits = model(pixel_values).logits
        seconds += time.perf_counter() - begun
        ours_said.append(logits.argmax(-1))
        if theirs is not None:
            expected = theirs(pixel_values)
            theirs_said.append(expected.argmax(-1))
            largest = max(largest, float(np.abs(logits - expected).max()))

    said = np.concatenate(ours_said)
    print(f"npformer: {np.mean(said == labels):.2%} of {len(labels)}, {seconds / len(labels) * 1000:.1f} ms a picture")
    if theirs is None:
        print("PyTorch: not installed, not compared")
        return 0
    also = np.concatenate(theirs_said)
    same = int(np.sum(said == also))
    print(f"PyTorch:  {np.mean(also == labels):.2%}")
    print(f"same class on {same} of {len(labels)}; largest difference of a logit {largest:.1e}")
    return 0 if same == len(labels) else 1


def pytorch_model(name: str):
    """transformers' own model with the same weights, as a function from pixels to logits; None without torch."""
    try:
        import torch
        from transformers.models.deprecated.efficientformer import EfficientFormerForImageClassification
    except ImportError:
        return None
    model = EfficientFormerForImageClassification.from_pretrained(model_directory(name), torch_dtype=torch.float32)
    model.eval()

    @torch.inference_mode()
    def logits(pixel_values: np.ndarray) -> np.ndarray:
        return model(torch.from_numpy(pixel_values)).logits.numpy()

    return logits


if __name__ == "__main__":
    sys.exit(main())
