"""`groco linprobe` as it is typed: a probe from start to end, resumed, and what a mistake looks like."""

import csv
import json
import os
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from groco_cli.data.sources import open_dataset
from groco_cli.evaluation.linear_protocol import ProbeSettings, prepare_probe
from groco_cli.evaluation.protocol import pixels
from groco_cli.models import Encoder, EncoderMetadata, create_encoder, load_encoder
from groco_cli.models.conversion import save_checkpoint


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    about = EncoderMetadata(arch="test_resnet", image_size=32, resize=32, data="digits")
    save_checkpoint(tmp_path / "tiny.safetensors", create_encoder(about), {})
    return tmp_path / "tiny.safetensors"


@pytest.fixture
def probe(call_groco, checkpoint: Path, tmp_path: Path):
    """Runs the command on the embedded digits: `probe("--epochs", "1")`."""

    def start(*options: str):
        root = ("--data-root", str(tmp_path / "root"), "--device", "cpu", "--workers", "0")
        return call_groco("linprobe", str(checkpoint), *root, *options)

    return start


def test_a_cached_probe_says_what_it_is_and_leaves_its_heads(probe, tmp_path):
    out = tmp_path / "probe"
    options = ("--cached", "--epochs", "3", "--batch-size", "1000", "--lr", "0.1", "--lr", "10", "-o", str(out))
    shown = probe(*options, "--json")
    assert shown.returncode == 0, shown.stderr
    printed = json.loads(shown.stdout)
    assert printed["protocol"].startswith("not the published protocol: features cached without augmentation")
    assert (printed["published"], printed["train_images"], printed["test_images"]) == (False, 2874, 360)
    assert [score["learning_rate"] for score in printed["scores"]] == [0.1, 10]
    assert [score["total"] for score in printed["scores"]] == [360, 360]
    assert printed["best_on_test_set"]["top1"] == max(score["top1"] for score in printed["scores"])
    for score in printed["scores"]:
        assert load_file(score["head"])["weight"].shape[0] == 10
    assert len(list((tmp_path / "root/features").iterdir())) == 2
    assert "epoch 3/3" in shown.stderr
    assert f"probe      {out}" in shown.stderr


def test_the_published_way_scores_every_held_out_image(probe, tmp_path):
    shown = probe("--epochs", "1", "--batch-size", "2000", "-o", str(tmp_path / "probe"), "--no-cache")
    assert shown.returncode == 0, shown.stderr
    assert "360 images" in shown.stdout
    assert "SimSiam's, altered: 1 epoch, batch 2000, 32-pixel pictures" in shown.stderr
    assert "best learning rate" not in shown.stdout
    assert not (tmp_path / "root/features").exists()


def test_an_interrupted_probe_goes_on_to_the_same_end(probe, tmp_path, monkeypatch):
    from groco_cli.evaluation.linear_protocol import LinearProbe

    options = ("--cached", "--epochs", "4", "--batch-size", "1000", "--lr", "10")
    whole = json.loads(probe(*options, "-o", str(tmp_path / "whole"), "--json").stdout)
    train = LinearProbe._train

    def interrupted(self, epoch, advance):
        if epoch == 2:
            raise KeyboardInterrupt
        return train(self, epoch, advance)

    part = str(tmp_path / "a part")
    with monkeypatch.context() as patch:
        patch.setattr(LinearProbe, "_train", interrupted)
        stopped = probe(*options, "-o", part)
        beside = probe(*options, "-o", str(tmp_path / "beside"), "--baselines")
    assert "stopped: in epoch 3 of 4; nothing of a baseline is saved: type the same again" in beside.stderr
    assert stopped.returncode == 130
    assert f"stopped: in epoch 3 of 4; go on with: groco linprobe --resume --output '{part}'" in stopped.stderr
    resumed = probe("--resume", "-o", part, "--json")
    assert "resumed after epoch 2" in resumed.stderr
    scores = json.loads(resumed.stdout)["scores"]
    assert [{**score, "head": ""} for score in scores] == [{**score, "head": ""} for score in whole["scores"]]
    name = "head-lr10.safetensors"
    mine, theirs = load_file(tmp_path / "a part" / name), load_file(tmp_path / "whole" / name)
    assert torch.equal(mine["weight"], theirs["weight"])


def test_mistakes_are_told_in_a_line(probe, tmp_path, picture_folder, monkeypatch):
    def error(*options: str) -> str:
        shown = probe(*options)
        assert shown.returncode in (1, 2)
        assert shown.stdout == ""
        return shown.stderr.splitlines()[-1]

    out = str(tmp_path / "out")
    assert error() == (
        "error: --batch-size 4096 is more than the 2,874 training images of digits (embedded); "
        "type --batch-size 2874 or less"
    )
    monkeypatch.chdir(tmp_path)
    assert "there is no linear probe under runs/; name its folder with --output" in error("--resume")
    assert "holds no linear probe to resume" in error("--resume", "-o", out)
    assert "--cache and --no-cache exclude each other" in error("--cache", out, "--no-cache")
    assert "--lr -1 must be positive" in error("--lr", "-1")
    folder = picture_folder("cat/0.png", "dog/0.png")
    assert "has no held-out part to score on" in error("--data", str(folder), "--batch-size", "2")
    assert not Path(out).exists()


def test_the_newest_probe_is_resumed_where_none_is_named(probe, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for rate in ("1", "10", "3"):
        assert probe("--cached", "--epochs", "1", "--batch-size", "1000", "--lr", rate).returncode == 0
    for age, name in enumerate(("linprobe-2", "linprobe-3", "linprobe")):
        os.utime(tmp_path / "runs" / name / "linprobe.safetensors", (1_000_000 - age, 1_000_000 - age))
    resumed = probe("--resume", "--json")
    assert "probe      runs/linprobe-2, resumed after epoch 1" in resumed.stderr
    assert [score["learning_rate"] for score in json.loads(resumed.stdout)["scores"]] == [10]


def test_data_from_the_environment_do_not_replace_the_checkpoints_silently(probe, picture_folder, monkeypatch):
    folder = str(picture_folder("cat/0.png", "dog/0.png"))
    told = f"data {folder} from GROCO_DATA in the environment; trained on digits"
    monkeypatch.setenv("GROCO_DATA", folder)
    assert told in probe("--batch-size", "2").stderr
    assert "GROCO_DATA" not in probe("--batch-size", "2", "--data", "nowhere").stderr
    monkeypatch.delenv("GROCO_DATA")
    assert "GROCO_DATA" not in probe("--batch-size", "2", "--data", folder).stderr


def test_a_probe_is_not_mixed_with_another(probe, checkpoint, tmp_path):
    out = str(tmp_path / "probe")
    options = ("--cached", "--epochs", "1", "--batch-size", "1000", "-o", out)
    assert probe(*options).returncode == 0
    assert "already holds a linear probe; type --resume to go on" in probe(*options).stderr
    assert "not another --lr; leave out --lr" in probe("--resume", "-o", out, "--lr", "3").stderr
    torch.manual_seed(1)
    about = EncoderMetadata(arch="test_resnet", image_size=32, resize=32, data="digits")
    save_checkpoint(checkpoint, create_encoder(about), {})
    assert "has other weights now" in probe("--resume", "-o", out).stderr


def test_old_scores_are_not_shown_for_data_that_changed(probe, picture_folder, tmp_path):
    names = [f"{part}/{kind}/{i}.png" for part in ("train", "val") for kind in ("cat", "dog") for i in range(3)]
    folder, out = picture_folder(*names), str(tmp_path / "probe")
    begun = probe("--data", str(folder), "--cached", "--epochs", "1", "--batch-size", "6", "-o", out)
    assert begun.returncode == 0, begun.stderr
    assert probe("--resume", "-o", out).stdout == begun.stdout
    (folder / "val/cat/0.png").unlink()
    for part in ("train", "val"):
        (folder / part / "cat").rename(folder / part / "zebra")
    refused = probe("--resume", "-o", out)
    assert (refused.returncode, refused.stdout) == (1, "")
    assert refused.stderr.splitlines()[-1] == (
        f"error: --resume: {folder} has other classes, training images, held-out images now; "
        "put them back as they were, or start anew with another --output"
    )


def test_several_checkpoints_are_probed_and_compared(probe, checkpoint, tmp_path):
    other = tmp_path / "other.safetensors"
    other.write_bytes(checkpoint.read_bytes())
    out = tmp_path / "probes"
    options = ("--cached", "--epochs", "1", "--batch-size", "1000", "--lr", "1", "--lr", "10", "--json")
    shown = probe(str(other), *options, "-o", str(out), "--csv", str(tmp_path / "probes.csv"), "--paper")
    assert shown.returncode == 0, shown.stderr
    assert "the paper's linear probe is on ImageNet" in shown.stderr
    printed = json.loads(shown.stdout)
    assert [one["output"] for one in printed["encoders"]] == [str(out / "tiny"), str(out / "other")]
    scores = [[{**score, "head": ""} for score in one["scores"]] for one in printed["encoders"]]
    assert scores[0] == scores[1]  # the same weights, the same seed
    assert all((out / name / "head-lr10.safetensors").exists() for name in ("tiny", "other"))
    with (tmp_path / "probes.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["encoder"], float(row["learning_rate"])) for row in rows] == [
        ("tiny", 1),
        ("tiny", 10),
        ("other", 1),
        ("other", 10),
    ]
    assert [float(row["top1"]) for row in rows[:2]] == [score["top1"] for score in scores[0]]
    failed = probe(str(other), "--resume", "-o", str(out / "tiny"))
    assert "--resume goes on with one probe" in failed.stderr


def probed_in_python(encoder: Encoder, rates: tuple[float, ...]) -> list[dict]:
    """What two epochs on the cached features of the digits give, by the library alone."""
    settings = ProbeSettings(epochs=2, batch_size=1000, learning_rates=rates, cached=True)
    digits = open_dataset("digits", Path("nowhere"))
    alone = prepare_probe(encoder, digits, settings, device=torch.device("cpu"), workers=0, cache=None)
    return [asdict(score) for score in list(alone.run())[-1]]


def test_baselines_are_probed_alike_and_nothing_is_kept_of_them(probe, checkpoint, tmp_path):
    out = tmp_path / "probe"
    options = ("--cached", "--epochs", "2", "--batch-size", "1000", "--lr", "1", "--lr", "10", "--json")
    shown = probe(*options, "--baselines", "-o", str(out), "--csv", str(tmp_path / "probes.csv"))
    assert shown.returncode == 0, shown.stderr
    printed = json.loads(shown.stdout)
    assert list(printed["baselines"]) == ["untrained", "pixels"]
    own = [{key: value for key, value in score.items() if key != "head"} for score in printed["scores"]]
    assert printed["baselines"]["untrained"] == own  # what is probed is untrained itself, by the same seed
    assert printed["baselines"]["pixels"] == probed_in_python(
        pixels(load_encoder(checkpoint).metadata), rates=(1.0, 10.0)
    )
    with (tmp_path / "probes.csv").open(newline="") as file:
        rows = [(row["encoder"], float(row["learning_rate"]), float(row["top1"])) for row in csv.DictReader(file)]
    assert [row[:2] for row in rows] == [(name, lr) for name in ("untrained", "pixels", "tiny") for lr in (1, 10)]
    assert rows[3][2] == printed["baselines"]["pixels"][1]["top1"]
    assert sorted(path.name for path in out.iterdir()) == [
        "head-lr1.safetensors",
        "head-lr10.safetensors",
        "linprobe.safetensors",
    ]
    assert len(list((tmp_path / "root/features").iterdir())) == 2  # of pixels, nothing is kept
    assert "baselines" not in json.loads(probe("--resume", "-o", str(out), "--json").stdout)
