"""The options that several plug-ins share: one name, one help text, one meaning."""

from pathlib import Path
from typing import Annotated, Any

import typer


def setting(help_text: str, *names: str) -> Any:
    """An option that overrides one value of the recipe."""
    return typer.Option(*names, help=help_text, show_default=False)


Json = Annotated[bool, typer.Option("--json", help="Print the result as one JSON object on stdout.")]
Checkpoints = Annotated[
    list[Path] | None,
    typer.Argument(metavar="CKPT", help="Checkpoints, side by side.", show_default="the newest run's"),
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
Device = Annotated[
    str | None,
    typer.Option(
        "--device", help="auto, cpu, cuda, cuda:N or mps; auto takes the first GPU there is.", show_default="auto"
    ),
]
Gpus = Annotated[
    int | None,
    typer.Option("--gpus", help="GPUs to run on, one process each.", show_default="the one that --device names"),
]
Processes = Annotated[
    int | None, typer.Option("--processes", help="The same on a CPU: how many processes.", show_default="1")
]
Precision = Annotated[
    str | None,
    typer.Option(
        "--precision", help="auto, fp32, bf16 or fp16; auto is bf16 where the hardware has it.", show_default="auto"
    ),
]
_DATA = (
    "A folder of images, a list of them (.txt, .csv, .tsv), WebDataset shards ('path-{000..639}.tar', also by URL), a "
    "Hugging Face folder, or a named set: digits (embedded), cifar10, … Also from GROCO_DATA."
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
        help="Where named sets are kept, and downloaded to.",
        envvar="GROCO_DATA_ROOT",
        show_default="~/.cache/groco",
    ),
]
Workers = Annotated[
    int | None,
    typer.Option("--workers", min=0, help="Processes that decode images.", show_default="from the cores"),
]

# Features kept on disk: `groco_cli.evaluation.feature_cache`.
Cache = Annotated[
    Path | None,
    typer.Option(
        "--cache",
        metavar="DIR",
        help="Where features are kept, to be found again.",
        show_default="features in --data-root",
    ),
]
NoCache = Annotated[bool, typer.Option("--no-cache", help="Keep features in memory alone.")]
CacheDtype = Annotated[
    str | None,
    typer.Option("--cache-dtype", help="What features are kept in: fp32 or fp16.", show_default="fp32"),
]

# The search for nearest neighbours: `groco_cli.evaluation.index.IndexOptions`.
Index = Annotated[
    str, typer.Option("--index", help="exact, or ivf: only the nearest lists of the bank (FAISS, on the CPU).")
]
Half = Annotated[bool, typer.Option("--half", help="Search in fp16, summed in float32; on CUDA GPUs.")]
SearchMemory = Annotated[
    str, typer.Option("--search-memory", metavar="BYTES", help="What a search may take beside the bank.")
]
SearchGPUs = Annotated[int, typer.Option("--search-gpus", help="Spread the bank over so many GPUs.")]
IVFAbove = Annotated[int, typer.Option("--ivf-above", help="With ivf: search banks of up to so many exactly.")]
IVFLists = Annotated[int, typer.Option("--ivf-lists", help="With ivf: lists of the bank.", show_default="4 √n")]
IVFProbes = Annotated[
    int, typer.Option("--ivf-probes", help="With ivf: lists searched for a query.", show_default="one in 16")
]

Seed = Annotated[int | None, typer.Option("--seed", help="Seed of all randomness.", show_default="0")]
Recipe = Annotated[
    str | None, typer.Option(help="Named settings to start from.", show_default="the usual one for the data")
]
Config = Annotated[Path | None, typer.Option(help="Settings as TOML, over the recipe's; a run's settings.toml is one.")]

# What learns and how: what is given overrides the recipe.
Arch = Annotated[str | None, setting("Backbone, by its timm or torchvision name.")]
BatchSize = Annotated[int | None, setting("Images a step.")]
MicroBatch = Annotated[
    int | None, setting("Images that a process encodes at once, for less memory; 0 for its whole part of a batch.")
]
Forward = Annotated[str | None, setting("joint, or per-view: each view goes through the networks by itself.")]
Compile = Annotated[bool | None, setting("Have torch.compile make kernels for the networks.", "--compile/--no-compile")]

# The views, likewise.
Augmentation = Annotated[str | None, setting("dino, mocov3, simclr, small or digits.")]
Views = Annotated[int | None, setting("Global views an image, each a positive.", "--views", "--global-views")]
LocalViews = Annotated[int | None, setting("Smaller views, anchors only (multi-crop).")]
ImageSize = Annotated[int | None, setting("Side of a view, pixels.")]
LocalSize = Annotated[int | None, setting("Side of a local view, pixels.")]
CropScale = Annotated[tuple[float, float] | None, setting("Shares of the image that a view shows.")]
LocalCropScale = Annotated[tuple[float, float] | None, setting("Likewise, of a local view.")]
Interpolation = Annotated[str | None, setting("bicubic or bilinear.")]
JitterStrength = Annotated[float | None, setting("Strength of its jitter.")]
Hue = Annotated[float | None, setting("Strength of its jitter, in turns.")]
Jitter = Annotated[float | None, setting("How often these are applied.")]
Grey = Annotated[float | None, setting("How often a view loses its colours.")]
Blur = Annotated[list[float] | None, setting("How often a global view is blurred; given again, for each in turn.")]
BlurSigma = Annotated[tuple[float, float] | None, setting("Standard deviations of the blur, pixels.")]
Solarise = Annotated[list[float] | None, setting("How often a global view is solarised; as --blur.")]
Flip = Annotated[float | None, setting("How often a view is mirrored.")]
ViewPrecision = Annotated[str | None, setting("What colours and blur are computed in: fp32 or bf16.")]
