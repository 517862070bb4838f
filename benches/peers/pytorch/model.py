"""CellPatch in PyTorch, as a peer to measure against: once computed the naive way, once as well as PyTorch can.

`Implementation.AUTHORS` attends padding, spells attention out and keeps its weights; `Implementation.BEST` masks padding
and uses scaled_dot_product_attention; `Implementation.TABLE`, for inference, looks keys and values up by gene.
"""

from enum import Enum

import torch
import torch.nn.functional as F
from torch import Tensor, nn

N_GENES, WIDTH, N_PATCHES, N_HEADS, MLP, LATENT = 70_000, 32, 64, 2, 64, 10


class Implementation(str, Enum):
    AUTHORS = "authors"
    BEST = "best"
    TABLE = "table"


class Attention(nn.Module):
    def __init__(self, implementation: Implementation, dropout: float):
        super().__init__()
        self.explicit = implementation is Implementation.AUTHORS
        self.dropout = dropout
        self.in_weight = nn.Parameter(nn.init.xavier_uniform_(torch.empty(3 * WIDTH, WIDTH)))
        self.in_bias = nn.Parameter(torch.zeros(3 * WIDTH))
        self.out = nn.Linear(WIDTH, WIDTH)

    def forward(self, query: Tensor, memory: Tensor, real: Tensor | None) -> Tensor:
        if query is memory:
            q, k, v = F.linear(query, self.in_weight, self.in_bias).split(WIDTH, dim=-1)
        else:
            q = F.linear(query, self.in_weight[:WIDTH], self.in_bias[:WIDTH])
            k, v = F.linear(memory, self.in_weight[WIDTH:], self.in_bias[WIDTH:]).split(WIDTH, dim=-1)
        q, k, v = (t.unflatten(-1, (N_HEADS, -1)).transpose(1, 2) for t in (q, k, v))
        return self.attend(q.expand(len(k), -1, -1, -1), k, v, real)

    def attend(self, q: Tensor, k: Tensor, v: Tensor, real: Tensor | None) -> Tensor:
        dropout = self.dropout if self.training else 0.0
        mask = None if real is None else real[:, None, None, :]
        if self.explicit:
            scores = (q @ k.transpose(-2, -1)) * q.shape[-1] ** -0.5
            gathered = F.dropout(scores.softmax(dim=-1), dropout) @ v
        else:
            gathered = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=dropout)
        return self.out(gathered.transpose(1, 2).flatten(-2))


class Block(nn.Module):
    """LN(x + MLP(x)) with x = LN(query + attention)."""

    def __init__(self, implementation: Implementation, dropout: float):
        super().__init__()
        self.attention = Attention(implementation, dropout)
        self.attention_norm, self.mlp_norm = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.mlp = nn.Sequential(nn.Linear(WIDTH, MLP), nn.GELU(), nn.Linear(MLP, WIDTH))

    def forward(self, query: Tensor, memory: Tensor, real: Tensor | None = None) -> Tensor:
        return self.after_attention(query, self.attention(query, memory, real))

    def after_attention(self, query: Tensor, gathered: Tensor) -> Tensor:
        x = self.attention_norm(gathered + query)
        return self.mlp_norm(self.mlp(x) + x)


def real_or_none(genes: Tensor, implementation: Implementation, padded: bool) -> Tensor | None:
    """Where genes are real; None where nothing is padded, or nothing is masked.

    The host says whether anything is padded: asking the device would make it wait, and break a compiled graph.
    """
    return genes.ne(0) if padded and implementation is not Implementation.AUTHORS else None


class Encoder(nn.Module):
    def __init__(self, implementation: Implementation, dropout: float = 0.1):
        super().__init__()
        self.implementation = implementation
        self.expression = nn.Linear(1, WIDTH)
        self.genes = nn.Embedding(N_GENES, WIDTH)
        self.patches = nn.Parameter(torch.randn(1, N_PATCHES, WIDTH))
        self.cross = Block(implementation, dropout)
        self.among = nn.ModuleList(Block(implementation, dropout) for _ in range(2))
        self.latent = nn.Linear(WIDTH, LATENT)

    def forward(self, values: Tensor, genes: Tensor, padded: bool) -> Tensor:
        if self.implementation is Implementation.TABLE:
            x = self.cross_by_table(values, genes, padded)
        else:
            memory = self.expression(values.unsqueeze(-1)) + self.genes(genes)
            x = self.cross(self.patches, memory, real_or_none(genes, self.implementation, padded))
        for block in self.among:
            x = block(x, x)
        return x

    def make_table(self) -> None:
        """Keys and values of every gene: the expression adds a multiple of one row to them."""
        a = self.cross.attention
        with torch.no_grad():
            rows = self.genes.weight + self.expression.bias
            self.table = F.linear(rows, a.in_weight[WIDTH:], a.in_bias[WIDTH:]).contiguous()
            self.slope = a.in_weight[WIDTH:] @ self.expression.weight[:, 0]
            q = F.linear(self.patches, a.in_weight[:WIDTH], a.in_bias[:WIDTH])
            self.queries = q.unflatten(-1, (N_HEADS, -1)).transpose(1, 2)

    def cross_by_table(self, values: Tensor, genes: Tensor, padded: bool) -> Tensor:
        rows = torch.addcmul(F.embedding(genes, self.table), values[..., None], self.slope)
        k, v = rows.unflatten(-1, (2 * N_HEADS, -1)).transpose(1, 2).split(N_HEADS, 1)
        real = real_or_none(genes, self.implementation, padded)
        gathered = self.cross.attention.attend(self.queries.expand(len(k), -1, -1, -1), k, v, real)
        return self.cross.after_attention(self.patches, gathered)


class Pretraining(nn.Module):
    def __init__(self, implementation: Implementation, dropout: float):
        super().__init__()
        self.implementation = implementation
        self.encoder = Encoder(implementation, dropout)
        self.from_latent = nn.Linear(LATENT, WIDTH)
        self.cross, self.among = Block(implementation, dropout), Block(implementation, dropout)
        self.dropout, self.output = nn.Dropout(dropout), nn.Linear(WIDTH, 1)

    def forward(self, values: Tensor, genes: Tensor, targets: Tensor, padded: tuple[bool, bool]) -> Tensor:
        memory = self.from_latent(self.encoder.latent(self.encoder(values, genes, padded[0])))
        x = self.cross(self.encoder.genes(targets), memory)
        x = self.among(x, x, real_or_none(targets, self.implementation, padded[1]))
        return self.output(self.dropout(x))[..., 0]


class Annotator(nn.Module):
    def __init__(self, implementation: Implementation, dropout: float, n_classes: int):
        super().__init__()
        self.encoder = Encoder(implementation, dropout)
        self.head = nn.Sequential(
            nn.Linear(N_PATCHES * WIDTH, 512), nn.ReLU(), nn.Linear(512, 100), nn.ReLU(), nn.Linear(100, n_classes)
        )

    def forward(self, values: Tensor, genes: Tensor, padded: bool) -> Tensor:
        return self.head(self.encoder(values, genes, padded).flatten(1))


def masked_mean_squared_error(prediction: Tensor, values: Tensor, genes: Tensor) -> Tensor:
    real = genes.ne(0).to(prediction.dtype)
    return ((prediction - values).square() * real).sum() / real.sum()
