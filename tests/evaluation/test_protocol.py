import pickle
from dataclasses import astuple, replace
from pathlib import Path

import pytest
import torch
import torchvision
from torch import Tensor

from groco_cli.data.sources import Dataset, MemorySource, first, open_dataset
from groco_cli.errors import GrocoError, UsageError
from groco_cli.evaluation.protocol import KNNResult, check_labels, evaluate_knn, pixels, read_encoder, untrained
from groco_cli.models import EncoderMetadata
from groco_cli.models.conversion import save_checkpoint

SMALL = EncoderMetadata(arch="test_resnet", image_size=32, resize=32, method="groco", epoch=9)


def evaluated(dataset: Dataset, ks: tuple[int, ...] = (1, 5), **options: object) -> KNNResult:
    return evaluate_knn(
        pixels(SMALL), dataset, ks=ks, temperature=0.07, device=torch.device("cpu"), workers=0, **options
    )


def normalised(source: MemorySource) -> Tensor:
    mean, std = (torch.tensor(x, dtype=torch.float64).view(3, 1, 1) for x in (SMALL.mean, SMALL.std))
    return ((source.images / 255 - mean) / std).flatten(1)


def test_test_pictures_are_classified_by_training_pictures(naive_knn, noise):
    dataset = Dataset("noise", noise(20), noise(9, seed=1))
    counted = []
    result = evaluated(dataset, advance=counted.append)
    assert (result.bank, result.queries, result.protocol) == (20, 9, "train/test")
    assert "FAISS" in result.backend
    assert sum(counted) == 29
    for k in (1, 5):
        expected = naive_knn(
            normalised(dataset.train), dataset.train.labels, normalised(dataset.test), dataset.test.labels, k, 0.07
        )
        assert astuple(result.scores[k]) == pytest.approx(astuple(expected))


def test_where_nothing_is_held_out_each_picture_is_classified_by_all_others(naive_knn, noise):
    train = noise(15)
    result = evaluated(Dataset("noise", train, None), (1, 14))
    assert (result.bank, result.queries, result.protocol) == (15, 15, "leave-one-out")
    for k in (1, 14):
        expected = naive_knn(normalised(train), train.labels, None, train.labels, k, 0.07)
        assert astuple(result.scores[k]) == pytest.approx(astuple(expected))


@pytest.mark.parametrize(("held_out", "most"), [(True, 6), (False, 5)])
def test_leave_one_out_has_one_neighbour_fewer(noise, held_out: bool, most: int):
    dataset = Dataset("noise", noise(6), noise(3, seed=1) if held_out else None)
    assert evaluated(dataset, (most,)).scores[most].total
    with pytest.raises(UsageError, match=f"--k {most + 1} is more than the {most} images"):
        evaluated(dataset, (most + 1,))


def test_pixels_tell_the_embedded_digits_apart_far_better_than_chance():
    digits = open_dataset("digits", Path("unused"))
    result = evaluated(replace(digits, train=first(digits.train, 1437)), (20,))
    assert 0.4 < result.scores[20].top1 < 0.9  # 67 % by both renderings


@pytest.mark.parametrize("part", ["train", "test"])
def test_a_part_without_labels_is_told(noise, part: str):
    dataset = Dataset("photos", noise(6), noise(3))
    dataset = replace(dataset, **{part: replace(getattr(dataset, part), labels=None, classes=())})
    with pytest.raises(GrocoError, match="--data photos has no labels"):
        check_labels(dataset)
    with pytest.raises(GrocoError, match="--data photos has no labels"):
        evaluated(dataset)


def test_a_single_class_is_told_by_name(noise):
    only = MemorySource(noise(4).images, torch.zeros(4, dtype=torch.int64), ("cat",))
    with pytest.raises(GrocoError, match=r"--data photos has one class \(cat\)"):
        evaluated(Dataset("photos", only, None))


def test_labelled_data_pass_with_and_without_a_test_part(noise):
    check_labels(Dataset("noise", noise(6), noise(3)))
    check_labels(Dataset("noise", noise(6), None))


def test_a_checkpoint_is_read_with_its_metadata(tmp_path: Path):
    encoder, path = untrained(SMALL), tmp_path / "x.safetensors"
    save_checkpoint(path, encoder, {})
    found = read_encoder(path)
    assert found.metadata == encoder.metadata
    torch.testing.assert_close(found.state_dict(), encoder.state_dict(), rtol=0, atol=0)


def test_what_a_file_of_anothers_was_taken_for_goes_to_stderr(tmp_path: Path, capsys):
    state = {f"module.encoder.{name}": tensor for name, tensor in torchvision.models.resnet18().state_dict().items()}
    torch.save({"state_dict": state | {"module.predictor.0.weight": torch.zeros(1)}}, tmp_path / "x.pth")
    assert read_encoder(tmp_path / "x.pth").metadata.method == "simsiam"
    printed = capsys.readouterr()
    assert (printed.out, printed.err) == ("", "recognised: SimSiam, ResNet-18; left out: predictor, fc\n")
    save_checkpoint(tmp_path / "x.safetensors", untrained(SMALL), {})
    read_encoder(tmp_path / "x.safetensors")
    assert capsys.readouterr().err == ""


def test_a_damaged_checkpoint_says_what_to_do(tmp_path: Path):
    (tmp_path / "x.pkl").write_bytes(pickle.dumps({"byol": 1}))
    with pytest.raises(GrocoError, match=r"x\.pkl is a pickle of BYOL's JAX code") as caught:
        read_encoder(tmp_path / "x.pkl")
    assert "byol-convert" in caught.value.hint


def test_a_missing_checkpoint_is_a_wrong_use(tmp_path: Path):
    with pytest.raises(UsageError, match=r"no checkpoint .*x\.safetensors") as caught:
        read_encoder(tmp_path / "x.safetensors")
    assert caught.value.hint


def test_a_damaged_checkpoint_is_told_by_name(tmp_path: Path):
    path = tmp_path / "x.safetensors"
    save_checkpoint(path, untrained(SMALL), {})
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(GrocoError, match=r"x\.safetensors is truncated") as caught:
        read_encoder(path)
    assert (caught.value.exit_code, "\n" in caught.value.message) == (1, False)


def test_an_untrained_encoder_depends_on_its_seed_alone():
    torch.manual_seed(1)
    one = untrained(SMALL)
    torch.manual_seed(2)
    state = torch.get_rng_state()
    same, other = untrained(SMALL), untrained(SMALL, seed=1)
    assert torch.equal(torch.get_rng_state(), state), "the global generator was drawn from"
    images = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(one(images), same(images), rtol=0, atol=0)
    assert not torch.allclose(one(images), other(images))
    assert not one.training
    assert one.metadata == replace(SMALL, method="untrained", epoch=0)


def test_pixels_are_the_picture_itself():
    encoder = pixels(SMALL)
    images = torch.randn(2, 3, 32, 32)
    assert encoder(images).shape == (2, encoder.feature_dim)
    assert torch.equal(encoder(images), images.view(2, -1))
    assert (encoder.metadata.method, encoder.metadata.resize) == ("pixels", 32)
