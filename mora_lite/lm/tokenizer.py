"""A tokenizer from its file, by the package tokenizers alone: transformers takes a second to import."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace


class PlainTokenizer:
    """The two calls of a transformers tokenizer that answers in text need, with the same results.

    file: a tokenizer.json that transformers wrote.
    """

    def __init__(self, file: Path):
        from tokenizers import Tokenizer

        self._tokenizer = Tokenizer.from_file(str(file))
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()

    def __call__(self, texts: Sequence[str], add_special_tokens: bool = False) -> SimpleNamespace:
        """`input_ids` of each text."""
        found = self._tokenizer.encode_batch(list(texts), add_special_tokens=add_special_tokens)
        return SimpleNamespace(input_ids=[row.ids for row in found])

    def decode(
        self, ids: Sequence[int], skip_special_tokens: bool = True, clean_up_tokenization_spaces: bool = False
    ) -> str:
        """The text of some tokens, without clean-up."""
        assert not clean_up_tokenization_spaces
        return self._tokenizer.decode(list(ids), skip_special_tokens=skip_special_tokens)
