"""How a bank is searched, as it may be asked for."""

from dataclasses import dataclass

from groco_cli.errors import UsageError

KINDS = ("exact", "ivf")
LEAST_MEMORY = 64 * 10**6  # bytes; FAISS takes half of it for itself
_UNITS = {"": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30}


@dataclass(frozen=True, kw_only=True)
class IndexOptions:
    """What to search with.

    Args:
        kind: "exact", or "ivf": only the lists nearest to the query (FAISS's IndexIVFFlat, on the CPU).
        ivf_above: With "ivf", banks of at most so many are searched exactly.
        lists: Of ivf; 0 for 4 √n, or fewer where that leaves less than 39 of the bank a list.
        probes: How many lists are searched for each query; 0 for one in 16.
        half: Keep the bank in fp16 on the GPU; products are summed in float32.
        gpus: On how many GPUs the bank is spread, from the chosen one on.
        memory: What the search may take beside bank and results, bytes: queries are searched in blocks that fit.

    Raises:
        UsageError: For a value that cannot be.
    """

    kind: str = "exact"
    ivf_above: int = 0
    lists: int = 0
    probes: int = 0
    half: bool = False
    gpus: int = 1
    memory: int = 10**9

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise UsageError(f"--index {self.kind}: no such index", f"type one of {', '.join(KINDS)}")
        for name, value, least in (
            ("--ivf-above", self.ivf_above, 0),
            ("--ivf-lists", self.lists, 0),
            ("--ivf-probes", self.probes, 0),
            ("--search-gpus", self.gpus, 1),
            ("--search-memory", self.memory, LEAST_MEMORY),
        ):
            if value < least:
                raise UsageError(f"{name} {value} is too little", f"type {least} or more")
        if self.kind == "exact" and (self.ivf_above or self.lists or self.probes):
            raise UsageError("--ivf-above, --ivf-lists and --ivf-probes are of an IVF index", "type --index ivf")
        if self.kind == "ivf" and (self.half or self.gpus > 1):
            raise UsageError("an IVF index is searched on the CPU", "leave --half and --search-gpus out")
        if self.lists and self.probes > self.lists:
            raise UsageError(
                f"--ivf-probes {self.probes} is more than the {self.lists} lists", f"type {self.lists} or less"
            )


def parse_bytes(text: str) -> int:
    """The number of bytes in "2GB", "512MiB" or "1000000".

    Raises:
        UsageError: For anything else.
    """
    number = text.strip().upper().rstrip("GMKIB")
    unit = text.strip().upper()[len(number) :]
    try:
        return int(float(number) * _UNITS[unit])
    except (KeyError, ValueError, OverflowError):
        raise UsageError(f"--search-memory {text}: not an amount of memory", "type 2GB or 512MB") from None
