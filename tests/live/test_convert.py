"""From a file, saved as its source saves it, to a model directory: the same float64 logits as the source's own model.

Every source and variant whose library can be installed; the authors' own and mmpretrain's networks are those of timm
under other names, lukemelas' those of transformers. Keras and TensorFlow: tests/test_convert.py, by recorded files.
"""

from __future__ import annotations

import argparse
import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")
if not all(importlib.util.find_spec(name) for name in ("timm", "torchvision")):
    pytest.skip("needs timm and torchvision", allow_module_level=True)

import transformers  # noqa: E402
from transformers.models.deprecated import efficientformer as hf_efficientformer  # noqa: E402

from npformer import AutoModelForImageClassification  # noqa: E402
from npformer.checkpoint.sources import SOURCES  # noqa: E402
from npformer.cli import main  # noqa: E402
from npformer.convert.pipeline import load_checkpoint  # noqa: E402
from npformer.ops import attention_bias_index  # noqa: E402
from tests.live import torchvision_shim  # noqa: E402
from tests.support import random_state  # noqa: E402
from tests.sweep import sweep  # noqa: E402
from tests.test_sources import CLASSES, our_shapes, their_keys  # noqa: E402

torchvision = torchvision_shim.load()
import timm  # noqa: E402 - it imports torchvision

IN_PYTORCH = ("transformers", "timm", "torchvision", "original", "mmpretrain", "lukemelas")
CASES = [(source, name) for source in IN_PYTORCH for name in SOURCES[source].architectures]
ROWS: list[str] = []


def their_model(source: str, name: str) -> Any:
    """Return the source's own network, or its equal, for the authors' repositories, mmpretrain and lukemelas."""
    variant = SOURCES[source].architectures[name].variant
    if source == "torchvision":
        return getattr(torchvision.models, name)()
    if source in ("timm", "original", "mmpretrain"):
        return timm.create_model(name if source == "timm" else variant.replace("-", "_"))
    family = variant.partition("-")[0]
    config = CLASSES[family][0].for_variant(variant, num_labels=1000).to_dict()
    hub = hf_efficientformer if family == "efficientformer" else transformers
    class_name = CLASSES[family][1].__name__
    base = class_name.partition("ForImageClassification")[0]
    return getattr(hub, class_name)(getattr(hub, f"{base}Config")(**config))


def equals_name(source: str) -> str:
    """Return the source of the names that `their_model` has."""
    return {"original": "timm", "mmpretrain": "timm", "lukemelas": "transformers"}.get(source, source)


def save(source: str, state: dict[str, Any], path: Path) -> None:
    """Save as that source does: bare, wrapped, or in the format before PyTorch 1.6."""
    wrapped: Any = state
    if source == "original":
        wrapped = {"model": state, "args": argparse.Namespace(model="l1", lr=0.001), "epoch": 299}
    if source == "mmpretrain":
        wrapped = {"state_dict": state, "meta": {"epoch": 300}}
    torch.save(wrapped, path, _use_new_zipfile_serialization=source != "lukemelas")


SMALL = ("efficientformer-l1", "efficientnet-b0", "swiftformer-xs")
SMALLEST = [(source, name) for source, name in CASES if SOURCES[source].architectures[name].variant in SMALL]


@pytest.mark.parametrize(("source", "name"), sweep(CASES, SMALLEST))
def test_the_converted_model_gives_the_same_logits(source: str, name: str, tmp_path: Path) -> None:
    family, ours = our_shapes(source, name)
    drawn = draw(ours)
    names = their_keys(source, family, ours)  # source key -> our name, by other means than the tables
    path = tmp_path / f"{name.replace('/', '-')}.pth"
    save(source, {key: torch.tensor(drawn[here]) for key, here in names.items()}, path)
    equals = their_keys(equals_name(source), family, ours)
    model = their_model(source, name).double()
    model.load_state_dict({key: torch.tensor(drawn[here]) for key, here in equals.items()})
    model.eval()
    assert main(["convert", str(path), str(tmp_path / "out")]) == 0
    converted = AutoModelForImageClassification.from_pretrained(tmp_path / "out", dtype=np.float64)
    side = 224 if family == "efficientformer" else 64
    if source in ("transformers", "lukemelas") and family == "efficientnet":
        side = 96  # static padding, as the config has it, at any size
    x = np.random.default_rng(0).standard_normal((1, 3, side, side))
    with torch.inference_mode():
        output = model(torch.tensor(x))
    expected = np.asarray(getattr(output, "logits", output))
    difference = float(np.abs(converted(x).logits - expected).max())
    ROWS.append(f"{source:13} {name:42} {len(names):5} {difference:9.1e} {np.abs(expected).max():9.2f}")
    assert difference <= 1e-10 * max(1, np.abs(expected).max())


def draw(ours: dict[str, tuple[int, ...]]) -> dict[str, np.ndarray]:
    """Random float32 arrays by the names they have here; counters and index tables as they must be."""
    empty: dict[str, np.ndarray] = {}
    for name, shape in ours.items():
        if name.endswith("num_batches_tracked"):
            empty[name] = np.zeros((), np.int64)
        elif name.endswith("attention_bias_idxs"):
            empty[name] = attention_bias_index(round(shape[0] ** 0.5))
        else:
            empty[name] = np.zeros(shape, np.float32)
    drawn = random_state(empty)
    return {key: v.astype(np.float32) if v.dtype == np.float64 else v for key, v in drawn.items()}


def test_the_table(capsys: Any) -> None:
    if not ROWS:
        pytest.skip("run together with the conversions above")
    head = (
        "Largest difference of a float64 logit between the converted model and its source's own\n"
        f"{'source':13} {'name':42} {'keys':>5} {'differs':>9} {'logits':>9}"
    )
    with capsys.disabled():
        print(f"\n\n{head}\n" + "\n".join(ROWS))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_files(dtype: str, tmp_path: Path) -> None:
    model = timm.create_model("swiftformer_xs").to(getattr(torch, dtype))
    for new in (True, False):
        path = tmp_path / f"swiftformer_xs-{new}.pth"
        torch.save(model.state_dict(), path, _use_new_zipfile_serialization=new)
        checkpoint = load_checkpoint(path)
        for key, name in checkpoint.found.names.items():
            expected = model.state_dict()[key].float().numpy()
            np.testing.assert_array_equal(
                checkpoint.model.state_dict()[name].reshape(expected.shape), expected.astype(np.float32)
            )


def test_verify_compares_with_lukemelas_where_installed(tmp_path: Path, capsys: Any) -> None:
    package = pytest.importorskip("efficientnet_pytorch")
    torch.save(package.EfficientNet.from_name("efficientnet-b0").state_dict(), tmp_path / "efficientnet-b0.pth")
    assert main(["convert", str(tmp_path / "efficientnet-b0.pth"), str(tmp_path / "out"), "--verify"]) == 0
    assert float(capsys.readouterr().out.rpartition("largest difference ")[2].split(",")[0]) < 1e-10


def test_verify_compares_with_the_sources_library(tmp_path: Path, capsys: Any) -> None:
    for name in ("tf_efficientnet_b0", "swiftformer_xs"):
        torch.save(timm.create_model(name, num_classes=3).state_dict(), tmp_path / f"{name}.pth")
        assert main(["convert", str(tmp_path / f"{name}.pth"), str(tmp_path / name), "--verify"]) == 0
        out = capsys.readouterr().out
        assert "read back equal; largest difference" in out
        difference = float(out.rpartition("largest difference ")[2].split(",")[0])
        assert difference < 1e-10
