"""Tables are written whole or not at all, in the format that their name asks for."""

from __future__ import annotations

import gzip
import os

import pytest

from mora_lite.errors import OutputError
from mora_lite.tables.formats import default_output, format_cells
from mora_lite.tables.writers import TableWriter


def write(path, text, newline="\n"):
    data = text if isinstance(text, bytes) else text.replace("\n", newline).encode()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


def test_the_default_output_has_a_name_of_its_own():
    assert default_output("dir/a.csv") == os.path.join("dir", "a.predictions.csv")
    assert default_output("a.csv.gz") == "a.predictions.csv.gz"
    assert default_output("a.csv.zst") == "a.predictions.csv"
    assert default_output("a.tsv") == "a.predictions.tsv"
    assert default_output("a.sdf.gz") == default_output("a.sd.gz") == "a.predictions.sdf.gz"
    assert default_output("a.parquet") == "a.predictions.parquet"
    assert default_output("a.XLSX") == "a.predictions.xlsx"
    assert default_output("a.smi") == "a.predictions.csv"
    assert default_output("a") == "a.predictions.csv"
    assert default_output("-") == "-"


def test_an_output_that_exists_needs_force(tmp_path):
    target = write(tmp_path / "out.csv", "precious")
    with pytest.raises(OutputError, match="exists: use --force"):
        TableWriter(target, ["a"])
    assert target.read_text() == "precious"
    with TableWriter(target, ["a"], force=True) as writer:
        writer.write([["1"]])
    assert target.read_text() == "a\n1\n"


def test_the_output_is_never_the_input(tmp_path):
    source = write(tmp_path / "a.csv", "smiles\nC\n")
    (tmp_path / "link.csv").symlink_to(source)
    for name in ["a.csv", "link.csv"]:
        with pytest.raises(OutputError, match="is the table being read"):
            TableWriter(tmp_path / name, ["a"], source=source, force=True)


def test_an_output_that_cannot_be_is_an_error(tmp_path):
    with pytest.raises(OutputError, match="no such directory"):
        TableWriter(tmp_path / "none" / "out.csv", ["a"])
    with pytest.raises(OutputError, match="is a directory"):
        TableWriter(tmp_path, ["a"])


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError, SystemExit])
def test_nothing_half_written_stays(tmp_path, error):
    target = write(tmp_path / "out.csv.gz", "old")
    before = target.read_bytes()

    def write_and_fail():
        with TableWriter(target, ["a"], force=True) as writer:
            writer.write([["1"]] * 1000)
            raise error

    with pytest.raises(error):
        write_and_fail()
    assert os.listdir(tmp_path) == ["out.csv.gz"]
    assert target.read_bytes() == before


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs a device that is always full")
@pytest.mark.parametrize("n_rows", [1, 100_000])
def test_a_full_disk_is_an_error_in_one_line(n_rows):
    message = "cannot write /dev/full: No space left"
    with pytest.raises(OutputError, match=message), TableWriter("/dev/full", ["a"]) as writer:
        writer.write([["1"]] * n_rows)


def test_a_packed_output_has_the_same_bytes_each_time(tmp_path):
    for name in ["a.csv.gz", "b.csv.gz"]:
        with TableWriter(tmp_path / name, ["a"]) as writer:
            writer.write([["1"]])
    assert (tmp_path / "a.csv.gz").read_bytes() == (tmp_path / "b.csv.gz").read_bytes()


def test_cells_are_formatted_as_one_record():
    assert format_cells(["a", "b,c", 'd"', ""]) == 'a,"b,c","d""",'
