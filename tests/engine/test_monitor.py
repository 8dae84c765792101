"""The curve's score is that of `groco knn` on the same pictures."""

from dataclasses import replace
from pathlib import Path

import faiss
import numpy as np
import pytest
import torch

from groco_cli import console
from groco_cli.data.sources import Dataset, MemorySource, first, open_dataset, pick
from groco_cli.engine import monitor
from groco_cli.engine.monitor import KNNMonitor, knn_monitor
from groco_cli.errors import GrocoError
from groco_cli.evaluation.protocol import evaluate_knn, pixels
from groco_cli.models import EncoderMetadata

SMALL = EncoderMetadata(arch="test_resnet", image_size=32, resize=32, method="groco", epoch=9)
CPU = torch.device("cpu")


def monitor_of(dataset: Dataset) -> KNNMonitor | None:
    return knn_monitor(dataset, CPU, workers=0, on_bad_image="error")


def noise(count: int, seed: int = 0) -> MemorySource:
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(256, (count, 3, 32, 32), generator=generator, dtype=torch.uint8)
    return MemorySource(images, torch.arange(count) % 3, ("a", "b", "c"))


def test_all_held_out_pictures_are_scored_against_an_evenly_thinned_bank(monkeypatch, picture_folder):
    monkeypatch.setattr(monitor, "_BANK", 40)
    names = [f"{kind}/{i}.png" for kind in ("a", "b", "c", "d") for i in range(25)]
    dataset = Dataset("noise", open_dataset(str(picture_folder(*names)), Path("unused")).train, noise(30, seed=1))
    made = monitor_of(dataset)
    assert made
    found = made.score(pixels(SMALL))

    every = pick(dataset.train, torch.arange(0, 1000, 25) // 10)  # of 100 pictures every 2.5th
    thinned = replace(dataset, train=every)
    expected = evaluate_knn(pixels(SMALL), thinned, ks=(20,), temperature=0.07, device=CPU, workers=0).scores[20]
    assert found == {"k": 20, "top1": expected.top1, "top5": expected.top5, "bank": 40, "queries": 30}


@pytest.mark.parametrize(("held_out", "k"), [(True, 6), (False, 5)])
def test_a_small_bank_has_fewer_neighbours(held_out: bool, k: int):
    made = monitor_of(Dataset("noise", noise(6), noise(4, seed=1) if held_out else None))
    assert made
    assert made.k == k


def test_of_a_small_bank_with_bad_pictures_as_many_vote_as_are_left(picture_folder):
    folder = picture_folder(*(f"{kind}/{i}.png" for kind in "ab" for i in range(8)))
    for number in (0, 3, 5):
        (folder / f"a/{number}.png").write_bytes(b"no picture")
    made = knn_monitor(open_dataset(str(folder), Path("unused")), CPU, workers=0, on_bad_image="skip")
    assert made
    found = made.score(pixels(SMALL))
    assert found
    assert (found["k"], found["bank"], found["queries"]) == (12, 13, 13)


def test_without_labels_or_with_one_class_there_is_no_score():
    labelled = noise(12)
    unlabelled = MemorySource(labelled.images, None, ())
    of_one = MemorySource(labelled.images, torch.zeros(12, dtype=torch.int64), ("a",))
    assert monitor_of(Dataset("noise", labelled, None))
    assert monitor_of(Dataset("noise", unlabelled, None)) is None
    assert monitor_of(Dataset("noise", labelled, unlabelled)) is None
    assert monitor_of(Dataset("noise", of_one, None)) is None
    assert monitor_of(Dataset("noise", first(labelled, 1), None)) is None


def of_faiss() -> None:
    """What FAISS truly raises: here, as no list was trained."""
    faiss.IndexIVFFlat(faiss.IndexFlatL2(4), 4, 3).add(np.zeros((3, 4), np.float32))


def raising(error: Exception) -> None:
    raise error


SHORT = [
    (
        lambda: raising(torch.OutOfMemoryError("CUDA out of memory.\nTried")),
        "OutOfMemoryError: CUDA out of memory. Tried",
    ),
    (lambda: raising(MemoryError("std::bad_alloc")), "MemoryError: std::bad_alloc"),
    (lambda: raising(GrocoError("cannot decode 7.png")), "GrocoError: cannot decode 7.png"),
    (of_faiss, "RuntimeError: Error in virtual void faiss::"),
]


@pytest.mark.parametrize(("fail", "reason"), SHORT, ids=["cuda", "host", "groco", "faiss"])
def test_a_score_that_cannot_be_had_is_a_warning_of_one_line(monkeypatch, fail, reason):
    warned: list[str] = []
    monkeypatch.setattr(console, "warn", warned.append)
    monkeypatch.setattr(monitor, "evaluate_knn", lambda *_, **__: fail())
    assert monitor_of(Dataset("noise", noise(12), None)).score(pixels(SMALL)) is None
    (line,) = warned
    assert line.startswith(f"no k-NN score ({reason}")
    assert line.endswith("; training goes on")
    assert "\n" not in line


@pytest.mark.parametrize("mistake", [RuntimeError("sizes do not match"), TypeError("no such argument"), KeyError(20)])
def test_a_mistake_in_the_program_is_not_hidden(monkeypatch, mistake):
    monkeypatch.setattr(monitor, "evaluate_knn", lambda *_, **__: raising(mistake))
    with pytest.raises(type(mistake)):
        monitor_of(Dataset("noise", noise(12), None)).score(pixels(SMALL))


@pytest.mark.parametrize(("device", "released"), [("cuda", 1), ("cpu", 0)])
def test_what_torch_keeps_of_a_gpu_s_memory_is_released_before_faiss_needs_it(monkeypatch, device, released):
    told: list[str] = []
    monkeypatch.setattr(console, "warn", lambda _: None)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: told.append("released"))
    monkeypatch.setattr(monitor, "evaluate_knn", lambda *_, **__: told.append("scored") or raising(MemoryError()))
    made = monitor_of(Dataset("noise", noise(12), None))
    replace(made, device=torch.device(device)).score(pixels(SMALL))
    assert told == ["released"] * released + ["scored"]
