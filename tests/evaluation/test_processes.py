"""Two processes that score together: the same features, rankings and errors as one alone, odd sizes throughout."""

from dataclasses import replace
from pathlib import Path
from unittest import mock

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from PIL import Image
from torch import Tensor, nn

from groco_cli.data.sources import MemorySource
from groco_cli.distributed import collectives
from groco_cli.errors import GrocoError
from groco_cli.evaluation import feature_cache
from groco_cli.evaluation.feature_cache import plain_features
from groco_cli.evaluation.features import extract_features
from groco_cli.evaluation.ground_truth import GroundTruth, QueryTruth
from groco_cli.evaluation.protocol import pixels
from groco_cli.evaluation.retrieval_protocol import named_protocol
from groco_cli.evaluation.retrieval_search import evaluate_retrieval
from groco_cli.evaluation.retrieval_set import RetrievalSet
from groco_cli.models import Encoder, EncoderMetadata

CPU = torch.device("cpu")
SIZE = 8
TINY = EncoderMetadata(arch="pixels", image_size=SIZE, resize=SIZE)


def features_of(count: int, counted: list[int]) -> Tensor:
    generator = torch.Generator().manual_seed(count)
    images = torch.randint(256, (count, 3, SIZE, SIZE), dtype=torch.uint8, generator=generator)
    source = MemorySource(images, torch.zeros(count, dtype=torch.int64), ("a",))
    return extract_features(pixels(TINY), source, device=CPU, workers=0, batch_size=2, advance=counted.append)


def similarities(folder: str, last: str = "6.png", cache: Path | None = None, shown: list[int] | None = None) -> Tensor:
    """Of 2 queries to 7 pictures of noise, laid down by `pictures`."""
    paths = *(Path(folder) / f"{number}.png" for number in range(6)), Path(folder) / last
    truth = GroundTruth(
        imlist=tuple(path.name for path in paths),
        qimlist=("0.png", "5.png"),
        gnd=(QueryTruth(bbx=None, easy=(0,), hard=(), junk=()), QueryTruth(bbx=None, easy=(5,), hard=(3,), junk=())),
    )
    data = RetrievalSet(name="noise", ground_truth=truth, images=paths, queries=(paths[0], paths[5]))
    encoder = pixels(TINY)
    encoder.register_forward_hook(lambda module, images, output: None if shown is None else shown.append(len(output)))
    found = evaluate_retrieval(encoder, data, named_protocol("dino", ""), device=CPU, workers=0, top=7, cache=cache)
    assert found.scores["easy"].mean_ap == 1
    return found.similarities


def with_a_bad_picture(folder: str, cache: Path | None) -> str:
    """What is raised where the last picture, which the last process has, is none."""
    try:
        similarities(folder, "bad.png", cache)
    except GrocoError as error:
        return error.message
    return ""


def searches_with_a_cache(folder: str) -> list[Tensor | int]:
    """What two searches find, and how many pictures each shows the encoder."""
    found: list[Tensor | int] = []
    for _ in range(2):
        shown: list[int] = []
        found += [similarities(folder, cache=Path(folder) / "searched", shown=shown), sum(shown)]
    return found


def keys_hashed(folder: str) -> int:
    """How often this process computes the key of what it looks for."""
    with mock.patch.object(feature_cache, "feature_key", wraps=feature_cache.feature_key) as hashed:
        cached(f"{folder}/cache")
    return hashed.call_count


def with_an_error(rank: int) -> str:
    """What is raised where the last part holds a picture whose feature is not finite."""
    encoder = Encoder(nn.Flatten(), 3 * SIZE**2, TINY)
    encoder.register_forward_hook(lambda module, images, output: output * (torch.nan if rank == 1 else 1))
    source = MemorySource(torch.zeros(3, 3, SIZE, SIZE, dtype=torch.uint8), None, ())
    try:
        extract_features(encoder, source, device=CPU, workers=0)
    except GrocoError as error:
        return f"{error.message}; {error.hint}"
    return ""


def cached(folder: str, damaged: bool = False) -> Tensor | str:
    """Features of 5 pictures by way of a cache, or what went wrong; damaged, the last picture's is not finite."""
    encoder = Encoder(nn.Flatten(), 3 * SIZE**2, TINY)
    if damaged and collectives.rank() == collectives.world_size() - 1:
        encoder.register_forward_hook(lambda module, images, output: output * torch.nan)
    images = torch.randint(256, (5, 3, SIZE, SIZE), dtype=torch.uint8, generator=torch.Generator().manual_seed(5))
    source = MemorySource(images, None, ())
    try:
        return plain_features(encoder, source, cache=Path(folder), device=CPU, workers=0).clone()
    except GrocoError as error:
        return error.message


def as_if_replaced(rank: int, folder: str) -> list[str]:
    """What is raised where the checkpoint was replaced between the reads of two processes."""
    images = torch.zeros(4, 3, SIZE, SIZE, dtype=torch.uint8)
    source = MemorySource(images, None, ())
    retrained = Encoder(nn.Sequential(nn.Flatten(), nn.Linear(3 * SIZE**2, 2)), 2, TINY)
    nn.init.constant_(retrained.backbone[1].weight, rank)
    trained_on = Encoder(nn.Flatten(), 3 * SIZE**2, replace(TINY, epoch=rank))
    told = []
    for encoder in (retrained, trained_on):
        for extract in (
            lambda shown: extract_features(shown, source, device=CPU, workers=0),
            lambda shown: plain_features(shown, source, cache=None, device=CPU, workers=0),
            lambda shown: plain_features(shown, source, cache=Path(folder) / "replaced", device=CPU, workers=0),
        ):
            with pytest.raises(GrocoError) as caught:
                extract(encoder)
            told.append(caught.value.message)
    return told


def one_of_two(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    counted: list[int] = []
    found = {
        "features": {count: features_of(count, counted) for count in (0, 1, 5, 8)},
        "counted": sum(counted),
        "similarities": similarities(folder),
        "error": with_an_error(rank),
        "bad picture": [with_a_bad_picture(folder, cache) for cache in (None, Path(folder) / "bad")],
        "after": features_of(5, []),
        "searched": searches_with_a_cache(folder),
        "cached": [
            cached(f"{folder}/cache", damaged=True),
            cached(f"{folder}/0.png"),
            cached(f"{folder}/cache"),
            cached(f"{folder}/cache", damaged=True),
        ],
    }
    found["keys hashed"] = keys_hashed(folder)
    found["replaced"] = as_if_replaced(rank, folder)
    if rank == 0:
        with collectives.alone():
            found["alone"] = features_of(5, [])
    torch.save(found, f"{folder}/{rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("together")
    for number in range(7):
        pixels = torch.randint(256, (SIZE, SIZE, 3), generator=torch.Generator().manual_seed(number))
        Image.fromarray(pixels.byte().numpy()).save(folder / f"{number}.png")
    (folder / "bad.png").write_bytes(b"no picture")
    return folder


@pytest.fixture(scope="module")
def both(folder: Path) -> list[dict]:
    """What each of two processes came to."""
    mp.spawn(one_of_two, (str(folder),), nprocs=2)
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in (0, 1)]


def test_two_processes_have_the_features_of_one(both):
    for found in both:
        for count, features in found["features"].items():
            expected = features_of(count, [])
            assert features.shape == (count, 3 * SIZE**2)
            assert torch.equal(features, expected)
        assert torch.equal(found["after"], features_of(5, []))


def test_two_processes_keep_the_features_of_one_and_fail_together(both, folder):
    """An error of one does not leave the other waiting, in whatever they do next."""
    for found in both:
        damaged, no_folder, features, again = found["cached"]
        assert "is not finite" in damaged
        assert "cannot write" in no_folder
        assert torch.equal(features, features_of(5, []))
        assert torch.equal(again, features), "read, not extracted"
    assert len(list((folder / "cache").iterdir())) == 1


def test_each_picture_is_seen_by_one_process(both):
    # Each counts its own images for both.
    assert sum(found["counted"] for found in both) == 2 * (0 + 1 + 5 + 8)


def test_two_processes_find_what_one_finds(both, folder):
    expected = similarities(str(folder))
    assert expected.shape == (2, 7)
    for found in both:
        torch.testing.assert_close(found["similarities"], expected)


def test_two_processes_keep_what_they_search(both, folder):
    expected = similarities(str(folder))
    for found in both:
        first, shown, second, shown_again = found["searched"]
        torch.testing.assert_close(first, expected)
        assert torch.equal(first, second)
        assert (0 < shown < 9, shown_again) == (True, 0)
    assert sum(found["searched"][1] for found in both) == 9
    assert len(list((folder / "searched").iterdir())) == 2


def test_a_bad_picture_of_one_ends_the_search_of_all(both, folder):
    for found in both:
        for message in found["bad picture"]:
            assert message == f"cannot decode {folder}/bad.png: not an image"
    assert len(list((folder / "bad").iterdir())) == 1, "the queries were extracted before"


def test_what_features_are_known_by_is_hashed_by_one(both):
    assert [found["keys hashed"] for found in both] == [1, 0]


def test_processes_that_read_different_encoders_tell_so_and_keep_nothing(both, folder):
    for found in both:
        assert found["replaced"] == 6 * [
            "the processes have different encoders: was the checkpoint replaced while they read it?"
        ]
    assert not (folder / "replaced").exists()


def test_an_error_of_one_is_raised_in_all(both):
    assert both[0]["error"] == both[1]["error"]
    assert "is not finite; the checkpoint is damaged or diverged" in both[0]["error"]


def test_one_may_work_without_the_others(both):
    assert torch.equal(both[0]["alone"], features_of(5, []))
