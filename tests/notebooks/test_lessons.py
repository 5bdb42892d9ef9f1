"""The committed notebooks: made from their sources, complete, and quoting only computed numbers."""

import re
from pathlib import Path

import jupytext
import nbformat
import pytest

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"
LESSONS = sorted(NOTEBOOKS.glob("[0-9]*.ipynb"))
MOST_BYTES = 900_000
SMALLEST = 13  # whole numbers below are words of a language: "twelve lessons"
NUMBER = re.compile(r"(?<![\w.^_])\d[\d,]*(?:\.\d+)?(?![\d\w])")
ABSOLUTE_PATH = re.compile(r"(?<![\w.:/<)\]}])/[A-Za-z]\w*/\w")


def read(path):
    return nbformat.read(path, 4)


def tags(cell):
    return cell.metadata.get("tags", [])


lessons = pytest.mark.parametrize("path", LESSONS, ids=lambda path: path.stem)


def test_every_source_has_its_notebook():
    assert [path.stem for path in LESSONS] == sorted(path.stem for path in (NOTEBOOKS / "lessons").glob("[0-9]*.py"))
    assert 9 <= len(LESSONS) <= 12


@lessons
def test_notebook_is_what_its_source_says(path):
    source = jupytext.read(NOTEBOOKS / "lessons" / f"{path.stem}.py")
    wanted = [(cell.cell_type, cell.source, tags(cell)) for cell in source.cells]
    assert [(cell.cell_type, cell.source, tags(cell)) for cell in read(path).cells] == wanted


@lessons
def test_every_cell_was_run_in_order_and_without_an_error(path):
    code = [cell for cell in read(path).cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    assert not [output for cell in code for output in cell.outputs if output.output_type == "error"]
    assert not [output.text for cell in code for output in cell.outputs if output.get("name") == "stderr"]
    assert path.stat().st_size < MOST_BYTES


@lessons
def test_figures_have_captions_and_words_for_those_who_cannot_see_them(path):
    for cell in read(path).cells:
        outputs = cell.get("outputs", [])
        for output, after in zip(outputs, [*outputs[1:], None]):
            if "image/png" in output.get("data", {}):
                assert len(output.metadata["image/png"]["alt"]) > 40
                assert after is not None, "a figure without a caption"
                assert re.match(r"\*Figure \d+\.\d+\.", after.data["text/markdown"]), after.data


@lessons
def test_numbers_in_prose_are_computed_in_the_notebook(path):
    notebook = read(path)
    known = set()
    for cell in notebook.cells:
        if cell.cell_type == "code":
            known |= numbers(cell.source)
            for output in cell.outputs:
                known |= numbers(output.get("text", ""))
                known |= numbers(output.get("data", {}).get("text/plain", ""))
                known |= numbers(output.get("data", {}).get("text/markdown", ""))
    quoted = set()
    for cell in notebook.cells:
        if cell.cell_type == "markdown" and "Further reading" not in cell.source:
            quoted |= numbers(prose(cell.source))
    assert sorted(number for number in quoted - known if number >= SMALLEST or number != int(number)) == []


def prose(text):
    """Return the text without code, links' addresses, references, reading times, and powers of ten (1e-12)."""
    text = re.sub(r"Time: about \d+ minutes|\b\d+e-?\d+", " ", text)
    text = re.sub(r"```.*?```", " ", text, flags=re.DOTALL)
    text = re.sub(r"\]\([^)]*\)", "]", text)
    return re.sub(
        r"(Figures?|Exercises?|Lessons?|Section|Sections|eq\.) [\d.]+((,| and| to) [\d.]+)*",
        " ",
        text,
        flags=re.IGNORECASE,
    )


def numbers(text):
    return {float(number.replace(",", "").rstrip(".")) for number in NUMBER.findall(text)}


@lessons
def test_exercises_are_whole(path):
    cells = read(path).cells
    checks = [number for number, cell in enumerate(cells) if "check" in tags(cell)]
    assert 3 <= len(checks) <= 5
    for number in checks:
        assert "exercise" in tags(cells[number - 1])
        assert "### Exercise" in cells[number - 2].source
        below = cells[number + 1].source
        assert "<summary>Hint</summary>" in below
        assert "<summary>Solution</summary>" in below
        said = "".join(output.get("data", {}).get("text/plain", "") for output in cells[number].outputs)
        assert said.startswith("Not yet: "), said


@lessons
def test_links_lead_somewhere(path):
    for cell in read(path).cells:
        if cell.cell_type == "markdown":
            for link in re.findall(r"\]\(([^)#\s]+)", cell.source):
                assert link.startswith("https://") or (NOTEBOOKS / link).exists(), link


@lessons
def test_no_paths_of_the_machine_it_was_made_on(path):
    assert not re.search(r"(/home/|/root/|/tmp/|/usr/|site-packages|0x[0-9a-f]{9})", path.read_text())
    notebook = read(path)
    for output in (output for cell in notebook.cells for output in cell.get("outputs", [])):
        output.get("data", {}).pop("image/png", None)  # has slashes of its own
    assert not ABSOLUTE_PATH.search(nbformat.writes(notebook))


def test_the_map_names_every_lesson():
    readme = (NOTEBOOKS / "README.md").read_text()
    for path in LESSONS:
        title = read(path).cells[0].source.splitlines()[0].removeprefix("# ")
        assert f"({path.name})" in readme
        assert title.split(". ", 1)[1] in readme, title
