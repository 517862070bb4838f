"""STAGATE and CellPatch+STAGATE in PyTorch: an epoch over a slice with random expression.

`Implementation.AUTHORS` copies a row for each edge and gives every spot its own keys and values at once; `Implementation.BEST`
aggregates by a sparse matrix product, and recomputes the patches of a few spots at a time in the backward pass.
"""

import math

import numpy as np
import torch
import torch.nn.functional as F
from scipy.spatial import cKDTree
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from model import N_PATCHES, WIDTH, Block, Implementation, N_GENES

HIDDEN, LATENT = 512, 30
# Spots whose patches are recomputed together.
CHUNK = 64


def hexagons(n_spots: int) -> np.ndarray:
    side = math.ceil(math.sqrt(n_spots))
    row, column = np.divmod(np.arange(n_spots), side)
    return np.stack([column + 0.5 * (row % 2), row * math.sqrt(0.75)], axis=1)


def edges_within(positions: np.ndarray, radius: float) -> Tensor:
    """[2, edges]: who is read and who reads, every spot itself too."""
    pairs = cKDTree(positions).query_pairs(radius, output_type="ndarray")
    itself = np.arange(len(positions))
    sources = np.concatenate([pairs[:, 0], pairs[:, 1], itself])
    targets = np.concatenate([pairs[:, 1], pairs[:, 0], itself])
    return torch.from_numpy(np.stack([sources, targets]))


class Stagate(nn.Module):
    """The decoder has the encoder's weights, transposed, and its attention."""

    def __init__(self, implementation: Implementation, n_features: int):
        super().__init__()
        self.by_edge = implementation is Implementation.AUTHORS
        self.first = nn.Parameter(nn.init.xavier_normal_(torch.empty(n_features, HIDDEN)))
        self.second = nn.Parameter(nn.init.xavier_normal_(torch.empty(HIDDEN, LATENT)))
        self.of_source, self.of_target = (nn.Parameter(torch.randn(HIDDEN) * HIDDEN**-0.5) for _ in range(2))

    def forward(self, features: Tensor, edges: Tensor) -> Tensor:
        rows = features @ self.first
        weights = self.weights(rows, edges)
        hidden = F.elu(self.gather(rows, weights, edges))
        back = (hidden @ self.second) @ self.second.t()
        return F.elu(self.gather(back, weights, edges)) @ self.first.t()

    def weights(self, rows: Tensor, edges: Tensor) -> Tensor:
        sources, targets = edges
        scores = torch.sigmoid((rows @ self.of_source)[sources] + (rows @ self.of_target)[targets]).exp()
        return scores / scores.new_zeros(len(rows)).index_add(0, targets, scores)[targets]

    def gather(self, rows: Tensor, weights: Tensor, edges: Tensor) -> Tensor:
        sources, targets = edges
        if self.by_edge:
            return torch.zeros_like(rows).index_add(0, targets, rows[sources] * weights[:, None])
        matrix = torch.sparse_coo_tensor(edges.flip(0), weights, (len(rows), len(rows)), check_invariants=False)
        return torch.sparse.mm(matrix, rows)


class CellPatchStagate(nn.Module):
    def __init__(self, implementation: Implementation, n_genes: int, dropout: float):
        super().__init__()
        self.recomputes = implementation is not Implementation.AUTHORS
        self.expression, self.genes = nn.Linear(1, WIDTH), nn.Embedding(N_GENES, WIDTH)
        self.patches = nn.Parameter(torch.randn(1, N_PATCHES, WIDTH))
        self.cross = Block(implementation, dropout)
        width = N_PATCHES * WIDTH + n_genes
        self.stagate, self.last = Stagate(implementation, width), nn.Linear(width, n_genes)

    def read(self, expression: Tensor, tokens: Tensor) -> Tensor:
        memory = self.expression(expression.unsqueeze(-1)) + self.genes(tokens)
        return self.cross(self.patches, memory).flatten(1)

    def forward(self, expression: Tensor, tokens: Tensor, edges: Tensor) -> Tensor:
        if self.recomputes:
            chunks = expression.split(CHUNK)
            read = [checkpoint(self.read, chunk, tokens, use_reentrant=False) for chunk in chunks]
            patches = torch.cat(read)
        else:
            patches = self.read(expression, tokens)
        return self.last(self.stagate(torch.cat([patches, expression], dim=1), edges))


def epochs(task: str, implementation: Implementation, n_spots: int, n_genes: int, dropout: float):
    edges = edges_within(hexagons(n_spots), 1.1)
    random = torch.Generator().manual_seed(0)
    values = torch.empty(n_spots, n_genes).exponential_(1.0, generator=random)
    expression = values * (torch.rand(n_spots, n_genes, generator=random) < 0.2)
    if task == "stagate":
        model = Stagate(implementation, n_genes)
        reconstruct = lambda: model(expression, edges)
    else:
        tokens = torch.arange(n_genes) * (60_000 // n_genes) + 1
        model = CellPatchStagate(implementation, n_genes, dropout)
        reconstruct = lambda: model(expression, tokens, edges)
    best = implementation is not Implementation.AUTHORS
    adam = torch.optim.Adam(model.train().parameters(), lr=1e-4, weight_decay=1e-4, fused=best or None)

    def epoch() -> None:
        adam.zero_grad()
        loss = F.mse_loss(reconstruct(), expression)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 0.1)
        adam.step()
        loss.item()

    return epoch
