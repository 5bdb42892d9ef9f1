"""The names of ImageNet-1k's classes."""

from __future__ import annotations

from pathlib import Path

_FILE = Path(__file__).with_name("imagenet-1k.txt")


def class_names(labels: list[str]) -> list[str]:
    """Those names, or ImageNet-1k's where they are a thousand that say nothing: LABEL_0, LABEL_1, ..."""
    unnamed = all(label == f"LABEL_{index}" for index, label in enumerate(labels))
    return imagenet_labels() if unnamed and len(labels) == 1000 else labels


def imagenet_labels() -> list[str]:
    """The names of ImageNet-1k's 1000 classes, in the order in which models number them: 0 is "tench, Tinca tinca".

    They are not quite distinct. "crane" is the bird (134) and the machine (517), and "maillot" (638) is also how
    "maillot, tank suit" (639) begins, so a name alone does not tell the class.

    The words are WordNet's, whose licence stands at the top of the file and asks to stay with every copy.
    """
    lines = _FILE.read_text("utf-8").splitlines()
    return [line for line in lines if not line.startswith("#")]
