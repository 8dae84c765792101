"""`groco pretrain`: options to settings; the work is `groco_cli.engine.pretrain`."""

import os
import shlex
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
        Path | None,
        typer.Option("--output", "-o", metavar="DIR", help="The run's folder.", show_default="the next under runs/"),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in --output, or the newest.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check everything, take no more than two steps, keep nothing.")
    ] = False,
    arch: options.Arch = None,
    stem: Annotated[
        str | None, setting("Stem of a ResNet: imagenet, or small for images of about 32 pixels.", metavar="NAME")
    ] = None,
    attention_heads: Annotated[int | None, setting("Attention heads of a ViT.", metavar="N")] = None,
    projector_hidden: Annotated[int | None, setting("Width of the projector's hidden layers.", metavar="N")] = None,
    projector_out: Annotated[int | None, setting("Dimension of the projections.", metavar="N")] = None,
    projector_layers: Annotated[int | None, setting("Linear layers of the projector.", metavar="N")] = None,
    method: Annotated[
        str | None, setting("Method: siamese, or mocov3 (predictor and momentum encoder).", metavar="NAME")
    ] = None,
    ema_momentum: Annotated[
        float | None, setting("Initial momentum of mocov3's momentum encoder.", metavar="M")
    ] = None,
    freeze_patches: Annotated[
        bool | None,
        setting("Freeze the patch embedding of mocov3's ViT.", "--freeze-patches/--no-freeze-patches"),
    ] = None,
    forward: options.Forward = None,
    loss: Annotated[str | None, setting("Loss: groco, infonce or triplet.", metavar="NAME")] = None,
    num_negatives: Annotated[int | None, setting("Strongest negatives per anchor.", "--negatives", metavar="N")] = None,
    beta: Annotated[float | None, setting("Inverse temperature β of groco's relaxed swaps.", metavar="X")] = None,
    variant: Annotated[
        str | None, setting("Variant of groco: paper, or official (the released code's).", metavar="NAME")
    ] = None,
    network: Annotated[
        str | None, setting("Sorting network of groco: odd_even, as published, or bitonic.", metavar="NAME")
    ] = None,
    relaxation: Annotated[
        str | None,
        setting(
            "Relaxation of its swaps: cauchy, as published, logistic, logistic_phi, gaussian, reciprocal or optimal.",
            metavar="NAME",
        ),
    ] = None,
    preorder: Annotated[
        bool | None,
        setting("Sort positives and negatives by distance before the network (Table 8b).", "--preorder/--no-preorder"),
    ] = None,
    stop_gradient: Annotated[
        bool | None,
        setting(
            "Stop the gradient through what the anchor is compared with (section 4.1).",
            "--stop-gradient/--no-stop-gradient",
        ),
    ] = None,
    temperature: Annotated[float | None, setting("Temperature of infonce.", metavar="X")] = None,
    margin: Annotated[float | None, setting("Margin of triplet; may be inf.", metavar="X")] = None,
    epochs: Annotated[int | None, setting("Passes over the training images.", metavar="N")] = None,
    batch_size: options.BatchSize = None,
    micro_batch: options.MicroBatch = None,
    optimizer: Annotated[str | None, setting("Optimiser: sgd, lars or adamw.", metavar="NAME")] = None,
    learning_rate: Annotated[float | None, setting("Learning rate for a batch of 256.", "--lr", metavar="LR")] = None,
    lr_scaling: Annotated[
        str | None, setting("How --lr scales with the batch size: linear or sqrt.", metavar="NAME")
    ] = None,
    weight_decay: Annotated[float | None, setting("Weight decay.", metavar="X")] = None,
    momentum: Annotated[float | None, setting("Momentum of sgd and lars.", metavar="X")] = None,
    warmup_epochs: Annotated[int | None, setting("Epochs of linear learning-rate warm-up.", metavar="N")] = None,
    augmentation: options.Augmentation = None,
    views: options.Views = None,
    local_views: options.LocalViews = None,
    image_size: options.ImageSize = None,
    local_size: options.LocalSize = None,
    crop_scale: options.CropScale = None,
    local_crop_scale: options.LocalCropScale = None,
    interpolation: options.Interpolation = None,
    brightness: options.Brightness = None,
    contrast: options.Contrast = None,
    saturation: options.Saturation = None,
    hue: options.Hue = None,
    jitter: options.Jitter = None,
    grey: options.Grey = None,
    blur: options.Blur = None,
    blur_sigma: options.BlurSigma = None,
    solarise: options.Solarise = None,
    flip: options.Flip = None,
    view_precision: options.ViewPrecision = None,
    on_bad_image: Annotated[
        str | None,
        setting("When an image cannot be decoded: error, or skip to put another in its place.", metavar="NAME"),
    ] = None,
    class_mates: Annotated[
        float | None,
        setting("Mean number of images of its own class that an image meets in its batch (Table 8d: 3).", metavar="X"),
    ] = None,
    subset: Annotated[
        int | None,
        setting("Only N training images: evenly spread ones of files and shards, else the first; 0: all.", metavar="N"),
    ] = None,
    save_every: Annotated[
        str | None,
        setting("How often to save the resumable state; several joined by commas.", metavar="N|Nsteps|Nmin"),
    ] = None,
    keep: Annotated[int | None, setting("Newest resumable states to keep.", metavar="N")] = None,
    milestones: Annotated[
        int | None, setting("Epochs between checkpoints kept for good; 0: only the last.", metavar="N")
    ] = None,
    log_every: Annotated[
        int | None, setting("Steps between lines of metrics.jsonl; an epoch's last has one too.", metavar="N")
    ] = None,
    knn_every: Annotated[
        int | None, setting("Epochs between k-NN scores of the curve; 0: only first and last.", metavar="N")
    ] = None,
    gpus: Annotated[
        int | None, setting("GPUs per machine, one process each; the batch is divided among all.", metavar="N")
    ] = None,
    processes: Annotated[int | None, setting("CPU processes, in place of --gpus.", metavar="N")] = None,
    nodes: Annotated[int | None, setting("Machines; type the same command on each.", metavar="N")] = None,
    rdzv: Annotated[
        str | None, setting("Where several machines meet; HOST is one of them.", metavar="HOST:PORT")
    ] = None,
    process_timeout: Annotated[
        int | None, setting("Minutes to wait for a process that does not answer.", metavar="MINUTES")
    ] = None,
    log_to: Annotated[
        list[str] | None, setting("Log to tensorboard or wandb as well; may be given again.", metavar="NAME")
    ] = None,
    device: options.DeviceSetting = None,
    precision: options.Precision = None,
    compile: options.Compile = None,
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

    from groco_cli.distributed import launch
    from groco_cli.distributed.place import place
    from groco_cli.engine import configuration, run_folder
    from groco_cli.engine.environment import from_environment
    from groco_cli.engine.metrics import read_metrics

    variables = from_environment(os.environ).under(given | {"recipe": recipe})
    overrides = configuration.by_section(given | variables.settings)
    decided: tuple[str, ...] = ()
    with variables.blamed():
        if resume:
            if recipe or config:
                raise UsageError("--resume takes the run's own settings", "leave out --recipe and --config")
            there = overrides.get("run", {}).get("output")
            folder = run_folder.run_to_resume(Path(there) if there else None)
            decided = () if there else ("--output", str(folder.path))  # the newest may soon be another
            settings = configuration.resume_settings(folder.settings, overrides)
        else:
            folder, settings = None, configuration.resolve(recipe or variables.recipe, config, overrides)
    if launch.started(settings.run.launch(), also=decided):
        return  # the first of the processes has shown the result

    here = place(os.environ)
    is_first = here is None or here.rank == 0
    if is_first:
        variables.announce()
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
    rows = [[name, where] for name, where in files.items()]
    scores = None
    if knn:
        first, last, best = knn[0], knn[-1], max(knn, key=lambda line: line["top1"])
        scores = {"untrained": first["top1"], "trained": last["top1"], "k": last["k"]}
        scores |= {"best": best["top1"], "best_epoch": best["epoch"]}
        shown = f"{first['top1']:.1%} untrained, {last['top1']:.1%} trained"
        rows.append([f"k-NN, k={last['k']}", f"{shown} (best {best['top1']:.1%}, epoch {best['epoch']})"])
    console.result(files | {"knn": scores}, console.listing(rows), as_json=as_json)
    console.note(f"now type: groco knn {shlex.quote(str(run.path))}" if knn else f"the encoder is in {run.latest}")
