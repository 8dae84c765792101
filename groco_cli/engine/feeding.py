"""What a training step is fed with, built from settings: the data set, the batches of views, and whether they fit."""

from dataclasses import replace

from groco_cli.data.loader import ViewLoader
from groco_cli.data.sampling import Order, shuffled, with_class_mates
from groco_cli.data.sources import Dataset, Source, default_root, open_dataset, thinned
from groco_cli.data.transforms import Normalisation
from groco_cli.engine.processes import Processes
from groco_cli.engine.recipes import RECIPES, better_recipe
from groco_cli.engine.settings import DataSettings, PretrainSettings
from groco_cli.errors import UsageError
from groco_cli.losses.base import ViewLoss
from groco_cli.wording import counted


def open_training_set(settings: DataSettings) -> Dataset:
    """Open what `--data` names, its training images thinned out to `--subset`.

    Raises:
        UsageError: If there is no such thing.
        GrocoError: If nothing in it can be decoded, it is damaged, or cannot be downloaded.
    """
    dataset = open_dataset(settings.data, default_root(settings.data_root))
    return replace(dataset, train=thinned(dataset.train, settings.subset))


def view_loader(settings: PretrainSettings, source: Source, processes: Processes) -> ViewLoader:
    """The batches of views that this process takes its steps on.

    Args:
        settings: The run's.
        source: The images.
        processes: This process, and those that it trains with.

    Raises:
        UsageError: If the batch does not divide among the processes, or class-mates are wanted and there are no labels.
    """
    return ViewLoader(
        source,
        settings.views.draw(),
        batch_size=settings.optim.batch_size,
        order=_order(settings, source),
        normalisation=Normalisation(mean=settings.views.mean, std=settings.views.std),
        seed=settings.run.seed,
        device=processes.device,
        workers=decoders(settings.data, processes),
        share=processes.share(settings.optim.batch_size),
        on_bad_image=settings.data.on_bad_image,
        dtype=settings.views.dtype,
    )


def decoders(settings: DataSettings, processes: Processes) -> int:
    """How many worker processes decode for this one."""
    return processes.workers if settings.workers < 0 else settings.workers


def scoring_decoders(settings: DataSettings, processes: Processes) -> int:
    """How many decode while the first process scores: the others on its machine wait, and leave it their cores."""
    return decoders(settings, replace(processes, sharing=1))


def check_batch(settings: PretrainSettings, name: str, images: int, loss: ViewLoss) -> None:
    """Check what depends on the number of images and the loss together.

    Args:
        settings: The run's.
        name: The data set's.
        images: How many of it are learnt from.
        loss: What is minimised.

    Raises:
        UsageError: If a batch has more images than there are, or too few for the loss.
    """
    batch, views = settings.optim.batch_size, settings.views.views + settings.views.local_views
    available = loss.available_negatives(min(batch, images), views)
    wanted = loss.num_negatives or 1
    if batch > images:
        raise UsageError(
            f"--batch-size {batch} is more than the {counted(images, 'training image')} of {name}",
            _batch_to_type(settings.recipe, images, available if wanted > available else 0),
        )
    if wanted > available:
        raise UsageError(
            f"--negatives {wanted} is more than the {available} that an anchor has in a batch of {batch}",
            f"type --negatives {available} or less, or a larger --batch-size",
        )


def _batch_to_type(recipe: str, images: int, negatives: int) -> str:
    """What to type where a batch has more images than there are; `negatives` if so many fit and no more, else 0."""
    if images < 2:
        return "give it more images"
    fewer = f"--negatives {negatives} " * (negatives > 0) + f"--batch-size {images} or less"
    better = better_recipe(recipe, images)
    if not better:
        return f"type {fewer}"
    fits = RECIPES[better].settings.optim.batch_size <= images
    return f"type --recipe {better}{', or' * fits} {fewer}"


def _order(settings: PretrainSettings, source: Source) -> Order:
    if not settings.data.class_mates:
        return shuffled(len(source), settings.run.seed)
    if source.labels is None:
        raise UsageError("--class-mates needs labels", "give a folder with one sub-folder per class, or leave it out")
    return with_class_mates(source.labels, settings.data.class_mates, settings.optim.batch_size, settings.run.seed)
