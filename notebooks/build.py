"""Make the course's notebooks from their sources, or check that they work.

    python notebooks/build.py [LESSON...]          run lessons/NN_*.py and write NN_*.ipynb with their outputs
    python notebooks/build.py --check [LESSON...]  run the notebooks as they are, and their exercises

LESSON is a number, or part of a name; default all. Sources are in jupytext's percent format. Cells tagged "timing"
keep their outputs, unless the cell has changed or `--timings` is given: a new run alone leaves no difference behind.

`--check` starts a new kernel for every notebook and runs it from the start, as a reader would. After each exercise it
makes sure that the empty answer is told "Not yet" in a sentence, and that the solution in the notebook passes.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import re
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from nbformat import NotebookNode

HERE = Path(__file__).parent
LONGEST = 600  # seconds of CPU time that a lesson may take; on a quiet machine it takes a tenth
SOLUTION = re.compile(r"<summary>\s*Solution\s*</summary>.*?```python\n(.*?)```", re.DOTALL)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("lessons", nargs="*", metavar="LESSON")
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--timings", action="store_true", help="write new timings too")
    args = parser.parse_args()
    paths = sorted(HERE.glob("[0-9]*.ipynb") if args.check else (HERE / "lessons").glob("[0-9]*.py"))
    chosen = [path for path in paths if not args.lessons or any(name in path.stem for name in args.lessons)]
    if not chosen:
        print(f"build.py: error: LESSON must name one of {', '.join(path.stem for path in paths)}", file=sys.stderr)
        return 2
    if args.check:  # spinning BLAS threads slow each other down where other processes use the cores, too
        os.environ.setdefault("OMP_NUM_THREADS", "1")
    failures, began = 0, time.perf_counter()
    workers = min(len(chosen), os.cpu_count() or 1) if args.check else 1  # timings are taken alone
    with ProcessPoolExecutor(workers) as pool:
        for line, failed in pool.map(partial(try_one, checking=args.check, timings=args.timings), chosen):
            failures += failed
            print(line, flush=True)
    print(f"{len(chosen)} lessons, {failures} failures, {time.perf_counter() - began:.0f} s")
    return 1 if failures else 0


def try_one(path: Path, checking: bool, timings: bool) -> tuple[str, bool]:
    """Check or build one lesson; return a line that says how it went, and whether it failed."""
    before, failed = os.times(), False
    try:
        result = check(path) if checking else build(path, timings)
    except (CellExecutionError, ValueError) as error:
        result, failed = f"FAILED\n{error}", True
    after = os.times()  # of the children: the kernel, which has ended
    spent = after.children_user + after.children_system - before.children_user - before.children_system
    if checking and spent > LONGEST:
        result, failed = f"{result}; FAILED: longer than {LONGEST} s", True
    return f"{path.stem}: {spent:.0f} s, {result}", failed


def build(path: Path, timings: bool) -> str:
    """Run one source and write its notebook."""
    import jupytext  # only here: checking needs only the notebooks

    notebook = jupytext.read(path)
    target = HERE / f"{path.stem}.ipynb"
    kept = {} if timings or not target.exists() else _timings(nbformat.read(target, 4))
    run(notebook)
    _tidy(notebook, kept)
    nbformat.write(notebook, target)
    return f"{target.stat().st_size / 1024:.0f} KB"


def run(notebook: NotebookNode) -> None:
    """Run all cells in a new kernel, in this folder. Raises CellExecutionError."""
    NotebookClient(
        notebook, timeout=1200, kernel_name="python3", resources={"metadata": {"path": str(HERE)}}
    ).execute()


def check(path: Path) -> str:
    """Run one notebook with its solutions put in. Raises CellExecutionError or ValueError."""
    notebook = nbformat.read(path, 4)
    exercises = with_solutions(notebook)
    run(notebook)
    return f"{exercises} exercises"


def with_solutions(notebook: NotebookNode) -> int:
    """Insert, after each check of an exercise, cells that test its feedback, the solution, and the check again."""
    cells: list[NotebookNode] = []
    exercises = 0
    for number, cell in enumerate(notebook.cells):
        cells.append(cell)
        if "check" not in cell.metadata.get("tags", []):
            continue
        exercises += 1
        below = "\n".join(
            later.source for later in notebook.cells[number + 1 : number + 3] if later.cell_type == "markdown"
        )
        solution = SOLUTION.search(below)
        if solution is None:
            raise ValueError(f"no folded solution stands below the check {cell.source!r}")
        added = [
            "from course.exercises import latest\nassert not latest().passed, 'the empty answer passes its check'\n"
            "assert len(latest().sentence) > 20 and 'Traceback' not in latest().sentence, latest()",
            solution[1],
            cell.source,
            "assert latest().passed, f'the solution does not pass its check: {latest()}'",
        ]
        cells += [nbformat.v4.new_code_cell(source) for source in added]
    notebook.cells = cells
    return exercises


def _timings(notebook: NotebookNode) -> dict[str, list[NotebookNode]]:
    return {cell.source: cell.outputs for cell in notebook.cells if "timing" in cell.metadata.get("tags", [])}


def _tidy(notebook: NotebookNode, kept: dict[str, list[NotebookNode]]) -> None:
    """Remove everything from a notebook that changes from run to run: times, random cell ids, the kernel's version."""
    notebook.metadata = {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}}
    notebook.metadata["language_info"] = {"name": "python"}
    seen: dict[str, int] = {}
    for cell in notebook.cells:
        digest = hashlib.sha256(cell.source.encode()).hexdigest()[:8]
        seen[digest] = seen.get(digest, -1) + 1
        cell.id = f"{digest}-{seen[digest]}"
        cell.metadata.pop("execution", None)
        _join_prints(cell.get("outputs", []))
        if cell.cell_type == "code":
            cell.outputs = (
                kept.get(cell.source, cell.outputs) if "timing" in cell.metadata.get("tags", []) else cell.outputs
            )


def _join_prints(outputs: list[NotebookNode]) -> None:
    """Merge neighbouring stream outputs: prints of one cell may arrive in several pieces."""
    for number in range(len(outputs) - 1, 0, -1):
        before, after = outputs[number - 1], outputs[number]
        if before.output_type == after.output_type == "stream" and before.name == after.name:
            before.text += after.text
            del outputs[number]


if __name__ == "__main__":
    raise SystemExit(main())
