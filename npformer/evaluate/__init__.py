"""Classify whole data sets: on several processes or machines, resumable, every picture counted exactly once.

`data.py` finds pictures and labels, `job.py` is what a worker does with some of them, `run.py` hands them out and
loses none, `results.py` keeps what came back in a file, and `metrics.py` and `report.py` say what it means.
"""

from .data import DataSet, open_data_set
from .evaluation import evaluate
from .metrics import Metrics

__all__ = ["DataSet", "Metrics", "evaluate", "open_data_set"]
