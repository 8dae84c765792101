import pytest

from groco_cli.errors import UsageError
from groco_cli.evaluation.index import IndexOptions, parse_bytes


@pytest.mark.parametrize(
    ("text", "size"),
    [("2GB", 2 * 10**9), ("512 MB", 512 * 10**6), ("1.5gb", 1_500_000_000), ("1GiB", 2**30), ("4096", 4096)],
)
def test_amounts_of_memory_are_read(text: str, size: int):
    assert parse_bytes(text) == size


@pytest.mark.parametrize("text", ["", "much", "2TB", "GB", "1GBB", "nan", "inf", "1e999"])
def test_what_is_no_amount_is_told(text: str):
    with pytest.raises(UsageError, match="not an amount of memory"):
        parse_bytes(text)


@pytest.mark.parametrize(
    ("options", "what"),
    [
        ({"kind": "hnsw"}, "--index hnsw: no such index"),
        ({"ivf_above": 9}, "are of an IVF index"),
        ({"probes": 2}, "are of an IVF index"),
        ({"kind": "ivf", "half": True}, "searched on the CPU"),
        ({"kind": "ivf", "gpus": 2}, "searched on the CPU"),
        ({"kind": "ivf", "lists": 3, "probes": 4}, "--ivf-probes 4 is more than the 3 lists"),
        ({"kind": "ivf", "lists": -1}, "--ivf-lists -1 is too little"),
        ({"gpus": 0}, "--search-gpus 0 is too little"),
        ({"memory": 10**6}, "--search-memory 1000000 is too little"),
    ],
)
def test_what_cannot_be_is_told_by_its_option(options: dict, what: str):
    with pytest.raises(UsageError, match=what) as caught:
        IndexOptions(**options)
    assert caught.value.hint
