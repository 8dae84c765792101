"""Which probe a command means, and where each goes; tests/cli/test_linprobe.py resumes real ones."""

from pathlib import Path

import pytest

from groco_cli.errors import UsageError
from groco_cli.evaluation import linear_run
from groco_cli.evaluation.linear_protocol import ProbeSettings
from groco_cli.evaluation.linear_run import probe_outputs, resumed_run
from groco_cli.evaluation.linear_state import STATE, ProbeRun


def test_one_probe_takes_the_folder_itself_and_several_one_each_in_it(tmp_path: Path):
    assert probe_outputs(None, ["a", "b"], resume=False) == ["", ""]
    assert probe_outputs(tmp_path, ["run/a"], resume=False) == [str(tmp_path)]
    assert probe_outputs(tmp_path, ["run/a", "b"], resume=False) == [str(tmp_path / "run-a"), str(tmp_path / "b")]


def test_any_folder_that_holds_a_probe_is_found_before_the_first_is_begun(tmp_path: Path):
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / STATE).touch()
    with pytest.raises(UsageError, match=f"--output {tmp_path / 'b'} already holds a linear probe"):
        probe_outputs(tmp_path, ["a", "b"], resume=False)
    assert probe_outputs(tmp_path / "b", ["b"], resume=True) == [str(tmp_path / "b")]


@pytest.mark.parametrize(
    ("output", "checkpoints", "told"),
    [
        (Path("probe"), [Path("a"), Path("b")], "--resume goes on with one probe"),
        (Path("nowhere"), [], "holds no linear probe to resume"),
    ],
)
def test_what_cannot_be_resumed_is_told(output: Path, checkpoints: list[Path], told: str):
    with pytest.raises(UsageError, match=told):
        resumed_run(output, {}, checkpoints, None)


def test_a_probe_that_was_begun_in_more_processes_goes_on_and_it_is_said(monkeypatch, capsys):
    begun = ProbeRun(checkpoint="a", encoder="", data="digits", settings=ProbeSettings(), processes=2)
    monkeypatch.setattr(linear_run, "read_run", lambda folder: begun)
    assert resumed_run(Path("probe"), {}, [], None) is begun
    assert "begun in 2 processes, not 1: the same but for rounding" in " ".join(capsys.readouterr().err.split())
