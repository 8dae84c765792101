"""Which training pictures of a set are its published validation split; for the four sets that have one."""

from pathlib import Path, PurePosixPath

import torch
from torch import Tensor

from groco_cli.data.sources.base import FileSource, Source
from groco_cli.errors import GrocoError

# Below the data root. The other sets are split into what is for training and what is for testing alone.
_LISTS = {
    "aircraft": "fgvc-aircraft-2013b/data/images_variant_val.txt",
    "dtd": "dtd/dtd/labels/val1.txt",
    "flowers": "flowers-102/setid.mat",
    "voc2007": "VOCdevkit/VOC2007/ImageSets/Main/val.txt",
}


def validation_rows(name: str, root: Path, train: Source) -> Tensor | None:
    """The numbers of the validation pictures among the training pictures, int64 [v].

    Args:
        name: The set's name in `TRANSFER_SETS`.
        root: Where sets are kept.
        train: All its training pictures.

    Returns:
        None where the set has no such split, its list is not there, or names none or all of the pictures.

    Raises:
        GrocoError: If the list cannot be read.
    """
    path = root / _LISTS.get(name, "")
    if not path.is_file() or not isinstance(train, FileSource):
        return None
    try:
        listed = {PurePosixPath(picture).stem for picture in (_flowers(root) if name == "flowers" else _listed(path))}
    except (OSError, RuntimeError, ValueError) as error:
        raise GrocoError(f"{path}: cannot be read ({error})", "fetch it again") from error
    rows = [row for row, picture in enumerate(train.paths) if picture.stem in listed]
    return torch.tensor(rows) if 0 < len(rows) < len(train) else None


def _flowers(root: Path) -> list[str]:
    from torchvision.datasets import Flowers102

    return [str(path) for path in Flowers102(root, split="val")._image_files]


def _listed(path: Path) -> list[str]:
    """The first word of each line."""
    return [line.split()[0] for line in path.read_text("utf-8").splitlines() if line.strip()]
