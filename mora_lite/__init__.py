"""mora-lite: molecules scored by a frozen 4-bit language model with low-rank weights made for each molecule.

One alphabet of sizes is used in every name, comment and docstring:
`B` molecules in a batch, `P` prompts (one for each task), `T` tokens, `V` atoms, `E` directed bonds, `L` decoder layers,
`K` adapted (uppermost) layers, `D` model width, `F` FFN width, `R` rank, `H` hypernetwork width, `G` quantisation block (64).
"""

__version__ = "0.1.0"
