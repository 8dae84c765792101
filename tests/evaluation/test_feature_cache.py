"""The cache: what it gives is what was extracted, and what changed or was cut short is never taken for it."""

import os
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from groco_cli.data.sources import FileSource, MemorySource, Source
from groco_cli.errors import GrocoError, UsageError
from groco_cli.evaluation.feature_cache import cached_features, choose_cache, feature_key, plain_features
from groco_cli.evaluation.features import evaluation_transform, extract_features
from groco_cli.models import Encoder, EncoderMetadata, create_encoder

CPU = torch.device("cpu")
ABOUT = EncoderMetadata(arch="counting", image_size=24, resize=28)


class Counting(nn.Module):
    """A linear layer on pixels that counts how many pictures it was shown."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3 * 24 * 24, 5)
        self.shown = 0

    def forward(self, images: Tensor) -> Tensor:
        self.shown += len(images)
        return self.layer(images.flatten(1))


@pytest.fixture
def encoder() -> Encoder:
    torch.manual_seed(0)
    return Encoder(Counting(), 5, ABOUT)


@pytest.fixture
def files(picture_folder: Callable[..., Path]) -> FileSource:
    names = [f"{number}.png" for number in range(7)]
    folder = picture_folder(*names, size=(40, 30))
    return FileSource(tuple(folder / name for name in names), None, ())


@pytest.fixture
def features_of(encoder: Encoder, tmp_path: Path) -> Callable[..., tuple[Tensor, int]]:
    """Features from the cache, and how many pictures the encoder was shown for them."""

    def features(source: Source, shown_by: str = "bicubic", **options: object) -> tuple[Tensor, int]:
        encoder.backbone.shown = 0
        transform = evaluation_transform(encoder.metadata, shown_by)
        folder = options.pop("folder", tmp_path / "cache")
        found = cached_features(encoder, source, transform, folder=folder, device=CPU, workers=0, **options)
        return found.clone(), encoder.backbone.shown

    return features


def kept(tmp_path: Path) -> list[Path]:
    return sorted((tmp_path / "cache").iterdir())


def test_features_are_extracted_once_and_are_the_encoders(features_of, encoder, files, tmp_path):
    expected = extract_features(encoder, files, device=CPU, workers=0)
    for shown in (7, 0, 0):
        features, seen = features_of(files)
        assert torch.equal(features, expected)
        assert seen == shown
    (path,) = kept(tmp_path)
    assert torch.equal(load_file(path)["features"], expected)


def test_half_precision_takes_half_the_room(features_of, files, tmp_path):
    full = features_of(files)[0]
    half, seen = features_of(files, dtype="fp16")
    assert (half.dtype, seen) == (torch.float16, 7)
    assert torch.equal(half, full.half())
    sizes = sorted(path.stat().st_size for path in kept(tmp_path))
    assert sizes[1] - sizes[0] == pytest.approx(7 * 5 * 2, abs=8)


def test_a_feature_too_large_for_half_precision_is_an_error_and_nothing_is_kept(features_of, encoder, files, tmp_path):
    encoder.backbone.layer.bias.data.fill_(1e6)
    with pytest.raises(GrocoError, match="too large for fp16"):
        features_of(files, dtype="fp16")
    assert kept(tmp_path) == []
    assert features_of(files)[0].isfinite().all()


def test_a_feature_that_half_precision_would_leave_nothing_of_is_an_error(features_of, encoder, files, tmp_path):
    with torch.no_grad():
        encoder.backbone.layer.weight.mul_(1e-9)
        encoder.backbone.layer.bias.mul_(1e-9)
    with pytest.raises(GrocoError, match="too small for fp16") as caught:
        features_of(files, dtype="fp16")
    assert (caught.value.hint, kept(tmp_path)) == ("type --cache-dtype fp32", [])
    assert features_of(files)[0].any(dim=1).all()
    encoder.backbone.layer.weight.data.zero_()
    encoder.backbone.layer.bias.data.zero_()
    assert not features_of(files, dtype="fp16")[0].any(), "a zero stays one"


def test_without_a_folder_nothing_is_written(features_of, files, tmp_path):
    assert torch.equal(features_of(files, folder=None)[0], features_of(files)[0])
    assert features_of(files, folder=None)[1] == 7
    assert len(kept(tmp_path)) == 1


def test_a_changed_encoder_is_a_miss(features_of, encoder, files):
    before, _ = features_of(files)
    with torch.no_grad():
        encoder.backbone.layer.weight[0, 0] += 1e-3
    after, seen = features_of(files)
    assert seen == 7
    assert not torch.equal(before, after)


def test_another_number_of_attention_heads_is_a_miss(features_of, files):
    about = EncoderMetadata(arch="test_vit", image_size=32, resize=32)
    four, two = (create_encoder(replace(about, attention_heads=heads)) for heads in (4, 2))
    two.load_state_dict(four.state_dict())
    transform = evaluation_transform(about)
    keys = [feature_key(encoder, files, asdict(transform), dtype="fp32") for encoder in (four, two)]
    assert keys[0] != keys[1]


@pytest.mark.parametrize("change", [{"mean": (0.0, 0.0, 0.0)}, {"resize": 24}])
def test_another_way_of_showing_pictures_is_a_miss(features_of, encoder, files, change):
    features_of(files)
    encoder.metadata = replace(encoder.metadata, **change)
    assert features_of(files)[1] == 7
    assert features_of(files, "bilinear")[1] == 7
    assert features_of(files, "bilinear")[1] == 0


def test_a_changed_folder_is_a_miss(features_of, files):
    features_of(files)
    path = files.paths[3]
    status = path.stat()
    path.write_bytes(files.paths[4].read_bytes())
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    features, seen = features_of(files)
    assert seen == 7
    assert torch.equal(features[3], features[4])
    assert features_of(files.subset(torch.arange(6)))[1] == 6
    assert features_of(files.subset(torch.tensor([1, 0, 2, 3, 4, 5, 6])))[1] == 7


def test_pictures_in_memory_are_told_apart_by_their_pixels(features_of, noise):
    source = noise(6)
    assert [features_of(source)[1], features_of(noise(6))[1]] == [6, 0]
    assert features_of(MemorySource(source.images.flip(0), None, ()))[1] == 6
    changed = source.images.clone()
    changed[5, 2, 31, 31] ^= 1
    assert features_of(MemorySource(changed, None, ()))[1] == 6


@pytest.mark.parametrize("damage", ["truncated", "empty", "no safetensors", "another's"])
def test_a_damaged_file_is_written_anew(features_of, files, tmp_path, damage):
    expected, _ = features_of(files)
    (path,) = kept(tmp_path)
    whole = path.read_bytes()
    name = path.stem.encode()
    damaged = {
        "truncated": whole[:-4],
        "empty": b"",
        "no safetensors": b"x" * len(whole),
        "another's": whole.replace(name, name[::-1]),
    }[damage]
    assert damaged != whole
    path.write_bytes(damaged)
    features, seen = features_of(files)
    assert seen == 7
    assert torch.equal(features, expected)
    assert path.read_bytes() == whole


def test_an_extraction_cut_short_leaves_nothing_behind(features_of, files, tmp_path):
    content = files.paths[5].read_bytes()
    status = files.paths[5].stat()
    files.paths[5].write_bytes(b"no picture")
    with pytest.raises(GrocoError, match=r"cannot decode .*5\.png"):
        features_of(files)
    assert kept(tmp_path) == []
    files.paths[5].write_bytes(content)
    os.utime(files.paths[5], ns=(status.st_atime_ns, status.st_mtime_ns))
    assert features_of(files)[1] == 7


def test_what_killed_extractions_left_is_removed_after_a_day(features_of, files, tmp_path):
    folder = tmp_path / "cache"
    folder.mkdir()
    name, ago = f".{'0123456789abcdef' * 2}-x1y2z3_4.safetensors", time.time() - 25 * 3600
    others = [".settings-x1y2z3_4.toml", f"{'0' * 32}.safetensors", f".{'0' * 32}-a1y2z3_4.safetensors"]
    for place in (name, *others):
        (folder / place).touch()
        os.utime(folder / place, (ago, ago))
    (folder / others[-1]).touch()  # it may be written to at this moment
    features_of(files)
    left = {path.name for path in kept(tmp_path)}
    assert (name in left, set(others) <= left, len(left)) == (False, True, 4)


def test_progress_adds_up_whether_kept_or_not(features_of, files):
    for _ in range(2):
        counted: list[int] = []
        features_of(files, advance=counted.append)
        assert sum(counted) == 7


def test_what_is_read_back_is_mapped_into_memory(encoder, files, tmp_path):
    transform = evaluation_transform(encoder.metadata)
    features = cached_features(encoder, files, transform, folder=tmp_path / "cache", device=CPU, workers=0)
    maps = Path("/proc/self/maps")
    if not maps.exists():
        pytest.skip("no /proc to look at")
    assert kept(tmp_path)[0].name in maps.read_text()
    assert features.shape == (7, 5)


def test_plain_features_are_those_extracted_and_say_when_they_were_found(encoder, files, tmp_path):
    expected = extract_features(encoder, files, device=CPU, workers=0)
    found: list[Path] = []
    for cache, before in ((None, 0), (tmp_path / "cache", 0), (tmp_path / "cache", 1), (None, 1)):
        features = plain_features(encoder, files, cache=cache, device=CPU, workers=0, found=found.append)
        assert torch.equal(features, expected)
        assert len(found) == before
    assert found == kept(tmp_path)
    for cache in (None, tmp_path / "cache"):
        half = plain_features(encoder, files, cache=cache, dtype="fp16", device=CPU, workers=0)
        assert torch.equal(half, expected.half())


def test_without_the_room_nothing_is_begun(features_of, encoder, files, tmp_path, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda folder: SimpleNamespace(free=7 * 5 * 4 - 1))
    with pytest.raises(GrocoError, match="has room for") as caught:
        features_of(files)
    assert "--no-cache" in caught.value.hint
    assert (encoder.backbone.shown, kept(tmp_path)) == (0, [])
    monkeypatch.setattr("shutil.disk_usage", lambda folder: SimpleNamespace(free=7 * 5 * 4))
    assert features_of(files)[1] == 7


def test_the_cache_is_below_the_data_root_unless_another_is_named(tmp_path):
    assert choose_cache(None, False, tmp_path) == tmp_path / "features"
    assert choose_cache(tmp_path / "mine", False, tmp_path) == tmp_path / "mine"
    assert choose_cache(None, True, tmp_path) is None
    assert choose_cache(None, False, tmp_path / "absent/root") == tmp_path / "absent/root/features"
    assert list(tmp_path.iterdir()) == [], "nothing is made before there is something to keep"
    with pytest.raises(UsageError, match="--cache and --no-cache exclude each other"):
        choose_cache(tmp_path, True, tmp_path)


def test_a_data_root_that_cannot_be_written_to_is_said_and_done_without(tmp_path, capsys):
    (tmp_path / "root").touch()  # a file has no folders, whoever asks
    assert choose_cache(None, False, tmp_path / "root") is None
    (line,) = capsys.readouterr().err.splitlines()
    assert f"in memory alone: {tmp_path}/root/features cannot be written to" in line
