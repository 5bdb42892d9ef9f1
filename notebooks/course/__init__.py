"""Common parts of all lessons: figures, recorded PyTorch values, test pictures, timings, and checks of exercises.

The mathematics is not here: lessons import it from `npformer`, and show its source.
"""

from .exercises import Feedback, Wrong, check, expect, expect_array
from .figures import COLOURS, SERIES, new_figure, picture, show
from .material import agree, pictures, recorded, source
from .timing import table, times

__all__ = [
    "COLOURS",
    "SERIES",
    "Feedback",
    "Wrong",
    "agree",
    "check",
    "expect",
    "expect_array",
    "new_figure",
    "picture",
    "pictures",
    "recorded",
    "show",
    "source",
    "table",
    "times",
]
