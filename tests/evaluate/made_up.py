"""Data sets for tests, in a module of their own so that worker processes can import them."""

import os
import signal
import time
from pathlib import Path

import numpy as np
from PIL import Image

from npformer.evaluate import DataSet
from npformer.evaluate.data import Item

CLASSES = ["Ankle boot", "Bag", "Coat"]  # in the order of their folders, which is not the model's


def picture(number: int) -> Image.Image:
    generator = np.random.default_rng(number)
    return Image.fromarray(generator.integers(0, 256, (28, 28), dtype=np.uint8)).convert("RGB")


def class_folders(root: Path, each: int = 4) -> Path:
    for label, name in enumerate(CLASSES):
        (root / name).mkdir(parents=True)
        for number in range(each):
            picture(100 * label + number).save(root / name / f"{number}.png")
    return root


class Deadly(DataSet):
    """Pictures, some of which kill the process that opens them: always, or once."""

    def __init__(
        self, count: int, always: tuple[int, ...] = (), once: tuple[int, ...] = (), notes: Path | None = None
    ):
        self.count, self.always, self.once, self.notes = count, always, once, notes
        self.name = f"deadly {count}"

    def __iter__(self):
        for number in range(self.count):
            yield Item(number, str(number), number % 10)

    def load(self, key):
        number = int(key)
        note = self.notes / key if self.notes else None
        if number in self.always or (number in self.once and not note.exists()):
            if note:
                note.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return picture(number)


class Slow(Deadly):
    """Pictures that are slow to open, and record which process opens them."""

    def load(self, key):
        time.sleep(0.01)
        (self.notes / f"worker-{os.getpid()}").touch()
        return picture(int(key))
