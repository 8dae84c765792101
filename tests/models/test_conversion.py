import json
import resource
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from groco_cli.models import Encoder, EncoderMetadata, Projector, create_encoder, load_encoder
from groco_cli.models.conversion import read_metadata, save_checkpoint

TRAINED = EncoderMetadata(
    arch="test_resnet",
    image_size=32,
    resize=40,
    mean=(0.1, 0.2, 0.3),
    std=(0.4, 0.5, 0.6),
    method="groco",
    epoch=7,
    data="digits",
    settings='[data]\nname = "digits"\n',
    groco_version="0.1",
)


@pytest.fixture
def path(tmp_path: Path, tiny: Encoder) -> Path:
    """A checkpoint of the tiny encoder and a projector."""
    path = tmp_path / "latest.safetensors"
    save_checkpoint(path, tiny, {"projector": Projector(tiny.feature_dim, hidden=8, out=4).state_dict()})
    return path


@pytest.fixture
def rewrite(path: Path) -> Callable[..., None]:
    """Changes the checkpoint's tensors, or its metadata, in place."""

    def change(tensors: Callable[[dict[str, Tensor]], object] = lambda _: None, metadata: object = None) -> None:
        with safe_open(path, framework="pt") as file:
            stored = file.metadata() if metadata is None else metadata
        state = load_file(path)
        tensors(state)
        save_file(state, path, stored)

    return change


def test_a_read_encoder_gives_the_same_features(tiny: Encoder, path: Path):
    images = torch.randn(4, 3, 32, 32)
    found = load_encoder(path)
    assert not torch.equal(tiny.eval()(images), create_encoder(tiny.metadata).eval()(images))
    torch.testing.assert_close(found(images), tiny.eval()(images), rtol=0, atol=0)
    assert found.feature_dim == tiny.feature_dim


def test_everything_of_the_encoder_comes_back_statistics_too(tiny: Encoder, path: Path):
    torch.testing.assert_close(load_encoder(path).state_dict(), tiny.state_dict(), rtol=0, atol=0)


@pytest.mark.parametrize(("arch", "stem"), [("torchvision:resnet18", "small"), ("test_vit", "imagenet")])
def test_any_architecture_comes_back(tmp_path: Path, arch: str, stem: str):
    encoder = create_encoder(EncoderMetadata(arch=arch, stem=stem, image_size=32)).eval()
    save_checkpoint(tmp_path / "x.safetensors", encoder, {})
    images = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(load_encoder(tmp_path / "x.safetensors")(images), encoder(images), rtol=0, atol=0)


def test_a_read_encoder_is_in_evaluation_mode_on_the_cpu(tiny: Encoder, path: Path):
    assert tiny.training
    found = load_encoder(str(path))
    assert not any(module.training for module in found.modules())
    assert {tensor.device.type for tensor in found.state_dict().values()} == {"cpu"}


def test_metadata_come_back_with_and_without_the_tensors(tmp_path: Path):
    path = tmp_path / "x.safetensors"
    save_checkpoint(path, create_encoder(TRAINED), {})
    assert load_encoder(path).metadata == read_metadata(path) == TRAINED


def test_tensors_are_plain_safetensors_under_their_own_names(tiny: Encoder, path: Path):
    stored = load_file(path)
    for name, tensor in tiny.backbone.state_dict().items():
        assert torch.equal(stored.pop(f"encoder.{name}"), tensor)
    assert set(stored) == {f"projector.{name}" for name in Projector(96, hidden=8, out=4).state_dict()}


def test_metadata_of_a_newer_version_are_read(path: Path, rewrite, tiny: Encoder):
    values = {"arch": "test_resnet", "image_size": 32, "resize": 36, "invented_later": [1]}
    rewrite(metadata={"groco": json.dumps(values)})
    assert load_encoder(path).metadata == tiny.metadata


@pytest.mark.parametrize("kept", [0, 4, 100, 5000, -1])
def test_a_truncated_file_is_told(path: Path, kept: int):
    path.write_bytes(path.read_bytes()[:kept])
    for read in (load_encoder, read_metadata):
        with pytest.raises(ValueError, match=r"latest\.safetensors is truncated or no safetensors file"):
            read(path)


def test_a_text_is_told(path: Path):
    path.write_bytes(b"this is a text\n" * 50)
    with pytest.raises(ValueError, match=r"latest\.safetensors is truncated or no safetensors file"):
        load_encoder(path)


@pytest.mark.parametrize("metadata", [{}, {"format": "pt"}])
def test_foreign_safetensors_are_told(path: Path, rewrite, metadata: dict[str, str]):
    rewrite(metadata=metadata)
    with pytest.raises(ValueError, match=r"latest\.safetensors is a safetensors file, but not one of groco's"):
        read_metadata(path)
    with pytest.raises(ValueError, match=r"latest\.safetensors: no checkpoint that groco knows: it holds encoder\.bn1"):
        load_encoder(path)


@pytest.mark.parametrize("value", ["{", "[]", "{}", '"resnet18"'])
def test_damaged_metadata_are_told(path: Path, rewrite, value: str):
    rewrite(metadata={"groco": value})
    with pytest.raises(ValueError, match=r"latest\.safetensors has damaged metadata"):
        load_encoder(path)


DAMAGED = [
    ({"image_size": "x"}, "image_size is 'x', not a whole number, 1 or more"),
    ({"image_size": 32.5}, "image_size is 32.5, not a whole number"),
    ({"image_size": True}, "image_size is True, not a whole number"),
    ({"resize": -3}, "resize is -3, not a whole number, 1 or more"),
    ({"resize": 16}, "resize is 16, not at least the image_size, 32"),
    ({"epoch": "many"}, "epoch is 'many', not a whole number, 0 or more"),
    ({"attention_heads": "a"}, "attention_heads is 'a', not a whole number, 0 or more"),
    ({"arch": 5}, "arch is 5, not a text"),
    ({"stem": []}, r"stem is \(\), not a text"),
    ({"data": 3}, "data is 3, not a text"),
    ({"settings": None}, "settings is None, not a text"),
    ({"mean": [0.5, 0.5]}, r"mean is \(0.5, 0.5\), not three numbers"),
    ({"mean": "abc"}, "mean is 'abc', not three numbers"),
    ({"mean": [None, 1, 2]}, r"mean is \(None, 1, 2\), not three numbers"),
    ({"std": None}, "std is None, not three numbers"),
    ({"std": [1, 1, float("nan")]}, r"std is \(1, 1, nan\), not three numbers"),
    ({"std": [0.5, 0, 0.5]}, r"std is \(0.5, 0, 0.5\), not positive"),
    ({"data": ["x" * 9000]}, "data is .{60}, not a text"),
]


@pytest.mark.parametrize(("change", "told"), DAMAGED, ids=[str(change)[:40] for change, _ in DAMAGED])
def test_a_value_that_cannot_be_is_told_by_file_and_name(path: Path, rewrite, change: dict[str, object], told: str):
    values = {"arch": "test_resnet", "image_size": 32, "resize": 36}
    rewrite(metadata={"groco": json.dumps(values | change)})
    for read in (load_encoder, read_metadata):
        with pytest.raises(ValueError, match=rf"latest\.safetensors has damaged metadata \({told}") as caught:
            read(path)
        assert "\n" not in str(caught.value)


def test_grocos_own_is_not_recognised_but_known(path: Path):
    assert load_encoder(path).recognised == ""
    assert load_encoder(path, method="untrained").metadata.method == "untrained"
    with pytest.raises(ValueError, match=r"latest\.safetensors says that it is untrained, not simclr"):
        load_encoder(path, method="simclr")


def test_an_architecture_that_is_no_more_is_told(path: Path, rewrite):
    rewrite(metadata={"groco": json.dumps({"arch": "gone_by_then"})})
    with pytest.raises(ValueError, match=r"latest\.safetensors: unknown architecture 'gone_by_then'"):
        load_encoder(path)


WRONG = {
    "missing": lambda state: state.pop("encoder.layer1.0.conv1.weight"),
    "extra": lambda state: state.update({"encoder.layer1.0.conv1.weight_extra": torch.zeros(1)}),
    "of another shape": lambda state: state.update({"encoder.layer1.0.conv1.weight": torch.zeros(1, 2, 3, 3)}),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_a_weight_that_does_not_fit_is_told_by_name(path: Path, rewrite, wrong: str):
    rewrite(WRONG[wrong])
    with pytest.raises(
        ValueError, match=r"latest\.safetensors does not hold a whole test_resnet: see layer1\.0\.conv1\.weight"
    ):
        load_encoder(path)


def test_heads_alone_are_no_encoder(tmp_path: Path, path: Path, rewrite):
    rewrite(lambda state: [state.pop(name) for name in list(state) if name.startswith("encoder.")])
    with pytest.raises(ValueError, match="does not hold a whole test_resnet"):
        load_encoder(path)


def test_a_missing_file_and_a_folder_are_told(tmp_path: Path):
    for path in (tmp_path / "nowhere.safetensors", tmp_path):
        for read in (load_encoder, read_metadata):
            with pytest.raises(FileNotFoundError, match=f"no checkpoint .*{path.name}"):
                read(path)


def test_weights_of_half_precision_are_read(tiny: Encoder, path: Path, rewrite):
    def halve(state: dict[str, Tensor]) -> None:
        state.update({k: v.half() for k, v in state.items() if v.is_floating_point()})

    rewrite(halve)
    for name, tensor in load_encoder(path).state_dict().items():
        assert tensor.dtype == tiny.state_dict()[name].dtype
        torch.testing.assert_close(tensor, tiny.state_dict()[name], rtol=1e-3, atol=1e-6)


def test_a_full_disk_is_an_os_error(tiny: Encoder, tmp_path: Path):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, before[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            save_checkpoint(tmp_path / "x.safetensors", tiny, {})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
