"""Which backbone a dictionary of weights is, by its names and shapes alone.

ResNets by torchvision's names, which timm's have too; ViTs by timm's or torchvision's. The backbone is always timm's,
so that one architecture has one name here wherever its weights came from.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from groco_cli.models.containers import CheckpointError
from groco_cli.models.vit_names import in_timms_names

# Blocks in each stage, by kind of block (He et al., 2016, table 1; ResNet-200: its identity-mappings sequel).
_BASIC = {"18": (2, 2, 2, 2), "34": (3, 4, 6, 3)}
_BOTTLENECK = {"50": (3, 4, 6, 3), "101": (3, 4, 23, 3), "152": (3, 8, 36, 3), "200": (3, 24, 36, 3)}
_VITS = {192: "tiny", 384: "small", 768: "base", 1024: "large", 1280: "huge"}  # by width


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """A backbone, and weights in its own names.

    Args:
        arch: timm's name.
        title: For people: "ResNet-50", "ViT-S/16".
        state: The weights.
        stem: "imagenet", or "small" where the first convolution is 3×3.
        image_size: Side of the square it looks at, pixels.
        heads: Attention heads where they are not timm's number for this name, else 0.
    """

    arch: str
    title: str
    state: Mapping[str, Tensor]
    stem: str = "imagenet"
    image_size: int = 224
    heads: int = 0

    @property
    def resize(self) -> int:
        """What the shorter side is resized to before the centre crop: 256 for 224; small pictures stay whole."""
        return self.image_size if self.image_size < 96 else round(self.image_size * 256 / 224)


def identify(state: Mapping[str, Tensor]) -> Architecture:
    """Tell the backbone from its weights, classifier and heads removed.

    Whether they are all there is not looked at: building it and comparing names and shapes shows that.

    Args:
        state: Weights by the backbone's own names.

    Raises:
        CheckpointError: If they are of no ResNet or ViT that timm has.
    """
    state = in_timms_names(_in_stages(state))
    if any(name.startswith("layer1.") for name in state):
        return _resnet(state)
    if any(name.startswith("blocks.") for name in state):
        return _vit(state)
    raise CheckpointError(f"these are weights of no ResNet or ViT: {', '.join(list(state)[:3])}, …")


def mismatch(wanted: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> str:
    """How weights differ from a model's, in names and shapes; "" where they are the model's.

    Args:
        wanted: The model's.
        state: Those that are to be put in their place.
    """
    missing = [name for name in wanted if name not in state]
    foreign = [name for name in state if name not in wanted]
    misshapen = [name for name in wanted if name in state and wanted[name].shape != state[name].shape]
    for names, wrong in ((missing, "missing"), (foreign, "not of it"), (misshapen, "of another shape")):
        if names:
            return f"see {', '.join(names[:5])}{', …' if len(names) > 5 else ''} ({len(names)} {wrong})"
    return ""


def _in_stages(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Name the children of `nn.Sequential(*list(resnet.children())[:-1])` again, as lightly's tutorials hold it."""
    if not any(re.match(r"4\.\d+\.conv1\.", name) for name in state):
        return dict(state)
    names = {"0": "conv1", "1": "bn1", "4": "layer1", "5": "layer2", "6": "layer3", "7": "layer4"}
    split = {name: name.partition(".") for name in state}
    return {f"{names.get(first, first)}.{rest}": state[name] for name, (first, _, rest) in split.items()}


def _resnet(state: Mapping[str, Tensor]) -> Architecture:
    blocks = [_count(state, rf"layer{stage}\.(\d+)\.") for stage in (1, 2, 3, 4)]
    bottleneck = any(re.match(r"layer\d\.\d+\.conv3\.", name) for name in state)
    known = _BOTTLENECK if bottleneck else _BASIC
    # The smallest with all the blocks there are, so that one which is missing is missed rather than the whole.
    depth = next((d for d, sizes in known.items() if all(b <= s for b, s in zip(blocks, sizes, strict=True))), None)
    stem, inner = (_of_ndim(4, state.get(name)) for name in ("conv1.weight", "layer1.0.conv2.weight"))
    width = 64 if stem is None else stem.shape[0]
    if depth is None or width != 64:
        raise CheckpointError(
            f"a ResNet of {'-'.join(map(str, blocks))} blocks and width {width} is not one that timm has",
            "ResNet-18, 34, 50, 101, 152 and 200 of width 64 can be read",
        )
    wide = bottleneck and inner is not None and inner.shape[0] == 128
    arch, title = (f"wide_resnet{depth}_2", f"Wide ResNet-{depth}-2") if wide else (f"resnet{depth}", f"ResNet-{depth}")
    if stem is not None and stem.shape[-1] == 3:
        return Architecture(arch=arch, title=f"{title}, small stem", state=state, stem="small", image_size=32)
    return Architecture(arch=arch, title=title, state=state)


def _vit(state: Mapping[str, Tensor]) -> Architecture:
    import timm  # takes a second

    patches = _of_ndim(4, state.get("patch_embed.proj.weight"))
    positions = _of_ndim(3, state.get("pos_embed"))
    if patches is None or positions is None or not positions.numel():
        raise CheckpointError("a ViT without patch_embed.proj.weight or pos_embed: its patches and size are unknown")
    width, patch = patches.shape[0], patches.shape[-1]
    grid = math.isqrt(positions.shape[1] - 1)
    size = _VITS.get(width, "")
    arch = f"vit_{size}_patch{patch}_224"
    if not size or not timm.is_model(arch) or grid * grid != positions.shape[1] - 1:
        raise CheckpointError(
            f"a ViT of width {width}, patches of {patch} pixels and {positions.shape[1]} places is none that timm has"
        )
    return Architecture(
        arch=arch,
        title=f"ViT-{size[0].upper() if size != 'tiny' else 'Ti'}/{patch}",
        state=state,
        image_size=grid * patch,
        heads=_heads(positions[0, 1:], grid),
    )


def _heads(positions: Tensor, grid: int) -> int:
    """MoCo v3's ViTs have 12 heads at widths where timm's have 3 or 6; no shape tells, but their fixed positions do.

    Source: vits.py of facebookresearch/moco-v3 (ViT-S); solo/backbones/vit/vit_mocov3.py of solo-learn (ViT-Ti).
    """
    narrow = positions.shape[1] in (192, 384)
    return 12 if narrow and torch.allclose(positions.float(), _sines(grid, positions.shape[1]), atol=1e-2) else 0


def _sines(grid: int, width: int) -> Tensor:
    """The fixed position embedding of MoCo v3, [grid², width]: sines and cosines of the row, then of the column.

    MAE's has them the other way round.
    """
    frequencies = 10000.0 ** -(torch.arange(width // 4) / (width // 4))
    steps = torch.arange(grid, dtype=torch.float32)
    rows = steps.repeat_interleave(grid)[:, None] * frequencies
    columns = steps.repeat(grid)[:, None] * frequencies
    return torch.cat([rows.sin(), rows.cos(), columns.sin(), columns.cos()], dim=1)


def _of_ndim(ndim: int, tensor: Tensor | None) -> Tensor | None:
    """A tensor, where it has the dimensions that it should have: a file may hold anything under a name."""
    return tensor if tensor is not None and tensor.ndim == ndim else None


def _count(state: Mapping[str, Tensor], pattern: str) -> int:
    """One more than the largest number that a pattern finds in the names; 0 for none."""
    found = (re.match(pattern, name) for name in state)
    return 1 + max((int(match[1]) for match in found if match), default=-1)
