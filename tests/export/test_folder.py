"""Exported folders that are not whole, or not what they seem."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
from exported_folder import change

from mora_lite.errors import PackError
from mora_lite.export import runtime
from mora_lite.export.folder import Exported, open_exported
from mora_lite.export.writer import write_trust
from mora_lite.machine.files import file_entry, sha256_of
from mora_lite.packs.pack import open_pack
from mora_lite.scoring.conformal import Calibration
from mora_lite.scoring.domain import Domain

pytest.importorskip("onnxruntime")


def test_a_damaged_file_is_an_error_and_never_a_wrong_number(folder: Path) -> None:
    for name in ("scorer.onnx", "trust.npz"):
        content = (folder / name).read_bytes()
        (folder / name).write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        with pytest.raises(PackError, match=rf"{name} is damaged.*export it again"):
            runtime.load(folder)
        (folder / name).unlink()
        with pytest.raises(PackError, match=rf"{name} is missing.*export it again"):
            runtime.load(folder)
        (folder / name).write_bytes(content)
    runtime.load(folder)


@pytest.mark.parametrize("text", ["", "[]", "{", '{"format": 1}', '{"format": 1, "pack": {"name": "a"}, "tasks": [1]}'])
def test_a_damaged_manifest(folder: Path, text: str) -> None:
    (folder / "export.json").write_text(text)
    with pytest.raises(PackError, match=r"export\.json is damaged"):
        runtime.load(folder)


def test_another_format_an_encoder_alone_and_no_folder(folder: Path) -> None:
    change(folder, format=2)
    with pytest.raises(PackError, match="format 2, but this version reads format 1"):
        runtime.load(folder)
    change(folder, format=1, scorer=None)
    with pytest.raises(PackError, match="mora-lite export tiny --full -o DIR"):
        runtime.load(folder)
    with pytest.raises(PackError, match=r"qm9 is no exported folder.*mora-lite export qm9 --full -o DIR"):
        runtime.load("qm9")


def test_names_that_lead_out_of_the_folder_are_refused(folder: Path) -> None:
    manifest = json.loads((folder / "export.json").read_text())
    (folder.parent / "other.onnx").write_bytes((folder / "scorer.onnx").read_bytes())
    change(folder, scorer="../other.onnx", files={"../other.onnx": manifest["files"]["scorer.onnx"]})
    with pytest.raises(PackError, match=r"\.\./other\.onnx is missing"):
        open_exported(folder).scorer_file()


def test_a_model_that_is_none_or_another(folder: Path) -> None:
    file = folder / "scorer.onnx"
    file.write_bytes(b"not a model")
    entry = {"bytes": file.stat().st_size, "sha256": sha256_of(file)}
    change(folder, files={"scorer.onnx": entry})
    with pytest.raises(PackError, match=r"cannot load .*scorer\.onnx"):
        runtime.load(folder)


# --- arrays


def test_arrays_of_the_calibration_survive_the_file(calibrated_pack_path: Path) -> None:
    pack = open_pack(calibrated_pack_path)
    calibration, domain = pack.load_calibration(), pack.load_domain()
    assert calibration is not None
    assert domain is not None
    arrays = {name: tensor.numpy() for name, tensor in calibration.tensors().items()}
    assert Calibration.from_tensors(arrays, 3).thresholds == calibration.thresholds
    back = Domain.from_tensors({name: tensor.numpy() for name, tensor in domain.tensors().items()})
    np.testing.assert_array_equal(back.packed, domain.packed)


def test_an_export_of_some_tasks_keeps_their_molecules(calibrated_pack_path: Path, tmp_path: Path) -> None:
    notes: list[str] = []
    write_trust(tmp_path, open_pack(calibrated_pack_path), [1], notes.append)
    assert notes == ["training.npz: the training molecules and their values, as the pack holds them"]
    manifest = {"files": {name: file_entry(tmp_path / name) for name in ("trust.npz", "training.npz")}}
    got = Exported(tmp_path, manifest).load_training()
    expected = open_pack(calibrated_pack_path).load_training().select([1])
    assert got.smiles == expected.smiles
    assert len(got) < 40
    np.testing.assert_array_equal(got.domain.packed[got.rows], expected.domain.packed[expected.rows])


def test_an_export_without_them_says_so(folder: Path, table_path: Path, run) -> None:
    files = json.loads((folder / "export.json").read_text())["files"]
    del files["training.npz"]
    change(folder, files=files)
    code, _, err = run("predict", table_path, "-p", folder, "-o", folder / "out.csv", "--neighbours", 2)
    assert (code, err.count("\n")) == (2, 1)
    assert "does not hold the training molecules of tiny, so it cannot name neighbours; export it again" in err


def test_arrays_that_were_compressed_are_not_unpacked(folder: Path) -> None:
    for name in ("training.npz", "trust.npz"):
        np.savez_compressed(folder / name, smiles=np.zeros(1 << 20, np.uint8))
        files = json.loads((folder / "export.json").read_text())["files"]
        change(folder, files=files | {name: file_entry(folder / name)})
        with pytest.raises(PackError, match=rf"{name} cannot be read: its arrays are compressed"):
            runtime.load(folder).neighbours("CCO")


@pytest.mark.parametrize(
    "change_arrays",
    [
        {"thresholds": np.zeros(1)},
        {"thresholds": np.array(0.5)},
        {"domain.sizes": np.array(["a"])},
        {"0.log_sigma": np.zeros(0)},
    ],
)
def test_arrays_that_do_not_fit_the_tasks_are_one_line(folder: Path, change_arrays: dict[str, np.ndarray]) -> None:
    with np.load(folder / "trust.npz") as arrays:
        np.savez(folder / "other.npz", **(dict(arrays) | change_arrays))
    (folder / "other.npz").replace(folder / "trust.npz")
    files = json.loads((folder / "export.json").read_text())["files"]
    change(folder, files=files | {"trust.npz": file_entry(folder / "trust.npz")})
    with pytest.raises(PackError, match=r"trust\.npz cannot be read .*; export it again"):
        runtime.load(folder)


@pytest.mark.parametrize(
    "header",
    [
        b"{'descr': '|u1', 'fortran_order': False, 'shape': (4398046511104,), }",
        b"{'descr': '|u1', 'fortran_order': False, 'shape': (-5,), }",
        b"{'descr': '|O', 'fortran_order': False, 'shape': (1,), }",
        b"{'descr': ((((((",
    ],
)
def test_an_array_that_is_none_is_one_line(folder: Path, header: bytes) -> None:
    with zipfile.ZipFile(folder / "trust.npz", "w") as archive:
        archive.writestr("a.npy", b"\x93NUMPY\x01\x00" + (len(header) + 1).to_bytes(2, "little") + header + b"\nabc")
    files = json.loads((folder / "export.json").read_text())["files"]
    change(folder, files=files | {"trust.npz": file_entry(folder / "trust.npz")})
    with pytest.raises(PackError, match=r"trust\.npz cannot be read: .*; export it again"):
        runtime.load(folder)
