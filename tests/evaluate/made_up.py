"""Data sets for tests, in a module of their own so that worker processes can import them."""

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from npformer.evaluate import DataSet
from npformer.evaluate.data import Item

CLASSES = ["Ankle boot", "Bag", "Coat"]  # in the order of their folders, which is not the model's
LONGEST = 600  # seconds, and only where something hangs


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


class Held(DataSet):
    """Pictures that note down who opens them. From each of `stops` on they wait there until a note says to go on."""

    def __init__(self, count: int, notes: Path, stops: tuple[int, ...] = (0,)):
        self.count, self.notes, self.stops = count, notes, stops
        self.name = f"held {count}"

    __iter__ = Deadly.__iter__

    def load(self, key):
        (self.notes / f"opened-{key}-{os.getpid()}").touch()
        for stop in self.stops:
            if stop <= int(key):
                until((self.notes / f"go-{stop}").exists)
        return picture(int(key))

    def openers(self, stop=0):
        """The processes that have opened a picture from there on."""
        opened = [map(int, note.name.split("-")[1:]) for note in self.notes.glob("opened-*")]
        return {process for number, process in opened if number >= stop}

    def go(self, stop):
        (self.notes / f"go-{stop}").touch()


def until(condition: Callable[[], object]) -> None:
    """Wait for something to be so."""
    latest = time.monotonic() + LONGEST
    while not condition():
        assert time.monotonic() < latest, "waited in vain"
        time.sleep(0.01)
