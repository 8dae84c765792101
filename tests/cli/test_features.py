"""`groco features` as it is typed: what is in its files, read back as its page says, and its mistakes."""

import json
import re
import resource
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from groco_cli.data.sources import open_dataset
from groco_cli.evaluation.features import extract_features
from groco_cli.models import EncoderMetadata, create_encoder, load_encoder
from groco_cli.models.conversion import save_checkpoint

PAGE = Path(__file__).parents[2] / "docs/features.md"


@pytest.fixture(scope="module")
def tiny(tmp_path_factory) -> Path:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("tiny") / "tiny.safetensors"
    save_checkpoint(path, create_encoder(EncoderMetadata(arch="test_resnet", image_size=32, resize=32)), {})
    return path


@pytest.fixture
def photos(picture_folder) -> Path:
    """Five labelled pictures to train on, two held out."""
    train, val = ["cat/0.png", "cat/1.png", "cat/ß 2.png", "dog/3.png", "dog/4.png"], ["cat/5.png", "dog/6.png"]
    return picture_folder(*(f"train/{name}" for name in train), *(f"val/{name}" for name in val), size=(40, 30))


@pytest.fixture
def features(call_groco, tiny, photos, tmp_path, monkeypatch):
    """Types the command in an empty folder."""
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    options = ("--data", str(photos), "--device", "cpu", "--workers", "0")
    return lambda *more: call_groco("features", str(tiny), *options, *more)


def test_each_part_has_a_file_of_the_encoders_features_labels_and_names(features, tiny, photos):
    done = features("--json", "-o", "new/photos.safetensors")
    assert done.returncode == 0, done.stderr
    printed = json.loads(done.stdout)
    dataset, encoder = open_dataset(str(photos), Path("unused")), load_encoder(tiny)
    assert list(printed["parts"]) == ["train", "test"]
    for part, source in (("train", dataset.train), ("test", dataset.test)):
        about = printed["parts"][part]
        assert about["output"] == f"new/photos-{part}.safetensors"
        assert (about["images"], about["dim"], about["classes"]) == (len(source), encoder.feature_dim, 2)
        stored = load_file(about["output"])
        expected = extract_features(encoder, source, device=torch.device("cpu"), workers=0)
        assert torch.equal(stored["features"], expected)
        assert torch.equal(stored["labels"], source.labels)
        names = bytes(stored["names"].tolist()).decode().split("\0")
        assert names == [str(path) for path in source.paths]
    assert len(list(Path("new").iterdir())) == 2


def test_they_are_read_back_as_the_page_says(features, photos, capsys):
    assert features().returncode == 0
    (block,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    read: dict = {}
    exec(compile(block, "features.md", "exec"), read)
    assert read["about"]["classes"] == ["cat", "dog"]
    assert (read["about"]["part"], read["about"]["data"]) == ("train", str(photos))
    assert len(read["names"]) == len(read["features"]) == len(read["labels"]) == 5
    assert capsys.readouterr().out.rstrip().endswith("train/cat/0.png cat")


def test_features_are_kept_and_found_again_in_either_type(features, call_groco, tiny, photos):
    assert "from the cache" not in features("--cache-dtype", "fp16").stderr
    again = features("--cache-dtype", "fp16", "--force")
    assert again.stderr.count("from the cache") == 2
    assert load_file("features-train.safetensors")["features"].dtype == torch.float16
    assert "5" in again.stdout
    scored = call_groco(
        *("knn", str(tiny), "--data", str(photos), "--k", "1", "--cache-dtype", "fp16", "--device", "cpu")
    )
    assert scored.stderr.count("from the cache") == 2, "the same as of groco knn"


def test_without_labels_or_a_held_out_part_there_are_none(call_groco, tiny, picture_folder, tmp_path):
    folder = picture_folder("0.png", "1.png")
    options = ("--data", str(folder), "-o", str(tmp_path / "x.safetensors"), "--device", "cpu", "--json")
    done = call_groco("features", str(tiny), *options, "--workers", "0")
    parts = json.loads(done.stdout)["parts"]
    assert (list(parts), parts["train"]["classes"]) == (["train"], None)
    assert set(load_file(tmp_path / "x-train.safetensors")) == {"features", "names"}


@pytest.mark.parametrize(
    ("options", "code", "what", "remedy"),
    [
        (["-o", "x.npz"], 2, "--output x.npz is no .safetensors", "let it end so"),
        (["-o", "/dev/null/x.safetensors"], 1, "cannot write /dev/null/x-train.safetensors", "choose another place"),
        (["--cache-dtype", "bf16"], 2, "--cache-dtype bf16: no such type", "fp32 or fp16"),
        (["--data", "nowhere"], 2, "error: nowhere: no such", "digits"),
    ],
)
def test_a_mistake_is_one_line_and_leaves_nothing(features, options, code, what, remedy):
    failed = features(*options)
    assert (failed.returncode, failed.stdout) == (code, "")
    line = failed.stderr.strip().splitlines()[-1]
    assert what in line
    assert remedy in line
    assert list(Path().iterdir()) == []


def test_what_is_there_is_not_overwritten_unless_forced(features):
    Path("features-test.safetensors").write_text("mine")
    failed = features()
    assert failed.returncode == 2
    assert "features-test.safetensors is there already" in failed.stderr
    assert Path("features-test.safetensors").read_text() == "mine"
    assert features("--force").returncode == 0
    assert len(load_file("features-test.safetensors")["features"]) == 2


def test_a_full_disk_is_told_in_a_line_and_nothing_is_left(features):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        failed = features("--no-cache")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert (failed.returncode, failed.stdout) == (1, "")
    assert failed.stderr.splitlines()[-1] == (
        "error: cannot write features-train.safetensors: File too large; choose another place or make room there"
    )
    assert list(Path().iterdir()) == []
