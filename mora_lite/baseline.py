"""The encoder-only baseline: the same graph encoder with a small head and no language model.

It is how the encoder is pre-trained, and it is printed beside every result of a pack: the language model has to earn
its place.
"""

from __future__ import annotations

from torch import Tensor, nn

from .encoder import GraphEncoder
from .graph import GraphBatch


class EncoderBaseline(nn.Module):
    """Molecule token -> MLP -> one z-score for each task."""

    def __init__(self, encoder: GraphEncoder, n_tasks: int):
        super().__init__()
        self.encoder = encoder
        width = encoder.width
        self.dropout = nn.Dropout(0.0)
        self.head = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, n_tasks))

    def forward(self, batch: GraphBatch) -> Tensor:
        """-> z-scores `[B, P]`."""
        _, molecule = self.encoder(batch.atoms, batch.bonds, batch.source, batch.target, batch.graph, batch.n_graphs)
        return self.head(self.dropout(molecule))
