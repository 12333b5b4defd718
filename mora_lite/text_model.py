"""Text out with an adapter for each molecule: graph -> low-rank weights -> frozen decoder, all layers, all positions.

Two kinds of adapter share everything else: `mora` makes the factor A of each row out of its graph, `static` learns one
A for all rows (LoRA beside the feed-forward block), which is what the first is compared with. C is learned and shared
in both, and zero at the start, so that training starts from the base model.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .decoder import Decoder
from .device import training_dtype
from .encoder import GraphEncoder
from .errors import PackError
from .graph import GraphBatch
from .hypernet import Hypernet, Tokens
from .lowrank import Branch
from .scorer import AdapterSizes
from .sequences import IGNORED, TextBatch

ADAPTERS = ("mora", "static")


class TextModel(nn.Module):
    """A frozen decoder with trained adapters. Trained: `encoder`, `hypernet` and `c`, or `a` and `c`."""

    def __init__(self, sizes: AdapterSizes, decoder: Decoder, kind: str = "mora"):
        super().__init__()
        if kind not in ADAPTERS:
            raise PackError(f"adapter: got {kind!r}, expected {' or '.join(ADAPTERS)}")
        layers, width = decoder.sizes.layers, decoder.sizes.width
        if sizes.adapted_layers > layers:
            raise PackError(f"adapted layers: got {sizes.adapted_layers}, expected 1 to {layers}, those of the base")
        self.sizes, self.kind = sizes, kind
        self.decoder = decoder
        k, rank = sizes.adapted_layers, sizes.rank
        if kind == "mora":
            self.encoder = GraphEncoder(sizes.encoder_width, sizes.encoder_layers)
            self.hypernet = Hypernet(sizes.encoder_width, k, width, rank, sizes.hypernet_width, sizes.hypernet_blocks)
        else:
            # Entries of variance 1 / (3 D): those that the hypernetwork begins with too.
            self.a = nn.Parameter(torch.randn(k, width, rank) * (3 * width) ** -0.5)
        self.c = nn.Parameter(torch.zeros(k, rank, width))

    def trained(self) -> dict[str, Tensor]:
        """The trained weights by name."""
        return {name: p.detach() for name, p in self.named_parameters() if p.requires_grad}

    def branch(self, graphs: GraphBatch, n_rows: int) -> Branch:
        """The low-rank weights of the first `n_rows` molecules; further ones are padding.

        Of the static kind A is `[1, K, D, R]`, one for all rows.
        """
        scale = self.sizes.alpha / self.sizes.rank
        if self.kind == "static":
            return Branch(self.a[None], self.c, scale)
        atoms, molecules = self.encoder(
            graphs.atoms, graphs.bonds, graphs.source, graphs.target, graphs.graph, graphs.n_graphs
        )
        return Branch(self.hypernet(Tokens(atoms, molecules, graphs.graph))[:n_rows], self.c, scale)

    def forward(self, batch: TextBatch) -> Tensor:
        """Mean cross entropy of the answers' tokens, float32 scalar, in nats.

        Rows are padded on the right, where causal attention keeps padding out of everything before it.
        """
        device = batch.ids.device
        dtype = training_dtype(device)
        # No cache of converted weights: within a captured step it would be stale at the next replay.
        cast = torch.autocast(device.type, dtype, enabled=dtype != torch.float32, cache_enabled=device.type != "cuda")
        with cast:
            branch = self.branch(batch.graphs, len(batch.ids))
        hidden = self.decoder.hidden(batch.ids, branch=branch).flatten(0, 1)
        # Only where an answer's token is predicted: the vocabulary is the widest product there is.
        logits = self.decoder.head(hidden.index_select(0, batch.places))
        return F.cross_entropy(logits, batch.labels, ignore_index=IGNORED)


def equal_size_rank(sizes: AdapterSizes, width: int) -> int:
    """The rank at which the static kind trains as many numbers as the mora kind of `sizes`, to a multiple of 8."""
    with torch.device("meta"):
        encoder = GraphEncoder(sizes.encoder_width, sizes.encoder_layers)
        hypernet = Hypernet(
            sizes.encoder_width, sizes.adapted_layers, width, sizes.rank, sizes.hypernet_width, sizes.hypernet_blocks
        )
    made = sum(p.numel() for module in (encoder, hypernet) for p in module.parameters())
    per_rank = 2 * sizes.adapted_layers * width  # a column of A and a row of C in each layer
    return max(8, round((made / per_rank + sizes.rank / 2) / 8) * 8)
