"""Shards from elsewhere: each is fetched once, whole, and then read like any local one.

Everything that webdataset opens is fetched: `https:`, `gs:`, `hf:` and others, and `pipe:` with a command that prints
the shard (`pipe:aws s3 cp s3://bucket/x.tar -`).
"""

import hashlib
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import unquote, urlsplit

from filelock import FileLock

from groco_cli import console
from groco_cli.data.sources.tar_index import index_shard
from groco_cli.errors import GrocoError, UsageError
from groco_cli.files import atomic_write, cannot_write
from groco_cli.wording import counted

_PIPE = "pipe:"
_SCHEME = re.compile(r"[a-zA-Z][a-zA-Z0-9+.-]+://|pipe:|file:/")
_BLOCK = 1 << 20  # bytes


def is_url(place: str) -> bool:
    """Whether a place is a URL, or a command (`pipe:`), and not a path."""
    return _SCHEME.match(place) is not None


def local_shards(places: Sequence[str], data: str, root: Path) -> list[Path]:
    """Where shards lie on this machine; those that lie elsewhere are fetched.

    Args:
        places: Paths and URLs, one a shard.
        data: What `--data` said.
        root: Fetched shards are kept in its folder `shards`.

    Raises:
        UsageError: If a command would run that nobody typed.
        GrocoError: If a shard cannot be fetched, or is not whole.
    """
    paths = [_kept(place, root) if is_url(place) else Path(place).expanduser() for place in places]
    absent = [i for i, place in enumerate(places) if is_url(place) and not paths[i].exists()]
    if absent:
        console.note(f"fetching {len(absent):,} of {counted(len(places), 'shard')} to {root / 'shards'}")
        with console.Bar("fetching shards", len(absent)) as bar:
            for i in absent:
                _fetch(places[i], paths[i], data, bar)
                bar.advance()
    return paths


def _kept(url: str, root: Path) -> Path:
    """The place of a remote shard on this machine."""
    try:
        parts = urlsplit(url)
    except ValueError as error:
        raise UsageError(f"{url} is no address ({error})", "check the address") from error
    if parts.scheme == "file":
        return Path(unquote(parts.path))
    stem = "shard" if parts.scheme == "pipe" else Path(parts.path).stem
    name = re.sub(r"[^\w.-]+", "_", stem).strip(".")[:80] or "shard"
    return root / "shards" / hashlib.sha256(url.encode("utf-8", "surrogatepass")).hexdigest()[:16] / f"{name}.tar"


def _fetch(url: str, path: Path, data: str, bar: console.Bar) -> None:
    if url.startswith("file:"):
        raise GrocoError(f"{data}: no file {path}", "check its name")
    if url.startswith(_PIPE) and not _typed(data):
        raise UsageError(
            f"{data} would run a command that was not typed here", "type it in this command to have it run"
        )
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(path.with_suffix(".lock"))
        with lock:  # the processes of one run fetch each shard once
            if not path.exists():
                _download(url, path, bar)
    except OSError as error:
        raise cannot_write(path, error) from error


def _typed(data: str) -> bool:
    """Whether the user gave it to this very command. A checkpoint or a settings file must never make a command run."""
    typed = [argument.removeprefix("--data=") for argument in sys.argv[1:]]
    return data in [*typed, os.environ.get("GROCO_DATA")]


def _download(url: str, path: Path, bar: console.Bar) -> None:
    """Copy a shard to its place, where it appears only once it is whole."""
    from webdataset.gopen import gopen

    with atomic_write(path) as temporary:
        try:
            with gopen(url) as source, temporary.open("wb") as file:
                while block := source.read(_BLOCK):
                    file.write(block)
                    bar.figures(f"{path.name}, {file.tell() >> 20:,} MiB")
        except Exception as error:  # webdataset raises whatever its many ways of opening trip over
            raise GrocoError(f"cannot fetch {url}: {_said(error, url)}", _hint(url)) from error
        try:
            index_shard(temporary)
        except GrocoError as error:
            raise GrocoError(
                f"fetched {url}, but {error.message.removeprefix(f'{temporary}: ')}", error.hint
            ) from error


def _said(error: Exception, url: str) -> str:
    status = re.search(r"exit (\d+)", str(error))
    if isinstance(error, FileNotFoundError) and not url.startswith(_PIPE):
        return f"{error.filename} is not installed here"
    return f"the command that fetches it ended with {status[1]}" if status else str(error) or type(error).__name__


def _hint(url: str) -> str:
    scheme = urlsplit(url).scheme
    if scheme == "s3":
        return "webdataset does not open s3: itself; type pipe:aws s3 cp s3://... -"
    return "check the address, or fetch the shards yourself and give their folder"
