"""The result type of every reader of weight files, and the one error they raise."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np


class CheckpointError(ValueError):
    """Error for a weight file that is damaged, hostile, or of no supported kind; one sentence says which and why."""


@dataclass
class Weights:
    """The arrays of a file, by their names in it, in the file's order.

    container: the format in words, such as "PyTorch zip". notes: what was unwrapped or omitted, one sentence each
    ("the weights are under 'model'; left out: optimizer, args"). metadata: other information in the file, as text by
    name. Arrays may be read-only views of a mapped file; float16 stays float16, bfloat16 is widened to float32.
    """

    arrays: dict[str, np.ndarray]
    container: str
    notes: list[str] = field(default_factory=list)
    metadata: dict[str, str] = field(default_factory=dict)


def widen_bfloat16(bits: np.ndarray) -> np.ndarray:
    """Widen bfloat16, read as 16 bits, to float32 by appending 16 zero bits below them. Same shape out."""
    wide = bits.astype(np.uint32)
    wide <<= 16
    return wide.view(np.float32)
