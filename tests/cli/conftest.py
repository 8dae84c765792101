import os
import subprocess
import sys
from textwrap import dedent

import pytest

from groco_cli.app import run


@pytest.fixture(autouse=True)
def data_root(tmp_path, monkeypatch):
    """A data root for each test, in place of the user's, where features would be kept."""
    monkeypatch.setenv("GROCO_DATA_ROOT", str(tmp_path / "data-root"))


@pytest.fixture
def run_groco():
    """Runs the real command in a process of its own: `run_groco("knn", "--help", NO_COLOR="1")`."""

    def start(*arguments, **environment):
        return subprocess.run(
            [sys.executable, "-m", "groco_cli", *arguments],
            env=os.environ | environment,
            capture_output=True,
            text=True,
            timeout=600,
        )

    return start


@pytest.fixture
def call_groco(capsys):
    """As `run_groco`, but in this process, which saves importing torch each time: `call_groco("knn", "--k", "0")`."""

    def call(*arguments):
        capsys.readouterr()
        code = run(list(arguments))
        printed = capsys.readouterr()
        return subprocess.CompletedProcess(arguments, code, printed.out, printed.err)

    return call


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Installs a third party's package: `install("foo-dist", hello="def hello(): ...")` adds `groco hello`.

    What is written is what pip would leave behind, without its need of a network.
    """
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.syspath_prepend(tmp_path)

    def install(distribution, **sources):
        package = tmp_path / distribution.replace("-", "_")
        info = package.with_name(f"{package.name}-1.0.dist-info")
        package.mkdir()
        info.mkdir()
        (package / "__init__.py").touch()
        for command, source in sources.items():
            module = command.replace(".", "_")
            (package / f"{module}.py").write_text(dedent(source))
        lines = [
            f"{command} = {package.name}.{command.replace('.', '_')}:{command.rpartition('.')[2]}"
            for command in sources
        ]
        (info / "entry_points.txt").write_text("\n".join(["[groco.plugins]", *lines]))
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.0\n")

    return install
