"""Labels of samples: what is read, and that nothing hidden in a pickle runs."""

import pickle
import struct
from pathlib import Path

import pytest

from groco_cli.data.sources.shard_labels import LABEL_READERS, UNLABELLED, unpickle_plain


@pytest.mark.parametrize(
    ("suffix", "content", "label"),
    [
        ("cls", b"7", (7, "")),
        ("cls", b" 951\n", (951, "")),
        ("json", b'{"label": 3, "class": "x"}', (3, "")),
        ("json", b'{"cls": "cat"}', (-1, "cat")),
        ("json", b'{"class": 0}', (0, "")),
        ("json", b'{"label": null, "cls": 2}', (2, "")),
        ("json", b'"dog"', (-1, "dog")),
        ("json", b'{"caption": "a cat"}', UNLABELLED),
        ("metadata.pyd", pickle.dumps({"cls": 951, "wnid": "n02"}), (951, "n02")),
        ("metadata.pyd", pickle.dumps({"cls": 5}, protocol=0), (5, "")),
    ],
)
def test_labels_are_read(suffix: str, content: bytes, label: tuple[int, str]):
    assert LABEL_READERS[suffix](content) == label


@pytest.mark.parametrize(
    ("suffix", "content"),
    [
        ("cls", b""),
        ("cls", b"cat"),
        ("cls", b"-1"),
        ("cls", b"1_0"),
        ("cls", b"\xff"),
        ("cls", b"9" * 30),
        ("json", b""),
        ("json", b"{"),
        ("json", b"[" * 100_000),
        ("json", b'{"label": true}'),
        ("json", b'{"label": 1.5}'),
        ("json", b'{"label": -3}'),
        ("json", b'{"label": ""}'),
        ("json", b"\xff\xfe\x00"),
        ("metadata.pyd", b""),
        ("metadata.pyd", pickle.dumps([951])),
        ("metadata.pyd", pickle.dumps({"wnid": "n02"})),
        ("metadata.pyd", pickle.dumps({"cls": "951"})[:-3]),
    ],
)
def test_what_is_no_label_is_refused(suffix: str, content: bytes):
    with pytest.raises(ValueError, match=r"."):
        LABEL_READERS[suffix](content)


@pytest.mark.parametrize("protocol", range(6))
def test_plain_pickles_come_back(protocol: int):
    value = {"a": (None, True, "é"), "b": [1, -2.5, 10**30, []], 3: {"": ()}}
    assert unpickle_plain(pickle.dumps(value, protocol)) == value


class Touch:
    """What an attacker would pickle: it makes a file when it is loaded."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_no_global_is_found_whatever_it_is(tmp_path: Path):
    for protocol in range(6):
        evil = pickle.dumps({"cls": Touch(tmp_path / "ran")}, protocol)
        with pytest.raises(ValueError, match=r"asks for .*, which is refused"):
            unpickle_plain(evil)
        assert not (tmp_path / "ran").exists()
        pickle.loads(evil)  # noqa: S301 (unguarded, it would have run)
        (tmp_path / "ran").unlink()


@pytest.mark.parametrize(
    ("evil", "told"),
    [
        (b"Pid\n.", "an object from outside"),
        (b"\x80\x02\x82\x01.", "a registered object"),
        (b"\x80\x05\x96" + struct.pack("<Q", 1 << 45) + b"x.", "no plain pickle"),  # a bytearray of 32 TiB
        (b"\x80\x04Nr" + struct.pack("<I", 2**32 - 1) + b".", None),  # a memo of four thousand million places
    ],
)
def test_pickles_that_reach_out_or_blow_up_are_harmless(evil: bytes, told: str | None):
    if told is None:
        assert unpickle_plain(evil) is None
    else:
        with pytest.raises(ValueError, match=told):
            unpickle_plain(evil)
