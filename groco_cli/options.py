"""The options that several plug-ins share: one name, one help text, one meaning."""

from pathlib import Path
from typing import Annotated

import typer

Json = Annotated[bool, typer.Option("--json", help="Print the result as one JSON object on stdout.")]
Device = Annotated[
    str | None,
    typer.Option(
        "--device", help="auto, cpu, cuda, cuda:N or mps; auto takes the first GPU there is.", show_default="auto"
    ),
]
Precision = Annotated[
    str | None,
    typer.Option(
        "--precision", help="auto, fp32, bf16 or fp16; auto is bf16 where the hardware has it.", show_default="auto"
    ),
]
Data = Annotated[
    str | None,
    typer.Option(
        "--data",
        metavar="PATH|NAME",
        help="A folder of images, a list of them (.txt, .csv, .tsv), WebDataset shards ('path-{000..639}.tar', also "
        "by URL), a Hugging Face folder, or a named set: digits (embedded), cifar10, … Also from GROCO_DATA.",
        envvar="GROCO_DATA",
        show_default=False,
    ),
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
Seed = Annotated[int | None, typer.Option("--seed", help="Seed of all randomness.", show_default="0")]
