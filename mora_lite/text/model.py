"""Text out with an adapter for each molecule: graph -> low-rank weights -> frozen decoder, all layers, all positions.

Three kinds of adapter share everything else: `mora` makes the factor A of each row out of its graph; `static` learns
one A for all rows (LoRA), which is what the first is compared with; `prompt` is static too, and makes soft tokens out
of the graph that come before the text, as models with a projector from graphs to embeddings do. C is learned and
shared in all, and zero at the start, so that training starts from the base model (with the soft tokens before its
text).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..adapter.encoder import GraphEncoder
from ..adapter.hypernet import Hypernet, Tokens
from ..adapter.lowrank import AdapterConfig, Branch
from ..architecture import DecoderConfig
from ..chem.graph import GraphBatch
from ..errors import PackError
from ..lm.decoder import Decoder
from ..machine.device import training_autocast
from .sequences import TextBatch

ADAPTERS = ("mora", "static", "prompt")
SOFT_TOKENS = 8


class TextModel(nn.Module):
    """A frozen decoder with trained adapters.

    Trained: `encoder`, `hypernet` and `c`; or `a` and `c`; or these with `encoder` and `soft`.
    """

    def __init__(self, sizes: AdapterConfig, decoder: Decoder, kind: str = "mora"):
        super().__init__()
        if kind not in ADAPTERS:
            raise PackError(f"adapter: got {kind!r}, expected {', '.join(ADAPTERS[:-1])} or {ADAPTERS[-1]}")
        layers, k, rank = decoder.sizes.layers, sizes.adapted_layers, sizes.rank
        if k > layers or any(number >= layers for number in sizes.layers):
            got = f"numbers {', '.join(map(str, sizes.layers))}" if sizes.layers else k
            raise PackError(f"adapted layers: got {got}, expected 1 to {layers}, those of the base, numbered from 0")
        self.sizes, self.kind = sizes, kind
        self.decoder = decoder
        ins, outs = module_widths(sizes, decoder.sizes)
        # A starts as a LoRA A does: entries of variance 1 / (3 D_in), each target module with its own.
        fan_in = torch.tensor([float(width) for width in ins for _ in range(width)])
        if kind != "static":
            self.encoder = GraphEncoder(sizes.encoder_width, sizes.encoder_layers)
        if kind == "mora":
            self.hypernet = hypernet(sizes, decoder.sizes)
            with torch.no_grad():
                of_module = self.hypernet.head.weight.unflatten(0, (-1, rank))
                of_module.mul_((sum(ins) / fan_in).sqrt()[:, None, None])
        else:
            self.a = nn.Parameter(torch.randn(k, sum(ins), rank) * (3 * fan_in[:, None]) ** -0.5)
        if kind == "prompt":
            width = decoder.sizes.width
            self.soft = Hypernet(
                sizes.encoder_width, SOFT_TOKENS, width, 1, sizes.hypernet_width, sizes.hypernet_blocks
            )
            with torch.no_grad():  # they start as large as the tokens beside them
                self.soft.head.weight.mul_((3 * width) ** 0.5 * decoder.embedding.float().square().mean().sqrt())
        self.c = nn.Parameter(torch.zeros(k, rank, sum(outs)))

    @property
    def n_soft(self) -> int:
        """Soft tokens before each row's text."""
        return SOFT_TOKENS if self.kind == "prompt" else 0

    def trained(self) -> dict[str, Tensor]:
        """The trained weights by name."""
        return {name: p.detach() for name, p in self.named_parameters() if p.requires_grad}

    def branch(self, graphs: GraphBatch, n_rows: int) -> Branch:
        """The low-rank weights and soft tokens of the first `n_rows` molecules; further ones are padding.

        Of the static kinds A is `[1, K, I, R]`, one for all rows.
        """
        scale, modules, layers = self.sizes.alpha / self.sizes.rank, self.sizes.target_modules, self.sizes.layers
        if self.kind == "static":
            return Branch(self.a[None], self.c, scale, "all", modules, layers)
        atoms, molecules = self.encoder(
            graphs.atoms, graphs.bonds, graphs.source, graphs.target, graphs.graph, graphs.n_graphs
        )
        tokens = Tokens(atoms, molecules, graphs.graph, graphs.longest)
        if self.kind == "prompt":
            soft = self.soft(tokens)[:n_rows].squeeze(-1)
            return Branch(self.a[None], self.c, scale, "all", modules, layers, soft)
        return Branch(self.hypernet(tokens)[:n_rows], self.c, scale, "all", modules, layers)

    def forward(self, batch: TextBatch) -> Tensor:
        """Mean cross entropy of the answers' tokens, float32 scalar, in nats.

        Rows are padded on the right, where causal attention keeps padding out of everything before it.
        """
        with training_autocast(batch.ids.device):
            branch = self.branch(batch.graphs, len(batch.ids))
        hidden = self.decoder.hidden(batch.ids, branch=branch).flatten(0, 1)
        # Only where an answer's token is predicted: the vocabulary is the widest product there is.
        return self.decoder.cross_entropy(hidden.index_select(0, batch.label_positions), batch.labels)


def module_widths(sizes: AdapterConfig, decoder: DecoderConfig) -> tuple[list[int], list[int]]:
    """Inputs and outputs of the adapted modules of a layer."""
    widths = decoder.module_widths()
    return [widths[m][0] for m in sizes.target_modules], [widths[m][1] for m in sizes.target_modules]


def hypernet(sizes: AdapterConfig, decoder: DecoderConfig) -> Hypernet:
    """One query for each adapted layer, whose factors for all modules come out of it side by side."""
    ins, _ = module_widths(sizes, decoder)
    return Hypernet(
        sizes.encoder_width, sizes.adapted_layers, sum(ins), sizes.rank, sizes.hypernet_width, sizes.hypernet_blocks
    )


def equal_size_rank(sizes: AdapterConfig, decoder: DecoderConfig) -> int:
    """The rank at which the static kind trains as many numbers as the mora kind of `sizes`, to a multiple of 8."""
    with torch.device("meta"):
        modules = GraphEncoder(sizes.encoder_width, sizes.encoder_layers), hypernet(sizes, decoder)
    made = sum(p.numel() for module in modules for p in module.parameters())
    ins, outs = module_widths(sizes, decoder)
    per_rank = sizes.adapted_layers * (sum(ins) + sum(outs))  # a column of A and a row of C in each layer
    return max(8, round((made / per_rank + sizes.rank / 2) / 8) * 8)
