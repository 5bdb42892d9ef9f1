"""The parity checker: it finds the wrong ops of a port, and their likely causes.

`compare` replays our model on a port's dumped values, each op on the port's own inputs, so that an error shows where
it is made and nowhere else. See README.md in this folder.
"""

from .compare import compare
from .dump import Dump, read_dump, write_dump
from .recorders import Tape, record_flax, record_onnxruntime, record_torch
from .report import CauseFound, Fault, Finding, Report, Value
from .traces import compare_traces

__all__ = [
    "CauseFound",
    "Dump",
    "Fault",
    "Finding",
    "Report",
    "Tape",
    "Value",
    "compare",
    "compare_traces",
    "read_dump",
    "record_flax",
    "record_onnxruntime",
    "record_torch",
    "write_dump",
]
