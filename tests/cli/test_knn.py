"""`groco knn` as it is typed: its votes and its picture (tests/evaluation checks the scores themselves)."""

import json
from pathlib import Path

import pytest
import torch
from PIL import Image

from groco_cli.models import EncoderMetadata, create_encoder
from groco_cli.models.conversion import save_checkpoint


@pytest.fixture(scope="module")
def tiny(tmp_path_factory) -> Path:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("tiny") / "tiny.safetensors"
    encoder = create_encoder(EncoderMetadata(arch="test_resnet", image_size=32, resize=32))
    save_checkpoint(path, encoder, {})
    return path


@pytest.fixture
def knn(call_groco, tiny):
    options = ("--data", "digits", "--bank-size", "200", "--query-size", "60", "--device", "cpu", "--workers", "0")
    return lambda *more: call_groco("knn", str(tiny), *options, *more)


def test_uniform_votes_are_counted_and_said(knn, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    weighted, uniform = (json.loads(knn("--k", "20", "--json", *more).stdout) for more in ((), ("--uniform",)))
    assert (weighted["temperature"], uniform["temperature"]) == (0.07, None)
    assert uniform == json.loads(knn("--k", "20", "--json", "--temperature", "inf").stdout)
    assert uniform["knn"] != weighted["knn"]
    assert "votes unweighted" in knn("--uniform").stdout
    assert "T 0.07" in knn().stdout


def test_a_picture_is_drawn(knn, tmp_path):
    place = tmp_path / "new/knn.png"
    done = knn("--k", "5", "--plot", str(place), "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["figure"] == str(place)
    assert f"figure: {place}" in done.stderr
    assert min(Image.open(place).size) > 500
    assert json.loads(knn("--k", "5", "--json").stdout)["figure"] is None


@pytest.mark.parametrize(
    ("options", "what", "remedy", "code"),
    [
        (["--uniform", "--temperature", "0.1"], "--uniform counts", "leave one", 2),
        (["--plot", "knn.bmp"], "--plot knn.bmp has no known ending", ".png, .svg, .pdf", 2),
        (["--plot", "/dev/null/knn.png"], "cannot write /dev/null/knn.png", "choose another place", 1),
    ],
)
def test_a_mistake_is_one_line_before_any_work(knn, options, what, remedy, code):
    failed = knn(*options)
    assert (failed.returncode, failed.stdout) == (code, "")
    (line,) = failed.stderr.strip().splitlines()
    assert what in line
    assert remedy in line
