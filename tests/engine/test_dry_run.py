"""A dry run: what it foretells is what the run does, it leaves nothing behind, and it finds what would go wrong."""

import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from groco_cli.engine import disk_space as disk
from groco_cli.engine import step as stepping
from groco_cli.engine.configuration import override
from groco_cli.engine.dry_run import dry_run
from groco_cli.engine.metrics import read_metrics
from groco_cli.engine.run_folder import RunFolder
from groco_cli.engine.settings import PretrainSettings
from groco_cli.engine.trainer import pretrain
from groco_cli.errors import GrocoError, UsageError


def files(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_what_it_says_is_what_the_run_does(quick, tmp_path):
    settings = override(quick, {"optim": {"warmup_epochs": 1}, "run": {"milestones": 1, "keep": 2}}, "test")
    planned = dry_run(settings)
    assert list(tmp_path.iterdir()) == []
    run = RunFolder(pretrain(settings))
    train = [line for line in read_metrics(run.metrics) if line["kind"] == "train"]
    assert planned.folder.path == run.path
    assert (planned.images, planned.classes, planned.per_epoch, planned.steps) == (100, 10, 3, len(train))
    facts = planned.facts()
    assert facts["peak_learning_rate"] == pytest.approx(train[facts["warmup_steps"]]["learning_rate"])
    checkpoint, state = run.latest.stat().st_size, run.states[0].stat().st_size
    assert planned.disk.checkpoint_bytes < checkpoint < 1.1 * planned.disk.checkpoint_bytes + 20_000
    assert planned.disk.state_bytes < state < 1.1 * planned.disk.state_bytes + 100_000
    assert planned.disk.checkpoints == len(list(run.latest.parent.iterdir())) + 1  # one that is being written
    assert planned.disk.states == len(run.states) + 1


@pytest.mark.parametrize(("milestones", "kept"), [(0, 1), (5, 2), (4, 3), (100, 1)])
def test_checkpoints_that_are_kept_for_good_are_counted(quick, milestones, kept):
    settings = override(quick, {"run": {"milestones": milestones}, "optim": {"epochs": 10}}, "test")
    assert dry_run(settings).disk.checkpoints == kept + 2


def test_a_run_that_can_be_resumed_is_left_as_it_is(quick):
    run = RunFolder(pretrain(quick))
    before = files(run.path)
    planned = dry_run(quick, resume=run)
    assert (planned.begun, planned.steps) == (6, 6)
    assert planned.disk.there_bytes == sum(len(file) for name, file in before.items() if name.endswith((".pt", "rs")))
    assert files(run.path) == before


def test_what_others_left_in_the_folder_is_not_taken_for_the_run_s(quick):
    elsewhere = dry_run(quick).disk.needed_bytes
    run = RunFolder(Path(quick.run.output))
    assert (elsewhere > 0, run.saved) == (True, [])
    for name in (".x.pt", ".hidden/x.safetensors"):  # in a folder where other files are seen no run is begun
        place = run.path / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(bytes(4 * elsewhere))
    assert dry_run(quick).disk.needed_bytes == elsewhere
    pretrain(quick)
    (run.path / "x.pt").write_bytes(bytes(4 * elsewhere))
    there = dry_run(quick, resume=run).disk.there_bytes
    assert there == sum(path.stat().st_size for path in [*run.path.glob("state/*"), *run.path.glob("checkpoints/*")])


def test_a_run_that_cannot_be_resumed_is_found_out(quick):
    run = RunFolder(pretrain(quick))
    for state in run.states:
        state.unlink()
    with pytest.raises(GrocoError, match="its state is gone"):
        dry_run(quick, resume=run)


def test_a_disk_without_room_is_an_error(quick, monkeypatch):
    needed = dry_run(quick).disk.needed_bytes
    for free, fits in ((needed, True), (needed - 1, False)):
        monkeypatch.setattr(disk.shutil, "disk_usage", lambda _, free=free: SimpleNamespace(free=free))
        if fits:
            dry_run(quick)
            continue
        with pytest.raises(GrocoError, match="will need") as caught:
            dry_run(quick)
        assert "--keep 1 --milestones 0" in caught.value.hint


def test_a_folder_that_cannot_be_made_is_an_error(quick, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(GrocoError, match="no folder can be made"):
        dry_run(override(quick, {"run": {"output": str(tmp_path / "file/run")}}, "test"))


def test_a_step_that_does_not_fit_says_what_to_type(quick, monkeypatch):
    def full(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(stepping.TrainingStep, "__call__", full)
    with pytest.raises(GrocoError, match="a step on 32 images does not fit") as caught:
        dry_run(quick)
    assert "--micro-batch 16" in caught.value.hint


def test_what_the_run_would_refuse_is_refused(quick, tmp_path):
    run = pretrain(quick)
    with pytest.raises(UsageError, match="already holds a run"):
        dry_run(quick)
    shutil.rmtree(run)
    with pytest.raises(UsageError, match="--batch-size 128"):
        dry_run(override(quick, {"optim": {"batch_size": 128}}, "test"))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {},
            ["digits (embedded): 100 images, 10 classes", "2×32", "3 per epoch, 6 in all", "0.0125 = 0.1 × batch/256"],
        ),
        ({"optim": {"lr_scaling": "sqrt"}}, ["0.0353553 = 0.1 × √(batch/256)"]),
    ],
)
def test_it_is_shown_to_people(quick: PretrainSettings, changes, words):
    shown = "\n".join(" ".join(row) for row in dry_run(override(quick, changes, "test")).rows())
    for word in [*words, "all that the process had", "an estimate from one step", "states of", "cpu", "fp32"]:
        assert word in shown


def test_few_images_with_the_papers_recipe_are_pointed_to_another(quick):
    of_the_paper = replace(quick, recipe="groco-2views-100ep")
    shown = dict(dry_run(of_the_paper).rows())
    assert shown["recipe"] == "groco-2views-100ep; for so few images type --recipe folder-resnet18"
    assert dict(dry_run(quick).rows())["recipe"] == "digits"
    for settings, hint in (
        (of_the_paper, "type --recipe folder-resnet18 --batch-size 100 or less"),
        (quick, "type --batch-size 100 or less"),
    ):
        with pytest.raises(UsageError, match="--batch-size 101 is more than the 100 training images") as caught:
            dry_run(override(settings, {"optim": {"batch_size": 101}}, "test"))
        assert caught.value.hint == hint
