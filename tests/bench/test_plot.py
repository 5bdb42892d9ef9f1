"""Pictures of results that are made up."""

import pytest

from tests.bench.made_up import RULES, result

pytest.importorskip("matplotlib", reason="matplotlib is an optional extra, and not installed")

from npformer.bench.plot import COLOURS, plot_breakdowns, plot_growth
from npformer.bench.scaling import Curve, Growth

STARTS = {".png": b"\x89PNG", ".svg": b"<?xml", ".pdf": b"%PDF"}


@pytest.mark.parametrize("suffix", list(STARTS))
def test_breakdowns_are_drawn(tmp_path, suffix):
    results = [
        result(model, batch, torch=[40, 50, 60], onnxruntime=[5, 6, 7], unfused=[90, 90, 90])
        for model in ("efficientformer-l1", "swiftformer-xs")
        for batch in (1, 8)
    ]
    plot_breakdowns(results, RULES, tmp_path / f"bars{suffix}")
    assert (tmp_path / f"bars{suffix}").read_bytes().startswith(STARTS[suffix])


def test_what_a_picture_says(tmp_path):
    pytest.importorskip("matplotlib").rcParams["svg.fonttype"] = "none"  # text as text
    plot_breakdowns([result(torch=[40, 50, 60])], RULES, tmp_path / "bars.svg")
    drawn = (tmp_path / "bars.svg").read_text()
    for text in ("efficientformer-l1", "batch 1", "milliseconds", "matrix product", "new kind", "torch", "2 threads"):
        assert text in drawn, text
    assert drawn.count(">matrix product<") == 1, "one entry in the legend"


def test_growth_is_drawn(tmp_path):
    batches = [Curve(name, [8, 16, 32, 64], [[80.0], [160.0], [330.0], [700.0]]) for name in "abc"]
    tokens = [Curve(name, [49, 196, 441], [[1.0], [5.0], [20.0]]) for name in "de"]
    plot_growth(Growth(batches, tokens), RULES, tmp_path / "curves.png")
    assert (tmp_path / "curves.png").read_bytes().startswith(STARTS[".png"])


def test_no_two_kinds_share_a_colour():
    assert len(set(COLOURS.values())) == len(COLOURS)
