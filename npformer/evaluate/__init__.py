"""Evaluation on whole data sets: on several processes or machines, resumable, every picture counted exactly once.

`data.py` finds pictures and labels, `job.py` is a worker's part, `run.py` distributes the pictures and loses none,
`results.py` stores the results in a file, and `metrics.py` and `report.py` summarise them.
"""

from .data import DataSet, open_data_set
from .evaluation import evaluate
from .metrics import Metrics

__all__ = ["DataSet", "Metrics", "evaluate", "open_data_set"]
