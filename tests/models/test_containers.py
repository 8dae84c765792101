"""Files that would do harm, or are damaged: refused in one line, and nothing of them is run."""

import argparse
import os
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from groco_cli.models import load_encoder
from groco_cli.models.containers import CheckpointError, read_pickled


class Payload:
    """Pickled, it calls what it was made of as soon as anything unpickles it."""

    def __init__(self, function, *arguments):
        self.called = (function, arguments)

    def __reduce__(self):
        return self.called


def payload(kind: str, target: Path) -> object:
    """Each would write a file."""
    return {
        "os.system": Payload(os.system, f"touch {target}"),
        "open": Payload(open, str(target), "w"),
        "exec": Payload(exec, f"open({str(target)!r}, 'w').close()"),
        "method": Payload(Path.touch, target),
        "numpy": Payload(np.save, str(target), 1),
        "in a namespace": argparse.Namespace(epochs=Payload(open, str(target), "w")),
    }[kind]


def write_zip(path: Path, content: object) -> None:
    torch.save(content, path)


def write_legacy(path: Path, content: object) -> None:
    torch.save(content, path, _use_new_zipfile_serialization=False)


def write_pickle(path: Path, content: object) -> None:
    path.write_bytes(pickle.dumps(content))


def write_oldest_pickle(path: Path, content: object) -> None:
    path.write_bytes(pickle.dumps(content, protocol=0))


def write_zip_of_a_newer_protocol(path: Path, content: object) -> None:
    torch.save(content, path, pickle_protocol=4)


WRITERS = [write_zip, write_legacy, write_pickle, write_oldest_pickle, write_zip_of_a_newer_protocol]
KINDS = ["os.system", "open", "exec", "method", "numpy", "in a namespace"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("write", WRITERS, ids=lambda write: write.__name__)
@pytest.mark.parametrize("name", ["evil.pth", "evil.safetensors"])
def test_a_malicious_pickle_is_refused_and_nothing_is_run(tmp_path: Path, write, kind: str, name: str):
    path, target = tmp_path / name, tmp_path / "written.npy"
    write(path, {"state_dict": {"conv1.weight": torch.zeros(1)}, "args": payload(kind, target)})
    with pytest.raises(CheckpointError) as caught:
        load_encoder(path)
    assert not target.exists()
    assert name in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", KINDS)
def test_the_payloads_do_write_where_nobody_looks(tmp_path: Path, kind: str):
    """Else the test above would pass whatever was done."""
    target = tmp_path / "written.npy"
    pickle.loads(pickle.dumps(payload(kind, target)))  # noqa: S301
    assert target.exists()


@pytest.mark.parametrize(("kind", "name"), [("exec", "exec"), ("open", "io.open"), ("os.system", "posix.system")])
@pytest.mark.parametrize("write", [write_zip, write_legacy])
def test_what_a_file_asks_for_is_named(tmp_path: Path, write, kind: str, name: str):
    write(tmp_path / "evil.pth", payload(kind, tmp_path / "written"))
    with pytest.raises(CheckpointError, match=rf"evil\.pth asks for {name} when it is read: refused"):
        load_encoder(tmp_path / "evil.pth")


def test_a_payload_in_the_name_of_something_harmless_is_not_called(tmp_path: Path):
    """Arguments of a class that is known are taken and forgotten, whatever they are."""
    content = {"weight": torch.ones(2), "args": argparse.Namespace(epochs=3, nested=argparse.Namespace(x=1))}
    torch.save(content, tmp_path / "x.pth")
    found = read_pickled(tmp_path / "x.pth")
    assert torch.equal(found["weight"], torch.ones(2))
    assert not isinstance(found["args"], argparse.Namespace)
    assert vars(found["args"]) == {}


@pytest.mark.parametrize("write", [write_zip, write_legacy])
def test_numpys_numbers_paths_and_arguments_lie_beside_weights(tmp_path: Path, write):
    write(
        tmp_path / "x.pth",
        {
            "state": {"w": torch.arange(4.0)},
            "acc": np.float64(0.75),
            "epoch": np.int64(3),
            "random": np.arange(5),
            "folder": Path("/data"),
            "args": argparse.Namespace(lr=np.float32(0.1)),
        },
    )
    assert torch.equal(read_pickled(tmp_path / "x.pth")["state"]["w"], torch.arange(4.0))


def test_reading_leaves_torchs_own_list_of_safe_names_as_it_was(tmp_path: Path):
    before = set(torch.serialization.get_safe_globals())
    torch.save({"w": torch.ones(1), "args": argparse.Namespace()}, tmp_path / "x.pth")
    read_pickled(tmp_path / "x.pth")
    assert set(torch.serialization.get_safe_globals()) == before
    with pytest.raises(pickle.UnpicklingError):
        torch.load(tmp_path / "x.pth", weights_only=True)


@pytest.mark.parametrize("write", [write_zip, write_legacy])
@pytest.mark.parametrize("kept", [0, 1, 20, 100, 0.5, 0.99])
def test_a_truncated_file_is_told_in_a_line(tmp_path: Path, write, kept: float):
    path = tmp_path / "x.pth"
    write(path, {"state_dict": {f"layer1.{i}.conv1.weight": torch.randn(500) for i in range(20)}})
    whole = path.read_bytes()
    path.write_bytes(whole[: int(kept * len(whole)) if isinstance(kept, float) else kept])
    with pytest.raises(CheckpointError, match=r"x\.pth") as caught:
        load_encoder(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "wrong"),
    [
        (b"", "is no checkpoint"),
        (b"<!DOCTYPE html>\n<html>not found</html>\n", "is no checkpoint"),
        (b"lorem ipsum\n" * 100, "is no checkpoint"),
        (b"PK\x03\x04" + bytes(500), "is truncated or damaged"),
        (bytes(range(256)), "is no checkpoint"),
        (pickle.dumps({"byol": 1}), "is a pickle of BYOL's JAX code"),
        (pickle.dumps([1, 2]), "is a plain pickle"),
    ],
)
def test_another_kind_of_file_is_told(tmp_path: Path, content: bytes, wrong: str):
    path = tmp_path / "x.pth"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=rf"x\.pth {wrong}"):
        load_encoder(path)


def test_byols_own_pickle_is_refused_naming_its_converters(tmp_path: Path):
    """`{"experiment_state": _ByolExperimentState(…)}` of byol.byol_experiment, as the global is spelt in a pickle."""
    path = tmp_path / "pretrain_res50x1.pkl"
    path.write_bytes(b"\x80\x03}q\x00(X\x10\x00\x00\x00experiment_statecbyol.byol_experiment\n_ByolExperimentState\nu.")
    with pytest.raises(CheckpointError, match="BYOL's JAX code") as caught:
        load_encoder(path)
    assert "byol-convert" in caught.value.hint


@pytest.mark.parametrize("write", [write_zip, write_legacy])
@pytest.mark.parametrize("content", [torch.zeros(3), [1, 2], "text"], ids=["tensor", "list", "text"])
def test_a_file_without_a_dictionary_is_told(tmp_path: Path, write, content: object):
    write(tmp_path / "x.pth", content)
    with pytest.raises(CheckpointError, match=r"x\.pth holds a .*, not a dictionary of weights"):
        load_encoder(tmp_path / "x.pth")


def test_a_torchscript_program_is_told(tmp_path: Path):
    with zipfile.ZipFile(tmp_path / "x.pth", "w") as file:
        for name, content in {"data.pkl": b"\x80\x02N.", "constants.pkl": b"\x80\x02).", "version": b"3"}.items():
            file.writestr(f"model/{name}", content)
    with pytest.raises(CheckpointError, match=r"x\.pth is a TorchScript program"):
        load_encoder(tmp_path / "x.pth")


def test_a_whole_pickled_module_is_refused(tmp_path: Path):
    torch.save(torch.nn.Linear(2, 2), tmp_path / "x.pth")
    with pytest.raises(CheckpointError, match=r"x\.pth asks for torch\.nn\.modules\.linear\.Linear"):
        load_encoder(tmp_path / "x.pth")


def test_random_damage_never_gets_further_than_a_line(tmp_path: Path):
    path = tmp_path / "x.pth"
    write_legacy(path, {"state_dict": {f"layer1.{i}.weight": torch.randn(3) for i in range(5)}, "epoch": 3})
    whole = path.read_bytes()
    generator = np.random.default_rng(0)
    for _ in range(200):
        damaged = bytearray(whole)
        for place in generator.integers(15, len(whole), 3):  # behind what tells that it is torch's
            damaged[place] = generator.integers(256)
        path.write_bytes(damaged)
        with pytest.raises(CheckpointError) as caught:
            load_encoder(path)
        assert "\n" not in str(caught.value)
