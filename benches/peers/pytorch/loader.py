"""Loading cells for pretraining, on request: reads lines from standard input, loads an epoch's worth for each, answers with seconds.

A cell is masked as the paper says: 30 % of its genes are hidden and become targets, half as many unseen genes join them with
target 0; at most 3,000 genes go in and 1,000 targets come out. Both ways have the whole matrix in memory, normalised and
logged before the clock starts.

- authors: a dataset of one scipy row, Python sets and tensors a cell, behind torch's DataLoader
- numpy: the arrays of the matrix themselves, a few vectorised calls a cell, batches by length
"""

import argparse
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import h5py
import numpy as np
import scipy.sparse as sp
import torch
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import DataLoader, Dataset, SubsetRandomSampler

MASKED, MAX_INPUT, MAX_TARGETS = 0.3, 3000, 1000


def read(path: Path) -> sp.csr_matrix:
    with h5py.File(path) as file:
        group = file["X"]
        shape = tuple(group.attrs["shape"])
        cells = sp.csr_matrix((group["data"][:], group["indices"][:], group["indptr"][:]), shape=shape)
    totals = np.asarray(cells.sum(axis=1)).ravel()
    cells.data = np.log1p(cells.data * np.repeat(1e4 / totals, np.diff(cells.indptr))).astype(np.float32)
    return cells


class MaskedCells(Dataset):
    def __init__(self, cells: sp.csr_matrix) -> None:
        self.cells = cells
        self.genes = set(range(cells.shape[1]))
        self.tokens = torch.arange(1, cells.shape[1] + 1)

    def __len__(self) -> int:
        return self.cells.shape[0]

    def __getitem__(self, index: int) -> tuple[torch.Tensor, ...]:
        row = self.cells[index]
        n_seen = len(row.indices)
        n_hidden = int(n_seen * MASKED)
        unseen = self.genes - set(row.indices)
        hidden = np.random.choice(n_seen, n_hidden, replace=False)
        shown = np.setdiff1d(np.arange(n_seen), hidden)[:MAX_INPUT]
        zeros = [unseen.pop() for _ in range(n_hidden // 2)]
        targets = np.concatenate([row.indices[hidden], zeros]).astype(np.int64)
        values = np.concatenate([row.data[hidden], np.zeros(len(zeros))])
        kept = torch.randperm(len(targets))[:MAX_TARGETS]
        return (
            torch.tensor(row.data[shown]),
            self.tokens[row.indices[shown]],
            torch.tensor(values)[kept],
            self.tokens[targets][kept],
        )


def collate(cells: list[tuple[torch.Tensor, ...]]) -> list[torch.Tensor]:
    return [pad_sequence(part, batch_first=True) for part in zip(*cells, strict=True)]


def authors(cells: sp.csr_matrix, batch: int, n_cells: int) -> Iterator[int]:
    dataset = MaskedCells(cells)
    chosen = SubsetRandomSampler(range(min(n_cells, len(dataset))))
    for genes, *_ in DataLoader(dataset, batch_size=batch, sampler=chosen, collate_fn=collate):
        yield genes.shape[0]


def vectorised(cells: sp.csr_matrix, batch: int, n_cells: int) -> Iterator[int]:
    random = np.random.default_rng(0)
    data, indices, starts = cells.data, cells.indices, cells.indptr
    n_genes = cells.shape[1]
    tokens = np.arange(1, n_genes + 1)

    def masked(index: int) -> tuple[np.ndarray, ...]:
        seen, values = indices[starts[index] : starts[index + 1]], data[starts[index] : starts[index + 1]]
        n_hidden = int(len(seen) * MASKED)
        order = random.permutation(len(seen))
        hidden, shown = order[:n_hidden], order[n_hidden : n_hidden + MAX_INPUT]
        zeros = random.integers(0, n_genes, 2 * (n_hidden // 2) + 8)
        found = seen[np.minimum(np.searchsorted(seen, zeros), len(seen) - 1)]
        zeros = zeros[found != zeros][: n_hidden // 2]
        targets = np.concatenate([seen[hidden], zeros])
        expected = np.zeros(len(targets), np.float32)
        expected[:n_hidden] = values[hidden]
        if len(targets) > MAX_TARGETS:
            kept = random.permutation(len(targets))[:MAX_TARGETS]
            targets, expected = targets[kept], expected[kept]
        return values[shown], tokens[seen[shown]], expected, tokens[targets]

    order = random.permutation(min(n_cells, cells.shape[0]))
    order = order[np.argsort(np.diff(starts)[order])]
    for start in range(0, len(order), batch):
        members = [masked(index) for index in order[start : start + batch]]
        for part in zip(*members, strict=True):
            padded = np.zeros((len(part), max(map(len, part))), part[0].dtype)
            for row, values in zip(padded, part, strict=True):
                row[: len(values)] = values
            torch.from_numpy(padded)
        yield len(members)


def peak_bytes() -> int:
    status = Path("/proc/self/status").read_text()
    return 1024 * int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM:")))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--cells", type=Path, required=True)
    parser.add_argument("--way", choices=["authors", "numpy"], required=True)
    parser.add_argument("--batch", type=int, required=True)
    parser.add_argument("--n-cells", type=int, required=True)
    arguments = parser.parse_args()
    torch.set_num_threads(2)
    cells = read(arguments.cells)
    way = {"authors": authors, "numpy": vectorised}[arguments.way]
    for _ in sys.stdin:
        start, before = time.perf_counter(), time.process_time()
        n_loaded = sum(way(cells, arguments.batch, arguments.n_cells))
        answer = {"seconds": time.perf_counter() - start, "cpu_seconds": time.process_time() - before}
        print(json.dumps({**answer, "cells": n_loaded}), flush=True)
    print(json.dumps({"peak_bytes": peak_bytes()}), flush=True)


if __name__ == "__main__":
    main()
