"""Tables with known values, and splits that anyone can repeat."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest

from mora_lite.dataset import Dataset, Split, read_dataset
from mora_lite.errors import InputError


def write(folder: Path, text: str | bytes, name: str = "data.csv") -> Path:
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def read(folder: Path, text: str | bytes, *columns: str) -> Dataset:
    return read_dataset(write(folder, text), "smiles", columns or ("y",))


# --- reading


def test_a_table_becomes_graphs_and_targets(tmp_path: Path) -> None:
    data = read(tmp_path, "y,smiles,note,x\n1.5,CCO,hello,-2e-3\n2,C,,7\n", "x", "y")
    assert data.smiles == ["CCO", "C"]
    assert data.graphs.n_atoms.tolist() == [3, 1]
    np.testing.assert_array_equal(data.targets, np.array([[-2e-3, 1.5], [7, 2]], np.float32))
    assert data.targets.dtype == np.float32
    assert (data.rows.tolist(), data.n_rows, len(data)) == ([0, 1], 2, 2)


def test_blank_and_nan_cells_are_missing_values(tmp_path: Path) -> None:
    data = read(tmp_path, "smiles,y,x\nC,,1\nN,  ,2\nO,nan,3\nCC,NaN,4\nCO\n", "y", "x")
    assert np.isnan(data.targets[:, 0]).all()
    assert np.isnan(data.targets[:, 1]).tolist() == [False] * 4 + [True]


def test_unreadable_molecules_are_left_out_but_counted(tmp_path: Path) -> None:
    data = read(tmp_path, "smiles,y\nC,1\nC1CC,2\n,3\nN,4\n")
    assert data.rows.tolist() == [0, 3]
    assert data.targets[:, 0].tolist() == [1, 4]
    assert data.n_rows == 4


def test_compressed_bom_and_windows_line_ends_read_the_same(tmp_path: Path) -> None:
    text = "smiles,y\nCCO,1\nC,2\n"
    plain = read(tmp_path, text)
    windows = read(tmp_path, b"\xef\xbb\xbf" + text.replace("\n", "\r\n").encode())
    packed = read_dataset(write(tmp_path, gzip.compress(text.encode()), "data.csv.gz"), "smiles", ["y"])
    for other in (windows, packed):
        assert other.fingerprint == plain.fingerprint
        assert np.array_equal(other.targets, plain.targets)


def test_the_fingerprint_is_of_the_smiles_in_order(tmp_path: Path) -> None:
    first = read(tmp_path, "smiles,y\nC,1\nN,2\n").fingerprint
    assert read(tmp_path, "y,smiles\n8,C\n9,N\n").fingerprint == first
    assert read(tmp_path, "smiles,y\nN,1\nC,2\n").fingerprint != first
    assert read(tmp_path, "smiles,y\nC,1\n").fingerprint != first


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("smiles,yy\nC,1\n", "has no column 'y': did you mean yy"),
        ("SMILE,y\nC,1\n", "no column 'smiles' for --smiles-column; did you mean SMILE"),
        ("smiles,y\nC,1\nN,high\n", "row 2, column 'y': got 'high', expected a number or a blank"),
        ('smiles,note,y\nC,"a\nb",1\nN,,x\n', "row 2, column 'y'"),
        ("smiles,y\nC,inf\n", "row 1, column 'y': got 'inf'"),
        ("smiles,y\nC,1e300\n", "row 1, column 'y': got '1e300'"),
        ("smiles,y\n", "has no rows"),
        ("", "is empty"),
        ("smiles,y\nfoo,1\n,2\n", "no molecule of .* could be read: is 'smiles' the SMILES column"),
        (b"smiles,y\n\xff\xfe,1\n", "no molecule of .* could be read"),
        ("smiles,y\n" + "C" * 200_000 + ",1\n", "no molecule of .* could be read"),
    ],
)
def test_what_cannot_be_used_is_told_in_one_line(tmp_path: Path, text: str | bytes, words: str) -> None:
    with pytest.raises(InputError, match=words) as caught:
        read(tmp_path, text)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("damage", ["not gzip", "cut", "flipped"])
def test_damaged_gzip_is_told(tmp_path: Path, damage: str) -> None:
    packed = bytearray(
        gzip.compress(b"smiles,y\n" + b"".join(b"%s,%d\n" % (b"C" * (i % 9 + 1), i) for i in range(999)))
    )
    if damage == "flipped":
        packed[40:60] = bytes(20)
    text = {"not gzip": b"\x1f\x8bsmiles,y\nC,1\n", "cut": bytes(packed[:-40]), "flipped": bytes(packed)}[damage]
    with pytest.raises(InputError, match=r"damaged|gzip|cannot"):
        read_dataset(write(tmp_path, text, "data.csv.gz"), "smiles", ["y"])


def test_a_missing_file_is_told(tmp_path: Path) -> None:
    for path in (tmp_path / "no.csv", tmp_path):
        with pytest.raises(InputError, match=r"no such file|directory"):
            read_dataset(path, "smiles", ["y"])


def test_a_subset_is_by_rows_of_the_table(tmp_path: Path) -> None:
    data = read(tmp_path, "smiles,y\nC,0\nbad,1\nCC,2\nCCC,3\nCCCC,4\n")
    part = data.subset(np.array([4, 1, 2]))
    assert part.smiles == ["CC", "CCCC"]
    assert part.rows.tolist() == [2, 4]
    assert part.targets[:, 0].tolist() == [2, 4]
    assert part.graphs.n_atoms.tolist() == [2, 4]
    assert (part.n_rows, part.fingerprint) == (data.n_rows, data.fingerprint)


# --- splitting


def test_a_split_is_the_same_for_ever() -> None:
    """Golden: packs record only seed and sizes, so these rows may never change."""
    rows = Split(0, 80, 10).rows(100)
    assert rows["train"][:5].tolist() == [0, 1, 2, 3, 4]
    assert rows["valid"].tolist() == [7, 31, 38, 48, 63, 73, 76, 77, 88, 89]
    assert rows["test"].tolist() == [29, 33, 41, 54, 56, 59, 69, 78, 79, 95]


@pytest.mark.parametrize(("n_rows", "train", "valid"), [(3, 1, 1), (100, 80, 10), (1000, 5, 994)])
def test_parts_are_disjoint_and_cover_the_table(n_rows: int, train: int, valid: int) -> None:
    rows = Split(1, train, valid).rows(n_rows)
    assert [len(part) for part in rows.values()] == [train, valid, n_rows - train - valid]
    assert np.array_equal(np.sort(np.concatenate(list(rows.values()))), np.arange(n_rows))
    assert all((np.diff(part) > 0).all() for part in rows.values())


def test_another_seed_is_another_split() -> None:
    assert not np.array_equal(Split(0, 80, 10).rows(100)["test"], Split(1, 80, 10).rows(100)["test"])


@pytest.mark.parametrize(("train", "valid"), [(90, 10), (200, 1), (0, 10), (80, 0), (-1, 5)])
def test_a_part_without_rows_is_refused(train: int, valid: int) -> None:
    with pytest.raises(InputError, match=f"split: got {train} training and {valid} validation rows of 100"):
        Split(0, train, valid).rows(100)
