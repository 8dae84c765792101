"""Which probe a command means, and where each goes; tests/cli/test_linprobe.py resumes real ones."""

from dataclasses import replace
from pathlib import Path

import pytest

from groco_cli.data.sources import Dataset
from groco_cli.errors import GrocoError, UsageError
from groco_cli.evaluation import linear_run
from groco_cli.evaluation.linear_protocol import ProbeSettings
from groco_cli.evaluation.linear_run import check_same_data, probe_outputs, resumed_run, stamp_of
from groco_cli.evaluation.linear_state import STATE, DataStamp, ProbeRun

STAMP = DataStamp(classes=("a", "b"), train="t", test="h")


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
    begun = ProbeRun(checkpoint="a", encoder="", data="digits", stamp=STAMP, settings=ProbeSettings(), processes=2)
    monkeypatch.setattr(linear_run, "read_run", lambda folder: begun)
    assert resumed_run(Path("probe"), {}, [], None) is begun
    assert "begun in 2 processes, not 1: the same but for rounding" in " ".join(capsys.readouterr().err.split())


def test_data_are_known_again_by_images_labels_and_classes(noise):
    train, test = noise(9), noise(6, seed=1)
    begun = stamp_of(Dataset("noise", train, test))
    run = ProbeRun(checkpoint="a", encoder="", data="noise", stamp=begun, settings=ProbeSettings())
    check_same_data(run, stamp_of(Dataset("the same", noise(9), noise(6, seed=1))))
    renamed = replace(train, classes=("a", "b", "z"))
    relabelled = replace(test, labels=test.labels.flip(0))
    for changed, told in (
        (Dataset("noise", renamed, test), "other classes now"),
        (Dataset("noise", noise(9, seed=2), test), "other training images now"),
        (Dataset("noise", train, relabelled), "other held-out images now"),
        (Dataset("noise", renamed, noise(3)), "other classes, held-out images now"),
    ):
        with pytest.raises(GrocoError, match=f"--resume: noise has {told}") as failed:
            check_same_data(run, stamp_of(changed))
        assert failed.value.hint == "put them back as they were, or start anew with another --output"
