"""Real data, and small pictures in folders, for every test that asks for them."""

import hashlib
import os
import pickle
import tarfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import settings
from PIL import Image

# Several of pytest's workers share the cores, and torch's threads wait for each other actively: one each is quickest.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")
pytest.register_assert_rewrite("support")
settings.register_profile("groco", deadline=None)  # no time is ever asserted
settings.load_profile("groco")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The README's demo first: by far the longest test, it would keep one worker busy at the end while others wait."""
    items.sort(key=lambda item: item.path.name != "test_readme.py")


DATA = Path(__file__).parents[2] / "shared/data"


def archive(name: str) -> Path:
    """An archive of real data; the test is skipped where it is absent."""
    path = DATA / name
    if not path.exists():
        pytest.skip(f"no {path}")
    return path


@pytest.fixture
def real_data() -> Callable[[str], Path]:
    """A file of the real data, by its name: `real_data("retrieval/golden_map.json")`; skipped where it is absent."""
    return archive


@pytest.fixture(scope="session")
def cifar_root(pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that holds cifar-10-batches-py: what `--data-root` wants. Unpacked once, kept in pytest's cache."""
    tar = archive("cifar10/cifar-10-batches-py.tar.xz")
    cache = getattr(pytestconfig, "cache", None)
    root = cache.mkdir("cifar10") if cache else tmp_path_factory.mktemp("cifar10")
    unpacked = root / "cifar-10-batches-py"
    if not unpacked.exists():
        with TemporaryDirectory(dir=root) as folder, tarfile.open(tar) as file:
            file.extractall(folder, filter="data")
            with suppress(OSError):  # another session was quicker
                (Path(folder) / unpacked.name).rename(unpacked)
    return root


@pytest.fixture(scope="session")
def imagenet_shards() -> Path:
    """The folder of two shards of real ImageNet: 250 samples in the usual layout, 16 in that of the released code."""
    return archive("imagenet-sample/imagenet-sample-000000.tar").parent


@pytest.fixture(scope="session")
def imagenet_jpegs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A flat folder of 250 real JPEGs of ImageNet, of differing size, some greyscale."""
    tar = archive("imagenet-sample/imagenet-sample-000000.tar")
    folder = tmp_path_factory.mktemp("imagenet")
    with tarfile.open(tar) as file:
        jpegs = [member for member in file.getmembers() if member.name.endswith(".jpg")]
        file.extractall(folder, members=jpegs, filter="data")
    return folder


@pytest.fixture(scope="session")
def photo_search(imagenet_jpegs: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A retrieval set of real photographs: its folder of pictures, and its ground truth in the published form.

    Of each of 20 photographs the whole is a query (its box the middle), two large crops are easy to find, two small
    ones, one of them grey, hard, and a corner is junk; 60 other photographs are wrong for all.
    """
    photographs = [path for path in sorted(imagenet_jpegs.glob("*.jpg")) if min(Image.open(path).size) >= 200]
    folder = tmp_path_factory.mktemp("search") / "jpg"
    folder.mkdir()
    imlist, qimlist, gnd = [], [], []
    parts = {
        "easy": [(0.0, 0.0, 0.9, 0.9), (0.1, 0.05, 1.0, 1.0)],
        "hard": [(0.0, 0.1, 0.6, 0.8), (0.3, 0.3, 1.0, 1.0)],
        "junk": [(0.0, 0.0, 0.3, 0.3)],
    }
    for number, path in enumerate(photographs[:20]):
        photograph = Image.open(path).convert("RGB")
        width, height = photograph.size
        qimlist.append(f"photo_{number:02d}")
        photograph.save(folder / f"{qimlist[-1]}.jpg", quality=90)
        truth: dict[str, list[float]] = {"bbx": [0.2 * width, 0.2 * height, 0.8 * width, 0.8 * height]}
        for kind, boxes in parts.items():
            truth[kind] = [len(imlist) + i for i in range(len(boxes))]
            for i, (left, top, right, bottom) in enumerate(boxes):
                crop = photograph.crop((int(left * width), int(top * height), int(right * width), int(bottom * height)))
                imlist.append(f"photo_{number:02d}_{kind}_{i}")
                (crop.convert("L") if (kind, i) == ("hard", 1) else crop).save(folder / f"{imlist[-1]}.jpg", quality=80)
        gnd.append(truth)
    for path in photographs[20:80]:
        imlist.append(f"other_{path.stem}")
        Image.open(path).convert("RGB").save(folder / f"{imlist[-1]}.jpg", quality=90)
    truth_file = folder.parent / "gnd_photos.pkl"
    truth_file.write_bytes(pickle.dumps({"imlist": imlist, "qimlist": qimlist, "gnd": gnd}))
    return folder, truth_file


@pytest.fixture
def picture_folder(tmp_path: Path) -> Callable[..., Path]:
    """Draws small pictures, each in noise of its own: `picture_folder("cat/0.png", "dog/1.jpg")` returns the folder."""

    def draw(*names: str, size: tuple[int, int] = (10, 8)) -> Path:
        for name in names:
            path = tmp_path / "pictures" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            seed = int.from_bytes(hashlib.sha256(name.encode()).digest()[:4])
            noise = np.random.default_rng(seed).integers(0, 256, (*size[::-1], 3), dtype=np.uint8)
            Image.fromarray(noise).save(path)
        return tmp_path / "pictures"

    return draw
