"""`notebooks/build.py --check` notices what is wrong with a lesson."""

import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

from tests.sweep import sweep

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"
code, markdown = nbformat.v4.new_code_cell, nbformat.v4.new_markdown_cell
CHECKS = """
from course import check, expect

@check("four it is.")
def four(answer):
    expect(answer == 4, f"two and two is not {answer}, but one more than three.")
"""


def lesson(stub="answer = ...", solution="answer = 4", claim="assert 2 + 2 == 4"):
    folded = f"<details><summary>Solution</summary>\n\n```python\n{solution}\n```\n\n</details>"
    tagged = [code(stub, metadata={"tags": ["exercise"]}), code("four(answer)", metadata={"tags": ["check"]})]
    return nbformat.v4.new_notebook(cells=[code(CHECKS), *tagged, markdown(folded), code(claim)])


@pytest.fixture
def check(tmp_path):
    """Runs `build.py --check` in a folder that holds one lesson and the real helpers; returns exit code and output."""

    def run(notebook):
        (tmp_path / "build.py").write_text((NOTEBOOKS / "build.py").read_text())
        (tmp_path / "course").symlink_to(NOTEBOOKS / "course")
        nbformat.write(notebook, tmp_path / "01_two.ipynb")
        command = [sys.executable, str(tmp_path / "build.py"), "--check"]
        result = subprocess.run(command, capture_output=True, text=True, timeout=1200)
        return result.returncode, result.stdout + result.stderr

    return run


def test_a_whole_lesson_passes(check):
    returncode, said = check(lesson())
    assert returncode == 0, said
    assert "1 exercises" in said


@pytest.mark.parametrize(
    ("wrong", "told"),
    sweep(
        [
            ({"solution": "answer = 5"}, "the solution does not pass its check: Not yet: two and two is not 5"),
            ({"stub": "answer = 4"}, "the empty answer passes its check"),
            ({"claim": "assert 2 + 2 == 5, 'the claim is wrong'"}, "the claim is wrong"),
            ({"solution": "answer = ("}, "SyntaxError"),
        ],
        lambda case: "claim" not in case[0] and case[1] != "SyntaxError",
    ),
)
def test_a_lesson_with_a_mistake_fails(check, wrong, told):
    returncode, said = check(lesson(**wrong))
    assert returncode == 1
    assert told in said


def test_an_exercise_without_a_solution_fails(check):
    notebook = lesson()
    notebook.cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    returncode, said = check(notebook)
    assert returncode == 1
    assert "no folded solution" in said
