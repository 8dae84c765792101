"""`groco linprobe --processes 2` as it is typed: one result, equal to one process's; stopped, resumed, failing."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from groco_cli.models import EncoderMetadata, create_encoder
from groco_cli.models.conversion import save_checkpoint

pytestmark = pytest.mark.slow


@pytest.fixture
def start(tmp_path: Path):
    """Starts a command on a small encoder: `start("linprobe", "--epochs", "2")`."""
    torch.manual_seed(0)
    about = EncoderMetadata(arch="test_resnet", image_size=32, resize=32, data="digits")
    save_checkpoint(tmp_path / "tiny.safetensors", create_encoder(about), {})

    def started(command: str, *options: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [
                *(sys.executable, "-m", "groco_cli", command, *options),
                *("--data-root", str(tmp_path / "root"), "--device", "cpu"),
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
        )

    return started


@pytest.fixture
def probe(start, tmp_path: Path):
    """Starts a probe in a folder of a name: `probe("one", "--processes", "1")`."""
    tiny = str(tmp_path / "tiny.safetensors")
    options = ("--batch-size", "999", "--lr", "0.1", "--lr", "10")
    return lambda name, *more: start("linprobe", tiny, *options, "-o", str(tmp_path / name), *more)


def ended(process: subprocess.Popen[str], code: int = 0) -> tuple[str, str]:
    printed, said = process.communicate(timeout=240)
    assert process.returncode == code, said
    assert "Traceback" not in said
    return printed, said


@pytest.mark.long
def test_a_stopped_probe_says_so_once_and_goes_on_to_the_same_end(probe, start, tmp_path):
    options = ("--epochs", "60", "--cached", "--processes", "2")
    ended(probe("whole", *options))
    process = probe("part", *options)
    for _ in range(1200):
        if (tmp_path / "part/linprobe.safetensors").exists():
            break
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    printed, said = ended(process, 130)
    assert printed == ""
    assert said.count("stopped: in epoch ") == 1
    assert "error" not in said
    _, said = ended(start("linprobe", "--resume", "-o", str(tmp_path / "part"), "--processes", "2"))
    assert "was begun in" not in said
    for name in ("head-lr0.1.safetensors", "head-lr10.safetensors"):
        mine, other = (load_file(tmp_path / folder / name) for folder in ("part", "whole"))
        assert torch.equal(mine["weight"], other["weight"])


@pytest.mark.long
def test_neighbours_are_shown_once(start, tmp_path):
    tiny = str(tmp_path / "tiny.safetensors")
    one, _ = ended(start("knn", tiny, "--json", "--bank-size", "101", "--query-size", "33"))
    two, _ = ended(start("knn", tiny, "--json", "--bank-size", "101", "--query-size", "33", "--processes", "2"))
    assert json.loads(one) == json.loads(two)


def test_a_bad_picture_in_one_part_is_told_once(start, tmp_path, picture_folder):
    names = [f"{part}/{name}/{i}.png" for part in ("train", "val") for name in "ab" for i in range(6)]
    folder = picture_folder(*names)
    (folder / "val/b/5.png").write_bytes(b"no picture")
    failed = start("knn", str(tmp_path / "tiny.safetensors"), "--data", str(folder), "--k", "1", "--processes", "2")
    _, said = ended(failed, 1)
    errors = [line for line in said.splitlines() if line.startswith("error:")]
    assert len(errors) == 1, said
    assert "val/b/5.png" in errors[0]
