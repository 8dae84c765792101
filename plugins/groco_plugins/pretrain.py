"""`groco pretrain`: options to settings; the work is `groco_cli.engine.pretrain`."""

import os
from pathlib import Path
from typing import Annotated

import typer

from groco_cli import console, options
from groco_cli.errors import UsageError
from groco_cli.options import setting

_NOT_SETTINGS = ("recipe", "config", "resume", "dry_run", "as_json")


def pretrain(
    data: options.Data = None,
    recipe: options.Recipe = None,
    config: options.Config = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="The run's folder.", show_default="the next under runs/")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in --output, or the newest.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check everything, take no more than two steps, keep nothing.")
    ] = False,
    arch: Annotated[str | None, setting("Backbone, by its timm or torchvision name.")] = None,
    stem: Annotated[str | None, setting("imagenet, or small (ResNets on pictures of about 32 pixels).")] = None,
    attention_heads: Annotated[int | None, setting("Attention heads of a ViT.")] = None,
    projector_hidden: Annotated[int | None, setting("Width of the projector's hidden layers.")] = None,
    projector_out: Annotated[int | None, setting("Length of a projection.")] = None,
    projector_layers: Annotated[int | None, setting("Linear layers of the projector.")] = None,
    method: Annotated[str | None, setting("siamese, or mocov3 (predictor and momentum encoder).")] = None,
    ema_momentum: Annotated[float | None, setting("Momentum of mocov3's momentum encoder at the start.")] = None,
    freeze_patches: Annotated[
        bool | None,
        setting("Whether mocov3 keeps a ViT's patch embedding fixed.", "--freeze-patches/--no-freeze-patches"),
    ] = None,
    forward: Annotated[
        str | None, setting("joint, or per-view: each view goes through the networks by itself.")
    ] = None,
    loss: Annotated[str | None, setting("groco, infonce or triplet.")] = None,
    num_negatives: Annotated[int | None, setting("N, the strongest negatives of each anchor.", "--negatives")] = None,
    beta: Annotated[float | None, setting("β, inverse temperature of the relaxed swaps.")] = None,
    variant: Annotated[str | None, setting("paper, or official (the released code's loss).")] = None,
    preorder: Annotated[bool | None, setting("Sort each group first.", "--preorder/--no-preorder")] = None,
    stop_gradient: Annotated[
        bool | None, setting("Gradients to the anchor alone.", "--stop-gradient/--no-stop-gradient")
    ] = None,
    temperature: Annotated[float | None, setting("Temperature of infonce.")] = None,
    margin: Annotated[float | None, setting("Margin of triplet; may be inf.")] = None,
    epochs: Annotated[int | None, setting("Passes over the training images.")] = None,
    batch_size: Annotated[int | None, setting("Images a step.")] = None,
    micro_batch: Annotated[
        int | None, setting("Images that a process encodes at once, for less memory; 0 for its whole part of a batch.")
    ] = None,
    optimizer: Annotated[str | None, setting("sgd, lars or adamw.")] = None,
    learning_rate: Annotated[float | None, setting("Learning rate for a batch of 256.", "--lr")] = None,
    lr_scaling: Annotated[str | None, setting("How it grows with the batch: linear or sqrt.")] = None,
    weight_decay: Annotated[float | None, setting("Weight decay.")] = None,
    momentum: Annotated[float | None, setting("Momentum.")] = None,
    warmup_epochs: Annotated[int | None, setting("Epochs of growing learning rate.")] = None,
    augmentation: options.Augmentation = None,
    views: options.Views = None,
    local_views: options.LocalViews = None,
    image_size: options.ImageSize = None,
    local_size: options.LocalSize = None,
    crop_scale: options.CropScale = None,
    local_crop_scale: options.LocalCropScale = None,
    interpolation: options.Interpolation = None,
    brightness: options.JitterStrength = None,
    contrast: options.JitterStrength = None,
    saturation: options.JitterStrength = None,
    hue: options.Hue = None,
    jitter: options.Jitter = None,
    grey: options.Grey = None,
    blur: options.Blur = None,
    blur_sigma: options.BlurSigma = None,
    solarise: options.Solarise = None,
    flip: options.Flip = None,
    view_precision: options.ViewPrecision = None,
    on_bad_image: Annotated[str | None, setting("error, or skip: another image takes a bad one's place.")] = None,
    class_mates: Annotated[
        float | None, setting("Images of its own class that each image meets in its batch (the paper's Table 8d: 3).")
    ] = None,
    subset: Annotated[int | None, setting("Only the first so many training images; 0 for all.")] = None,
    save_every: Annotated[
        str | None, setting("How often everything is saved: 1 (epochs), 500steps, 10min, or 1,30min.")
    ] = None,
    keep: Annotated[int | None, setting("States kept to go on from.")] = None,
    milestones: Annotated[int | None, setting("Epochs between checkpoints kept for good; 0 for the last only.")] = None,
    log_every: Annotated[int | None, setting("Steps between lines of metrics.jsonl.")] = None,
    knn_every: Annotated[int | None, setting("Epochs between k-NN scores of the curve.")] = None,
    gpus: Annotated[int | None, setting("GPUs to train on, one process each; the batch is divided among them.")] = None,
    processes: Annotated[int | None, setting("The same on a CPU: how many processes.")] = None,
    nodes: Annotated[int | None, setting("Machines; type the same command on each.")] = None,
    rdzv: Annotated[str | None, setting("HOST:PORT where they meet, HOST being one of them.")] = None,
    process_timeout: Annotated[int | None, setting("Minutes until a silent process is given up.")] = None,
    log_to: Annotated[
        list[str] | None, setting("Send the metrics to tensorboard or wandb as well; may be given again.")
    ] = None,
    device: options.Device = None,
    precision: options.Precision = None,
    compile: Annotated[
        bool | None, setting("Have torch.compile make kernels for the networks.", "--compile/--no-compile")
    ] = None,
    data_root: options.DataRoot = None,
    workers: options.Workers = None,
    seed: options.Seed = None,
    as_json: options.Json = False,
) -> None:
    """Pre-train an encoder without labels; with no argument, on the embedded digits.

    A run goes to a folder of its own: settings.toml, metrics.jsonl, checkpoints/latest.safetensors, plots/curves.png.
    Ctrl-C finishes the step, saves and stops; --resume goes on. What no option says comes from the environment
    (GROCO_BATCH_SIZE=512), then from --config, then from the recipe.
    """
    given = {name: value for name, value in locals().items() if name not in _NOT_SETTINGS}

    from groco_cli import launch
    from groco_cli.engine import configuration, run_folder
    from groco_cli.engine.environment import from_environment
    from groco_cli.engine.metrics import read_metrics

    variables = from_environment(os.environ).under(given | {"recipe": recipe})
    values = dict(variables.values)
    recipe_there = values.pop("recipe", None)
    overrides = configuration.by_section(given | values)
    with variables.blamed():
        if resume:
            if recipe or config:
                raise UsageError("--resume takes the run's own settings", "leave out --recipe and --config")
            there = overrides.get("run", {}).get("output")
            folder = run_folder.run_to_resume(Path(there) if there else None)
            settings = configuration.resume_settings(folder.settings, overrides)
        else:
            folder, settings = None, configuration.resolve(recipe or recipe_there, config, overrides)
    if launch.started(settings.run.launch()):
        return  # the first of the processes has shown the result

    place = launch.place(os.environ)
    is_first = place is None or place.rank == 0
    if is_first and variables.variables:
        console.note(f"settings   {', '.join(variables.variables.values())} from the environment")
    if dry_run:
        from groco_cli.engine import dry_run as trial

        planned = trial.dry_run(settings, resume=folder)
        if is_first:
            console.result(planned.facts(), console.listing(planned.rows()), as_json=as_json)
        return

    from groco_cli.engine import trainer

    path = trainer.pretrain(settings, resume=folder)
    if not is_first:
        return

    run = run_folder.RunFolder(path)
    knn = [line for line in read_metrics(run.metrics) if line["kind"] == "knn"]
    files = {"run": str(path), "checkpoint": str(run.latest), "curves": str(run.curves), "metrics": str(run.metrics)}
    rows = [[name, place] for name, place in files.items()]
    scores = None
    if knn:
        first, last, best = knn[0], knn[-1], max(knn, key=lambda line: line["top1"])
        scores = {"untrained": first["top1"], "trained": last["top1"], "k": last["k"]}
        scores |= {"best": best["top1"], "best_epoch": best["epoch"]}
        shown = f"{first['top1']:.1%} untrained, {last['top1']:.1%} trained"
        rows.append([f"k-NN, k={last['k']}", f"{shown} (best {best['top1']:.1%}, epoch {best['epoch']})"])
    console.result(files | {"knn": scores}, console.listing(rows), as_json=as_json)
    console.note(f"now type: groco knn {run.latest}" if knn else f"the encoder is in {run.latest}")
