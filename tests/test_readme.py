"""The README's own code and commands."""

import re
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text("utf-8")


def test_its_python_runs_from_top_to_bottom(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert len(blocks) >= 3
    namespace = {"np": np}
    for block in blocks:
        exec(compile(block, "README.md", "exec"), namespace)
    out = capsys.readouterr().out
    assert "Trouser" in out
    assert "(1, 4, 49, 49) BhNN" in out
    assert "efficientformer.patch_embed.convolution1 (1, 8, 112, 112)" in out


@pytest.mark.parametrize(
    "command",
    ["python -m pip install . && npformer classify", 'python -m pip install -e ".[test]" && python -m pytest -n auto'],
)
def test_its_two_commands_are_what_the_whole_check_runs(command):
    assert command in README
    script = ROOT / ".ci" / "run"
    if not script.exists():
        pytest.skip("a source distribution leaves the script out")
    ran = script.read_text().replace("pip install -q", "pip install").replace("pytest -q", "pytest")
    assert command in ran


def test_its_links_lead_somewhere():
    targets = [target for target in re.findall(r"\]\(([^)#:]+)\)", README) if not target.startswith("http")]
    assert len(targets) > 8
    missing = [target for target in targets if not (ROOT / target).exists()]
    assert not missing
