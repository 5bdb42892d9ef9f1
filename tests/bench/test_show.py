"""Tables and JSON of results that are made up."""

import json

from npformer.bench import show
from npformer.bench.peaks import Peaks
from npformer.bench.rounds import Timing, geometric_means
from tests.bench.made_up import RULES, result

PEAKS = Peaks(400.0, 100.0, 40.0)


def test_the_table_reads_well():
    results = [
        result(batch=1, torch=[40, 40, 40], onnxruntime=[5, 10, 20]),
        result("efficientnet-b0", batch=8, torch=[5, 5, 5], onnxruntime=[0.5, 1, 2]),
    ]
    results[1].timings["torch"].peak_mb = None
    expected = """\
model               batch  npformer ms  torch ms  ratio               onnxruntime ms  ratio                  peak MB
efficientformer-l1      1         20.0      40.0  0.50 (0.25 - 1.00)            10.0  2.00 (2.00 - 2.00)     123 / 123 / 123
efficientnet-b0         8         20.0      5.00  4.00 (2.00 - 8.00)            1.00  20.00 (20.00 - 20.00)  123 / - / 123

float32, 2 threads, 3 rounds; ms: median of all runs
ratio: npformer's time over the other's in the same round, median of the rounds and their range
peak MB: the most memory of each process, npformer / torch / onnxruntime"""  # noqa: E501
    assert show.format_results(results, RULES) == expected
    assert (
        show.format_means(geometric_means(results))
        == """\
geometric mean          batch  ratio  models
npformer / torch            1   0.50       1
npformer / torch            8   4.00       1
npformer / onnxruntime      1   2.00       1
npformer / onnxruntime      8  20.00       1"""
    )


def test_a_breakdown_reads_well():
    assert (
        show.format_breakdown(result(batch=8, torch=[40, 40, 40]), PEAKS)
        == """\
efficientformer-l1, 8 pictures of 224 x 224

            ms  quartiles    pictures/s  peak MB
npformer  20.0  10.0 - 40.0       400.0      123
torch     40.0  40.0 - 40.0       200.0      123

kind                   ms  share  GFLOP/s  of peak  GB/s  of peak
matrix product      30.00    38%      200      50%     3       3%
activation          15.00    19%                       6       6%
new kind             5.00     6%
Python and waiting  30.00    38%
in all              80.00"""
    )


def test_json_is_json():
    results = [result(torch=[40, 40, 40])]
    told = show.as_json(results, geometric_means(results), RULES, PEAKS, {"npformer": "1"})
    assert json.loads(json.dumps(told)) == told
    (only,) = told["results"]
    assert only["ratios"] == {"torch": {"median": 0.5, "lowest": 0.25, "highest": 1.0}}
    assert only["contestants"]["torch"]["rounds"] == [40, 40, 40]
    assert told["geometric_means"] == [{"rival": "torch", "batch": 1, "models": 1, "ratio": 0.5}]
    assert told["results"][0]["breakdown"][0]["kind"] == "matrix product"


def test_unknown_memory_stays_unknown():
    timing = Timing()
    timing.add({"milliseconds": [1.0], "peak_mb": None})
    assert timing.peak_mb is None
