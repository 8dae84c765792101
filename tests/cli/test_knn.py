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


def test_a_search_that_this_machine_cannot_do_is_told_before_the_pictures_are_read(knn, monkeypatch):
    monkeypatch.setattr("groco_cli.evaluation.protocol.extract_features", None)
    failed = knn("--half")
    assert (failed.returncode, failed.stdout) == (2, "")
    assert "--half and --search-gpus are for CUDA GPUs, not cpu" in failed.stderr.strip().splitlines()[-1]


def test_what_searched_is_said_and_an_inexact_search_says_its_recall(knn, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    exact, every, some = (
        json.loads(knn("--k", "20", "--json", *more).stdout)
        for more in (
            ("--search-memory", "100MB"),
            ("--index", "ivf", "--ivf-lists", "4", "--ivf-probes", "4"),
            ("--index", "ivf", "--ivf-lists", "4", "--ivf-probes", "1"),
        )
    )
    assert (exact["backend"], exact["recall"]) == ("FAISS IndexFlatIP, exact, CPU", None)
    assert (every["recall"], every["knn"]) == (1.0, exact["knn"])
    assert 0 < some["recall"] < 1
    shown = knn("--k", "20", "--index", "ivf", "--ivf-lists", "4", "--ivf-probes", "1").stdout
    assert f"recall@20 {100 * some['recall']:.2f} % (60 queries)" in shown


@pytest.mark.parametrize(
    ("options", "what", "remedy", "code"),
    [
        (["--index", "hnsw"], "--index hnsw: no such index", "exact, ivf", 2),
        (["--search-memory", "lots"], "--search-memory lots: not an amount", "2GB", 2),
        (["--search-memory", "1KB"], "--search-memory 1000 is too little", "64000000 or more", 2),
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
