"""Draw docs/images/contact-sheet.jpg (docs/data.md): the views of scikit-learn's two sample photographs."""

import shutil
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import sklearn.datasets
from PIL import Image

OPTIONS = ("--local-views", "2", "--epochs", "2")

if __name__ == "__main__":
    photographs = Path(sklearn.datasets.__file__).parent / "images"
    with TemporaryDirectory() as folder:
        photos = Path(folder) / "photos"
        photos.mkdir()
        for path in photographs.glob("*.jpg"):
            shutil.copy(path, photos)
        subprocess.run([sys.executable, "-m", "groco_cli", "data", "photos", *OPTIONS], cwd=folder, check=True)
        sheet = Image.open(photos.with_name("contact-sheet.png"))
        sheet.save(Path(__file__).with_name("images") / "contact-sheet.jpg", quality=88, subsampling=0)
