"""Framework for checks of exercises: a right answer is confirmed, a wrong one gets one helpful sentence.

A check is a function of the learner's answer that raises `Wrong`, usually by way of `expect`. `@check` turns it into
one that never raises but returns `Feedback`: a notebook runs to its end even if nothing is solved.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np

_feedback: list[Feedback] = []


class Wrong(Exception):
    """Error for a wrong answer; the message says how it shows."""


class Feedback:
    """The result of a check, shown as one line."""

    def __init__(self, passed: bool, sentence: str) -> None:
        self.passed, self.sentence = passed, sentence

    def __repr__(self) -> str:
        return f"{'Right' if self.passed else 'Not yet'}: {self.sentence}"


def check(praise: str) -> Callable[[Callable[..., None]], Callable[..., Feedback]]:
    """Turn a function that raises `Wrong` into a check; `praise` says what the right answer shows."""

    def decorate(function: Callable[..., None]) -> Callable[..., Feedback]:
        @functools.wraps(function)
        def checked(*answers: Any) -> Feedback:
            try:
                if any(answer is None or answer is Ellipsis for answer in answers):
                    raise Wrong("there is no answer yet; put yours in the place of the three dots.")
                function(*answers)
                feedback = Feedback(True, praise)
            except Wrong as wrong:
                feedback = Feedback(False, str(wrong))
            except Exception as error:
                feedback = Feedback(False, f"your code stopped with {type(error).__name__}: {error}")
            _feedback.append(feedback)
            return feedback

        return checked

    return decorate


def latest() -> Feedback:
    """Return the result of the last check."""
    return _feedback[-1]


def expect(condition: bool, sentence: str) -> None:
    """Raise `Wrong` with the sentence unless the condition holds."""
    if not condition:
        raise Wrong(sentence)


def expect_array(answer: Any, truth: Any, what: str, *, tolerance: float = 1e-10, hints: dict[str, Any] | None = None):
    """Raise `Wrong` unless an answer equals the truth, saying how it differs.

    `hints` maps a sentence to the value of a likely mistake, and is the message for an answer with that value.
    """
    if answer is None or answer is Ellipsis:
        raise Wrong(
            f"{what} gives nothing back yet; put your code in the place of the three dots, and return its result."
        )
    got, wanted = np.asarray(answer), np.asarray(truth)
    if got.dtype.kind not in "biufc":
        raise Wrong(f"{what} should be numbers, not {type(answer).__name__}.")
    scale = max(1.0, float(np.abs(wanted).max(initial=0)))
    if got.shape == wanted.shape and np.abs(got - wanted).max(initial=0) <= tolerance * scale:  # NaN is not
        return
    for sentence, mistake in (hints or {}).items():
        mistaken = np.asarray(mistake)
        if got.shape == mistaken.shape and np.abs(got - mistaken).max(initial=0) <= tolerance * scale:
            raise Wrong(sentence)
    if got.shape != wanted.shape:
        raise Wrong(f"{what} should have the shape {wanted.shape}, yours has {got.shape}.")
    where = np.unravel_index(np.argmax(np.nan_to_num(np.abs(got - wanted), nan=np.inf)), wanted.shape)
    place = f" at {tuple(int(i) for i in where)}" if wanted.ndim else ""
    raise Wrong(f"{what} is off: yours{place} is {got[where]:.6g}, it should be {wanted[where]:.6g}.")
