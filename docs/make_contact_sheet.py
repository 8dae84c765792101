"""Draw the contact sheets of docs/data.md: of scikit-learn's two sample photographs, and of the embedded digits."""

import shutil
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import sklearn.datasets
from PIL import Image


def sheet(folder: Path, *options: str) -> Image.Image:
    """What `groco data` draws, typed in a folder."""
    subprocess.run([sys.executable, "-m", "groco_cli", "data", *options], cwd=folder, check=True)
    return Image.open(folder / "contact-sheet.png")


if __name__ == "__main__":
    images = Path(__file__).with_name("images")
    with TemporaryDirectory() as name:
        photos = Path(name) / "photos"
        photos.mkdir()
        for path in (Path(sklearn.datasets.__file__).parent / "images").glob("*.jpg"):
            shutil.copy(path, photos)
        drawn = sheet(photos.parent, "photos", "--local-views", "2", "--epochs", "2")
        drawn.save(images / "contact-sheet.jpg", quality=88, subsampling=0)
        sheet(photos.parent, "digits", "--views", "4", "--rows", "3").save(images / "contact-sheet-digits.png")
