"""What the options of feature extraction come to."""

from pathlib import Path

import pytest
import torch

from groco_cli import devices
from groco_cli.errors import UsageError
from groco_cli.evaluation.extraction import Extraction, choose_extraction


def test_options_become_what_extraction_needs():
    assert choose_extraction("cpu", 3) == Extraction(
        device=torch.device("cpu"), workers=3, cache=None, cache_dtype="fp32"
    )
    kept = choose_extraction("cpu", 0, cache=Path("features"), cache_dtype="fp16")
    assert (kept.cache, kept.cache_dtype) == (Path("features"), "fp16")


def test_it_is_told_where_features_come_from_and_that_they_lost_precision():
    where = devices.describe(torch.device("cpu"))
    assert str(choose_extraction("cpu", 0)) == f"features on {where}"
    assert str(choose_extraction("cpu", 0, cache_dtype="fp16")) == f"features on {where}, kept in fp16"


@pytest.mark.parametrize(
    ("device", "dtype", "told"),
    [("cuda:999", None, "--device cuda:999: this machine has"), ("cpu", "bf16", "--cache-dtype bf16: no such type")],
)
def test_what_cannot_be_is_a_mistake(device: str, dtype: str | None, told: str):
    with pytest.raises(UsageError, match=told):
        choose_extraction(device, 0, cache_dtype=dtype)
