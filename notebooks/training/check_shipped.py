"""Compare the shipped models on all 10,000 test pictures of Fashion-MNIST, and check that PyTorch sees the same.

    python notebooks/training/check_shipped.py [MODEL...]

Every picture goes through npformer's image processor and model; where torch and transformers are installed the same
pixels go through transformers' model too, and the two must name the same class for every picture. `npformer evaluate`,
which uses the fused model, must count as many right, at the first guess and among five. Exits with 1 if not.
It ends with the table of the README: accuracy, parameters, multiply-adds, and the time of one picture on its own.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from npformer import AutoImageProcessor, AutoModelForImageClassification
from npformer.assets import model_directory, shipped_models
from npformer.evaluate import evaluate
from npformer.evaluate.data import read_idx
from npformer.summary import summarize

WARMUP, TIMED = 20, 300


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", metavar="MODEL", help="default: all shipped models")
    parser.add_argument("--data", type=Path, default=Path("/usr/share/datasets/fashion-mnist"))
    parser.add_argument("--batch-size", type=int, default=20)
    args = parser.parse_args()
    pictures = [Image.fromarray(p).convert("RGB") for p in read_idx(args.data / "t10k-images-idx3-ubyte.gz")]
    labels = read_idx(args.data / "t10k-labels-idx1-ubyte.gz")

    names = args.models or shipped_models()
    # Before PyTorch is imported, whose threads would share the cores.
    milliseconds = {name: time_of_one(name, pictures) for name in names}
    rows, equal = [], True
    for name in names:
        accuracy, same = compare(name, pictures, labels, args)
        equal &= same
        rows.append(table_row(name, accuracy, milliseconds[name]))
    print("\n| model | accuracy | parameters | multiply-adds | input | one picture |")
    print("| --- | ---: | ---: | ---: | ---: | ---: |")
    print("\n".join(rows))
    return 0 if equal else 1


def load(name: str):
    """A shipped model and its image processor."""
    return AutoModelForImageClassification.from_pretrained(name), AutoImageProcessor.from_pretrained(name)


def time_of_one(name: str, pictures: list[Image.Image]) -> float:
    """The median time of the model on one prepared picture, in milliseconds."""
    model, processor = load(name)
    seconds = []
    for picture in pictures[: WARMUP + TIMED]:
        pixel_values = processor(picture, return_tensors="np")["pixel_values"]
        begun = time.perf_counter()
        model(pixel_values)
        seconds.append(time.perf_counter() - begun)
    return 1000 * float(np.median(seconds[WARMUP:]))


def compare(name: str, pictures: list[Image.Image], labels: np.ndarray, args) -> tuple[float, bool]:
    """Returns npformer's accuracy, and whether PyTorch, where it is installed, and `npformer evaluate` agree."""
    model, processor = load(name)
    theirs = pytorch_model(name)
    ours_said, theirs_said, largest = [], [], 0.0
    for start in tqdm(range(0, len(pictures), args.batch_size), desc=name, unit="batch"):
        pixel_values = processor(pictures[start : start + args.batch_size], return_tensors="np")["pixel_values"]
        logits = model(pixel_values).logits
        ours_said.append(logits)
        if theirs is not None:
            expected = theirs(pixel_values)
            theirs_said.append(expected)
            largest = max(largest, float(np.abs(logits - expected).max()))
    said = np.concatenate(ours_said)
    accuracy = float(np.mean(said.argmax(-1) == labels))
    metrics = evaluate(name, args.data)
    counted = metrics.hits1, metrics.hits5
    print(f"{name}\n  npformer:          {accuracy:.2%} of {len(labels)}")
    print(f"  npformer evaluate: {counted[0]} right, {counted[1]} in five")
    if theirs is None:
        print("  PyTorch:           not installed, not compared")
        return accuracy, counted == hits(said, labels)
    also = np.concatenate(theirs_said)
    expected_hits = hits(also, labels)
    same = int(np.sum(said.argmax(-1) == also.argmax(-1)))
    print(f"  PyTorch:           {expected_hits[0]} right, {expected_hits[1]} in five")
    print(f"  same class on {same} of {len(labels)}; largest difference of a logit {largest:.1e}")
    return accuracy, same == len(labels) and counted == expected_hits


def hits(logits: np.ndarray, labels: np.ndarray) -> tuple[int, int]:
    """How many labels are the first guess, and how many are among the first five."""
    best = np.argsort(-logits, axis=-1, kind="stable")[:, :5] == labels[:, None]
    return int(best[:, 0].sum()), int(best.any(1).sum())


def table_row(name: str, accuracy: float, milliseconds: float) -> str:
    model, processor = load(name)
    size = processor.size["height"]
    total = summarize(model, size, size)[0]
    return (
        f"| `{name}` | {accuracy:.2%} | {total.parameters:,} | {total.multiply_adds / 1e6:.1f} M | {size} x {size} "
        f"| {milliseconds:.1f} ms |"
    )


def pytorch_model(name: str):
    """transformers' own model with the same weights, as a function from pixels to logits; None without torch."""
    try:
        import torch
        import transformers
        from transformers.models.deprecated import efficientformer
    except ImportError:
        return None
    class_name = type(load(name)[0]).__name__
    source = efficientformer if class_name.startswith("EfficientFormer") else transformers
    model = getattr(source, class_name).from_pretrained(model_directory(name), torch_dtype=torch.float32)
    model.eval()

    @torch.inference_mode()
    def logits(pixel_values: np.ndarray) -> np.ndarray:
        return model(torch.from_numpy(pixel_values)).logits.numpy()

    return logits


if __name__ == "__main__":
    sys.exit(main())
