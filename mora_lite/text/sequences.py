"""Questions and answers as token ids with the graph of each question's molecules: what training for text reads.

Everything that costs time is done once, before training, by several processes: parsing, writing in several orders,
tokens, graphs. The result is one file of plain arrays (.npz without pickles) and batches of fixed sizes are cut out of
it: rows of similar length share a batch, so that little is padding and a GPU repeats a handful of captured steps.

Sizes: N questions, C copies of them (each question in one or more orders), T tokens of a row.
"""

from __future__ import annotations

import json
import zipfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, fields, replace
from itertools import chain, repeat
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..chem.graph import ARRAYS, GraphBatch, Graphs, concatenate
from ..errors import InputError, error_text
from ..machine.files import replacing
from ..training.splits import PARTS
from .pairs import TextPair, write_block

FORMAT = 1
# Fields of `Graphs` and what the file calls them.
GRAPH_KEYS = {name: f"graph_{name}" for name in ARRAYS} | {"bond_endpoints": "graph_ends"}
TOKENIZER_BATCH = 4096  # texts at a time
BLOCK = 256  # pairs that a process takes at a time
FEW_QUESTIONS = 5
WIDTHS = (64, 80, 96, 112, 128, 160, 192, 256)  # tokens of a row, to which rows are padded
IGNORE_INDEX = -100  # label of a padding position, as torch.nn.functional.cross_entropy has it


@dataclass(frozen=True)
class Prompt:
    """The fixed texts around a question and before its answer, and where an answer ends.

    before, between: text. end: the token after an answer. Each piece is made into tokens by itself, so a question's
    tokens do not depend on the text around it.
    """

    before: str
    between: str
    end: int

    @classmethod
    def of_template(cls, template: str, end: int) -> Prompt:
        """template: with one `{}` for the question; the answer follows its end."""
        before, mark, between = template.partition("{}")
        if not mark or "{}" in between or not between:
            raise InputError(f"prompt: got {template!r}; expected a text with one {{}} and more text after it")
        return cls(before, between, end)

    def pieces(self, tokenizer: Any) -> tuple[list[int], list[int], int]:
        """Token ids of the two texts, and the end."""
        before, between = token_ids(tokenizer, [self.before, self.between])
        return before, between, self.end


@dataclass(frozen=True)
class TokenizedPairs:
    """Questions and answers in flat arrays; copy `i` owns `source[source_ptr[i]:source_ptr[i+1]]`.

    source, target: uint16 or int32, token ids, the prompt's pieces and the end left out. source_ptr, target_ptr: int64
    `[C+1]`. first: int64 `[N+1]`, the copies of each question, its canonical one first. part, origin: uint8 and uint16
    `[N]`, of `PARTS` and of the tables in `metadata["origins"]`. graphs: `N` graphs.
    metadata: what it was made of; `answers` in it are the canonical answers as texts.
    """

    source: np.ndarray
    target: np.ndarray
    source_ptr: np.ndarray
    target_ptr: np.ndarray
    first: np.ndarray
    part: np.ndarray
    origin: np.ndarray
    graphs: Graphs
    metadata: dict[str, Any]

    def __len__(self) -> int:
        return len(self.first) - 1

    @property
    def answers(self) -> list[str]:
        return self.metadata["answers"]

    def question(self, copy: int) -> list[int]:
        """Token ids of a copy's question."""
        return self.source[self.source_ptr[copy] : self.source_ptr[copy + 1]].tolist()

    def answer(self, copy: int) -> list[int]:
        """Token ids of a copy's answer."""
        return self.target[self.target_ptr[copy] : self.target_ptr[copy + 1]].tolist()

    def save(self, path: Path) -> None:
        """Write the file, whole or not at all. Raises `OutputError`."""
        graphs = {key: getattr(self.graphs, name) for name, key in GRAPH_KEYS.items()}
        arrays = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in ("graphs", "metadata")}
        metadata = np.frombuffer(json.dumps({"format": FORMAT, **self.metadata}).encode(), np.uint8)
        with replacing(path) as file:
            np.savez_compressed(file, facts=metadata, **arrays, **graphs)


def load_tokenized_pairs(path: Path) -> TokenizedPairs:
    """Read what `TokenizedPairs.save` wrote. Raises `InputError` when it is missing, damaged or of another format."""
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        metadata = json.loads(arrays.pop("facts").tobytes())
        version = metadata.pop("format")
        graphs = Graphs(**{name: arrays.pop(key) for name, key in GRAPH_KEYS.items()})
        data = TokenizedPairs(**arrays, graphs=graphs, metadata=metadata)
    except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile) as error:
        raise InputError(
            f"{path} cannot be read as prepared sequences: {error_text(error)}; prepare it again"
        ) from None
    if version != FORMAT:
        raise InputError(f"{path}: format {version}, but this version reads {FORMAT}; prepare it again")
    return data


def tokenize_pairs(
    pairs: Sequence[TextPair],
    tokenizer: Any,
    metadata: dict[str, Any],
    *,
    copies: int,
    seed: int = 0,
    processes: int = 1,
    on_progress: Callable[[int], None] = lambda _: None,
) -> TokenizedPairs:
    """Pairs as token arrays and graphs; those that train in up to `copies` orders, the others as they are.

    metadata: kept with them. on_progress: gets how many pairs are done.
    """
    blocks = [list(pairs[at : at + BLOCK]) for at in range(0, len(pairs), BLOCK)]
    questions: list[list[tuple[str, str]]] = []
    graphs: list[Graphs] = []
    # Fresh processes: a fork of one that has run torch's threads may hang.
    with ProcessPoolExecutor(processes, get_context("spawn")) as pool:
        for texts, block in pool.map(write_block, blocks, repeat(copies), repeat(seed)):
            questions += texts
            graphs.append(block)
            on_progress(len(questions))
    origins, origin = np.unique([pair.origin for pair in pairs], return_inverse=True)
    source, source_ptr = _flat(tokenizer, [source for texts in questions for source, _ in texts])
    target, target_ptr = _flat(tokenizer, [target for texts in questions for _, target in texts])
    return TokenizedPairs(
        source,
        target,
        source_ptr,
        target_ptr,
        np.concatenate([[0], np.cumsum([len(texts) for texts in questions])]).astype(np.int64),
        np.array([PARTS.index(pair.part) for pair in pairs], np.uint8),
        origin.astype(np.uint16),
        concatenate(graphs),
        {
            **metadata,
            "copies": copies,
            "seed": seed,
            "origins": origins.tolist(),
            "asked": [] if "questions" in metadata else few_questions(pairs),
            "answers": ["" if pair.part == "train" else pair.target for pair in pairs],
        },
    )


def few_questions(pairs: Iterable[TextPair]) -> list[str]:
    """The questions in words, the commonest first, where all rows together have no more than `FEW_QUESTIONS`.

    More are those of a table that has others in each row, which a pack does not give away.
    """
    counts = Counter(pair.question for pair in pairs if pair.question)
    return [question for question, _ in counts.most_common()] if len(counts) <= FEW_QUESTIONS else []


def _flat(tokenizer: Any, texts: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """Token ids of all texts one after the other, and where each begins: `[C+1]`."""
    kind = np.uint16 if len(tokenizer) <= 2**16 else np.int32
    flat, lengths = [np.empty(0, kind)], [0]
    # In batches: what a tokenizer records of a text takes a hundred times the memory of its ids.
    for at in range(0, len(texts), TOKENIZER_BATCH):
        ids = token_ids(tokenizer, texts[at : at + TOKENIZER_BATCH])
        lengths += map(len, ids)
        flat.append(np.fromiter(chain.from_iterable(ids), kind))
    return np.concatenate(flat), np.cumsum(lengths, dtype=np.int64)


def token_ids(tokenizer: Any, texts: list[str]) -> list[list[int]]:
    """Token ids of each text, without special tokens."""
    return [list(row) for row in tokenizer(texts, add_special_tokens=False).input_ids] if texts else []


@dataclass(frozen=True)
class TextBatch:
    """One batch of rows of one width, as plain tensors.

    ids: int64 `[B, T]`, padded on the right.
    label_positions: int64 `[M]`, positions in the flattened rows from which a token of an answer is predicted.
    labels: int64 `[M]`, that token, `IGNORE_INDEX` at padding.
    graphs: of the rows' molecules.
    """

    ids: Tensor
    label_positions: Tensor
    labels: Tensor
    graphs: GraphBatch

    def tensors(self) -> list[Tensor]:
        """All of them, in a fixed order."""
        graphs = (getattr(self.graphs, name) for name in self.graphs.tensors)
        return [self.ids, self.label_positions, self.labels, *graphs]

    def to(self, device: torch.device) -> TextBatch:
        ids, positions, labels = (
            t.to(device, non_blocking=True) for t in (self.ids, self.label_positions, self.labels)
        )
        return TextBatch(ids, positions, labels, self.graphs.to(device))

    def pinned(self) -> TextBatch:
        """In memory that a GPU reads by itself."""
        ids, positions, labels = (t.pin_memory() for t in (self.ids, self.label_positions, self.labels))
        return TextBatch(ids, positions, labels, self.graphs.pinned())


class Batches:
    """Cuts the questions `rows` into batches of about `tokens` tokens, in a few fixed sizes.

    before, between, end: token ids of the prompt's pieces. Questions with more than the widest row are left out
    (`n_skipped`). In each epoch a question is seen in one of its orders, at random.
    shares: by direction, of the questions of an epoch, where `data` has several: an epoch then has some of them twice
    or more, or not at all.
    """

    def __init__(
        self,
        data: TokenizedPairs,
        rows: np.ndarray,
        pieces: tuple[list[int], list[int], int],
        tokens: int,
        seed: int,
        shares: Mapping[str, float] | None = None,
    ):
        self.data, self.tokens, self.seed = data, tokens, seed
        self.before, self.between, self.end = pieces
        fixed = len(self.before) + len(self.between) + 1
        self.lengths = np.diff(data.source_ptr) + np.diff(data.target_ptr) + fixed
        longest = np.maximum.reduceat(self.lengths, data.first[:-1])
        self.rows = rows[longest[rows] <= WIDTHS[-1]]
        self.n_skipped = len(rows) - len(self.rows)
        if not len(self.rows):
            raise InputError(f"training rows: got none of at most {WIDTHS[-1]} tokens; shorter texts are needed")
        self.groups = self._groups(shares or {})
        self.capacity = self._capacity()

    def _groups(self, shares: Mapping[str, float]) -> list[tuple[np.ndarray, int]]:
        """Indices into `rows` that are drawn from together, and how many of them in an epoch."""
        if len(shares) < 2:
            return [(np.arange(len(self.rows)), len(self.rows))]
        directions = np.array([origin.partition("/")[0] for origin in self.data.metadata["origins"]])
        of_row = directions[self.data.origin[self.rows]]
        groups = [(np.flatnonzero(of_row == name), round(share * len(self.rows))) for name, share in shares.items()]
        if empty := [name for name, (rows, _) in zip(shares, groups, strict=True) if not len(rows)]:
            raise InputError(f"training rows: got none for {' and '.join(empty)}; leave it out of the task")
        return groups

    def _draw(self, rng: np.random.Generator) -> np.ndarray:
        """The questions of an epoch, int64, in a random order."""
        drawn = []
        for rows, n in self.groups:
            passes = [rng.permutation(rows) for _ in range(-(-n // len(rows)))]
            drawn.append(np.concatenate(passes)[:n] if passes else rows[:0])
        return self.rows[drawn[0] if len(drawn) == 1 else rng.permutation(np.concatenate(drawn))]

    def epoch(self, number: int) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
        """(width, questions, copies) of each batch of an epoch; it depends on seed and number alone."""
        rng = np.random.default_rng([self.seed, number])
        questions = self._draw(rng)
        first = self.data.first[questions]
        copies = first + rng.integers(0, self.data.first[questions + 1] - first)
        lengths = self.lengths[copies]
        cut: list[tuple[int, np.ndarray]] = []
        waiting = np.empty(0, np.int64)
        for low, width in zip((0, *WIDTHS), WIDTHS, strict=False):
            # What does not fill a batch of its own width joins the next one, so that every batch is full.
            here = np.concatenate([waiting, np.flatnonzero((lengths > low) & (lengths <= width))])
            n = self.size(width)
            whole = len(here) // n * n
            cut += [(width, here[at : at + n]) for at in range(0, whole, n)]
            waiting = here[whole:]
        if not cut:  # fewer questions than one batch: one batch with some of them twice
            cut = [(WIDTHS[-1], np.resize(waiting, self.size(WIDTHS[-1])))]
        for at in rng.permutation(len(cut)):
            width, chosen = cut[at]
            yield width, questions[chosen], copies[chosen]

    def size(self, width: int) -> int:
        """Rows of a batch."""
        return max(1, self.tokens // width)

    def _capacity(self) -> dict[int, tuple[int, int, int, int]]:
        """For each width: answer positions, atoms, bonds and atoms of a row that nearly every batch fits into.

        Counted in two epochs and with an eighth more; a batch beyond it is still trained on, uncaptured.
        """
        largest: dict[int, np.ndarray] = {}
        answers = np.diff(self.data.target_ptr) + 1
        atoms, bonds = self.data.graphs.n_atoms, 2 * np.diff(self.data.graphs.bond_ptr)
        for number in range(2):
            for width, rows, copies in self.epoch(number):
                sizes = np.array([answers[copies].sum(), atoms[rows].sum(), bonds[rows].sum(), atoms[rows].max()])
                largest[width] = np.maximum(largest.get(width, sizes), sizes)
        steps = np.array([64, 64, 64, 8])
        rounded = {width: (steps * np.ceil((1.125 * n + 1) / steps)).astype(int) for width, n in largest.items()}
        return {width: tuple(sizes.tolist()) for width, sizes in rounded.items()}

    def make(self, width: int, rows: np.ndarray, copies: np.ndarray) -> TextBatch:
        """The batch itself, on the CPU; padded to the capacity of its width where it fits."""
        data = self.data
        ids = np.zeros((len(rows), width), np.int64)
        label_positions: list[np.ndarray] = []
        labels: list[np.ndarray] = []
        for i, copy in enumerate(copies):
            answer = [*data.answer(copy), self.end]
            row = [*self.before, *data.question(copy), *self.between, *answer]
            ids[i, : len(row)] = row
            start = i * width + len(row) - len(answer) - 1
            label_positions.append(np.arange(start, start + len(answer)))
            labels.append(np.array(answer))
        position, label = np.concatenate(label_positions), np.concatenate(labels).astype(np.int64)
        graphs = data.graphs.select(rows).batch()
        n_answers, n_atoms, n_bonds, longest = self.capacity.get(width, (0, 0, 0, 0))
        fits = len(position) <= n_answers and len(graphs.atoms) < n_atoms and len(graphs.bonds) <= n_bonds
        fits = fits and graphs.longest <= longest
        missing = n_answers - len(position) if fits else 0
        position = np.concatenate([position, np.zeros(missing, np.int64)])
        label = np.concatenate([label, np.full(missing, IGNORE_INDEX)])
        if not fits:
            n_atoms, n_bonds, longest = len(graphs.atoms) + 1, len(graphs.bonds), graphs.longest
        graphs = replace(graphs.padded(n_atoms, n_bonds), longest=longest)
        return TextBatch(torch.from_numpy(ids), torch.from_numpy(position), torch.from_numpy(label), graphs)
