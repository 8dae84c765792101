"""Two processes equal one: features in the cache and out of it, heads, losses and counts, odd sizes throughout."""

from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from PIL import Image

from groco_cli.data.sources import Dataset, FileSource, MemorySource
from groco_cli.distributed import collectives
from groco_cli.errors import GrocoError
from groco_cli.evaluation.linear_features import AugmentedFeatures
from groco_cli.evaluation.linear_protocol import ProbeSettings, prepare_probe
from groco_cli.evaluation.protocol import pixels
from groco_cli.models import EncoderMetadata

TINY = EncoderMetadata(arch="pixels", image_size=8, resize=8)
CASES = [(cached, kept) for cached in (True, False) for kept in (True, False)]


def noise(count: int, seed: int) -> MemorySource:
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(256, (count, 3, 8, 8), dtype=torch.uint8, generator=generator)
    return MemorySource(images, torch.arange(count) % 7, tuple("abcdefg"))


def probed(cached: bool, kept: bool, folder: str) -> dict[str, torch.Tensor]:
    """What a probe comes to; 45 = 2 · 20 + 5 training images, so that neither half nor last batch is even."""
    settings = ProbeSettings(epochs=3, batch_size=20, learning_rates=(1.0, 300.0), cached=cached)
    cache = Path(folder) / f"cache-{collectives.world_size()}" if kept else None
    dataset = Dataset("noise", noise(45, 0), noise(11, 1))
    probe = prepare_probe(pixels(TINY), dataset, settings, device=torch.device("cpu"), workers=0, cache=cache)
    *_, scores = probe.run()
    return {
        "features": probe.test_features.clone(),
        "weight": probe.heads.weight,
        "bias": probe.heads.bias,
        "losses": torch.tensor([score.train_loss for score in scores]),
        "correct": torch.tensor([score.correct for score in scores]),
        "total": torch.tensor([score.total for score in scores]),
    }


def with_a_bad_picture(folder: str) -> str:
    """What an epoch of augmented pictures raises where one of them is none; one process alone comes upon it."""
    paths = tuple(Path(folder) / f"{number}.png" for number in range(4))
    source = FileSource(paths, torch.arange(4) % 2, ("a", "b"))
    train = AugmentedFeatures(
        pixels(TINY), source, batch_size=4, seed=0, workers=0, device=torch.device("cpu"), precision="fp32"
    )
    try:
        list(train.epoch(0))
    except GrocoError as error:
        return error.message
    return ""


def one_of_two(rank: int, folder: str) -> None:
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    shares = [list(collectives.share_of(total)) for total in (0, 1, 7, 8)]
    results = {case: probed(*case, folder) for case in CASES}
    bad = with_a_bad_picture(folder)
    torch.save({"results": results, "shares": shares, "bad": bad}, f"{folder}/{rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def both(tmp_path_factory) -> list[dict]:
    """What each of two processes came to, for every case."""
    folder = tmp_path_factory.mktemp("processes")
    for number in range(3):
        Image.new("RGB", (8, 8), (number, 0, 0)).save(folder / f"{number}.png")
    (folder / "3.png").write_bytes(b"no picture")
    mp.spawn(one_of_two, (str(folder),), nprocs=2)
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in (0, 1)]


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"cached {case[0]}, on disk {case[1]}")
def test_two_processes_equal_one(both, case, tmp_path):
    expected = probed(*case, str(tmp_path))
    assert (expected["weight"][1] - expected["weight"][0]).abs().max() > 1e-3, "something was learnt"
    for rank in (0, 1):
        found = both[rank]["results"][case]
        for name in ("features", "correct", "total"):
            assert torch.equal(found[name], expected[name]), name
        for name in ("weight", "bias", "losses"):
            torch.testing.assert_close(found[name], expected[name], rtol=1e-4, atol=1e-6)


def test_a_bad_picture_of_one_ends_the_epoch_of_all(both):
    assert both[0]["bad"] == both[1]["bad"]
    assert "cannot decode" in both[0]["bad"]
    assert "3.png" in both[0]["bad"]


def test_processes_share_every_thing_once(both):
    first, second = (half["shares"] for half in both)
    for total, one, two in zip((0, 1, 7, 8), first, second, strict=True):
        assert one + two == list(range(total))
        assert abs(len(one) - len(two)) <= 1


def test_one_process_alone_does_everything():
    assert list(collectives.share_of(5)) == list(range(5))
    assert (collectives.rank(), collectives.world_size(), collectives.from_first("x")) == (0, 1, "x")
    assert collectives.sum_over(torch.ones(2)).tolist() == [1, 1]
