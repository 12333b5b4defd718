"""The base model before a text pack is put on it and after: what it has forgotten, which should be nothing.

    python benchmarks/adapters_off.py ./forward

Perplexity on the bundled text, in float32: of the base in 4 bits alone, read from its file; of the decoder of the
loaded pack without an adapter, with an adapter whose C is zero, and with a molecule's adapter (`--smiles`), which is
trained for other texts. Also whether all tensors of the two decoders and all logits on the text are equal, bit for bit.
Prints one line of JSON.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace

import torch
from torch import Tensor

from mora_lite.chem.featurizer import Featurizer
from mora_lite.hub.bases import resolve_base
from mora_lite.lm.base import NF4Source
from mora_lite.lm.decoder import Decoder
from mora_lite.lm.perplexity import bundled_text, perplexity
from mora_lite.quant.formats import open_checkpoint
from mora_lite.text.pack import load_text_pack, open_text_pack


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pack")
    parser.add_argument("--smiles", default="CC(=O)Oc1ccccc1C(=O)O", help="the molecule of the adapter")
    args = parser.parse_args()
    pack = open_text_pack(args.pack)
    source = NF4Source(open_checkpoint(resolve_base(pack.base["name"])))
    base = Decoder.from_checkpoint(source)
    model = load_text_pack(pack, device="cpu", dtype="float32").model
    branch = model.branch(Featurizer().read_smiles([args.smiles]).batch(), 1)
    zero = replace(branch, c=torch.zeros_like(branch.c))
    ids = torch.tensor(source.tokenizer()(bundled_text()).input_ids)
    before = base.state_dict()
    same_logits = []

    def off(piece: Tensor) -> Tensor:
        logits = model.decoder.logits(piece)
        same_logits.append(torch.equal(logits, base.logits(piece)))
        same_logits.append(torch.equal(logits, model.decoder.logits(piece, branch=zero)))
        return logits

    result = {
        "base": pack.base["name"],
        "pack": pack.path.name,
        "tokens": len(ids),
        "perplexity_base": perplexity(base.logits, ids),
        "perplexity_adapter_off": perplexity(off, ids),
        "perplexity_c_zero": perplexity(lambda piece: model.decoder.logits(piece, branch=zero), ids),
        "perplexity_adapter_on": perplexity(lambda piece: model.decoder.logits(piece, branch=branch), ids),
        "same_tensors": all(torch.equal(t, before[name]) for name, t in model.decoder.state_dict().items()),
        "same_logits": all(same_logits),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
