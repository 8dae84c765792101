"""Nearest neighbours: groco's index against the released code's evaluator, time and peak memory (Linux).

On the CPU: a bank of 200,000 random unit features of 512, 5,000 queries, k = 20, in one process, turn by turn, the best
of some rounds; peaks in a process each, above bank and queries. `--full`, on a CUDA GPU: ImageNet with a ResNet-50,
1,281,167 by 2,048, 50,000 queries, in fp16, by what groco takes there (FAISS) and by torch. `--bank`, `--queries` and
`--dim` give other sizes.
"""

import argparse
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from groco_cli.evaluation.index import Index, IndexOptions, open_index
from groco_cli.evaluation.index.blocks import feature_blocks
from groco_cli.evaluation.index.torch_index import TorchIndex

K, BATCH = 20, 256
SMALL = 200_000, 5_000, 512
IMAGENET = 1_281_167, 50_000, 2_048
Size = tuple[int, int, int]  # of the bank, the queries, a feature
Search = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


def unit_features(count: int, dim: int, seed: int, device: str = "cpu") -> Tensor:
    """Random unit vectors on the CPU, made in place: their peak is their size."""
    generator = torch.Generator(device).manual_seed(seed)
    features = torch.empty(count, dim)
    for block in feature_blocks(features):
        rows = torch.randn(block.stop - block.start, dim, generator=generator, device=device)
        features[block] = F.normalize(rows, dim=1)
    return features


def official(bank: Tensor, queries: Tensor) -> tuple[Tensor, Tensor]:
    """As the released code's evaluators/knn.py: a batch's similarities to the whole bank, and the k largest."""
    found = [(F.normalize(batch, dim=1) @ bank.T).topk(k=K, dim=-1) for batch in queries.split(BATCH)]
    return torch.cat([values for values, _ in found]), torch.cat([rows for _, rows in found])


def groco(bank: Tensor, queries: Tensor) -> tuple[Tensor, Tensor]:
    """The index that groco takes here, opened and searched."""
    return open_index(bank, K).search(queries, K)


def groco_torch(bank: Tensor, queries: Tensor) -> tuple[Tensor, Tensor]:
    """The index that groco takes where FAISS is absent."""
    return TorchIndex(bank, device=torch.device("cpu")).search(queries, K)


SEARCHES: dict[str, Search] = {"official": official, "groco": groco, "groco's torch": groco_torch}


def seconds(run: Callable[[], object]) -> float:
    """How long it takes, once."""
    begun = time.perf_counter()
    run()
    return time.perf_counter() - begun


def peak() -> float:
    """The most memory this process has had, GB; getrusage would count its parent's too."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return int(status.split("VmHWM:")[1].split()[0]) * 1024 / 1e9


def measure_peak(name: str, size: Size) -> None:
    """Print the peak of one search above bank and queries, GB."""
    count, asked, dim = size
    SEARCHES[name](unit_features(K, dim, 0), unit_features(2, dim, 1))  # what is loaded once
    bank, queries = unit_features(count, dim, 0), unit_features(asked, dim, 1)
    Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")  # from here on
    before = peak()
    SEARCHES[name](bank, queries)
    print(f"{peak() - before:.2f}")


def compare(size: Size, rounds: int) -> None:
    """Print times, peaks and what they make of ImageNet."""
    count, asked, dim = size
    bank, queries = unit_features(count, dim, 0), unit_features(asked, dim, 1)
    print(f"{count:,} x {dim}, {asked:,} queries, k = {K}, {torch.get_num_threads()} threads")
    print(f"groco: {open_index(bank[:K], K).backend}")
    expected, _ = official(bank, queries)
    for name, search in SEARCHES.items():
        similarities, rows = search(bank, queries)
        # Products of different libraries differ in the last bits: what is found has to be as near, to those.
        assert torch.allclose(similarities, expected, rtol=0, atol=1e-6), name
        products = torch.einsum("qkd,qd->qk", bank[rows[:500]], queries[:500])
        assert torch.allclose(products, expected[:500], rtol=0, atol=1e-6), name
        assert all(len(set(row)) == K for row in rows.tolist()), name
    times: dict[str, list[float]] = {name: [] for name in SEARCHES}
    for _ in range(rounds):
        for name, search in SEARCHES.items():
            times[name].append(seconds(lambda search=search: search(bank, queries)))  # type: ignore[misc]
    best = {name: min(taken) for name, taken in times.items()}
    larger = IMAGENET[0] * IMAGENET[1] * IMAGENET[2] / (count * asked * dim)
    given = ["--bank", str(count), "--queries", str(asked), "--dim", str(dim)]
    for name in SEARCHES:
        done = subprocess.run(
            [sys.executable, __file__, "--peak-of", name, *given], check=True, stdout=subprocess.PIPE, text=True
        )
        taken = ", ".join(f"{one:.1f}" for one in times[name])
        print(
            f"{name}: {best[name]:.2f} s (of {taken}), {best['official'] / best[name]:.2f} x official; "
            f"peak {done.stdout.strip()} GB above bank and queries; "
            f"ImageNet, {larger:.0f} times the products: {best[name] * larger / 60:.0f} min at this rate"
        )


@contextmanager
def taken_on_gpu() -> Iterator[list[int]]:
    """The most memory of the GPU in use above what was before, bytes: all that allocate on it, looked at every 2 ms."""
    torch.cuda.synchronize()
    before, most, done = torch.cuda.mem_get_info()[0], [0], threading.Event()

    def look() -> None:
        while not done.wait(0.002):
            most[0] = max(most[0], before - torch.cuda.mem_get_info()[0])

    watcher = threading.Thread(target=look)
    watcher.start()
    try:
        yield most
    finally:
        done.set()
        watcher.join()


def measure_on_gpu(size: Size) -> None:
    """Print the time and the GPU's peak memory of each library, and check a sample against whole float32."""
    count, asked, dim = size
    bank, queries = unit_features(count, dim, 0, "cuda"), unit_features(asked, dim, 1, "cuda")
    options, device = IndexOptions(half=True), torch.device("cuda", torch.cuda.current_device())
    print(f"{count:,} x {dim}, {asked:,} queries, k = {K}, {torch.cuda.get_device_name()}")
    sample = torch.arange(100) * asked // 100
    products = torch.cat([queries[sample].cuda() @ bank[block].cuda().T for block in feature_blocks(bank)], dim=1)
    exact = [part.cpu() for part in products.topk(K, dim=1)]
    del products
    opened: dict[str, Callable[[Tensor], Index]] = {
        "groco": lambda bank: open_index(bank, K, options=options, device=device),
        "groco's torch": lambda bank: TorchIndex(bank, device=device, half=True),
    }
    for name, open_one in opened.items():
        open_one(bank[: 2 * K]).search(queries[:2], K)  # what is loaded once
        torch.cuda.empty_cache()
        with taken_on_gpu() as most:
            begun = time.perf_counter()
            index = open_one(bank)
            torch.cuda.synchronize()
            filled = time.perf_counter()
            similarities, rows = index.search(queries, K)
            ended = time.perf_counter()
        print(f"{name}: {index.backend}")
        print(f"  bank to the GPU {filled - begun:.2f} s, search {ended - filled:.2f} s, both {ended - begun:.2f} s")
        print(f"  peak {most[0] / 1e9:.2f} GB of the GPU, context and kernels apart")
        same = sum(len(set(a) & set(b)) for a, b in zip(exact[1].tolist(), rows[sample].tolist(), strict=True))
        away = (exact[0] - similarities[sample]).abs().max()
        print(f"  of the neighbours in float32, {100 * same / exact[1].numel():.2f} % found; cosines within {away:.1e}")
        del index


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--full", action="store_true", help="ImageNet's size, on a CUDA GPU")
    parser.add_argument("--rounds", type=int, default=3, help="how often each search is timed")
    parser.add_argument("--peak-of", choices=SEARCHES, help="print this search's peak alone")
    for name in ("bank", "queries", "dim"):
        parser.add_argument(f"--{name}", type=int, help="instead of the usual size")
    given = parser.parse_args()
    usual = IMAGENET if given.full else SMALL
    size = given.bank or usual[0], given.queries or usual[1], given.dim or usual[2]
    if given.peak_of:
        measure_peak(given.peak_of, size)
    elif given.full:
        measure_on_gpu(size)
    else:
        compare(size, given.rounds)
