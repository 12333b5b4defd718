"""A pack comes back as it was written, is found by its name, and takes its place whole or not at all."""

from __future__ import annotations

import json
import os
import shutil
import stat
from pathlib import Path

import pytest
import torch
from pack_damage import KINDS, flip
from safetensors.torch import load_file, save_file

import mora_lite
from mora_lite.chem.featurizer import Featurizer
from mora_lite.errors import OutputError, PackError
from mora_lite.packs import pack as pack_module
from mora_lite.packs.installed import SHIPPED
from mora_lite.packs.manifest import PACK
from mora_lite.packs.pack import (
    MANIFEST,
    Pack,
    add_files,
    install_pack,
    list_packs,
    open_pack,
)
from mora_lite.quant.nf4 import NF4Tensor


@pytest.fixture
def put(save):
    """Writes the pack aside and moves it to a path, as training does."""

    def put(path: Path, seed: int = 1, **options) -> Pack:
        staged = path.parent.parent / f"{path.name}.staged"
        shutil.rmtree(staged, ignore_errors=True)
        save(staged, seed)
        return install_pack(staged, path, **options)

    return put


# --- round trip


@torch.no_grad()
def test_what_is_saved_is_what_is_loaded(save, make_scorer, compiled_base, dataset, tmp_path: Path) -> None:
    saved = save(tmp_path / "a")
    opened = open_pack(tmp_path / "a")
    assert (opened.name, opened.base, opened.tasks) == ("a", "tiny-llama", saved.tasks)
    assert opened.manifest == json.loads(json.dumps(saved.manifest))
    scorer, expected = opened.load_scorer(), make_scorer(c=1.0, seed=1)
    assert scorer.sizes == expected.sizes
    for name, tensor in scorer.trained().items():
        exact = expected.trained()[name]
        assert tensor.dtype == torch.float32
        assert torch.equal(tensor, exact if name in ("readout", "offset") else exact.half().float()), name
    for name, tensor in scorer.upper.state_dict().items():
        assert torch.equal(tensor, expected.upper.state_dict()[name]), name
    batch = dataset.graphs.batch()
    torch.testing.assert_close(scorer(batch), expected(batch), rtol=2e-2, atol=2e-2)


def test_upper_layers_stay_in_four_bits(pack_path: Path, compiled_base) -> None:
    held = pack_module.join_nf4(open_pack(pack_path).tensors("upper"))
    assert held.keys() == compiled_base.weights.keys()
    for name, weight in held.items():
        given = compiled_base.weights[name]
        if isinstance(given, NF4Tensor):
            assert isinstance(weight, NF4Tensor)
            assert torch.equal(weight.codes, given.codes)
            assert torch.equal(weight.absmax, given.absmax)
        else:
            assert torch.equal(weight, given)


def test_sizes_and_numbers_of_a_pack(pack_path: Path) -> None:
    pack = open_pack(pack_path)
    assert pack.nbytes == sum(f.stat().st_size for f in pack_path.glob("*.safetensors"))
    layer = 64 * 64 * 2 + 64 * 32 * 2 + 3 * 64 * 128
    assert pack.n_resident_weights() == 2 * layer, "three adapted layers are two whole ones and a norm"
    assert {name.split("-")[0].split(".")[0] for name in pack.manifest["files"]} == set(KINDS)


def test_a_pack_without_baseline(save, tmp_path: Path) -> None:
    save(tmp_path / "a")
    with pytest.raises(PackError, match="pack a has no baseline file"):
        open_pack(tmp_path / "a").load_baseline()


def test_everyone_may_read_the_files(pack_path: Path) -> None:
    for path in pack_path.iterdir():
        assert stat.S_IMODE(path.stat().st_mode) & 0o444 == 0o444 & ~current_umask(), path.name


def current_umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_the_path_may_be_that_of_the_manifest(pack_path: Path) -> None:
    assert open_pack(pack_path / MANIFEST).path == pack_path
    assert open_pack(str(pack_path)).path == pack_path


def test_line_ends_of_the_manifest_do_not_matter(copy: Path) -> None:
    path = copy / MANIFEST
    path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    open_pack(copy)


def test_a_pack_without_a_featurizer_is_of_version_1(pack_path: Path, first_pack_path: Path) -> None:
    assert open_pack(pack_path).featurizer == Featurizer(2, "parent")
    assert "featurizer" not in open_pack(first_pack_path).manifest
    assert open_pack(first_pack_path).featurizer == Featurizer(1, "none")


def test_info_shows_how_each_pack_reads_molecules(run, cached: Path, first_pack_path: Path) -> None:
    """By the name that loads it, that of its folder: both were trained as `tiny`."""
    shutil.copytree(first_pack_path, cached.parent / "first")
    _, out, _ = run("info")
    lines = {line.split()[0]: line for line in out.splitlines() if line.startswith("  ")}
    assert "graph codes 2, standardize parent" in lines["tiny"]
    assert "graph codes 1, standardize none" in lines["first"]


# --- found by name


def test_a_pack_is_found_by_name(cached: Path) -> None:
    assert open_pack("tiny").path == cached
    assert "tiny" in [pack.name for pack in list_packs()]


@pytest.mark.parametrize("name", ["tinny", "Tiny", "packs/tiny", "../packs/tiny", ""])
def test_an_unknown_pack_tells_the_near_matches(cached: Path, name: str) -> None:
    with pytest.raises(PackError, match=r"unknown pack .*known: .*tiny.*give the path") as caught:
        open_pack(name)
    assert "\n" not in str(caught.value)
    if name == "tinny":
        assert "did you mean tiny?" in str(caught.value)


def test_what_is_no_pack_of_values_is_called_by_its_name(tmp_path: Path) -> None:
    with pytest.raises(PackError, match=r"is a directory without pack\.json, and so no pack; known: admet"):
        open_pack(tmp_path)
    for name in ("reactions", SHIPPED / "reactions"):
        with pytest.raises(PackError, match=r"reactions is a pack that answers in text, .*; ask it by mora-lite"):
            open_pack(name)


def test_broken_packs_are_not_listed_but_named_when_loaded(cached: Path) -> None:
    (cached / MANIFEST).write_text("{")
    assert "tiny" not in [pack.name for pack in list_packs()]
    with pytest.raises(PackError, match="is damaged"):
        open_pack("tiny")


# --- more files


def test_files_are_added_and_replaced(copy: Path) -> None:
    before = open_pack(copy)
    assert not before.has("extra")
    for number in (1.0, 2.0):
        add_files(before, {"extra": {"x": torch.tensor(number)}})
        opened = open_pack(copy)
        assert opened.has("extra")
        assert opened.tensors("extra")["x"].item() == number
    assert stat.S_IMODE((copy / "extra.safetensors").stat().st_mode) & 0o444 == 0o444 & ~current_umask()
    flip(copy / "extra.safetensors", -1)
    with pytest.raises(PackError, match=r"extra\.safetensors is damaged"):
        open_pack(copy)


def test_files_that_are_written_when_the_program_is_stopped_leave_the_pack_as_it_was(
    copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_files(open_pack(copy), {name: {"x": torch.tensor(1.0)} for name in ("one", "two")})
    before = {path.name: path.read_bytes() for path in copy.iterdir()}
    write, written = pack_module.write_tensors, []

    def stopped(path: Path, tensors: object) -> None:
        if written:
            raise KeyboardInterrupt
        written.append(path)
        write(path, tensors)

    monkeypatch.setattr(pack_module, "write_tensors", stopped)
    with pytest.raises(KeyboardInterrupt):
        add_files(open_pack(copy), {name: {"x": torch.tensor(2.0)} for name in ("one", "two")})
    open_pack(copy)
    assert {path.name: path.read_bytes() for path in copy.iterdir()} == before


def test_a_pack_may_lack_calibration_and_domain(pack_path: Path, calibrated_pack_path: Path) -> None:
    plain, whole = open_pack(pack_path), open_pack(calibrated_pack_path)
    assert (plain.load_calibration(), plain.load_domain()) == (None, None)
    assert len(whole.load_calibration().parts) == 3
    assert whole.load_domain().patterns.shape[1] == 3


# --- putting it in its place


def test_packs_share_their_upper_layers(put, tmp_path: Path) -> None:
    tmp_path = tmp_path / "packs"
    tmp_path.mkdir()
    for name, seed in (("a", 1), ("b", 2)):
        put(tmp_path / name, seed, share_upper=True)
    (shared,) = (tmp_path / "upper").iterdir()
    assert not list(tmp_path.glob("[ab]/upper*"))
    a, b = (mora_lite.load(tmp_path / name, device="cpu", dtype="float32") for name in "ab")
    assert a.pack.file(shared.name) == b.pack.file(shared.name) == shared
    assert a.pack.nbytes > shared.stat().st_size
    assert abs(a.predict("CCO").scores.values - b.predict("CCO").scores.values).max() > 1e-3
    flip(shared, -1)
    for name in "ab":
        with pytest.raises(PackError, match=f"{shared.name} is damaged"):
            open_pack(tmp_path / name)


def test_shared_layers_are_found_from_within_the_pack_and_through_a_link(
    put, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "packs").mkdir()
    put(tmp_path / "packs" / "a", share_upper=True)
    (tmp_path / "elsewhere").mkdir()
    link = tmp_path / "elsewhere" / "b"
    link.symlink_to(tmp_path / "packs" / "a", target_is_directory=True)
    monkeypatch.chdir(tmp_path / "packs" / "a")
    for path in (".", MANIFEST, link):
        open_pack(path).load_scorer()


def test_a_damaged_file_among_the_shared_ones_is_not_used_and_mended_where_it_is_the_same(put, tmp_path: Path) -> None:
    tmp_path = tmp_path / "packs"
    tmp_path.mkdir()
    put(tmp_path / "a", share_upper=True)
    (shared,) = (tmp_path / "upper").iterdir()
    whole = shared.read_bytes()
    shared.write_bytes(whole[:-8])  # the end of the disk, or of a copy
    put(tmp_path / "b", share_upper=True)
    assert shared.read_bytes() == whole
    open_pack(tmp_path / "a")
    open_pack(tmp_path / "b")


def test_a_pack_with_fewer_adapted_layers_uses_the_larger_ones_file(put, pack_path, tmp_path: Path) -> None:
    tmp_path = tmp_path / "packs"
    tmp_path.mkdir()
    put(tmp_path / "a", 1, share_upper=True)
    (shared,) = (tmp_path / "upper").iterdir()
    fewer = Path(shutil.copytree(pack_path, tmp_path / ".b.staged"))
    (own,) = fewer.glob("upper-*")
    tensors = load_file(own)
    del tensors[next(iter(tensors))]
    save_file(tensors, own)
    install_pack(fewer, tmp_path / "b", share_upper=True)
    assert list((tmp_path / "upper").iterdir()) == [shared]
    assert open_pack(tmp_path / "b").file(shared.name) == shared


def test_a_pack_is_never_put_over_another_unasked(put, save, copy: Path) -> None:
    before = (copy / MANIFEST).read_bytes()
    for check in (put, lambda path: PACK.check_free(path, force=False)):
        with pytest.raises(OutputError, match="exists; choose another name or use --force"):
            check(copy)
    with pytest.raises(FileExistsError):
        save(copy)
    assert (copy / MANIFEST).read_bytes() == before
    put(copy, force=True)
    assert (copy / MANIFEST).read_bytes() != before
    open_pack(copy)
    assert [path.name for path in copy.parent.iterdir()] == ["tiny"]


def test_force_replaces_packs_only(put, tmp_path: Path) -> None:
    """`-o .` or a path of one's own papers must not be wiped."""
    tmp_path = tmp_path / "packs"
    (tmp_path / "papers").mkdir(parents=True)
    (tmp_path / "papers" / "thesis.txt").write_text("years")
    (tmp_path / "note").write_text("days")
    for name in ("papers", "note"):
        with pytest.raises(OutputError, match="is not a pack, so --force does not replace it"):
            put(tmp_path / name, force=True)
    assert (tmp_path / "papers" / "thesis.txt").read_text() == "years"
    (tmp_path / "empty").mkdir()
    put(tmp_path / "empty", force=True)
    open_pack(tmp_path / "empty")


@pytest.mark.parametrize("share_upper", [False, True])
@pytest.mark.parametrize("move", ["first", "last"])
@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError])
def test_an_interrupted_move_leaves_the_old_pack(
    put, copy: Path, monkeypatch: pytest.MonkeyPatch, move: str, error: type[BaseException], share_upper: bool
) -> None:
    before = {path.name: path.read_bytes() for path in copy.iterdir()}
    real = os.replace

    def replace(source, target):
        comes_in = Path(target) == copy and Path(source).name.endswith(".staged")
        if comes_in if move == "last" else Path(source) == copy:
            raise error("stop")
        return real(source, target)

    with monkeypatch.context() as patched:
        patched.setattr(pack_module.os, "replace", replace)
        with pytest.raises(error):
            put(copy, force=True, share_upper=share_upper)
    assert {path.name for path in copy.parent.iterdir()} == {"tiny", *(["upper"] if share_upper else [])}
    assert {path.name: path.read_bytes() for path in copy.iterdir()} == before
    open_pack(copy)
    put(copy, force=True, share_upper=share_upper)
    open_pack(copy)


def test_what_a_killed_move_left_is_no_hindrance(put, copy: Path) -> None:
    left = copy.with_name(f".{copy.name}.old")
    left.mkdir()
    (left / "adapter.safetensors").write_text("half")
    put(copy, force=True)
    assert [path.name for path in copy.parent.iterdir()] == ["tiny"]
    assert set(open_pack(copy).manifest["files"]) == {path.name for path in copy.glob("*.safetensors")}
