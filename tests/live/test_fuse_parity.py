"""Fused models against PyTorch: their float32 error against the float64 truth is at most twice PyTorch's own."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from npformer import fuse  # noqa: E402
from tests.live import oracle  # noqa: E402
from tests.support import CASES, fill, pixel_values  # noqa: E402
from tests.sweep import sweep  # noqa: E402

ROWS: list[str] = []


@pytest.mark.parametrize("name", sweep(CASES, ["resolution-5", "net-tf-same", "swift-l2", "swiftformer-xs"]))
def test_a_fused_model_rounds_no_worse_than_twice_pytorch(name):
    case = CASES[name]
    x = pixel_values(case.shape)
    fused64, fused32 = (fuse(fill(case.model(), dtype)) for dtype in (np.float64, np.float32))
    ratios, exact = [], []
    for truth, theirs, ours, ours64 in zip(
        theirs_on(case, x, torch.float64),
        theirs_on(case, x, torch.float32),
        ours_on(fused32, x.astype(np.float32)),
        ours_on(fused64, x),
        strict=True,
    ):
        assert ours.shape == truth.shape
        exact.append(np.abs(ours64 - truth).max() / np.abs(truth).max())
        errors = [np.sqrt(np.mean((values - truth) ** 2)) for values in (theirs, ours)]
        ratios.append(errors[1] / errors[0])
    ROWS.append(f"{name:32} {max(exact):9.1e} {np.median(ratios):7.2f} {max(ratios):7.2f} {ratios[-1]:7.2f}")
    assert max(exact) < 1e-10
    assert max(ratios) <= 2


def theirs_on(case, x, dtype):
    with torch.inference_mode():
        out = oracle.random_model(case, dtype)(torch.tensor(x, dtype=dtype), output_hidden_states=True)
    return [value.numpy() for value in (*out.hidden_states, main(out))]


def ours_on(model, x):
    out = model(x, output_hidden_states=True)
    return [*out.hidden_states, main(out)]


def main(out):
    return out["logits"] if "logits" in out else out["last_hidden_state"]


def test_the_table(capsys):
    if not ROWS:
        pytest.skip("run together with the comparisons above")
    head = (
        f"{'fused model':32} {'float64':>9} {'median':>7} {'worst':>7} {'output':>7}  float32: our error / PyTorch's"
    )
    with capsys.disabled():
        print("\n\n" + "\n".join([head, *ROWS]))
