"""Any source as WebDataset shards: a few large files in place of many small ones."""

import io
from pathlib import Path

from PIL import Image

from groco_cli.data.decoding import BadImageError, encode_png
from groco_cli.data.sources.base import Source
from groco_cli.data.sources.shards import CLASSES
from groco_cli.errors import GrocoError, UsageError
from groco_cli.files import atomic_write

_SUFFIXES = {"JPEG": "jpg", "PNG": "png", "WEBP": "webp"}


def write_shards(source: Source, out: Path, images_per_shard: int = 1000) -> list[Path]:
    """Write the images of a source to shards, in their order, with their labels.

    JPEG, PNG and WebP files are copied byte by byte, others become PNG. Beside the shards, `classes.txt` has the
    classes' names. Each shard appears once it is whole.

    Args:
        source: The images.
        out: The folder for the shards; it may not hold any yet.
        images_per_shard: Images in each but the last.

    Returns:
        The shards, `000000.tar` and so on.

    Raises:
        UsageError: If there are shards already, or no image would go into one.
        GrocoError: If an image cannot be read, or the folder not be written to.
    """
    if images_per_shard < 1:
        raise UsageError(f"{images_per_shard} images a shard are too few", "write at least one")
    if any(out.glob("*.tar")):
        raise UsageError(f"{out} holds shards already", "name another folder")
    starts = range(0, len(source), images_per_shard)
    paths = [out / f"{number:06}.tar" for number in range(len(starts))]
    if source.labels is not None:
        with atomic_write(out / CLASSES) as temporary:
            temporary.write_text("".join(f"{name}\n" for name in source.classes), encoding="utf-8")
    for path, start in zip(paths, starts, strict=True):
        _write(source, range(start, min(start + images_per_shard, len(source))), path)
    return paths


def _write(source: Source, numbers: range, path: Path) -> None:
    from webdataset.writer import TarWriter

    with atomic_write(path) as temporary, temporary.open("wb") as file, TarWriter(file, encoder=False, mtime=0) as tar:
        for number in numbers:
            suffix, content = _file(source, number)
            sample: dict[str, str | bytes] = {"__key__": f"{number:09}", suffix: content}
            if source.labels is not None:
                sample["cls"] = str(int(source.labels[number])).encode()
            tar.write(sample)


def _file(source: Source, number: int) -> tuple[str, bytes]:
    """What to call an image's file in a shard, and what is in it."""
    try:
        picture = source.open(number)
        content, image = picture.content, picture.pixels()  # a damaged one is better met here than in training
    except BadImageError as error:
        raise GrocoError(str(error), "replace the file or move it away") from error
    suffix = _SUFFIXES.get(Image.open(io.BytesIO(content)).format or "")
    return (suffix, content) if suffix else ("png", encode_png(image))
