"""Class names of ImageNet-1k."""

from __future__ import annotations

from pathlib import Path

_FILE = Path(__file__).with_name("imagenet-1k.txt")


def class_names(labels: list[str]) -> list[str]:
    """Return `labels`, or ImageNet-1k's where these are a thousand placeholders: LABEL_0, LABEL_1, ..."""
    unnamed = all(label == f"LABEL_{index}" for index, label in enumerate(labels))
    return imagenet_labels() if unnamed and len(labels) == 1000 else labels


def imagenet_labels() -> list[str]:
    """Return the names of ImageNet-1k's 1000 classes, in the order of their indices: 0 is "tench, Tinca tinca".

    They are not all distinct: "crane" is the bird (134) and the machine (517), and "maillot" (638) is also the
    beginning of "maillot, tank suit" (639), so a name alone does not identify the class.

    The words are WordNet's, whose licence is at the top of the file and must accompany every copy.
    """
    lines = _FILE.read_text("utf-8").splitlines()
    return [line for line in lines if not line.startswith("#")]
