"""What the pages say in Python, run: docs/python.md from top to bottom, and loading weights without groco."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from groco_cli.data.sources import open_dataset
from groco_cli.evaluation.features import extract_features
from groco_cli.models import EncoderMetadata, create_encoder, load_encoder
from groco_cli.models.conversion import save_for_library
from groco_cli.models.export import export

DOCS = Path(__file__).parents[1] / "docs"


def blocks(page: str) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", (DOCS / page).read_text(encoding="utf-8"), re.M | re.S)


def test_the_page_on_python_says_what_is_printed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    session: dict[str, Any] = {"__name__": "page"}
    for block in blocks("python.md"):
        exec(compile(block, "python.md", "exec"), session)
        shown = re.findall(r"^ *print\(.*\)  # (.*)$", block, re.M)
        assert shown, f"a block that shows nothing:\n{block}"
        assert capsys.readouterr().out.splitlines() == shown
    assert "similarities" in session  # of the last block


def test_converted_weights_give_the_same_features_without_groco(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    metadata = EncoderMetadata(arch="resnet10t", image_size=32, resize=40, mean=(0.1, 0.2, 0.3), std=(0.4, 0.5, 0.6))
    encoder = create_encoder(metadata).eval()
    save_for_library(Path("encoder.safetensors"), encoder, export(encoder, "timm"))
    noise = np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save("photo.png")

    session: dict[str, Any] = {"__name__": "page"}
    for block in blocks("convert.md"):
        exec(compile(block, "convert.md", "exec"), session)

    photos = open_dataset(str(tmp_path), tmp_path).train
    expected = extract_features(load_encoder("encoder.safetensors"), photos, device=torch.device("cpu"), workers=0)
    torch.testing.assert_close(session["features"], expected, rtol=1e-4, atol=1e-5)
