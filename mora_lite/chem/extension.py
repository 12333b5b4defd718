"""The compiled part, for graphs that RDKit made: stereo codes, the order of atoms, fingerprints.

It is the code that the native reader uses, so a molecule does not differ by the way it took. `stereo`, `codes` and
`circular` say in plain Python what it does, and do it where nothing was compiled, or for what is too large for it.
"""

from __future__ import annotations

import functools
import importlib
from typing import Any

import numpy as np

from .graph import ATOM_FIELDS, Graphs
from .stereo import Elements

N_BYTES = 128  # of a fingerprint


@functools.cache
def load() -> Any:
    """The module. Raises `ImportError` where the package was installed without it."""
    return importlib.import_module("._native", __package__)


@functools.cache
def is_compiled() -> bool:
    """Whether there is one."""
    try:
        load()
    except ImportError:
        return False
    return True


def finish(graphs: Graphs, elements: Elements) -> Graphs | None:
    """The graphs with the codes of their elements, atoms and bonds in their own order.

    None if there is no compiled part, or if it cannot do all of them. graphs: all stereo codes are 0.
    """
    if not is_compiled():
        return None
    first = np.searchsorted(elements.molecule, np.arange(len(graphs) + 1)).astype(np.int64)
    of_atoms, of_bonds = graphs.atom_ptr[elements.molecule], graphs.bond_ptr[elements.molecule]
    owner = elements.owner - np.where(elements.is_bond, of_bonds, of_atoms)
    groups = np.where(elements.groups >= 0, elements.groups - of_atoms[:, None, None], -1)
    flags = elements.is_bond.astype(np.uint8) + 2 * elements.odd.astype(np.uint8)
    tables = (first, owner.astype(np.int64), flags, groups.astype(np.int16))
    done, atoms, bonds, endpoints = load().finish_graphs(*_bytes(graphs), *(table.tobytes() for table in tables))
    if not np.frombuffer(done, np.bool_).all():
        return None
    return Graphs(
        np.frombuffer(atoms, np.uint8).reshape(-1, len(ATOM_FIELDS)),
        np.frombuffer(bonds, np.uint8),
        np.frombuffer(endpoints, np.uint16).reshape(-1, 2),
        graphs.atom_ptr,
        graphs.bond_ptr,
    )


def fingerprints(graphs: Graphs) -> np.ndarray | None:
    """Those of `circular`, uint8 `[B, 128]`; None if there is no compiled part, or if it cannot do all of them."""
    if not is_compiled():
        return None
    done, bits = load().fingerprint_graphs(*_bytes(graphs))
    return np.frombuffer(bits, np.uint8).reshape(-1, N_BYTES) if np.frombuffer(done, np.bool_).all() else None


def _bytes(graphs: Graphs) -> tuple[bytes, ...]:
    pointers = (graphs.atom_ptr.astype(np.int64), graphs.bond_ptr.astype(np.int64))
    arrays = (graphs.atoms, graphs.bonds, graphs.bond_endpoints.astype(np.uint16), *pointers)
    return tuple(array.tobytes() for array in arrays)
