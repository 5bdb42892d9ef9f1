"""The logits that were published with the weights, where weights and picture are at hand.

Needs the weights in the hub's cache (nothing is fetched), and COCO's picture 000000039769 (two cats on a sofa) as a
file that the environment variable NPFORMER_CATS names.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from npformer import (
    AutoImageProcessor,
    EfficientFormerForImageClassification,
    EfficientFormerForImageClassificationWithTeacher,
    EfficientFormerImageProcessor,
    SwiftFormerForImageClassification,
    load_image,
)

TEACHER = EfficientFormerForImageClassificationWithTeacher
L1, L3, L7 = (f"snap-research/efficientformer-{size}-300" for size in ("l1", "l3", "l7"))
PUBLISHED: list[tuple[Any, str, list[float]]] = [
    (TEACHER, L1, [-0.1312, 0.4353, -1.0499]),
    (EfficientFormerForImageClassification, L1, [-0.0555, 0.4825, -0.0852]),
    (TEACHER, L3, [-1.3150, -1.5456, -1.2556]),
    (TEACHER, L7, [-1.0283, -1.4131, -0.5644]),
    (SwiftFormerForImageClassification, "MBZUAI/swiftformer-xs", [-2.1703, 2.1107, -2.0811, 0.8869, 0.2436]),
    (SwiftFormerForImageClassification, "MBZUAI/swiftformer-s", [0.3964, 0.2348, -1.6963]),
    (SwiftFormerForImageClassification, "MBZUAI/swiftformer-l1", [-0.4277, -0.4743, -1.0897]),
    (SwiftFormerForImageClassification, "MBZUAI/swiftformer-l3", [-0.2533, 0.2421, -0.6019]),
]


def cached(repo_id: str) -> Path:
    """The directory of a model in the hub's cache; skips where it is not there."""
    hub = pytest.importorskip("huggingface_hub")
    found = hub.try_to_load_from_cache(repo_id, "config.json")
    if not isinstance(found, str):
        pytest.skip(f"{repo_id} is not in the hub's cache")
    return Path(found).parent


@pytest.mark.parametrize(("cls", "repo_id", "expected"), PUBLISHED)
@pytest.mark.filterwarnings("ignore:.*does not use distillation_classifier")
def test_published_logits(cls: Any, repo_id: str, expected: list[float]) -> None:
    cats = os.environ.get("NPFORMER_CATS", "")
    if not Path(cats).is_file():
        pytest.skip("NPFORMER_CATS names no picture")
    directory = cached(repo_id)
    if cls is SwiftFormerForImageClassification:
        processor: Any = AutoImageProcessor.from_pretrained(directory)
    else:  # L1's file was changed after its logits had been published; these are the settings of all three then
        processor = EfficientFormerImageProcessor(size={"shortest_edge": 256}, crop_size=224)
    logits = cls.from_pretrained(directory)(**processor(load_image(cats), return_tensors="np")).logits
    np.testing.assert_allclose(
        logits[0, : len(expected)], expected, atol=1e-3 if "efficientformer" in repo_id else 1e-2
    )
