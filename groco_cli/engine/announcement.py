"""What a run says of itself before it begins, on stderr."""

from groco_cli import console
from groco_cli.data.sources import Dataset
from groco_cli.engine.recipes import FEW_IMAGES, better_recipe
from groco_cli.engine.run_folder import RunFolder
from groco_cli.engine.settings import PretrainSettings
from groco_cli.losses.base import ViewLoss
from groco_cli.wording import counted


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
    classes = len(dataset.train.classes)
    over = len(dataset.train) % optim.batch_size
    better = better_recipe(settings.recipe, len(dataset.train))
    remark = (
        f", the paper's for ImageNet; for fewer than {FEW_IMAGES:,} images type --recipe {better}" if better else ""
    )
    console.note(f"recipe     {settings.recipe}{remark}")
    console.note(
        f"data       {dataset.name}: {counted(len(dataset.train), 'image')}"
        + (f", {counted(classes, 'class', 'classes')} (labels only for k-NN)" if classes else ", no labels")
        + (f"; {over} of them left to other epochs each time" if over else "")
    )
    console.note(f"views      {views}, {views.augmentation} augmentations")
    method = settings.method.method + ", view by view" * (settings.method.forward == "per-view")
    console.note(f"encoder    {settings.model.arch}, {settings.model.stem} stem; {method}")
    console.note(f"loss       {loss}")
    micro = f" in micro-batches of {optim.micro_batch}" * (optim.micro_batch > 0)
    console.note(
        f"optimizer  {optim.optimizer}, learning rate {optim.peak_learning_rate:g}, batch {optim.batch_size}{micro}, "
        f"{counted(optim.epochs, 'epoch')} of {counted(per_epoch, 'step')}"
    )
    console.note(f"device     {where}")
    console.note(f"run        {folder.path}" + (f", resumed at step {step}" if step else ""))
