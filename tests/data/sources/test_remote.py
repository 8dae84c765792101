"""Shards fetched from a server or a command: once, whole, and never by a command that nobody typed."""

import multiprocessing
import sys
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from groco_cli.data.sources import open_dataset
from groco_cli.data.sources.remote import is_url
from groco_cli.errors import GrocoError, UsageError


class Server:
    """A folder served on this machine, and what was asked of it."""

    def __init__(self, folder: Path) -> None:
        self.asked: list[str] = []
        server = self

        class Handler(SimpleHTTPRequestHandler):
            def log_message(self, *_: object) -> None:
                server.asked.append(self.path)

            def do_GET(self) -> None:
                if "half" not in self.path:
                    return super().do_GET()
                content = Path(self.translate_path(self.path)).read_bytes()
                self.send_response(200)
                self.send_header(
                    "Content-Length", str(len(content) if "silent" not in self.path else len(content) // 2)
                )
                self.end_headers()
                self.wfile.write(content[: len(content) // 2])
                return None

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(folder)))
        self.url = f"http://127.0.0.1:{self.http.server_port}"


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    (tmp_path / "served").mkdir()
    made = Server(tmp_path / "served")
    thread = threading.Thread(target=made.http.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    yield made
    made.http.shutdown()
    thread.join()
    made.http.server_close()


@pytest.fixture
def typed(monkeypatch: pytest.MonkeyPatch):
    """Types a command line: `typed("--data", "pipe:...")`."""
    return lambda *arguments: monkeypatch.setattr(sys, "argv", ["groco", "pretrain", *arguments])


def fetched(root: Path) -> list[Path]:
    """What lies where fetched shards are kept, locks aside."""
    return sorted(path for path in (root / "shards").rglob("*") if path.is_file() and path.suffix != ".lock")


def test_remote_shards_are_fetched_once_and_said_so(opened, server: Server, write_shard, root: Path, capsys):
    for number in range(3):
        write_shard(f"served/s-{number}.tar", [2 - number, 0], start=2 * number)
    data = f"{server.url}/s-{{0..2}}.tar"
    source = opened(data).train
    assert source.labels.tolist() == [2, 0, 1, 0, 0, 0]
    assert f"fetching 3 of 3 shards to {root / 'shards'}" in capsys.readouterr().err
    assert [path.name for path in source.paths] == ["s-0.tar", "s-1.tar", "s-2.tar"]
    assert set(fetched(root)) == set(source.paths)
    assert len(server.asked) == 3
    again = opened(data).train
    assert again.paths == source.paths
    assert len(server.asked) == 3
    assert "fetching" not in capsys.readouterr().err
    opened(f"{server.url}/s-{{0..1}}.tar::val={server.url}/s-2.tar")
    assert len(server.asked) == 3


def test_the_same_name_elsewhere_is_another_shard(opened, server: Server, write_shard):
    write_shard("served/a/s.tar", [1])
    write_shard("served/b/s.tar", [2])
    assert opened(f"{server.url}/{{a,b}}/s.tar").train.labels.tolist() == [1, 2]


@pytest.mark.parametrize("name", ["absent.tar", "half.tar", "silent-half.tar", "page.tar", "empty.tar"])
def test_a_failed_fetch_leaves_nothing_behind(refused, server: Server, write_shard, root: Path, name: str):
    for shard in ("half.tar", "silent-half.tar"):
        write_shard(f"served/{shard}", list(range(5)))
    Path(server.http.RequestHandlerClass.keywords["directory"], "page.tar").write_text("<html>please log in</html>")
    Path(server.http.RequestHandlerClass.keywords["directory"], "empty.tar").touch()
    assert f"{server.url}/{name}" in refused(f"{server.url}/{name}").message
    assert fetched(root) == []


def test_a_command_that_was_typed_is_run_once(opened, typed, write_shard, tmp_path: Path):
    shard, log = write_shard("s.tar", [3, 1]), tmp_path / "log"
    data = f"pipe:echo ran >> {log}; cat {shard}"
    typed("--data", data)
    assert opened(data).train.labels.tolist() == [3, 1]
    typed()  # it is here by now: nothing has to run
    assert opened(data).train.labels.tolist() == [3, 1]
    assert log.read_text() == "ran\n"


@pytest.mark.parametrize("way", ["--data=", "GROCO_DATA"])
def test_a_command_may_be_typed_with_an_equals_sign_or_come_from_the_environment(
    opened, refused, typed, write_shard, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str
):
    write_shard("s-0.tar", [0])
    write_shard("s-1.tar", [1])
    data = f"pipe:cat {tmp_path}/s-{{0,1}}.tar"
    typed(*(["--data=" + data] if way == "--data=" else []))
    if way == "GROCO_DATA":
        monkeypatch.setenv(way, data)
    assert refused(data.replace("0,1", "1,0,1"), UsageError)
    assert opened(data).train.labels.tolist() == [0, 1]


@pytest.mark.parametrize("arguments", [[], ["ckpt.safetensors"], ["--config", "settings.toml"], ["--data", "digits"]])
def test_a_command_that_nobody_typed_is_not_run(refused, typed, root: Path, tmp_path: Path, arguments: list[str]):
    typed(*arguments)
    for data in (f"pipe:touch {tmp_path / 'ran'}", f"a.tar::val=pipe:touch {tmp_path / 'ran'}"):
        assert "not typed here" in refused(data, UsageError).message or "missing" in refused(data, UsageError).message
    assert not (tmp_path / "ran").exists()
    assert fetched(root) == []


@pytest.mark.parametrize(("command", "told"), [("exit 3", "ended with 3"), ("true", "the shard is empty")])
def test_a_command_that_fails_is_told(refused, typed, root: Path, command: str, told: str):
    typed("--data", f"pipe:{command}")
    assert told in refused(f"pipe:{command}").message
    assert fetched(root) == []


def test_what_webdataset_does_not_open_is_told(refused):
    error = refused("s3://bucket/s.tar")
    assert "s3://bucket/s.tar" in error.message
    assert "pipe:aws s3 cp" in error.hint


def test_a_missing_downloader_is_told(refused, server: Server, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PATH", "/nowhere")
    assert "curl is not installed here" in refused(f"{server.url}/s.tar").message


def test_an_address_of_a_file_is_read_where_it_is(opened, refused, write_shard, root: Path):
    shard = write_shard("a b.tar", [3])
    assert opened(shard.as_uri()).train.paths == (shard,)
    assert "no file" in refused((shard.parent / "none.tar").as_uri()).message
    assert not (root / "shards").exists()


def _opened(data: str, root: Path) -> int:
    return len(open_dataset(data, root).train)


def test_processes_of_one_run_fetch_each_shard_once(server: Server, write_shard, root: Path):
    write_shard("served/s.tar", [0, 1])
    with multiprocessing.get_context("fork").Pool(4) as pool:
        assert pool.starmap(_opened, [(f"{server.url}/s.tar", root)] * 4) == [2] * 4
    assert len(server.asked) == 1


@pytest.mark.parametrize("place", ["s.tar", "C:\\s.tar", "folder:1/s.tar", "~/s.tar", "/s.tar", "s-{0..1}.tar"])
def test_paths_are_no_urls(place: str):
    assert not is_url(place)


def test_where_nothing_can_be_kept_is_told(server: Server, write_shard, tmp_path: Path):
    write_shard("served/s.tar", [0])
    (tmp_path / "file").touch()
    with pytest.raises(GrocoError, match="cannot write"):
        open_dataset(f"{server.url}/s.tar", tmp_path / "file")
