"""`groco pretrain`: options to settings; the work is `groco_cli.engine.pretrain`."""

from pathlib import Path
from typing import Annotated, Any

import typer

from groco_cli import console, options
from groco_cli.errors import UsageError

_NOT_SETTINGS = ("recipe", "config", "resume", "as_json")


def _own(help_text: str, *names: str) -> Any:
    """An option that overrides one value of the recipe."""
    return typer.Option(*names, help=help_text, show_default=False)


def pretrain(
    data: options.Data = None,
    recipe: Annotated[
        str | None, typer.Option(help="Named settings to start from.", show_default="the usual one for the data")
    ] = None,
    config: Annotated[
        Path | None, typer.Option(help="Settings as TOML, over the recipe's; a run's settings.toml is one.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="The run's folder.", show_default="the next under runs/")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in --output, or the newest.")] = False,
    arch: Annotated[str | None, _own("Backbone, by its timm or torchvision name.")] = None,
    stem: Annotated[str | None, _own("imagenet, or small (ResNets on pictures of about 32 pixels).")] = None,
    attention_heads: Annotated[int | None, _own("Attention heads of a ViT.")] = None,
    projector_hidden: Annotated[int | None, _own("Width of the projector's hidden layers.")] = None,
    projector_out: Annotated[int | None, _own("Length of a projection.")] = None,
    projector_layers: Annotated[int | None, _own("Linear layers of the projector.")] = None,
    method: Annotated[str | None, _own("siamese, or mocov3 (predictor and momentum encoder).")] = None,
    ema_momentum: Annotated[float | None, _own("Momentum of mocov3's momentum encoder at the start.")] = None,
    freeze_patches: Annotated[
        bool | None,
        _own("Whether mocov3 keeps a ViT's patch embedding fixed.", "--freeze-patches/--no-freeze-patches"),
    ] = None,
    loss: Annotated[str | None, _own("groco, infonce or triplet.")] = None,
    num_negatives: Annotated[int | None, _own("N, the strongest negatives of each anchor.", "--negatives")] = None,
    beta: Annotated[float | None, _own("β, inverse temperature of the relaxed swaps.")] = None,
    variant: Annotated[str | None, _own("paper, or official (the released code's loss).")] = None,
    preorder: Annotated[bool | None, _own("Sort each group first.", "--preorder/--no-preorder")] = None,
    stop_gradient: Annotated[
        bool | None, _own("Gradients to the anchor alone.", "--stop-gradient/--no-stop-gradient")
    ] = None,
    temperature: Annotated[float | None, _own("Temperature of infonce.")] = None,
    margin: Annotated[float | None, _own("Margin of triplet; may be inf.")] = None,
    epochs: Annotated[int | None, _own("Passes over the training images.")] = None,
    batch_size: Annotated[int | None, _own("Images a step.")] = None,
    optimizer: Annotated[str | None, _own("sgd, lars or adamw.")] = None,
    learning_rate: Annotated[float | None, _own("Learning rate for a batch of 256.", "--lr")] = None,
    lr_scaling: Annotated[str | None, _own("How it grows with the batch: linear or sqrt.")] = None,
    weight_decay: Annotated[float | None, _own("Weight decay.")] = None,
    momentum: Annotated[float | None, _own("Momentum.")] = None,
    warmup_epochs: Annotated[int | None, _own("Epochs of growing learning rate.")] = None,
    augmentation: Annotated[str | None, _own("dino, mocov3, simclr, small or digits.")] = None,
    views: Annotated[int | None, _own("Global views an image, each a positive.", "--views", "--global-views")] = None,
    local_views: Annotated[int | None, _own("Smaller views, anchors only (multi-crop).")] = None,
    image_size: Annotated[int | None, _own("Side of a view, pixels.")] = None,
    local_size: Annotated[int | None, _own("Side of a local view, pixels.")] = None,
    crop_scale: Annotated[tuple[float, float] | None, _own("Shares of the image that a view shows.")] = None,
    local_crop_scale: Annotated[tuple[float, float] | None, _own("Likewise, of a local view.")] = None,
    interpolation: Annotated[str | None, _own("bicubic or bilinear.")] = None,
    brightness: Annotated[float | None, _own("Strength of its jitter.")] = None,
    contrast: Annotated[float | None, _own("Strength of its jitter.")] = None,
    saturation: Annotated[float | None, _own("Strength of its jitter.")] = None,
    hue: Annotated[float | None, _own("Strength of its jitter, in turns.")] = None,
    jitter: Annotated[float | None, _own("How often these are applied.")] = None,
    grey: Annotated[float | None, _own("How often a view loses its colours.")] = None,
    blur: Annotated[
        list[float] | None, _own("How often a global view is blurred; given again, for each in turn.")
    ] = None,
    blur_sigma: Annotated[tuple[float, float] | None, _own("Standard deviations of the blur, pixels.")] = None,
    solarise: Annotated[list[float] | None, _own("How often a global view is solarised; as --blur.")] = None,
    flip: Annotated[float | None, _own("How often a view is mirrored.")] = None,
    view_precision: Annotated[str | None, _own("What colours and blur are computed in: fp32 or bf16.")] = None,
    on_bad_image: Annotated[str | None, _own("error, or skip: another image takes a bad one's place.")] = None,
    class_mates: Annotated[
        float | None, _own("Images of its own class that each image meets in its batch (the paper's Table 8d: 3).")
    ] = None,
    subset: Annotated[int | None, _own("Only the first so many training images; 0 for all.")] = None,
    save_every: Annotated[int | None, _own("Epochs between checkpoints.")] = None,
    log_every: Annotated[int | None, _own("Steps between lines of metrics.jsonl.")] = None,
    knn_every: Annotated[int | None, _own("Epochs between k-NN scores of the curve.")] = None,
    log_to: Annotated[
        list[str] | None, _own("Send the metrics to tensorboard or wandb as well; may be given again.")
    ] = None,
    device: options.Device = None,
    precision: options.Precision = None,
    data_root: options.DataRoot = None,
    workers: options.Workers = None,
    seed: options.Seed = None,
    as_json: options.Json = False,
) -> None:
    """Pre-train an encoder without labels; with no argument, on the embedded digits.

    A run goes to a folder of its own: settings.toml, metrics.jsonl, checkpoints/latest.safetensors, plots/curves.png.
    Ctrl-C finishes the step, saves and stops; --resume goes on. What no option says comes from --config, and what that
    does not say from the recipe.
    """
    given = {name: value for name, value in locals().items() if name not in _NOT_SETTINGS}

    from groco_cli.engine import configuration, run_folder, trainer
    from groco_cli.engine.metrics import read_metrics

    overrides = configuration.by_section(given)
    if resume:
        if recipe or config:
            raise UsageError("--resume takes the run's own settings", "leave out --recipe and --config")
        folder = run_folder.run_to_resume(output)
        settings = configuration.resume_settings(folder.settings, overrides)
        path = trainer.pretrain(settings, resume=folder)
    else:
        path = trainer.pretrain(configuration.resolve(recipe, config, overrides))

    run = run_folder.RunFolder(path)
    knn = [line for line in read_metrics(run.metrics) if line["kind"] == "knn"]
    files = {"run": str(path), "checkpoint": str(run.latest), "curves": str(run.curves), "metrics": str(run.metrics)}
    scores = {"untrained": knn[0]["top1"], "trained": knn[-1]["top1"], "k": knn[-1]["k"]} if knn else None
    rows = [[name, place] for name, place in files.items()]
    if scores:
        rows.append([f"k-NN, k={scores['k']}", f"{scores['untrained']:.1%} untrained, {scores['trained']:.1%} trained"])
    console.result(files | {"knn": scores}, console.listing(rows), as_json=as_json)
    console.note(f"now type: groco knn {run.latest}" if knn else f"the encoder is in {run.latest}")
