"""Opening a set as `--data` does, being refused, and writing shards."""

import io
import tarfile
from collections.abc import Callable, Mapping
from pathlib import Path
from urllib.error import URLError

import numpy as np
import pytest
import torchvision
from PIL import Image

from groco_cli.data.sources import Dataset, open_dataset
from groco_cli.errors import GrocoError

Members = Mapping[str, bytes]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """What `--data-root` says."""
    return tmp_path / "root"


@pytest.fixture
def opened(root: Path) -> Callable[[object], Dataset]:
    return lambda data: open_dataset(str(data), root)


@pytest.fixture
def refused(root: Path) -> Callable[..., GrocoError]:
    """The error that opening raises, which has to be a single line and a hint."""

    def refuse(data: object, kind: type[GrocoError] = GrocoError, root: Path = root) -> GrocoError:
        with pytest.raises(kind) as caught:
            open_dataset(str(data), root)
        assert "\n" not in caught.value.message
        assert caught.value.hint
        return caught.value

    return refuse


@pytest.fixture
def drawn() -> Callable[[int], np.ndarray]:
    """A small picture in noise of its own, [6, 8, 3]."""
    return lambda number: np.random.default_rng(number).integers(0, 256, (6, 8, 3), dtype=np.uint8)


@pytest.fixture
def picture(drawn: Callable[[int], np.ndarray]) -> Callable[..., bytes]:
    """A small picture's file: `picture(3)` is always the same PNG, `picture(3, "jpeg")` the same JPEG."""

    def encode(number: int = 0, kind: str = "png") -> bytes:
        buffer = io.BytesIO()
        Image.fromarray(drawn(number)).save(buffer, kind)
        return buffer.getvalue()

    return encode


@pytest.fixture
def write_tar(tmp_path: Path) -> Callable[..., Path]:
    """Writes a tar of members in their order: `write_tar("a.tar", {"0.png": b"...", "0.cls": b"3"})`."""

    def write(name: str, members: Members) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with tarfile.open(path, "w") as tar:
            for member, content in members.items():
                info = tarfile.TarInfo(member)
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
        return path

    return write


@pytest.fixture
def write_shard(write_tar: Callable[..., Path], picture: Callable[..., bytes]) -> Callable[..., Path]:
    """Writes a shard of pictures with these labels: `write_shard("a.tar", [3, 1])`; keys and pictures count on."""

    def write(name: str, labels: list[int], start: int = 0) -> Path:
        members: dict[str, bytes] = {}
        for number, label in enumerate(labels, start):
            members |= {f"{number:04}.png": picture(number), f"{number:04}.cls": str(label).encode()}
        return write_tar(name, members)

    return write


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(*_: object, **__: object) -> None:
        raise URLError("Name or service not known")

    monkeypatch.setattr("urllib.request.urlopen", unreachable)


class Layout:
    """Draws made-up pictures and texts below a data root, where torchvision expects the real ones."""

    def __init__(self, root: Path, picture: Callable[..., bytes]) -> None:
        self.root, self.picture, self.count = root, picture, 0

    def pictures(self, *names: str) -> None:
        for name in names:
            kind = {".png": "png", ".ppm": "ppm"}.get(Path(name).suffix, "jpeg")
            self.write(name, self.picture(self.count, kind))
            self.count += 1

    def write(self, name: str, content: str | bytes) -> None:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)


@pytest.fixture
def layout(root: Path, picture: Callable[..., bytes]) -> Layout:
    return Layout(root, picture)


@pytest.fixture
def meta() -> Callable[[str], Path]:
    """Published files of labels or splits, real ones; the test is skipped where they are absent."""

    def find(name: str) -> Path:
        path = Path(__file__).parents[4] / "shared/data/meta" / name
        if not path.exists():
            pytest.skip(f"no {path}")
        return path

    return find


@pytest.fixture
def unchecked(monkeypatch: pytest.MonkeyPatch) -> None:
    """torchvision takes made-up files for the published ones."""
    for reader in ("flowers102", "svhn", "stl10", "usps", "mnist", "imagenet"):
        module = getattr(torchvision.datasets, reader)
        monkeypatch.setattr(module, "check_integrity", lambda path, md5=None: Path(path).is_file(), raising=False)
    monkeypatch.setattr(torchvision.datasets.Places365, "_check_integrity", lambda *_: True)
