"""The graph codes of one molecule in plain Python, by docs/method.md alone: slow, and to be compared with."""

from __future__ import annotations

from typing import NamedTuple

from rdkit import Chem

from mora_lite.chem.graph import ATOM_FIELDS, Graphs

WORD = (1 << 64) - 1
MARK = 1 << 63
CHIRALITY = list(ATOM_FIELDS).index("chirality")


def mix(x: int) -> int:
    x &= WORD
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9 & WORD
    x = (x ^ (x >> 27)) * 0x94D049BB133111EB & WORD
    return x ^ (x >> 31)


class Element(NamedTuple):
    """groups: atoms whose order counts; of a centre one group, of a double bond one for each end."""

    is_bond: bool
    owner: int
    groups: list[list[int]]
    odd: bool


class PlainMolecule:
    """atoms, bonds: codes, those of configuration 0. ends: the atoms of each bond."""

    def __init__(self, atoms: list[list[int]], bonds: list[int], ends: list[tuple[int, int]]):
        self.atoms, self.bonds, self.ends = [list(row) for row in atoms], list(bonds), ends
        self.marked: int | None = None

    def with_codes(self, elements: list[Element], codes: list[int], marked: int | None = None) -> PlainMolecule:
        copy = PlainMolecule(self.atoms, self.bonds, self.ends)
        copy.marked = self.marked if marked is None else marked
        for element, code in zip(elements, codes, strict=True):
            if element.is_bond:
                copy.bonds[element.owner] += code
            else:
                copy.atoms[element.owner][CHIRALITY] += code
        return copy

    def start(self) -> list[int]:
        hashes = []
        for number, row in enumerate(self.atoms):
            key = 0
            for code in row:
                key = key * 257 + code
            hashes.append(mix(key + (MARK if number == self.marked else 0)))
        return hashes

    def refine(self, hashes: list[int]) -> list[int]:
        received = [0] * len(hashes)
        for code, (a, b) in zip(self.bonds, self.ends, strict=True):
            bond = mix(code + 0x9E3779B97F4A7C15)
            received[a] += mix(hashes[b] + bond)
            received[b] += mix(hashes[a] + bond)
        return [mix(3 * h + r) for h, r in zip(hashes, received, strict=True)]

    def stable(self) -> list[int]:
        hashes, before = self.start(), 0
        while True:
            hashes = self.refine(hashes)
            if len(set(hashes)) <= before:
                return hashes
            before = len(set(hashes))


def code_of(element: Element, hashes: list[int]) -> int:
    """0 where the hashes do not tell the atoms of the element apart."""
    odd = element.odd
    for group in element.groups:
        keys = [hashes[atom] for atom in group]
        if len(set(keys)) < len(keys):
            return 0
        odd ^= sum(keys[i] > keys[j] for j in range(len(keys)) for i in range(j)) % 2 == 1
    return 1 + odd


def resolve(molecule: PlainMolecule, elements: list[Element], codes: list[int]) -> list[int]:
    """Steps 1 and 2."""
    codes = list(codes)
    while True:
        coded, fresh = molecule.with_codes(elements, codes), [0] * len(codes)
        hashes, before, rounds = coded.start(), 0, 0
        while any(not (code or new) for code, new in zip(codes, fresh, strict=True)):
            hashes, rounds = coded.refine(hashes), rounds + 1
            for i, element in enumerate(elements):
                if not codes[i] and not fresh[i]:
                    fresh[i] = code_of(element, hashes)
            if rounds >= 4:
                if len(set(hashes)) <= before:
                    break
                before = len(set(hashes))
        if not any(fresh):
            return codes
        codes = [code or new for code, new in zip(codes, fresh, strict=True)]


def like_atoms(element: Element, hashes: list[int]) -> list[int]:
    kinds: dict[tuple[int, int], list[int]] = {}
    for end, group in enumerate(element.groups):
        for atom in group:
            kinds.setdefault((hashes[atom], end), []).append(atom)
    return next(atoms for _, atoms in sorted(kinds.items()) if len(atoms) > 1)


def mark_and_resolve(molecule: PlainMolecule, elements: list[Element], codes: list[int]) -> list[int]:
    """Step 3."""
    given_up: set[int] = set()
    while True:
        hashes = molecule.with_codes(elements, codes).stable()
        classes: dict[int, list[int]] = {}
        for i, element in enumerate(elements):
            if not codes[i] and i not in given_up:
                around = sum(mix(hashes[atom]) for group in element.groups for atom in group)
                classes.setdefault(mix(around + (1 if element.is_bond else hashes[element.owner])), []).append(i)
        for _, members in sorted(classes.items()):
            atoms = sorted({atom for i in members for atom in like_atoms(elements[i], hashes)})
            if len(atoms) <= 16:
                break
        else:
            return codes
        found = []
        for atom in atoms:
            marked = PlainMolecule(molecule.atoms, molecule.bonds, molecule.ends)
            marked.marked = atom
            after = resolve(marked, elements, codes)
            total = sum(map(mix, molecule.with_codes(elements, after).stable())) & WORD
            if sum(a != b for a, b in zip(after, codes, strict=True)) > 1:
                found.append((total, after))
        if found:
            codes = min(found, key=lambda entry: entry[0])[1]  # of equal sums, which symmetry makes, any will do
        else:
            given_up.update(members)
        codes = resolve(molecule, elements, codes)


def elements_of(mol: Chem.Mol) -> list[Element]:
    rings, elements = mol.GetRingInfo(), []
    for atom in mol.GetAtoms():
        i, n, h = atom.GetIdx(), atom.GetDegree(), atom.GetTotalNumHs()
        tag = str(atom.GetChiralTag())
        if tag not in ("CHI_TETRAHEDRAL_CW", "CHI_TETRAHEDRAL_CCW"):
            continue
        holds = atom.GetAtomicNum() in (15, 16, 33, 34, 51, 52) or (
            atom.GetAtomicNum() == 7 and (rings.IsAtomInRingOfSize(i, 3) or rings.NumAtomRings(i) >= 3)
        )
        if (n, h) in ((4, 0), (3, 1)) or ((n, h) == (3, 0) and holds):
            order = [bond.GetOtherAtomIdx(i) for bond in atom.GetBonds()]
            elements.append(Element(False, i, [order], tag == "CHI_TETRAHEDRAL_CCW"))
    for bond in mol.GetBonds():
        stereo = str(bond.GetStereo())
        small = rings.NumBondRings(bond.GetIdx()) and rings.MinBondRingSize(bond.GetIdx()) < 8
        if stereo not in ("STEREOCIS", "STEREOTRANS", "STEREOE", "STEREOZ") or small:
            continue
        ends = [bond.GetBeginAtom(), bond.GetEndAtom()]
        groups = []
        for end, other, first in zip(ends, ends[::-1], bond.GetStereoAtoms(), strict=True):
            around = [b.GetOtherAtomIdx(end.GetIdx()) for b in end.GetBonds()]
            groups.append([first, *(a for a in around if a not in (first, other.GetIdx()))])
        if all(len(g) + end.GetTotalNumHs() <= 2 for g, end in zip(groups, ends, strict=True)):
            elements.append(Element(True, bond.GetIdx(), groups, stereo in ("STEREOCIS", "STEREOZ")))
    return elements


def certificate(graph: Graphs) -> list[int]:
    """The same for graphs of one molecule that differ in the order of atoms and bonds only."""
    ends = [tuple(pair) for pair in graph.bond_endpoints.tolist()]
    return sorted(PlainMolecule(graph.atoms.tolist(), graph.bonds.tolist(), ends).stable())


def plain_stereo(mol: Chem.Mol, graph: Graphs) -> tuple[list[int], list[int]]:
    """Codes of chirality of all atoms and of stereo of all bonds. graph: of this molecule, of version 1."""
    atoms = graph.atoms.tolist()
    for row in atoms:
        row[CHIRALITY] = 0
    bonds = [code - code % 4 for code in graph.bonds.tolist()]
    molecule = PlainMolecule(atoms, bonds, [tuple(ends) for ends in graph.bond_endpoints.tolist()])
    elements = elements_of(mol)
    codes = mark_and_resolve(molecule, elements, resolve(molecule, elements, [0] * len(elements)))
    coded = molecule.with_codes(elements, codes)
    return [row[CHIRALITY] for row in coded.atoms], [code % 4 for code in coded.bonds]
