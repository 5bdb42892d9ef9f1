"""What every reader of weight files returns, and the one error they raise."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np


class CheckpointError(ValueError):
    """A weight file that is damaged, hostile, or of no kind that is read here; one sentence says which and why."""


@dataclass
class Weights:
    """The arrays of a file, by the names they have there, in the file's order.

    container: the format in words, such as "PyTorch zip". notes: what was seen through or left out on the way, one
    sentence each ("the weights are under 'model'; left out: optimizer, args"). metadata: what else the file says of
    itself, as text by name. Arrays may be read-only views of a mapped file; float16 stays float16, bfloat16 comes
    widened to float32.
    """

    arrays: dict[str, np.ndarray]
    container: str
    notes: list[str] = field(default_factory=list)
    metadata: dict[str, str] = field(default_factory=dict)


def widen_bfloat16(bits: np.ndarray) -> np.ndarray:
    """A bfloat16, read as 16 bits, is the upper half of a float32: put 16 zero bits below it. Same shape out."""
    wide = bits.astype(np.uint32)
    wide <<= 16
    return wide.view(np.float32)
