import os
import pickle
from collections.abc import Callable
from dataclasses import astuple, replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image
from torch import Tensor

from groco_cli.data.sources import Dataset, FileSource, MemorySource, first, open_dataset
from groco_cli.errors import GrocoError, UsageError
from groco_cli.evaluation.feature_cache import feature_key
from groco_cli.evaluation.protocol import KNNResult, check_labels, evaluate_knn, pixels, read_encoder, untrained
from groco_cli.models import Encoder, EncoderMetadata
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


@pytest.fixture
def photos(picture_folder: Callable[..., Path]) -> Dataset:
    """Seven pictures of two classes, the last two held out."""
    names = [f"{number}.png" for number in range(7)]
    folder = picture_folder(*names, size=(40, 32))
    files = FileSource(tuple(folder / name for name in names), torch.arange(7) % 2, ("even", "odd"))
    return Dataset("photos", files.subset(torch.arange(5)), files.subset(torch.arange(5, 7)))


@pytest.fixture
def scored(photos: Dataset, tmp_path: Path) -> Callable[..., tuple[KNNResult, int]]:
    """What an encoder scores on the photos, by way of the cache, and how many of them it was shown for that."""

    def score(encoder: Encoder, **options: object) -> tuple[KNNResult, int]:
        shown: list[int] = []
        hook = encoder.register_forward_hook(lambda module, images, output: shown.append(len(output)))
        options = {"cache": tmp_path / "cache"} | options
        result = evaluate_knn(
            encoder, photos, ks=(1, 3), temperature=0.07, device=torch.device("cpu"), workers=0, **options
        )
        hook.remove()
        return result, sum(shown)

    return score


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def same(one: KNNResult, other: KNNResult) -> bool:
    left, right = one.neighbours, other.neighbours
    assert torch.equal(left.rows, right.rows)
    assert torch.equal(left.similarities, right.similarities)
    return one.scores == other.scores


def test_a_second_evaluation_extracts_nothing_and_scores_the_same(scored, tmp_path):
    encoder, told = untrained(SMALL), []
    without, shown = scored(encoder, cache=None)
    assert shown == 7
    counted: list[int] = []
    result, shown = scored(encoder, tell=told.append)
    assert (shown, told) == (7, [])
    assert same(result, without)
    kept = files_of(tmp_path / "cache")
    result, shown = scored(encoder, tell=told.append, advance=counted.append)
    assert (shown, sum(counted)) == (0, 7)
    assert same(result, without)
    assert [line.split(": from the cache ")[0] for line in told] == ["photos train", "photos test"]
    assert {Path(line.split(": from the cache ")[1]).name for line in told} == set(kept)
    assert files_of(tmp_path / "cache") == kept, "a search changed the bank"


def test_no_more_than_a_block_of_a_kept_bank_is_copied_to_look_for_what_is_not_finite(scored, monkeypatch):
    encoder = untrained(SMALL)
    expected, _ = scored(encoder)
    monkeypatch.setattr("groco_cli.evaluation.index.blocks._BLOCK_BYTES", 4 * encoder.feature_dim * 2)  # two rows
    looked_at: list[int] = []
    isfinite = Tensor.isfinite
    monkeypatch.setattr(Tensor, "isfinite", lambda tensor: looked_at.append(len(tensor)) or isfinite(tensor))
    result, shown = scored(encoder)
    assert (shown, same(result, expected)) == (0, True)
    assert (max(looked_at), sum(looked_at)) == (2, 7), "each row once"
    looked_at.clear()
    assert same(scored(encoder, on_bad_image="skip")[0], expected)


def test_another_encoder_or_a_touched_picture_is_extracted_anew(scored, photos):
    encoder = untrained(SMALL)
    assert [scored(encoder)[1], scored(untrained(SMALL))[1]] == [7, 0]
    assert scored(untrained(SMALL, seed=1))[1] == 7
    assert scored(pixels(SMALL))[1] == 7
    with torch.no_grad():
        next(encoder.parameters()).mul_(1.01)
    assert scored(encoder)[1] == 7
    path = photos.test.paths[0]
    os.utime(path, ns=(path.stat().st_atime_ns, path.stat().st_mtime_ns + 1))
    assert [scored(encoder)[1], scored(encoder)[1]] == [2, 0]


def test_where_bad_pictures_are_left_out_nothing_is_kept(scored, photos, tmp_path):
    path = photos.train.paths[2]
    whole = path.read_bytes()
    path.write_bytes(b"no picture")
    result, shown = scored(pixels(SMALL), on_bad_image="skip")
    assert (result.bank, shown) == (4, 6)
    assert not (tmp_path / "cache").exists()
    with pytest.raises(GrocoError, match=path.name):
        scored(pixels(SMALL))
    assert files_of(tmp_path / "cache") == {}
    path.write_bytes(whole)
    assert scored(pixels(SMALL))[0].bank == 5


@pytest.mark.parametrize("held_out", [True, False])
def test_where_bad_pictures_are_left_out_no_more_neighbours_are_asked_for_than_are_left(photos, held_out: bool):
    dataset = photos if held_out else replace(photos, test=None)
    whole = replace(dataset, train=photos.train.subset(torch.tensor([0, 1, 3, 4])))
    most = 4 - (not held_out)
    expected = evaluated(whole, (1, most))
    photos.train.paths[2].write_bytes(b"no picture")
    result = evaluated(dataset, (1, most, most + 1), on_bad_image="skip")
    assert (result.bank, result.scores) == (4, expected.scores)


def test_where_too_few_pictures_are_left_that_is_told(photos):
    for path in photos.train.paths[1:]:
        path.write_bytes(b"no picture")
    with pytest.raises(GrocoError, match="--data photos: too few images can be decoded"):
        evaluated(replace(photos, test=None), (1,), on_bad_image="skip")


def test_features_may_be_kept_in_half_the_room(scored, tmp_path):
    full, half = (scored(untrained(SMALL), cache_dtype=dtype)[0] for dtype in ("fp32", "fp16"))
    again, shown = scored(untrained(SMALL), cache_dtype="fp16")
    assert shown == 0
    assert same(half, again)
    assert not torch.equal(full.neighbours.similarities, half.neighbours.similarities)
    torch.testing.assert_close(full.neighbours.similarities, half.neighbours.similarities, rtol=0, atol=1e-3)


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


def test_large_pictures_are_shrunk_before_their_pixels_are_compared(noise):
    about = replace(SMALL, image_size=70, resize=80, mean=(0.0,) * 3, std=(1.0,) * 3)
    encoder = pixels(about)
    assert (encoder.metadata.arch, encoder.feature_dim) == ("pixels, 32×32", 3 * 32 * 32)
    images = noise(2, size=(70, 70)).images
    for image, feature in zip(images, encoder(images / 255).view(2, 3, 32, 32), strict=True):
        by_pillow = Image.fromarray(image.permute(1, 2, 0).numpy()).resize((32, 32), Image.Resampling.BILINEAR)
        expected = torch.from_numpy(np.array(by_pillow)).permute(2, 0, 1)
        assert (feature * 255 - expected).abs().max() < 1.01  # Pillow rounds twice
    assert (pixels(SMALL).metadata.arch, pixels(SMALL).feature_dim) == ("pixels", 3 * 32 * 32)


def test_pixels_shrunk_from_two_sizes_are_kept_apart(noise):
    source = noise(3)
    keys = {
        feature_key(pixels(replace(SMALL, image_size=side, resize=side)), source, {"side": side}, dtype="fp32")
        for side in (48, 64)
    }
    assert len(keys) == 2
