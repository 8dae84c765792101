"""What is trained and what is minimised, built from settings."""

from groco_cli import __version__
from groco_cli.engine.configuration import to_toml
from groco_cli.engine.methods import Method, MoCoV3, Siamese
from groco_cli.engine.passes import Passes
from groco_cli.engine.settings import LOSSES, LossSettings, PretrainSettings
from groco_cli.errors import UsageError
from groco_cli.losses import MoCoLoss
from groco_cli.losses.base import ViewLoss
from groco_cli.models import Encoder, EncoderMetadata, Projector, create_encoder


def build_loss(settings: LossSettings, method: str = "siamese") -> ViewLoss:
    """Build the loss; what is not set is its own default.

    Args:
        settings: Its name, and values for arguments of its class.
        method: Of training; MoCo v3 has an InfoNCE of its own.

    Raises:
        UsageError: If a value is set that this loss does not have.
    """
    if settings.foreign:
        option = f"--{settings.foreign[0].replace('_', '-')}"  # all have some number of negatives
        raise UsageError(f"{option} is no setting of --loss {settings.loss}", "leave it out or choose another --loss")
    made = MoCoLoss if (settings.loss, method) == ("infonce", "mocov3") else LOSSES[settings.loss]
    return made(**settings.arguments)


def build_method(settings: PretrainSettings) -> Method:
    """Build the networks, with random weights.

    Raises:
        UsageError: If there is no such architecture, or it cannot be built as asked.
    """
    model, method = settings.model, settings.method
    encoder = _build_encoder(settings)
    hidden, out = model.projector_hidden, model.projector_out
    projector = Projector(encoder.feature_dim, hidden=hidden, out=out, layers=model.projector_layers)
    passes = Passes(forward=method.forward, micro_batch=settings.optim.micro_batch)
    if method.method == "siamese":
        return Siamese(encoder, projector, passes=passes)
    # Two layers, as wide as the projector's, ending in BN: the released code's for ViTs.
    predictor = Projector(out, hidden=hidden, out=out, layers=2)
    return MoCoV3(
        encoder,
        projector,
        predictor,
        momentum=method.ema_momentum,
        freeze_patches=method.freeze_patches,
        passes=passes,
    )


def _build_encoder(settings: PretrainSettings) -> Encoder:
    views, model, method = settings.views, settings.model, settings.method.method
    metadata = EncoderMetadata(
        arch=model.arch,
        stem=model.stem,
        attention_heads=model.attention_heads,
        image_size=views.image_size,
        resize=views.evaluation_resize,
        mean=views.mean,
        std=views.std,
        method=settings.loss.loss if method == "siamese" else f"{method} with {settings.loss.loss}",
        data=settings.data.data,
        settings=to_toml(settings),
        groco_version=__version__,
    )
    try:
        return create_encoder(metadata)
    except ValueError as error:
        raise UsageError(f"--arch {model.arch}: {error}", "timm.list_models() has the names") from error
