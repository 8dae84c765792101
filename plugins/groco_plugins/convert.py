"""`groco convert`: an encoder from one format to another; the work is `groco_cli.models`."""

from pathlib import Path
from typing import Annotated

import typer

from groco_cli import console, options
from groco_cli.errors import GrocoError, UsageError, did_you_mean

FORMATS = ("groco", "timm", "torchvision")


def convert(
    source: Annotated[
        Path, typer.Argument(metavar="IN", help="A checkpoint, groco's or a released one, or a run's folder.")
    ],
    target: Annotated[Path, typer.Argument(metavar="OUT", help="The .safetensors to write.")],
    to: Annotated[str, typer.Option("--to", metavar="NAME", help="Format: groco, timm or torchvision.")] = "groco",
    method: Annotated[
        str,
        typer.Option(
            "--method", metavar="NAME", help="What trained it, where the file does not say: dino, byol, simclr, …."
        ),
    ] = "",
    force: Annotated[bool, typer.Option("--force", help="Overwrite OUT.")] = False,
    as_json: options.Json = False,
) -> None:
    """Convert a checkpoint to groco's format, or to plain timm or torchvision weights.

    What it is, is told by what lies in it, never by running anything; a checkpoint that lacks a weight is refused.
    What is written has been loaded into the library's own model and gave the same features.
    """
    if to not in FORMATS:
        raise UsageError(f"--to {to}: no such format", did_you_mean(to, FORMATS) or f"type {', '.join(FORMATS)}")
    if target.suffix != ".safetensors":
        raise UsageError(f"{target} is no .safetensors, which is all that is written", "let OUT end in .safetensors")
    if target.exists() and not force:
        raise UsageError(f"{target} is there already", "name another, or type --force to overwrite it")

    from dataclasses import replace

    from groco_cli import __version__
    from groco_cli.engine.run_folder import checkpoint_at
    from groco_cli.evaluation.protocol import read_encoder
    from groco_cli.files import atomic_write
    from groco_cli.models.containers import CheckpointError
    from groco_cli.models.conversion import save_checkpoint, save_for_library
    from groco_cli.models.export import export
    from groco_cli.models.released import METHODS

    if method and method not in METHODS:
        raise UsageError(
            f"--method {method}: not known", did_you_mean(method, METHODS) or f"type one of {', '.join(METHODS)}"
        )
    source = checkpoint_at(source)
    encoder = read_encoder(source, method=method)
    encoder.metadata = metadata = replace(encoder.metadata, groco_version=__version__)
    build = "groco_cli.models.load_encoder"
    if to == "groco":
        with atomic_write(target) as temporary:
            save_checkpoint(temporary, encoder, {})
    else:
        try:
            exported = export(encoder, to)
        except CheckpointError as error:
            raise GrocoError(f"{source} --to {to}: {error}", error.hint) from error
        with atomic_write(target) as temporary:
            save_for_library(temporary, encoder, exported)
        build = exported.build

    facts = {
        "input": str(source),
        "output": str(target),
        "to": to,
        "recognised": encoder.recognised or "groco's own",
        "arch": metadata.arch,
        "method": metadata.method,
        "image_size": metadata.image_size,
        "mean": metadata.mean,
        "std": metadata.std,
        "tensors": len(encoder.backbone.state_dict()),
        "build": build,
    }
    shown = console.listing([[name.replace("_", " "), str(value)] for name, value in facts.items()])
    console.result(facts, shown, as_json=as_json)
