"""Speed of the compiled kernels. Run manually:

    python -m tests.benchmarks.kernel_speed [--threads 1 2] [--rows 1 512]

For every bit width and number of rows: time of a product, gigabytes of weights per second (and their share of the
memory bandwidth), and billions of operations per second (two per weight and row). The matrices of one bit width
together exceed any cache. `--cpu` measures the CPU time of the calling thread, for a busy machine, with one thread.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Sequence

import torch

from core.formats.quantized import QuantizedLinear
from core.inference.bandwidth import read_bandwidth
from core.inference.native import library, matrix
from core.schemes import LayerScheme

OUTPUTS, INPUTS = 2048, 5632
AT_LEAST = 128 << 20
"""Bytes of weights that one measurement goes through."""
WIDTHS = ("w2", "w3", "w4", "w4-planes2", "w4-asym", "w8", "bf16", "f32")


def made(width: str, group: int) -> matrix.Matrix:
    """Return a random matrix of this bit width."""
    generator = torch.Generator().manual_seed(1)
    if width in ("bf16", "f32"):
        dtype = torch.bfloat16 if width == "bf16" else torch.float32
        return matrix.dense(torch.randn(OUTPUTS, INPUTS, generator=generator).to(dtype))
    bits, sym = int(width[1]), not width.endswith("asym")
    scheme = LayerScheme(bits, group, sym)
    shape = (OUTPUTS, scheme.groups(INPUTS))
    ints = torch.randint(0, 1 << bits, (OUTPUTS, INPUTS), dtype=torch.uint8, generator=generator)
    middle = 1 << (bits - 1)
    zeros = torch.full(shape, middle) if sym else torch.randint(0, 1 << bits, shape, generator=generator)
    scales = torch.rand(shape, generator=generator).to(torch.float16) / 100
    layer = QuantizedLinear(width, scheme, ints, scales, zeros.to(torch.uint8))
    return matrix.pack(layer, None, 2 if width.endswith("planes2") else 1)


def timed(call: Callable[[], object], clock: Callable[[], float]) -> float:
    """Return the seconds of one call."""
    start = clock()
    call()
    return clock() - start


def measured(matrices: Sequence[matrix.Matrix], rows: int, threads: int, clock: Callable[[], float]) -> float:
    """Return the seconds of one product, the median of a few passes over all matrices."""
    x = torch.randn(rows, INPUTS)
    use = matrices if rows <= 16 else matrices[:2]

    def once() -> None:
        for each in use:
            matrix.linear(each, x, threads)

    once()
    return statistics.median(timed(once, clock) for _ in range(5)) / len(use)


def main() -> None:
    """Measure and print the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--rows", type=int, nargs="+", default=[1, 4, 8, 16, 64, 512])
    parser.add_argument("--widths", nargs="+", default=list(WIDTHS))
    parser.add_argument("--group", type=int, default=128)
    parser.add_argument(
        "--cpu", action="store_true", help="measure the CPU time of the calling thread; with --threads 1"
    )
    options = parser.parse_args()
    clock = time.thread_time if options.cpu else time.perf_counter
    print(f"{library.instructions()}, {OUTPUTS} x {INPUTS}, groups of {options.group}")
    for threads in options.threads:
        torch.set_num_threads(threads)
        reads = read_bandwidth().bytes_per_second
        print(f"\n{threads} threads; reads {reads / 1e9:.1f} GB/s")
        print(f"{'weights':<12}{'rows':>5}{'ms':>9}{'GB/s':>8}{'share':>7}{'GOP/s':>8}")
        for width in options.widths:
            first = made(width, options.group)
            matrices = [first, *(made(width, options.group) for _ in range(AT_LEAST // first.nbytes))]
            for rows in options.rows:
                seconds = measured(matrices, rows, threads, clock)
                rate, work = first.nbytes / seconds, 2 * rows * OUTPUTS * INPUTS / seconds
                figures = f"{seconds * 1e3:>9.3f}{rate / 1e9:>8.1f}{rate / reads:>7.0%}{work / 1e9:>8.0f}"
                print(f"{width:<12}{rows:>5}{figures}", flush=True)


if __name__ == "__main__":
    main()
