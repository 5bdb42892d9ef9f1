"""The lessons' common parts: checks describe mistakes, figures require captions, comparisons are strict."""

import re
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "notebooks"))
from course import agree, check, expect, expect_array, new_figure, pictures, show


@check("it doubles.")
def doubles(function):
    x = np.arange(3.0)
    expect_array(function(x), 2 * x, "double([0, 1, 2])", hints={"that is the square.": x**2})


def test_a_right_answer_is_praised():
    feedback = doubles(lambda x: x + x)
    assert feedback.passed
    assert repr(feedback) == "Right: it doubles."


@pytest.mark.parametrize(
    ("answer", "sentence"),
    [
        (..., "there is no answer yet"),
        (None, "there is no answer yet"),
        (lambda x: ..., "gives nothing back yet"),
        (lambda x: None, "gives nothing back yet"),
        (lambda x: x**2, "that is the square."),
        (lambda x: x[:2], r"should have the shape \(3,\), yours has \(2,\)"),
        (lambda x: 3 * x, r"is off: yours at \(2,\) is 6, it should be 4"),
        (lambda x: x * np.nan, "is off: yours at"),
        (lambda x: "six", "should be numbers, not str"),
        (lambda x: x / 0 + undefined, "your code stopped with NameError"),  # noqa: F821
        (lambda: 1, "your code stopped with TypeError"),
    ],
)
@pytest.mark.filterwarnings("ignore:divide by zero", "ignore:invalid value")
def test_a_wrong_answer_is_told_what_is_wrong(answer, sentence):
    feedback = doubles(answer)
    assert not feedback.passed
    assert repr(feedback).startswith("Not yet: ")
    assert re.search(sentence, feedback.sentence), feedback


def test_expect():
    @check("even.")
    def even(number):
        expect(number % 2 == 0, f"{number} is odd.")

    assert even(2).passed
    assert even(3).sentence == "3 is odd."


def test_figures_want_words():
    figure, _ = new_figure()
    with pytest.raises(ValueError, match="caption and alt"):
        show(figure, "Figure 1.1. Nothing.", " ")


def test_agreement_is_strict(capsys):
    ours = np.array([1.0, 1000.0])
    agree("sums", ours, ours * (1 + 1e-14))
    assert capsys.readouterr().out == "sums: (2,), equal to PyTorch's to 1e-12\n"
    with pytest.raises(AssertionError, match=r"1\.0e-09 away"):
        agree("sums", ours, ours * (1 + 1e-9))
    with pytest.raises(AssertionError, match="shape"):
        agree("sums", ours, ours[:1])


def test_pictures_hold_each_class_in_turn():
    images, classes = pictures()
    assert images.shape == (500, 28, 28)
    assert images.dtype == np.uint8
    assert (classes.reshape(50, 10) == np.arange(10)).all()
    assert len(pictures(20)[0]) == 20
