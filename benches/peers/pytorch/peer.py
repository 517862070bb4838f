"""One task in PyTorch, on request: reads lines from standard input, does the task once for each, answers with seconds.

At the end of input it answers with its peak memory. Cells come as lines "genes targets" of a file, so that both sides of a
comparison have the same; which genes, and what values, is random and does not matter to the time. For the spatial models
a line is a spot, and its genes are those of the slice.
"""

import argparse
import json
import resource
import sys
import time

import numpy as np
import torch
from torch.nn.functional import cross_entropy
from torch.nn.utils.rnn import pad_sequence

from model import Annotator, Encoder, Implementation, Pretraining, masked_mean_squared_error
from slices import epochs

N_CLASSES = 11
SPATIAL = ["stagate", "cellpatch-stagate"]


def make_cells(lengths: np.ndarray) -> list[tuple[torch.Tensor, ...]]:
    random = np.random.default_rng(0)

    def cell(n_genes: int, n_targets: int) -> tuple[torch.Tensor, ...]:
        genes = random.integers(1, 60_665, n_genes + n_targets)
        values = random.uniform(0.3, 6, n_genes + n_targets).astype(np.float32)
        parts = values[:n_genes], genes[:n_genes], values[n_genes:], genes[n_genes:]
        return tuple(torch.from_numpy(part) for part in parts)

    return [cell(*row) for row in lengths]


def make_batches(cells: list, size: int, by_length: bool) -> list[list[torch.Tensor]]:
    """Batches padded to their longest cell; cells of similar length together, or as they come."""
    order = sorted(range(len(cells)), key=lambda i: len(cells[i][0])) if by_length else range(len(cells))
    chosen = [[cells[i] for i in list(order)[start : start + size]] for start in range(0, len(cells), size)]
    return [[pad_sequence(part, batch_first=True) for part in zip(*batch)] for batch in chosen]


def optimizer(model: torch.nn.Module, best: bool, rate: float, decay: float) -> torch.optim.Optimizer:
    return torch.optim.Adam(model.parameters(), lr=rate, weight_decay=decay, fused=best or None)


def task(arguments: argparse.Namespace):
    implementation = Implementation(arguments.implementation)
    best = implementation is not Implementation.AUTHORS
    if arguments.task in SPATIAL:
        sizes = np.loadtxt(arguments.cells, dtype=int, ndmin=2)
        return epochs(arguments.task, implementation, len(sizes), int(sizes[0, 0]), arguments.dropout)
    cells = make_cells(np.loadtxt(arguments.cells, dtype=int, ndmin=2))
    batches = make_batches(cells, arguments.batch, by_length=best)
    # Of inputs, and of targets.
    padded = [tuple(bool((batch[part] == 0).any()) for part in (1, 3)) for batch in batches]
    device = arguments.device
    # Feeding a card is measured by itself: here all batches lie there before, for every side.
    batches = [[part.to(device) for part in batch] for batch in batches]
    autocast = torch.autocast(device, torch.bfloat16, enabled=arguments.precision == "bf16")
    def compiled(f):
        if not arguments.compile:
            return f
        # Graphs are recorded for each shape; without them one program serves all shapes.
        return torch.compile(f, mode="reduce-overhead", dynamic=False) if arguments.graphs else torch.compile(f, dynamic=True)


    if arguments.task == "pretrain":
        model = Pretraining(implementation, arguments.dropout).train().to(device)
        adam = optimizer(model, best, 1e-4, 5e-5)
        forward = compiled(model)

        def step(padded, values, genes, expected, targets):
            adam.zero_grad()
            with autocast:
                prediction = forward(values, genes, targets, padded)
            masked_mean_squared_error(prediction.float(), expected, targets).backward()
            adam.step()
    elif arguments.task == "annotate":
        model = Annotator(implementation, arguments.dropout, N_CLASSES).train()
        adam = optimizer(model, best, 1e-3, 5e-4)

        def step(padded, values, genes, _expected, _targets):
            labels = torch.arange(len(values)) % N_CLASSES
            adam.zero_grad()
            cross_entropy(model(values, genes, padded[0]), labels).backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 5.0)
            adam.step()
    else:
        encoder = Encoder(implementation).eval().to(device)
        if implementation is Implementation.TABLE:
            encoder.make_table()
        forward = compiled(encoder)

        def step(padded, values, genes, _expected, _targets):
            with torch.inference_mode(), autocast:
                encoder.latent(forward(values, genes, padded[0]))

    def run() -> None:
        for batch, has_padding in zip(batches, padded):
            if arguments.graphs:
                torch.compiler.cudagraph_mark_step_begin()
            step(has_padding, *batch)
        if device != "cpu":
            torch.cuda.synchronize()

    return run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--task", choices=["pretrain", "infer", "annotate", *SPATIAL], required=True)
    parser.add_argument("--implementation", choices=[i.value for i in Implementation], required=True)
    parser.add_argument("--cells", required=True, help="a file with a line 'genes targets' for each cell")
    parser.add_argument("--batch", type=int, required=True)
    parser.add_argument("--dropout", type=float, default=0.0)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--precision", choices=["f32", "tf32", "bf16"], default="f32")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--graphs", action="store_true", help="with --compile: record CUDA graphs")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    torch.backends.cuda.matmul.allow_tf32 = arguments.precision != "f32"
    run = task(arguments)
    for _ in sys.stdin:
        start = time.perf_counter()
        run()
        print(json.dumps({"seconds": time.perf_counter() - start}), flush=True)
    on_card = arguments.device != "cpu"
    peak = torch.cuda.max_memory_reserved() if on_card else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(json.dumps({"peak_bytes": peak, "version": torch.__version__}), flush=True)


if __name__ == "__main__":
    main()
