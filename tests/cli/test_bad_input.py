"""What the commands that score say of bad checkpoints and labels: one line with its remedy, and nothing is executed."""

import json
import os
from pathlib import Path

import pytest
import torch

from groco_cli.models import EncoderMetadata, create_encoder
from groco_cli.models.conversion import save_checkpoint

COMMANDS = ("knn", "linprobe", "transfer", "retrieve")


class Command:
    """Runs a command of the shell when it is unpickled."""

    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> tuple:
        return os.system, (self.command,)


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """A small encoder with a weight that is not finite."""
    encoder = create_encoder(EncoderMetadata(arch="test_resnet", image_size=32, resize=32))
    with torch.no_grad():
        next(encoder.parameters()).fill_(torch.nan)
    save_checkpoint(tmp_path / "nan.safetensors", encoder, {})
    return tmp_path / "nan.safetensors"


@pytest.fixture
def typed(call_groco, picture_folder, tmp_path: Path):
    """Types a command over small pictures: `typed("knn", checkpoint)`; the error's line is returned."""
    parts = [f"{part}/{name}/{i}.png" for part in ("train", "val") for name in "ab" for i in range(2)]
    texture = "red/red_0.jpg"
    data = picture_folder(*parts, f"root/dtd/dtd/images/{texture}")
    (data / "root/dtd/dtd/labels").mkdir()
    for part in ("train", "val", "test"):
        (data / f"root/dtd/dtd/labels/{part}1.txt").write_text(f"{texture}\n")
    truth = tmp_path / "truth.json"
    names = ["a/0.png", "b/0.png"]
    truth.write_text(json.dumps({"imlist": names, "qimlist": names[:1], "gnd": [{"easy": [1]}]}))
    options = {
        "knn": ("--data", str(data), "--k", "1"),
        "linprobe": ("--data", str(data), "--batch-size", "2", "--no-cache", "-o", str(tmp_path / "probe")),
        "transfer": ("--sets", "dtd", "--k", "1", "--linear"),
        "retrieve": ("--images", str(data / "train"), "--ground-truth", str(truth)),
    }

    def error(command: str, path: Path, code: int = 1) -> str:
        root = ("--data-root", str(data / "root"), "--device", "cpu", "--workers", "0")
        shown = call_groco(command, str(path), *options[command], *root)
        assert shown.returncode == code
        return next(line for line in shown.stderr.splitlines() if line.startswith("error: "))

    return error


@pytest.mark.parametrize("command", COMMANDS)
def test_a_checkpoint_that_asks_for_code_is_refused_unrun(typed, tmp_path, command):
    done = tmp_path / "done"
    torch.save({"state_dict": Command(f"touch {done}")}, tmp_path / "malicious.pth")
    assert "refused, and nothing of it was run; give a file that holds weights alone" in typed(
        command, tmp_path / "malicious.pth"
    )
    assert not done.exists()


@pytest.mark.parametrize("command", COMMANDS)
def test_a_feature_that_is_not_finite_is_told_with_its_picture(typed, checkpoint, command):
    line = typed(command, checkpoint)
    assert "is not finite; the checkpoint is damaged or diverged" in line
    assert ".png" in line or ".jpg" in line


@pytest.mark.parametrize("command", ["knn", "linprobe"])
@pytest.mark.parametrize(
    ("more", "message"),
    [
        ("val/c/0.png", "class c not among those of the training images; give both parts the same classes"),
        ("flat", "needs one sub-folder per class, in train and val alike"),
        ("single", "has one class (a); there is nothing to tell apart"),
    ],
)
def test_labels_that_do_not_fit_are_a_mistake_in_a_line(call_groco, checkpoint, picture_folder, command, more, message):
    layouts = {
        "val/c/0.png": ["train/a/0.png", "train/b/0.png", "val/a/0.png", "val/b/0.png", "val/c/0.png"],
        "flat": ["train/0.png", "train/1.png", "val/2.png"],
        "single": ["train/a/0.png", "train/a/1.png", "val/a/0.png"],
    }
    folder = picture_folder(*layouts[more])
    batch = ("--batch-size", "2") if command == "linprobe" else ("--k", "1")
    failed = call_groco(command, str(checkpoint), "--data", str(folder), "--device", "cpu", *batch)
    assert (failed.returncode, failed.stdout) == (1, "")
    (line,) = (line for line in failed.stderr.splitlines() if line.startswith("error: "))
    assert message in line


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("path", [".", "..", "/"])
def test_a_folder_without_a_checkpoint_is_a_mistake_in_a_line(typed, command, path):
    assert f"no checkpoint in {path}; name one, or a run's folder" in typed(command, Path(path), code=2)
