"""The README's console blocks, typed one after the other in an empty folder; and the pages' Python blocks.

A block is a session: lines after `$ ` are typed, the lines below are what stdout says, "..." standing for anything.
"""

import doctest
import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ENVIRONMENT = {**os.environ, "NO_COLOR": "1", "COLUMNS": "100"}
ENVIRONMENT["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{ENVIRONMENT['PATH']}"


def sessions(page: Path) -> list[tuple[str, str]]:
    """Commands of a page's console blocks, each with the output shown."""
    found = []
    for block in re.findall(r"^```console\n(.*?)^```", page.read_text(encoding="utf-8"), re.M | re.S):
        for part in re.split(r"^\$ ", block, flags=re.M)[1:]:
            command, _, output = part.partition("\n")
            found.append((command, output))
    return found


def blocks(page: Path) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", page.read_text(encoding="utf-8"), re.M | re.S)


def typed(command: str, cwd: Path) -> str:
    environment = ENVIRONMENT | {"GROCO_DATA_ROOT": str(cwd / "data-root")}  # features kept before would be taken
    done = subprocess.run(command, shell=True, cwd=cwd, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, f"{command}\n{done.stderr}"
    return done.stdout


def agrees(shown: str, printed: str) -> bool:
    return doctest.OutputChecker().check_output(shown, printed, doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)


def check_first_run(printed: str, said: str, cwd: Path) -> None:
    """Compare docs/first-run.md with a run of fewer epochs, on a machine of its own: in all but the figures."""
    page = ROOT / "docs/first-run.md"
    ((command, shown),) = sessions(page)
    assert command == "groco pretrain"
    *before, after = said.splitlines(keepends=True)
    whole = "".join([*before, printed, after])
    on_any_device = re.sub(r"^device .*", "device ...", shown, flags=re.M)
    assert agrees(without_figures(on_any_device), without_figures(whole)), whole
    (tree,) = re.findall(r"^```text\nruns/digits/\n(.*?)^```", page.read_text(encoding="utf-8"), re.M | re.S)
    left = {str(path.relative_to(cwd / "runs/digits")) for path in (cwd / "runs/digits").rglob("*") if path.is_file()}
    listed = {line.split()[0] for line in tree.splitlines()}
    assert set(map(without_figures, listed)) == set(map(without_figures, left))


def without_figures(text: str) -> str:
    return re.sub(r"\d+([.,]\d+)*(m\d+s)?", "N", text)


@pytest.mark.slow
def test_the_readme_tells_the_truth_and_the_demo_learns(tmp_path, monkeypatch, capsys):
    """As it stands, but that three epochs are enough to see that it learns; and docs/first-run.md on the same run."""
    for command, shown in sessions(ROOT / "README.md"):
        printed = typed(f"{command} --epochs 3 2> said" if command == "groco pretrain" else command, tmp_path)
        assert agrees(shown, printed), f"$ {command}\n{printed}"
        if command == "groco pretrain":
            check_first_run(printed, (tmp_path / "said").read_text(encoding="utf-8"), tmp_path)
        if command.endswith("--baselines --json"):
            scores = json.loads(printed)
    trained = scores["knn"]["20"]["top1"]
    assert trained >= 0.8
    assert trained > scores["baselines"]["pixels"]["20"]["top1"]
    assert trained > scores["baselines"]["untrained"]["20"]["top1"]
    assert (tmp_path / "toy.png").stat().st_size > 10_000
    monkeypatch.chdir(tmp_path)
    (block,) = blocks(ROOT / "README.md")
    capsys.readouterr()
    exec(compile(block, "README.md", "exec"), {"__name__": "page"})
    assert capsys.readouterr().out == "torch.Size([360, 512])\n"


@pytest.mark.slow
def test_the_page_on_data_shows_what_is_printed(tmp_path):
    shown = sessions(ROOT / "docs/data.md")
    assert [command for command, _ in shown] == ["groco data digits"]
    for command, output in shown:
        printed = typed(command, tmp_path)
        assert agrees(output, printed), f"$ {command}\n{printed}"


def test_the_demo_is_what_the_readme_shows():
    recipe = (ROOT / "Makefile").read_text().partition("\ndemo:")[2].partition("\n\n")[0]
    commands = re.findall(r"\$\(BIN\)/(groco .*)", recipe)
    assert commands == ["groco pretrain", "groco knn --baselines"]
    shown = [command for command, _ in sessions(ROOT / "README.md")]
    assert "groco pretrain" in shown
    assert "groco knn --k 20 --baselines" in shown


def test_the_reference_is_what_help_says():
    spec = importlib.util.spec_from_file_location("make_reference", ROOT / "docs/make_reference.py")
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    page = (ROOT / "docs/reference.md").read_text(encoding="utf-8")
    assert page == made.reference(), "run: python docs/make_reference.py"


def test_links_between_the_pages_lead_somewhere():
    for page in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]:
        for target in re.findall(r"\]\(([^)#:]+?)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


@pytest.mark.parametrize(
    "page",
    [f"docs/{name}.md" for name in ("data", "knn", "linprobe", "losses", "plugins", "retrieve", "transfer")],
)
def test_the_pages_python_runs(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for block in blocks(ROOT / page):
        exec(compile(block, page, "exec"), {"__name__": "page"})


def test_every_command_has_a_page():
    for page in ("data", "pretrain", "knn", "linprobe", "retrieve", "transfer", "convert", "features", "toy", "bench"):
        assert (ROOT / f"docs/{page}.md").exists()
