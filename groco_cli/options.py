"""The options that several plug-ins share: one name, one help text, one meaning."""

from pathlib import Path
from typing import Annotated, Any

import typer


def setting(help_text: str, *names: str, metavar: str | None = None) -> Any:
    """An option that overrides one value of the recipe, which `groco recipes NAME` shows."""
    return typer.Option(*names, help=help_text, metavar=metavar, show_default=False)


Json = Annotated[bool, typer.Option("--json", help="Print the result as one JSON object on stdout.")]
Checkpoints = Annotated[
    list[Path] | None,
    typer.Argument(
        metavar="CKPT", help="Checkpoints, or runs' folders; several are compared.", show_default="the newest run's"
    ),
]
Csv = Annotated[
    Path | None,
    typer.Option("--csv", metavar="FILE", help="Write the table as CSV, at full precision.", show_default=False),
]
Latex = Annotated[
    Path | None,
    typer.Option("--latex", metavar="FILE", help="Write the table as LaTeX (booktabs).", show_default=False),
]
Paper = Annotated[bool, typer.Option("--paper", help="Put the paper's rows beside it, where it has any.")]
_DEVICE = "Device: auto, cpu, cuda, cuda:N or mps; auto takes the first GPU there is."
Device = Annotated[str, typer.Option("--device", metavar="NAME", help=_DEVICE)]
DeviceSetting = Annotated[str | None, typer.Option("--device", metavar="NAME", help=_DEVICE, show_default="auto")]
Gpus = Annotated[
    int | None,
    typer.Option(
        "--gpus", metavar="N", help="GPUs to run on, one process each.", show_default="the one that --device names"
    ),
]
Processes = Annotated[
    int | None,
    typer.Option("--processes", metavar="N", help="CPU processes, in place of --gpus.", show_default="1"),
]
Precision = Annotated[
    str | None,
    typer.Option(
        "--precision",
        metavar="NAME",
        help="Precision: auto, fp32, bf16 or fp16; auto is bf16 where the hardware has it.",
        show_default="auto",
    ),
]
_DATA = (
    "A folder of images, a list of them (.txt, .csv, .tsv), WebDataset shards ('path-{000..639}.tar', also by URL), a "
    "Hugging Face folder, or a named set: digits (embedded), cifar10 and others."
)
Data = Annotated[
    str | None,
    typer.Option("--data", metavar="PATH|NAME", help=_DATA, envvar="GROCO_DATA", show_default=False),
]
DataArgument = Annotated[
    str | None,
    typer.Argument(metavar="PATH|NAME", help=_DATA, envvar="GROCO_DATA", show_default=False),
]
DataRoot = Annotated[
    Path | None,
    typer.Option(
        "--data-root",
        metavar="DIR",
        help="Where named sets are kept, and downloaded to.",
        envvar="GROCO_DATA_ROOT",
        show_default="~/.cache/groco",
    ),
]
Workers = Annotated[
    int | None,
    typer.Option(
        "--workers",
        metavar="N",
        min=0,
        help="Processes that decode images; for each of --gpus or --processes, where there are several.",
        show_default="from the cores",
    ),
]

# Features kept on disk: `groco_cli.evaluation.feature_cache`.
Cache = Annotated[
    Path | None,
    typer.Option(
        "--cache",
        metavar="DIR",
        help="Folder that features are kept in, to be found again.",
        show_default="features in --data-root",
    ),
]
NoCache = Annotated[bool, typer.Option("--no-cache", help="Keep features in memory alone.")]
CacheDtype = Annotated[
    str | None,
    typer.Option("--cache-dtype", metavar="NAME", help="What features are kept in: fp32 or fp16.", show_default="fp32"),
]

# The search for nearest neighbours: `groco_cli.evaluation.index.IndexOptions`.
Index = Annotated[
    str,
    typer.Option(
        "--index", metavar="NAME", help="Search: exact, or ivf, only the nearest lists of the bank (FAISS, on the CPU)."
    ),
]
Half = Annotated[bool, typer.Option("--half", help="Search in fp16, summed in float32; on CUDA GPUs.")]
SearchMemory = Annotated[
    str, typer.Option("--search-memory", metavar="BYTES", help="Memory that a search may take beside the bank.")
]
SearchGPUs = Annotated[int, typer.Option("--search-gpus", metavar="N", help="GPUs that the bank is divided among.")]
IVFAbove = Annotated[
    int, typer.Option("--ivf-above", metavar="N", help="With ivf: search banks of up to N images exactly.")
]
IVFLists = Annotated[
    int, typer.Option("--ivf-lists", metavar="N", help="With ivf: lists of the bank.", show_default="4 √n")
]
IVFProbes = Annotated[
    int,
    typer.Option("--ivf-probes", metavar="N", help="With ivf: lists searched per query.", show_default="one in 16"),
]

Seed = Annotated[int | None, typer.Option("--seed", metavar="N", help="Seed of all randomness.", show_default="0")]
Recipe = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="Named settings to start from; `groco recipes` lists them, `groco recipes NAME` shows every default.",
        show_default="the usual one for the data",
    ),
]
Config = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="Settings as TOML, over the recipe's; a run's settings.toml is one.",
        show_default=False,
    ),
]

# What learns and how: what is given overrides the recipe.
Arch = Annotated[str | None, setting("Backbone, by its timm or torchvision name.", metavar="NAME")]
BatchSize = Annotated[int | None, setting("Images per step, over all processes and machines.", metavar="N")]
MicroBatch = Annotated[
    int | None,
    setting("Images that a process encodes at once, to save memory; 0: its whole part of the batch.", metavar="N"),
]
Forward = Annotated[
    str | None, setting("Forward passes: joint, all views in one, or per-view, one per view.", metavar="NAME")
]
Compile = Annotated[bool | None, setting("Compile the networks with torch.compile.", "--compile/--no-compile")]

# The views, likewise.
Augmentation = Annotated[str | None, setting("Augmentations: dino, mocov3, simclr, small or digits.", metavar="NAME")]
Views = Annotated[
    int | None, setting("Global views per image, each a positive.", "--views", "--global-views", metavar="N")
]
LocalViews = Annotated[int | None, setting("Smaller views per image, anchors only (multi-crop).", metavar="N")]
ImageSize = Annotated[int | None, setting("Side of a global view, pixels.", metavar="N")]
LocalSize = Annotated[int | None, setting("Side of a local view, pixels.", metavar="N")]
CropScale = Annotated[
    tuple[float, float] | None, setting("Share of the image's area that a global view shows.", metavar="MIN MAX")
]
LocalCropScale = Annotated[
    tuple[float, float] | None, setting("Share of the image's area that a local view shows.", metavar="MIN MAX")
]
Interpolation = Annotated[str | None, setting("Resampling of crops: bicubic or bilinear.", metavar="NAME")]
Brightness = Annotated[float | None, setting("Colour jitter: largest relative change of the brightness.", metavar="X")]
Contrast = Annotated[float | None, setting("Colour jitter: largest relative change of the contrast.", metavar="X")]
Saturation = Annotated[float | None, setting("Colour jitter: largest relative change of the saturation.", metavar="X")]
Hue = Annotated[float | None, setting("Colour jitter: largest change of the hue, in turns, in [0, 0.5].", metavar="X")]
Jitter = Annotated[float | None, setting("Probability of colour jitter, in [0, 1].", metavar="PROB")]
Grey = Annotated[float | None, setting("Probability of greyscale.", metavar="PROB")]
Blur = Annotated[
    list[float] | None,
    setting("Probability of blur of a global view; given again, of each in turn.", metavar="PROB"),
]
BlurSigma = Annotated[tuple[float, float] | None, setting("Standard deviation of the blur, pixels.", metavar="MIN MAX")]
Solarise = Annotated[
    list[float] | None,
    setting("Probability of solarisation of a global view; given again, of each in turn.", metavar="PROB"),
]
Flip = Annotated[float | None, setting("Probability of a horizontal flip.", metavar="PROB")]
ViewPrecision = Annotated[str | None, setting("What colours and blur are computed in: fp32 or bf16.", metavar="NAME")]
