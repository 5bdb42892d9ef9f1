"""Real runtimes without a fault raise no alarm: PyTorch in three dtypes, folded, channels last; ONNX Runtime."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs torch 2.13.0")
pytest.importorskip("transformers", reason="needs transformers 4.56.2")

from npformer.parity import compare  # noqa: E402
from npformer.parity.recorders import record_onnxruntime, record_torch  # noqa: E402
from tests.live import oracle  # noqa: E402
from tests.parity.planted import FAMILIES  # noqa: E402
from tests.support import CASES, fill, pixel_values  # noqa: E402
from tests.sweep import sweep  # noqa: E402

NETWORKS = {
    **FAMILIES,
    **{name: CASES[name] for name in ("l1", "efficientnet-b0", "swiftformer-xs", "resolution-5", "net-odd-sizes")},
}
DTYPES = ["float32", "float16", "bfloat16"]


def setting(name: str, dtype: str = "float32") -> tuple[Any, np.ndarray, Any]:
    """Our model, an input that the dtype holds exactly, and PyTorch's model in that dtype."""
    case = NETWORKS[name]
    kind = getattr(torch, dtype)
    theirs = oracle.random_model(case, torch.float32).to(kind).eval()
    for module in theirs.modules():
        if hasattr(module, "ab"):  # gathered from the biases by eval(), in the dtype they had before
            module.ab = module.attention_biases[:, module.attention_bias_idxs]
    x = torch.tensor(pixel_values(case.shape)).to(kind).float().numpy()
    return fill(case.model(), np.float32), x, theirs


def assert_no_alarm(report: Any, tested: float) -> None:
    assert report.equal, [(fault.op, fault.value.ratio, fault.causes[:2]) for fault in report.faults]
    assert report.tested >= tested * len(report.values), f"{report.tested} of {len(report.values)}"


@pytest.mark.parametrize(
    ("name", "dtype"),
    sweep(
        [(name, dtype) for name in NETWORKS for dtype in DTYPES],
        [("EfficientFormer", "float16"), ("EfficientNet", "bfloat16"), ("SwiftFormer", "float32")],
    ),
)
def test_pytorch(name: str, dtype: str) -> None:
    ours, x, theirs = setting(name, dtype)
    report = compare(ours, x, record_torch(theirs, torch.tensor(x).to(getattr(torch, dtype))))
    assert_no_alarm(report, 0.8)
    assert report.dtype == dtype


@pytest.mark.parametrize("name", sweep(NETWORKS, ["EfficientNet"]))
def test_pytorch_with_channels_last(name: str) -> None:
    """The same shapes, other memory, other kernels."""
    ours, x, theirs = setting(name)
    theirs = theirs.to(memory_format=torch.channels_last)
    pictures = torch.tensor(x).contiguous(memory_format=torch.channels_last)
    assert_no_alarm(compare(ours, x, record_torch(theirs, pictures)), 0.8)


@pytest.mark.parametrize("name", sweep(NETWORKS, ["SwiftFormer"]))
def test_pytorch_with_folded_batch_norms(name: str) -> None:
    ours, x, theirs = setting(name)
    assert_no_alarm(compare(ours, x, record_torch(folded(theirs, x), torch.tensor(x))), 0.8)


@pytest.mark.parametrize("optimized", [False, True], ids=["as-exported", "optimized"])
@pytest.mark.parametrize("name", sweep(NETWORKS, ["EfficientFormer"]))
def test_onnx_runtime(name: str, optimized: bool) -> None:
    """Its values have the exporter's names and order; many of ours are missing where it fuses layers."""
    pytest.importorskip("onnxruntime", reason="needs onnxruntime")
    from tests.live.onnx_export import export_onnx

    ours, x, theirs = setting(name)
    dump = record_onnxruntime(export_onnx(theirs, x), x, optimized=optimized)
    report = compare(ours, x, dump)
    assert_no_alarm(report, 0.2)
    print(f"{name}: {report.tested} of {len(report.values)} values tested")


def folded(model: Any, x: np.ndarray) -> Any:
    """The model, its batch norms folded into the convolutions right before them, nothing in their places."""
    order: list[tuple[str, Any]] = []
    hooks = [
        module.register_forward_hook(lambda module, inputs, output, name=name: order.append((name, module)))
        for name, module in model.named_modules()
        if not list(module.children())
    ]
    with torch.no_grad():
        model(torch.tensor(x))
    for hook in hooks:
        hook.remove()
    for (_, convolution), (name, norm) in itertools.pairwise(order):
        if isinstance(convolution, torch.nn.Conv2d) and isinstance(norm, torch.nn.BatchNorm2d):
            fused = torch.nn.utils.fuse_conv_bn_eval(convolution, norm)
            convolution.weight, convolution.bias = fused.weight, fused.bias
            parent, _, last = name.rpartition(".")
            setattr(model.get_submodule(parent), last, torch.nn.Identity())
    return model
