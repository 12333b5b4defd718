"""No damaged, exchanged or forged pack is used, and each is one line of error that names it."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from pack_damage import KINDS, edit, file_of, flip

from mora_lite.chem.featurizer import Featurizer
from mora_lite.errors import PackError
from mora_lite.packs.manifest import seal
from mora_lite.packs.pack import MANIFEST, add_files, list_packs, open_pack


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("at", [0, 8, -1])
def test_one_flipped_bit_in_a_file_is_found(copy: Path, kind: str, at: int) -> None:
    path = file_of(copy, kind)
    flip(path, at)
    with pytest.raises(PackError, match=f"{path.name} is damaged .* install the pack again"):
        open_pack(copy)


def test_one_flipped_bit_anywhere_in_the_manifest_is_found(copy: Path) -> None:
    path = copy / MANIFEST
    whole = path.read_bytes()
    for at in range(0, len(whole), 23):
        path.write_bytes(whole)
        flip(path, at, 1 << at % 7)
        with pytest.raises(PackError, match=r"pack format|install the pack again"):
            open_pack(copy)
    path.write_bytes(whole)
    open_pack(copy)


NESTED = '{"format": ' + 10**5 * "[" + 10**5 * "]" + "}"


@pytest.mark.parametrize("text", ["", "[]", "null", "3", '"a"', "{", "\x00", '{"format": 1}', NESTED])
def test_a_manifest_that_is_something_else_is_found(copy: Path, text: str) -> None:
    (copy / MANIFEST).write_text(text)
    with pytest.raises(PackError, match=r"pack\.json is damaged"):
        open_pack(copy)


@pytest.mark.parametrize("kind", KINDS)
def test_a_missing_file_is_named(copy: Path, kind: str) -> None:
    path = file_of(copy, kind)
    path.unlink()
    with pytest.raises(PackError, match=f"{path.name} is missing"):
        open_pack(copy)


@pytest.mark.parametrize("kind", KINDS)
def test_a_shortened_file_is_found(copy: Path, kind: str) -> None:
    path = file_of(copy, kind)
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(PackError, match="is damaged"):
        open_pack(copy)


def test_a_file_of_another_pack_is_found(copy: Path, save, tmp_path: Path) -> None:
    save(tmp_path / "other", seed=2)
    shutil.copy(tmp_path / "other" / "adapter.safetensors", copy / "adapter.safetensors")
    with pytest.raises(PackError, match=r"adapter\.safetensors is damaged"):
        open_pack(copy)


def test_another_format_version_says_so(copy: Path) -> None:
    edit(copy, format=2)
    with pytest.raises(PackError, match="is a pack of format 2, but this version reads format 1; update mora-lite"):
        open_pack(copy)


def test_other_atom_codes_say_so(copy: Path) -> None:
    fields = json.loads((copy / MANIFEST).read_text())["atom_fields"]
    edit(copy, atom_fields={**fields, "element": 54})
    with pytest.raises(PackError, match="other atom and bond codes"):
        open_pack(copy)


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"version": 3, "standardize": "parent"}, r"tiny: graph codes of version 3: .*; update mora-lite"),
        ({"version": 2, "standardize": "tautomer"}, r"tiny: standardize: got 'tautomer', expected parent or none"),
        ({"version": 2, "standardize": "parent"}, r"tiny: featurizer: got .*; update mora-lite"),
        (Featurizer().as_dict() | {"fingerprint": {"name": "other"}}, r"got .*'other'.*; update mora-lite"),
        ({}, r"is damaged \(KeyError: 'version'\); install the pack again"),
        ("parent", r"is damaged \(TypeError: .*\); install the pack again"),
    ],
)
def test_a_featurizer_that_is_not_known_is_one_error(copy: Path, entry: object, message: str) -> None:
    edit(copy, featurizer=entry)
    with pytest.raises(PackError, match=message):
        open_pack(copy)


@pytest.mark.parametrize("name", ["../secret.safetensors", "sub/adapter.safetensors", "/etc/hostname", "..", "."])
def test_files_outside_the_pack_are_refused(copy: Path, name: str) -> None:
    """Even when they are there and their SHA-256 fits."""
    (copy / "sub").mkdir()
    source = file_of(copy, "adapter")
    for path in (copy.parent / "secret.safetensors", copy / "sub" / "adapter.safetensors"):
        shutil.copy(source, path)
    files = json.loads((copy / MANIFEST).read_text())["files"]
    edit(copy, files={**files, name: files[source.name]})
    with pytest.raises(PackError, match="is missing from"):
        open_pack(copy)


def test_a_pack_without_its_prompts_is_refused(copy: Path) -> None:
    files = json.loads((copy / MANIFEST).read_text())["files"]
    edit(copy, files={name: entry for name, entry in files.items() if not name.startswith("prompts")})
    with pytest.raises(PackError, match="has no prompts file"):
        open_pack(copy).load_scorer()


def test_an_adapter_with_other_weights_is_refused(copy: Path) -> None:
    pack = open_pack(copy)
    weights = pack.tensors("adapter")
    more, less = weights | {"more": torch.zeros(1)}, {name: of for name, of in weights.items() if name != "readout"}
    for changed, name in ((more, "more"), (less, "readout")):
        add_files(pack, {"adapter": changed})
        with pytest.raises(PackError, match=rf"tiny: adapter does not fit the sizes in pack\.json: {name}"):
            open_pack(copy).load_scorer()


@pytest.mark.parametrize("key", ["name", "base", "sizes", "decoder", "tasks", "provenance"])
def test_a_sealed_manifest_without_an_entry_is_damaged(run, cached: Path, key: str) -> None:
    manifest = json.loads((cached / MANIFEST).read_text())
    del manifest[key]
    (cached / MANIFEST).write_text(seal(manifest))
    with pytest.raises(PackError, match=rf"pack\.json is damaged \(KeyError: '{key}'\); install the pack again"):
        open_pack("tiny")
    code, out, _ = run("info")
    assert (code, "  tiny " in out) == (0, False), "one damaged pack does not hide the others"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"tasks": 3}, "TypeError: tasks: got int, expected list"),
        ({"tasks": [{"name": 3}]}, "TypeError: name: got int, expected str"),
        ({"tasks": [{}]}, "KeyError: 'name'"),
        ({"base": {"sha256": "a"}}, "KeyError: 'name'"),
        ({"provenance": []}, "TypeError: provenance: got list, expected dict"),
        ({"files": {"a.safetensors": {"bytes": True, "sha256": "a"}}}, "TypeError: bytes: got bool, expected int"),
        ({"files": {"a.safetensors": {"bytes": 1}}}, "KeyError: 'sha256'"),
    ],
)
def test_an_entry_of_another_kind_is_damage(copy: Path, changes: dict, words: str) -> None:
    manifest = json.loads((copy / MANIFEST).read_text()) | changes
    (copy / MANIFEST).write_text(seal(manifest))
    with pytest.raises(PackError, match=rf"pack\.json is damaged \({words}\); install the pack again"):
        open_pack(copy)


def test_a_pack_in_the_cache_that_no_parser_follows_hides_no_other(run, cached: Path) -> None:
    (cached / MANIFEST).write_text(NESTED)
    assert run("info")[0] == 0
    assert "admet" in [pack.name for pack in list_packs()]


def test_what_is_sealed_and_does_not_fit_the_manifest_is_one_line(copy: Path, calibrated_pack_path: Path) -> None:
    pack, other = open_pack(copy), open_pack(calibrated_pack_path)
    first = pack.manifest["tasks"][0]
    for tasks in ([first | {"color": "red"}], [{"name": "size"}], [first | {"deviation": "little"}]):
        told(lambda tasks=tasks: replace(pack, manifest=pack.manifest | {"tasks": tasks}).tasks)
    for changes in ({"sizes": {"rank": "four"}}, {"sizes": {"ranks": 4}}, {"decoder": {"width": 3}}):
        told(replace(pack, manifest=pack.manifest | changes).load_scorer)
    adapter, calibration = pack.tensors("adapter"), other.tensors("calibration")
    wider = torch.cat([adapter["readout"]] * 2)
    add_files(pack, {"adapter": adapter | {"readout": wider}, "baseline": {"x": wider}, "domain": {"x": wider}})
    add_files(pack, {"calibration": {name: of for name, of in calibration.items() if name != "0.scores"}})
    for load in (pack.load_scorer, pack.load_baseline, pack.load_domain, pack.load_calibration):
        told(load)
    prompts = other.tensors("prompts")
    for name, values in prompts.items():
        for changed in (values[:1], values.flatten()[None]):
            add_files(pack, {"prompts": prompts | {name: changed}, "adapter": adapter})
            told(pack.load_scorer)
    for name in ("0.similarity", "0.log_sigma", "0.scores", "0.training"):
        values = calibration[name]
        for changed in (values[None], torch.tensor(1.0), *([values[:0]] if values.dtype == torch.float64 else [])):
            add_files(pack, {"calibration": calibration | {name: changed}})
            told(pack.load_calibration)


def told(load) -> None:
    with pytest.raises(PackError, match=r"tiny does not fit its manifest \(.*\); install the pack again") as caught:
        load()
    assert "\n" not in str(caught.value)
