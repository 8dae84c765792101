"""`groco convert`: what it writes, what it says, and what a mistake looks like."""

import json
import os
from pathlib import Path

import pytest
import timm
import torch
import torchvision
from safetensors.torch import load_file
from torch import nn

from groco_cli.models import EncoderMetadata, create_encoder, load_encoder
from groco_cli.models.conversion import save_checkpoint


@pytest.fixture
def simsiam(tmp_path: Path) -> Path:
    """A ResNet-18 as SimSiam's script saves it."""
    torch.manual_seed(0)
    encoder = torchvision.models.resnet18().state_dict()
    state = {f"module.encoder.{name}": tensor for name, tensor in encoder.items()}
    path = tmp_path / "simsiam.pth.tar"
    torch.save({"epoch": 100, "state_dict": state | {"module.predictor.0.weight": torch.zeros(1)}}, path)
    return path


def test_a_released_checkpoint_becomes_grocos(call_groco, simsiam: Path, tmp_path: Path):
    shown = call_groco("convert", str(simsiam), str(tmp_path / "x.safetensors"), "--json")
    assert shown.returncode == 0, shown.stderr
    assert "recognised: SimSiam, ResNet-18; left out: predictor, fc" in shown.stderr
    facts = json.loads(shown.stdout)
    assert (facts["arch"], facts["method"], facts["to"], facts["image_size"]) == ("resnet18", "simsiam", "groco", 224)
    found = load_encoder(tmp_path / "x.safetensors")
    assert (found.metadata.method, found.metadata.epoch) == ("simsiam", 100)
    assert found.metadata.groco_version
    for name, tensor in load_encoder(simsiam).state_dict().items():
        assert torch.equal(found.state_dict()[name], tensor)


@pytest.mark.parametrize("library", ["timm", "torchvision"])
def test_what_is_written_loads_in_the_plain_library(call_groco, simsiam: Path, tmp_path: Path, library: str):
    shown = call_groco("convert", str(simsiam), str(tmp_path / "x.safetensors"), "--to", library)
    assert shown.returncode == 0, shown.stderr
    assert "resnet18" in shown.stdout
    plain = torchvision.models.resnet18()
    plain.fc = nn.Identity()
    plain = timm.create_model("resnet18", num_classes=0) if library == "timm" else plain
    plain.load_state_dict(load_file(tmp_path / "x.safetensors"), strict=True)
    images = torch.randn(2, 3, 64, 64)
    torch.testing.assert_close(plain.eval()(images), load_encoder(simsiam)(images), rtol=1e-4, atol=1e-4)


def test_nothing_is_overwritten_unasked(call_groco, simsiam: Path, tmp_path: Path):
    target = tmp_path / "x.safetensors"
    target.write_text("precious")
    failed = call_groco("convert", str(simsiam), str(target))
    assert (failed.returncode, failed.stdout, target.read_text()) == (2, "", "precious")
    assert "x.safetensors is there already" in failed.stderr
    assert "--force" in failed.stderr
    assert call_groco("convert", str(simsiam), str(target), "--force").returncode == 0
    assert load_encoder(target).metadata.method == "simsiam"


def test_what_a_file_does_not_say_may_be_said(call_groco, tmp_path: Path):
    torch.save(torchvision.models.resnet18().state_dict(), tmp_path / "x.pth")
    target = str(tmp_path / "x.safetensors")
    shown = call_groco("convert", str(tmp_path / "x.pth"), target, "--method", "simclr", "--json")
    assert json.loads(shown.stdout)["mean"] == [0, 0, 0]
    assert load_encoder(target).metadata.method == "simclr"


def test_a_guess_is_warned_of_with_what_to_type(call_groco, tmp_path: Path):
    torch.save({"state_dict": torchvision.models.resnet18().state_dict()}, tmp_path / "my x.pth")
    typed = ["convert", str(tmp_path / "my x.pth"), str(tmp_path / "x.safetensors"), "--json", "--force"]
    shown = call_groco("--quiet", *typed)
    assert json.loads(shown.stdout)["method"] == "simclr"
    assert shown.stderr.startswith("warning: ")
    assert "x.pth is taken for SimCLR, converted" in shown.stderr
    assert f"groco convert '{tmp_path / 'my x.pth'}' OUT.safetensors --method supervised" in shown.stderr
    told = call_groco("--quiet", *typed, "--method", "supervised")
    assert (json.loads(told.stdout)["method"], told.stderr) == ("supervised", "")


@pytest.mark.parametrize(
    ("typed", "code", "what", "remedy"),
    [
        (["{in}", "{out}", "--to", "tim"], 2, "--to tim", "did you mean 'timm'"),
        (["{in}", "{out}.pth"], 2, "no .safetensors", ".safetensors"),
        (["nowhere.pth", "{out}"], 2, "no checkpoint nowhere.pth", "name one, or a run's folder"),
        (["{in}", "{out}", "--method", "dyno"], 2, "--method dyno", "did you mean 'dino'"),
        (["{in}", "{out}", "--method", "dino"], 1, "recognised as SimSiam, not dino", "leave the method out"),
        (["{small}", "{out}", "--to", "timm"], 1, "small stem", "--to groco"),
    ],
)
def test_a_mistake_is_one_line_with_its_remedy(call_groco, simsiam: Path, tmp_path: Path, typed, code, what, remedy):
    small = tmp_path / "small.safetensors"
    save_checkpoint(small, create_encoder(EncoderMetadata(arch="resnet18", stem="small", image_size=32)), {})
    places = {"{in}": str(simsiam), "{out}": str(tmp_path / "x.safetensors"), "{small}": str(small)}
    for place, path in places.items():
        typed = [word.replace(place, path) for word in typed]
    failed = call_groco("convert", *typed)
    assert (failed.returncode, failed.stdout) == (code, "")
    (line,) = failed.stderr.strip().splitlines()
    assert what in line
    assert remedy in line
    assert not (tmp_path / "x.safetensors").exists()


class Payload:
    def __init__(self, target: Path):
        self.target = target

    def __reduce__(self):
        return os.system, (f"touch {self.target}",)


@pytest.mark.parametrize("legacy", [False, True])
def test_a_malicious_checkpoint_is_refused_in_one_line(call_groco, tmp_path: Path, legacy: bool):
    content = {"state_dict": {}, "args": Payload(tmp_path / "written")}
    torch.save(content, tmp_path / "evil.pth", _use_new_zipfile_serialization=not legacy)
    failed = call_groco("convert", str(tmp_path / "evil.pth"), str(tmp_path / "x.safetensors"))
    assert (failed.returncode, failed.stdout) == (1, "")
    (line,) = failed.stderr.strip().splitlines()
    assert "evil.pth asks for posix.system when it is read: refused" in line
    assert not (tmp_path / "written").exists()
    assert not (tmp_path / "x.safetensors").exists()
