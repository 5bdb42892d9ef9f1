"""The README files: their Python runs, their commands parse, their links lead somewhere, and the first is short."""

import re
import shlex
from pathlib import Path

import pytest

from npformer.cli import _parser, main

ROOT = Path(__file__).parents[1]
FOLDERS = ("npformer", "notebooks", "tests")
PAGES = sorted(
    path.relative_to(ROOT).as_posix()
    for path in [ROOT / "README.md", *(p for part in FOLDERS for p in (ROOT / part).rglob("*.md"))]
    if not any(part.startswith(".") for part in path.relative_to(ROOT).parts)
)
PARITY = (
    "npformer/parity/README.md"  # its Python needs dumps and other frameworks: test_dump.py, live/test_recorders.py
)
COMMANDS = [
    "python -m pip install . && npformer classify",
    'python -m pip install -e ".[test]" && python -m pytest -n auto -q',
]

# What the Python of a page prints, among other things.
PRINTED = {
    "README.md": ["Trouser"],
    "npformer/README.md": [
        "Trouser", "(1, 4, 49, 49) BhNN", "efficientformer.patch_embed.convolution1 (1, 8, 112, 112)", "[["
    ],
    "npformer/fast/README.md": ["[1]"],
    "npformer/models/README.md": [
        "['swiftformer-xs', 'swiftformer-s', 'swiftformer-l1', 'swiftformer-l3', 'swiftformer-fashion']",
        "(1, 24, 56, 56)", "(1, 40, 28, 28)", "(1, 112, 14, 14)", "(1, 320, 7, 7)", "tf-same-dynamic",
    ],
}  # fmt: skip


def text(page):
    return (ROOT / page).read_text("utf-8")


def blocks(page, language=""):
    return re.findall(rf"^```{language}\n(.*?)^```", text(page), re.DOTALL | re.MULTILINE)


def code(page):
    """All that a page shows as code, in blocks and within sentences."""
    fenced = re.findall(r"^```\w*\n(.*?)^```", text(page), re.DOTALL | re.MULTILINE)
    rest = re.sub(r"^```\w*\n.*?^```", "", text(page), flags=re.DOTALL | re.MULTILINE)
    return [*fenced, *re.findall(r"`([^`]+)`", rest)]


def anchors(page):
    """The anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(
        r"^#+ (.+)$", re.sub(r"^```.*?^```", "", text(page), flags=re.DOTALL | re.MULTILINE), re.MULTILINE
    )
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


# --- Python ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("page", PRINTED)
def test_its_python_runs_from_top_to_bottom(page, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    python = blocks(page, "python")
    assert python
    namespace = {}
    for block in python:
        exec(compile(block, page, "exec"), namespace)
    out = capsys.readouterr().out
    for expected in PRINTED[page]:
        assert expected in out


def test_no_page_with_python_is_left_out():
    assert {page for page in PAGES if blocks(page, "python")} == {*PRINTED, PARITY}


# --- commands --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", COMMANDS)
def test_its_two_commands_are_what_the_whole_check_runs(command):
    assert f"```\n{command}\n```" in text("README.md")
    script = ROOT / ".ci" / "run"
    if not script.exists():
        pytest.skip("a source distribution leaves the script out")
    assert command in script.read_text().replace("pip install -q", "pip install")


@pytest.mark.parametrize("page", PAGES)
def test_its_npformer_commands_parse(page):
    lines = [line for block in blocks(page) for part in block.splitlines() for line in part.split(" && ")]
    for line in lines:
        if re.match(r"npformer [a-z]", line):
            _parser().parse_args(shlex.split(line)[1:])


def test_the_table_of_models_is_what_the_command_prints(capsys):
    assert main(["models"]) == 0
    assert capsys.readouterr().out.strip() in [block.strip() for block in blocks("npformer/models/README.md")]


def test_every_report_has_its_line():
    folder = ROOT / "tests" / "reports"
    scripts = {path.stem for path in folder.glob("*.py")} - {"__init__"}
    listed = re.findall(
        r"^\| `(\w+)` \|.*\| `python -m tests\.reports\.(\w+)", text("tests/reports/README.md"), re.MULTILINE
    )
    names = {name for name, _ in listed}
    assert names == {run for _, run in listed}
    assert scripts == names
    shown = {name for page in PAGES for name in re.findall(r"python -m tests\.reports\.(\w+)", text(page))}
    assert shown <= names


# --- links and paths -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("page", PAGES)
def test_its_links_lead_somewhere(page):
    for target, _, anchor in re.findall(r"\]\(((?!https?:)[^)#]*)(#([^)]+))?\)", text(page)):
        path = (ROOT / page).parent / target if target else ROOT / page
        assert path.exists(), target
        if anchor:
            assert anchor in anchors(path.resolve().relative_to(ROOT)), f"{target}#{anchor}"


@pytest.mark.parametrize("page", PAGES)
def test_the_paths_in_its_commands_exist(page):
    for part in code(page):
        for path in re.findall(r"(?<![\w./-])(?:npformer|notebooks|tests)/[\w./-]*\w", part):
            assert (ROOT / path).exists(), path
        for module in re.findall(r"python -m ((?:npformer|notebooks|tests)\.[\w.]+)", part):
            if not module.startswith("tests.reports."):  # which have a test of their own
                assert (ROOT / module.replace(".", "/")).with_suffix(".py").exists(), module


def test_the_links_of_the_first_page_are_many():
    assert len(re.findall(r"\]\((?!http)", text("README.md"))) > 8


# --- form ------------------------------------------------------------------------------------------------------------


def test_the_first_page_has_at_most_200_lines():
    assert len(text("README.md").splitlines()) <= 200


def test_the_first_page_ends_with_how_to_contribute():
    assert re.findall(r"^## (.+)$", text("README.md"), re.MULTILINE)[-1] == "Contributing"


@pytest.mark.parametrize("page", [page for page in PAGES if Path(page).name == "README.md"])
def test_it_begins_with_a_title_and_a_sentence(page):
    title, empty, sentence, *_ = text(page).splitlines()
    assert title.startswith("# ")
    assert not empty
    assert sentence[0].isupper()
