"""`groco knn` as it is typed: its votes and its picture (tests/evaluation checks the scores themselves)."""

import csv
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


def test_features_are_kept_and_it_is_said_when_they_are_found(knn, tmp_path):
    first, second, without = (knn("--k", "5", "--json", *more) for more in ((), (), ("--no-cache",)))
    assert first.stdout == second.stdout == without.stdout
    assert "from the cache" not in first.stderr + without.stderr
    kept = sorted((tmp_path / "data-root/features").iterdir())
    lines = [line for line in second.stderr.splitlines() if "from the cache" in line]
    assert lines[0].startswith("features   tiny, digits (embedded) train: from the cache ")
    assert sorted(Path(line.split("from the cache ")[1]) for line in lines) == kept
    knn("--k", "5", "--baselines")  # the untrained one is this encoder itself; of pixels, nothing is kept
    assert sorted((tmp_path / "data-root/features").iterdir()) == kept
    knn("--k", "5", "--cache", str(tmp_path / "mine"), "--cache-dtype", "fp16")
    assert len(list((tmp_path / "mine").iterdir())) == 2
    assert sorted((tmp_path / "data-root/features").iterdir()) == kept


def test_a_picture_is_drawn(knn, tmp_path):
    place = tmp_path / "new/knn.png"
    done = knn("--k", "5", "--plot", str(place), "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["figure"] == str(place)
    assert f"figure: {place}" in done.stderr
    assert min(Image.open(place).size) > 500
    assert json.loads(knn("--k", "5", "--json").stdout)["figure"] is None


def test_a_search_that_this_machine_cannot_do_is_told_before_the_pictures_are_read(knn, monkeypatch):
    monkeypatch.setattr("groco_cli.evaluation.protocol.plain_features", None)
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
    assert (exact["backend"], exact["recall"]) == ("FAISS knn, exact, CPU", None)
    assert (every["recall"], every["knn"]) == (1.0, exact["knn"])
    assert 0 < some["recall"] < 1
    shown = knn("--k", "20", "--index", "ivf", "--ivf-lists", "4", "--ivf-probes", "1").stdout
    assert f"recall@20 {100 * some['recall']:.2f} % (60 queries)" in shown


@pytest.mark.parametrize(
    ("options", "what", "remedy", "code"),
    [
        (["--cache", "here", "--no-cache"], "--cache and --no-cache exclude", "leave one out", 2),
        (["--cache-dtype", "bf16"], "--cache-dtype bf16: no such type", "fp32 or fp16", 2),
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


@pytest.fixture
def other(tiny, tmp_path) -> Path:
    path = tmp_path / "other.safetensors"
    path.write_bytes(tiny.read_bytes())
    return path


def test_several_checkpoints_stand_side_by_side(knn, tiny, other, tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    files = ("--csv", str(tmp_path / "knn.csv"), "--latex", str(tmp_path / "knn.tex"))
    few = (str(other), "--query-size", "4", "--baselines")
    done = knn(*few, "--k", "1", "--k", "2", "--plot", str(tmp_path / "knn.png"), *files)
    assert done.returncode == 0, done.stderr
    with (tmp_path / "knn.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    names = ["untrained", "pixels", "tiny", "other"]
    assert [(row["encoder"], row["k"]) for row in rows] == [(name, k) for k in "12" for name in names]
    for row in rows:
        assert int(row["correct"]) / 4 == float(row["top1"])
        assert f"{100 * float(row['top1']):.2f}" in done.stdout
    assert (tmp_path / "knn.tex").read_text(encoding="utf-8").count(r"\\") == 1 + len(rows)
    assert sorted(path.name for path in tmp_path.glob("*.png")) == ["knn-other.png", "knn-tiny.png"]

    printed = json.loads(knn(*few, "--k", "1", "--json").stdout)
    assert [one["checkpoint"] for one in printed["encoders"]] == [str(tiny), str(other)]
    assert printed["encoders"][0]["knn"] == printed["encoders"][1]["knn"]
    assert float(rows[2]["top1"]) == printed["encoders"][0]["knn"]["1"]["top1"]
    assert set(printed["baselines"]) == {"untrained", "pixels"}
    assert not {"checkpoint", "knn"} & set(printed)


def test_the_record_of_one_checkpoint_is_flat_too(knn, tiny):
    printed = json.loads(knn("--k", "3", "--json").stdout)
    (one,) = printed["encoders"]
    assert one["checkpoint"] == printed["checkpoint"] == str(tiny)
    assert one["knn"] == printed["knn"]
    assert printed["protocol"] == "train/test"


def test_bank_and_queries_may_be_two_sources(call_groco, tiny, picture_folder):
    folder = picture_folder(*(f"a/{kind}/{i}.png" for kind in ("cat", "dog") for i in range(3)), "b/dog/9.png")
    (folder / "b/cat").mkdir()
    (folder / "b/cat/1.png").write_bytes((folder / "a/cat/1.png").read_bytes())
    (folder / "b/dog/9.png").write_bytes((folder / "a/dog/0.png").read_bytes())
    options = ("--bank", str(folder / "a"), "--queries", str(folder / "b"), "--k", "1", "--device", "cpu", "--json")
    done = call_groco("knn", str(tiny), *options, "--workers", "0")
    printed = json.loads(done.stdout)
    assert (printed["protocol"], printed["bank"], printed["queries"]) == ("bank/queries", 6, 2)
    assert printed["data"] == f"{folder / 'b'} among {folder / 'a'}"
    assert printed["knn"]["1"]["correct"] == 2  # each query is a copy of one of its class


def test_the_papers_rows_stand_beside_imagenet(call_groco, tiny, picture_folder, tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    folder = picture_folder("0.png", "1.png")
    rows = [f"{folder}/{i % 2}.png,n{i:08},train" for i in range(1000)] + [f"{folder}/0.png,n00000000,val"]
    (tmp_path / "imagenet.csv").write_text("path,label,split\n" + "\n".join(rows))
    options = ("--data", str(tmp_path / "imagenet.csv"), "--k", "20", "--paper", "--device", "cpu", "--workers", "0")
    shown = call_groco("knn", str(tiny), *options, "--csv", str(tmp_path / "knn.csv")).stdout
    (ours,) = [line for line in shown.splitlines() if "paper: GroCo, 2×224, 400 ep" in line]
    assert "64.0" in ours
    assert "not the paper's images: 1 query here, bank of 1,000" in shown
    assert '"paper: GroCo, 2×224, 400 ep",20,0.64,,,' in (tmp_path / "knn.csv").read_text(encoding="utf-8")
    printed = json.loads(call_groco("knn", str(tiny), *options, "--json").stdout)
    assert printed["paper"][0]["linear"] == [63.8]
    assert printed["knn"]["20"]["total"] == 1


def test_for_other_data_the_paper_has_no_row_and_it_is_said(knn):
    done = knn("--k", "3", "--paper", "--json")
    assert done.returncode == 0
    assert json.loads(done.stdout)["paper"] == []
    assert "warning: --paper: the paper's k-NN is on ImageNet" in done.stderr
    assert "no row for digits" in done.stderr


def test_a_query_that_cannot_be_right_is_an_error_before_any_work(knn, call_groco, tiny):
    failed = knn("--bank-size", "2", "--k", "1")
    assert (failed.returncode, failed.stdout) == (1, "")
    assert "which the bank has no image of" in failed.stderr
    assert "no checkpoint nowhere.pth" in call_groco("knn", str(tiny), "nowhere.pth").stderr
