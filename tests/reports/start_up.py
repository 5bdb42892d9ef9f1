"""From starting a process to its first prediction, ours against PyTorch's: `python -m tests.reports.start_up`.

ROUNDS may follow: how often.

`npformer classify PICTURE --model DIR` is timed against a script that does the same with torch and transformers, both
on EfficientFormer-L1 with random weights of order one, in turn. After the first round, which is not counted, all files
are in the system's cache for both.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median

from npformer.assets import sample_pictures
from npformer.bench.subject import prepare
from npformer.models.registry import image_processor

ROUNDS = 7
NAME = "efficientformer-l1"

THEIRS = """
import sys

sys.modules["torchvision"] = None  # not needed here, and slow to import where transformers finds it
import torch
from PIL import Image
from transformers.models.deprecated.efficientformer import (
    EfficientFormerForImageClassificationWithTeacher, EfficientFormerImageProcessor
)

picture, directory = sys.argv[1:]
processor = EfficientFormerImageProcessor.from_pretrained(directory)
model = EfficientFormerForImageClassificationWithTeacher.from_pretrained(directory)
with torch.inference_mode():
    inputs = processor(Image.open(picture).convert("RGB"), return_tensors="pt")
    probabilities, classes = model(**inputs).logits.softmax(-1).topk(5)
for probability, index in zip(probabilities[0].tolist(), classes[0].tolist()):
    print(f"{model.config.id2label[index]} {probability:.1%}")
"""

# In a process that holds next to nothing: on Linux a child's peak memory begins with what its parent held.
STOPWATCH = """
import os, subprocess, sys, time

started = time.perf_counter()
process = subprocess.Popen(sys.argv[1:], stdout=subprocess.DEVNULL)
_, status, usage = os.wait4(process.pid, 0)
print(time.perf_counter() - started, usage.ru_maxrss)
sys.exit(os.waitstatus_to_exitcode(status))
"""


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else ROUNDS
    with tempfile.TemporaryDirectory() as folder:
        directory, script, picture = Path(folder) / "model", Path(folder) / "theirs.py", next(iter(sample_pictures()))
        script.write_text(THEIRS)
        prepare(NAME, None, directory)
        image_processor(NAME).save_pretrained(directory)
        commands = {
            "npformer": ["-m", "npformer", "classify", picture, "--model", directory, "--top", "5"],
            "torch": [script, picture, directory],
        }
        seconds: dict[str, list[float]] = {side: [] for side in commands}
        memory: dict[str, list[float]] = {side: [] for side in commands}
        for number in range(rounds + 1):
            for side, command in commands.items():
                elapsed, peak = measure([sys.executable, *map(str, command)])
                if number:
                    seconds[side].append(elapsed)
                    memory[side].append(peak)
            if number:
                told = "   ".join(f"{side} {1000 * seconds[side][-1]:5.0f} ms" for side in commands)
                print(f"round {number}: {told}   ratio {seconds['npformer'][-1] / seconds['torch'][-1]:.2f}")
    for side in commands:
        print(f"{side:9} median {1000 * median(seconds[side]):5.0f} ms, peak memory {max(memory[side]):4.0f} MB")
    ratio = median(ours / theirs for ours, theirs in zip(seconds["npformer"], seconds["torch"], strict=True))
    print(f"{NAME}, process start to first prediction: median ratio {ratio:.2f} of {rounds} rounds")


def measure(command: list[str]) -> tuple[float, float]:
    """Wall time in seconds, and peak memory in megabytes, of a command. Raises where it fails."""
    done = subprocess.run([sys.executable, "-c", STOPWATCH, *command], stdout=subprocess.PIPE, text=True, check=True)
    seconds, peak = map(float, done.stdout.split())
    return seconds, peak * (1 if sys.platform == "darwin" else 1024) / 1e6


if __name__ == "__main__":
    main()
