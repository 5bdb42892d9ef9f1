"""The names of ImageNet-1k's classes, and the notice that has to go with them."""

from __future__ import annotations

import collections
from pathlib import Path

import pytest

from npformer import assets
from npformer.assets.imagenet import imagenet_labels

FILE = Path(assets.__file__).with_name("imagenet-1k.txt")


def test_one_name_for_each_of_the_1000_classes() -> None:
    labels = imagenet_labels()
    assert len(labels) == 1000
    assert all(label and label == " ".join(label.split()) and not label.startswith("#") for label in labels)


@pytest.mark.parametrize(
    ("index", "label"),
    [
        (0, "tench, Tinca tinca"),
        (1, "goldfish, Carassius auratus"),
        (134, "crane"),
        (151, "Chihuahua"),
        (281, "tabby, tabby cat"),
        (282, "tiger cat"),
        (285, "Egyptian cat"),
        (388, "giant panda, panda, panda bear, coon bear, Ailuropoda melanoleuca"),
        (517, "crane"),
        (638, "maillot"),
        (639, "maillot, tank suit"),
        (999, "toilet tissue, toilet paper, bathroom tissue"),
    ],
)
def test_classes_are_in_the_usual_order(index: int, label: str) -> None:
    assert imagenet_labels()[index] == label


def test_the_only_names_that_stand_for_two_classes_are_the_two_known_ones() -> None:
    labels = imagenet_labels()
    twice = [name for name, count in collections.Counter(labels).items() if count > 1]
    assert twice == ["crane"]
    shortened = collections.Counter(label.partition(",")[0] for label in labels)
    assert [name for name, count in shortened.items() if count > 1] == ["crane", "maillot"]


def test_every_call_gives_a_list_of_its_own() -> None:
    imagenet_labels().clear()
    assert len(imagenet_labels()) == 1000


def test_wordnets_licence_stands_in_the_file() -> None:
    comment = " ".join(line.lstrip("# ") for line in FILE.read_text("utf-8").splitlines() if line.startswith("#"))
    for phrase in (
        "WordNet 3.0 Copyright 2006 by Princeton University.  All rights reserved.",
        "Permission to use, copy, modify and distribute",
        'IS PROVIDED "AS IS"',
        "may not be used in advertising",
        "LICENSEE agrees to preserve same.",
    ):
        assert phrase in comment
