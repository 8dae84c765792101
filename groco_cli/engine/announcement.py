"""What a run says of itself before it begins, on stderr."""

from groco_cli import console
from groco_cli.data.sources import Dataset
from groco_cli.engine.recipes import FEW_IMAGES, better_recipe
from groco_cli.engine.run_folder import RunFolder
from groco_cli.engine.settings import PretrainSettings
from groco_cli.losses.base import ViewLoss


def announce(
    settings: PretrainSettings,
    dataset: Dataset,
    per_epoch: int,
    loss: ViewLoss,
    folder: RunFolder,
    step: int,
    where: str,
) -> None:
    """Say which recipe, data, device and precision are used, and where it goes."""
    views, optim = settings.views, settings.optim
    over = len(dataset.train) % optim.batch_size
    better = better_recipe(settings.recipe, len(dataset.train))
    remark = (
        f", the paper's for ImageNet; for fewer than {FEW_IMAGES:,} images type --recipe {better}" if better else ""
    )
    console.note(f"recipe     {settings.recipe}{remark}")
    console.note(
        f"data       {dataset.name}: {len(dataset.train):,} images"
        + (f", {len(dataset.train.classes)} classes (labels only for k-NN)" if dataset.train.classes else ", no labels")
        + (f"; {over} of them left to other epochs each time" if over else "")
    )
    console.note(f"views      {views}, {views.augmentation} augmentations")
    method = settings.method.method + ", view by view" * (settings.method.forward == "per-view")
    console.note(f"encoder    {settings.model.arch}, {settings.model.stem} stem; {method}")
    console.note(f"loss       {loss}")
    micro = f" in micro-batches of {optim.micro_batch}" * (optim.micro_batch > 0)
    console.note(
        f"optimizer  {optim.optimizer}, learning rate {optim.peak_learning_rate:g}, batch {optim.batch_size}{micro}, "
        f"{optim.epochs} epochs of {per_epoch} steps"
    )
    console.note(f"device     {where}")
    console.note(f"run        {folder.path}" + (f", resumed at step {step}" if step else ""))
