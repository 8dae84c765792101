"""Settings: which images."""

from dataclasses import dataclass, replace
from pathlib import Path

from groco_cli.data.loader import ON_BAD_IMAGE
from groco_cli.data.sources import located
from groco_cli.engine.settings.checks import at_least, one_of


@dataclass(frozen=True, kw_only=True)
class DataSettings:
    """Which images.

    Args:
        data: What `--data` names.
        data_root: Where named sets are kept; "" for the usual place.
        subset: Only so many training images, see `sources.thinned`; 0 for all.
        workers: Processes that decode, for each that trains; -1 to take them from the cores.
        on_bad_image: "error", or "skip" to let another image take a bad one's place.
        class_mates: Images of its own class that each image meets in its batch (Table 8d: 3); 0 for what chance gives.
    """

    data: str = "digits"
    data_root: str = ""
    subset: int = 0
    workers: int = -1
    on_bad_image: str = "error"
    class_mates: float = 0.0

    def located(self) -> "DataSettings":
        """The same images in whichever folder this is read: with absolute paths."""
        root = str(Path(self.data_root).expanduser().absolute()) if self.data_root else ""
        return replace(self, data=located(self.data), data_root=root)

    def check(self) -> None:
        """Raise a UsageError that names the option where a value cannot be used."""
        one_of("--on-bad-image", self.on_bad_image, ON_BAD_IMAGE)
        at_least("--class-mates", self.class_mates, 0)
        at_least("--subset", self.subset, 0)
