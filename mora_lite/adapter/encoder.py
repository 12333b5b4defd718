"""Graph encoder: GINE layers (arXiv 1905.12265) with a virtual node, residual connections and layer norm.

Plain tensors in and out, so that it traces and exports. Embeddings, sums over bonds and the residual stream stay in the
parameters' type (float32 in training); only the matrix products follow autocast.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..chem.graph import ATOM_FIELDS, N_BOND_CODES, GraphBatch


class GINEConv(nn.Module):
    """`out[v] = nn((1 + eps) * x[v] + sum(relu(x[u] + bond) for bonds from u to v))`.

    The layer of that name in torch_geometric, with the same parameters; the tests compare the two. It is written out
    here because importing that package takes two seconds, longer than all the rest of a prediction's start.
    """

    def __init__(self, mlp: nn.Module):
        super().__init__()
        self.nn = mlp
        self.eps = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor, source: Tensor, target: Tensor, bonds: Tensor) -> Tensor:
        """x: `[V, width]`, source, target: int64 `[E]`, bonds: `[E, width]`."""
        # index_select, not x[source]: its backward is an index_add, six times faster on a CPU.
        messages = torch.relu(x.index_select(0, source) + bonds)
        received = torch.zeros_like(x, dtype=messages.dtype).index_add(0, target, messages)
        return self.nn(received + (1 + self.eps) * x)


class EncoderLayer(nn.Module):
    """One round of messages between bonded atoms, then one exchange between all atoms and the virtual node.

    dropout: none but in training, which sets the share (`training.loop.fit`).
    """

    def __init__(self, width: int):
        super().__init__()
        mlp = nn.Sequential(nn.Linear(width, 2 * width), nn.ReLU(), nn.Linear(2 * width, width))
        self.norm = nn.LayerNorm(width)
        self.bond_codes = nn.Embedding(N_BOND_CODES, width)
        self.conv = GINEConv(mlp)
        self.virtual_norm = nn.LayerNorm(2 * width)
        self.virtual_mlp = nn.Sequential(nn.Linear(2 * width, width), nn.GELU(), nn.Linear(width, width))
        self.dropout = nn.Dropout(0.0)

    def forward(
        self, x: Tensor, virtual: Tensor, source: Tensor, target: Tensor, bonds: Tensor, graph: Tensor
    ) -> tuple[Tensor, Tensor]:
        h = self.norm(x + virtual.index_select(0, graph))
        x = x + self.dropout(self.conv(h, source, target, self.bond_codes(bonds)))
        # A sum, not a mean: many properties grow with the molecule. The norm keeps large molecules in range, and
        # their size reaches the next layers through the ratio between the two halves.
        pooled = torch.zeros_like(virtual).index_add(0, graph, x) / POOL_SCALE
        virtual = virtual + self.dropout(self.virtual_mlp(self.virtual_norm(torch.cat([virtual, pooled], 1))))
        return x, virtual


POOL_SCALE = 10.0  # keeps the sum over a small molecule's atoms near the size of one atom's state


class GraphEncoder(nn.Module):
    """Atoms and bonds -> one token for each atom and one for the whole molecule."""

    def __init__(self, width: int = 256, n_layers: int = 6):
        super().__init__()
        self.width = width
        sizes = list(ATOM_FIELDS.values())
        # All fields share one table; each has its own range of rows. A buffer, because it must follow the device.
        self.field_start: Tensor
        starts = torch.tensor([sum(sizes[:i]) for i in range(len(sizes))])
        self.register_buffer("field_start", starts, persistent=False)
        self.atom_codes = nn.EmbeddingBag(sum(sizes), width, mode="sum")
        self.virtual_start = nn.Parameter(torch.zeros(width))
        self.layers = nn.ModuleList(EncoderLayer(width) for _ in range(n_layers))
        self.atom_norm = nn.LayerNorm(width)
        self.virtual_norm = nn.LayerNorm(width)
        nn.init.normal_(self.atom_codes.weight, std=0.3)
        for layer in self.layers:
            assert isinstance(layer, EncoderLayer)
            nn.init.normal_(layer.bond_codes.weight, std=0.3)

    def forward(
        self, atoms: Tensor, bonds: Tensor, source: Tensor, target: Tensor, graph: Tensor, n_graphs: int
    ) -> tuple[Tensor, Tensor]:
        """Tensors of `GraphBatch` -> (atom tokens `[V, width]`, molecule tokens `[B, width]`), both normalised."""
        x = self.atom_codes(atoms + self.field_start)
        virtual = self.virtual_start.expand(n_graphs, -1)
        for layer in self.layers:
            x, virtual = layer(x, virtual, source, target, bonds, graph)
        return self.atom_norm(x), self.virtual_norm(virtual)


class EncoderBaseline(nn.Module):
    """Molecule token -> MLP -> one z-score for each task."""

    def __init__(self, encoder: GraphEncoder, n_tasks: int):
        super().__init__()
        self.encoder = encoder
        width = encoder.width
        self.dropout = nn.Dropout(0.0)
        self.head = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, n_tasks))

    def select(self, tasks: list[int]) -> None:
        """Keep only these tasks, in this order."""
        last = self.head[-1]
        assert isinstance(last, nn.Linear)
        last.weight = nn.Parameter(last.weight.detach()[tasks])
        last.bias = nn.Parameter(last.bias.detach()[tasks])
        last.out_features = len(tasks)

    def forward(self, batch: GraphBatch) -> Tensor:
        """-> z-scores `[B, P]`."""
        _, molecule = self.encoder(batch.atoms, batch.bonds, batch.source, batch.target, batch.graph, batch.n_graphs)
        return self.head(self.dropout(molecule))
