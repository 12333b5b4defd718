"""Packs and exported folders on a hub: pushed to one on this machine, and had back from it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from fake_hub import FakeHub

import mora_lite
from mora_lite.errors import InputError, OutputError, PackError
from mora_lite.hub.packs import Address, check_changeable, fetch, is_address, parse_address
from mora_lite.packs.card import model_card
from mora_lite.packs.pack import install_pack, open_pack, write_manifest
from mora_lite.publish import push_to_hub


@pytest.fixture
def pack(calibrated_pack_path: Path, tmp_path: Path) -> Path:
    """A pack whose upper layers lie beside it, in the folder that packs share."""
    staged = Path(shutil.copytree(calibrated_pack_path, tmp_path / "packs" / "staged"))
    path = install_pack(staged, tmp_path / "packs" / "mine", share_upper=True).path
    assert not list(path.glob("upper-*"))
    return path


# --- to the hub and back


def test_a_pack_comes_back_with_its_shared_layers_and_gives_the_same_numbers(hub: FakeHub, pack: Path) -> None:
    url = mora_lite.push_to_hub(pack, "chemist/mine")
    assert url == f"{hub.endpoint}/chemist/mine"
    names = set(open_pack(pack).manifest["files"]) | {"pack.json", "README.md"}
    names.remove("training.safetensors")
    pushed = hub.files("chemist/mine")
    assert pushed is not None
    assert set(pushed) == names
    assert len(hub.commits["chemist/mine"]) == 1, "one commit: the repository never holds half a pack"
    shutil.rmtree(pack.parent)
    model = mora_lite.from_pretrained("chemist/mine", device="cpu", dtype="float32", tasks=["size"])
    assert np.isfinite(model.predict(["CCO"]).scores.values).all()
    assert mora_lite.load("hf:chemist/mine", device="cpu").pack.path == model.pack.path


def test_training_molecules_are_pushed_only_when_asked_for(hub: FakeHub, pack: Path, run) -> None:
    code, _, err = run("push", pack, "chemist/mine")
    assert code == 0
    assert err == "note: the training molecules and their values are not pushed; --with-data pushes them too\n"
    with pytest.raises(PackError, match="does not hold its training molecules"):
        mora_lite.from_pretrained("chemist/mine", device="cpu").neighbours("CCO")
    assert "training.safetensors" not in hub.commits["chemist/mine"][-1]["README.md"].decode()
    assert open_pack(pack).load_training().smiles, "what is on disk stays"
    code, _, err = run("push", pack, "chemist/mine", "--with-data")
    assert (code, err) == (0, "")
    assert mora_lite.from_pretrained("chemist/mine", device="cpu").neighbours("CCO").smiles[0][0] == "CCN"
    assert "training.safetensors" in hub.commits["chemist/mine"][-1]["README.md"].decode()


def test_training_molecules_of_an_earlier_push_go(hub: FakeHub, pack: Path) -> None:
    notes: list[str] = []
    push_to_hub(pack, "chemist/mine", with_data=True, on_note=notes.append)
    assert "training.safetensors" in hub.commits["chemist/mine"][-1]
    push_to_hub(pack, "chemist/mine", on_note=notes.append)
    assert "training.safetensors" not in hub.commits["chemist/mine"][-1]
    assert notes[1:] == ["training.safetensors of an earlier push is removed; the repository's history still holds it"]
    assert mora_lite.from_pretrained("chemist/mine", device="cpu").predict(["CCO"]).scores.status == ["ok"]


def test_those_of_an_exported_folder_too(hub: FakeHub, exported_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    from mora_lite.export.runtime import load

    notes: list[str] = []
    push_to_hub(exported_path, "chemist/mine-onnx", on_note=notes.append)
    assert len(notes) == 1
    pushed = hub.files("chemist/mine-onnx")
    assert pushed is not None
    assert "training.npz" not in pushed
    assert b"training.npz" not in pushed["README.md"]
    assert b"trust.npz" in pushed["README.md"]
    with pytest.raises(PackError, match="does not hold the training molecules of tiny"):
        load("hf:chemist/mine-onnx").neighbours("CCO")
    push_to_hub(exported_path, "chemist/mine-onnx", with_data=True, on_note=notes.append)
    assert len(notes) == 1
    assert load("hf:chemist/mine-onnx").neighbours("CCO").smiles[0][0] == "CCN"


def test_an_exported_folder_comes_back_and_scores(hub: FakeHub, exported_path: Path, tmp_path: Path, run) -> None:
    pytest.importorskip("onnxruntime")
    from mora_lite.export.runtime import load

    push_to_hub(exported_path, "chemist/mine-onnx", private=True)
    assert hub.private == {"chemist/mine-onnx": True}
    expected = load(exported_path).score(["CCO", "C"])
    np.testing.assert_array_equal(load("hf:chemist/mine-onnx").score(["CCO", "C"]).values, expected.values)
    table, out = tmp_path / "a.csv", tmp_path / "out.csv"
    table.write_text("smiles\nCCO\nC\n")
    assert run("predict", table, "--pack", "hf:chemist/mine-onnx", "-o", out)[0] == 0
    assert len(out.read_text().splitlines()) == 3


def test_the_card_tells_how_others_have_it(hub: FakeHub, pack: Path) -> None:
    assert (pack / "README.md").read_text() == model_card(open_pack(pack).manifest)
    push_to_hub(pack, "chemist/mine")
    pushed = hub.files("chemist/mine")
    assert pushed is not None
    card = pushed["README.md"].decode()
    assert card.startswith('---\nlibrary_name: "mora-lite"\n')
    assert "mora-lite predict molecules.csv --pack hf:chemist/mine\n" in card
    (pack / "README.md").write_text("my own words\n")
    push_to_hub(pack, "chemist/mine")
    assert hub.commits["chemist/mine"][-1]["README.md"] == b"my own words\n"


def test_a_revision_is_a_commit_and_stays_what_it_was(hub: FakeHub, pack: Path) -> None:
    push_to_hub(pack, "chemist/mine")
    first = hub.name_of("chemist/mine", "main")
    write_manifest(pack, open_pack(pack).manifest | {"name": "renamed"})
    push_to_hub(pack, "chemist/mine")
    assert open_pack("hf:chemist/mine").name == "renamed"
    hub.commit("chemist/mine", {"adapter.safetensors": b"something else"})
    assert open_pack(f"hf:chemist/mine@{first}").name == "tiny", "all files are those of the commit"
    with pytest.raises(PackError, match=r"hf:chemist/mine@v9 could not be fetched.*check name, revision"):
        open_pack("hf:chemist/mine@v9")


# --- what is in the cache


def test_what_was_fetched_is_there_without_a_network(hub: FakeHub, pack: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    push_to_hub(pack, "chemist/mine")
    path = fetch("hf:chemist/mine")
    monkeypatch.setenv("MORA_LITE_OFFLINE", "1")
    hub.asked.clear()
    assert fetch("hf:chemist/mine") == path
    assert open_pack("hf:chemist/mine").name == "tiny"
    assert hub.asked == []
    with pytest.raises(PackError, match=r"MORA_LITE_OFFLINE is set.*not in the cache"):
        fetch("hf:chemist/other")
    with pytest.raises(OutputError, match="MORA_LITE_OFFLINE is set"):
        push_to_hub(pack, "chemist/mine")


def test_a_hub_that_does_not_answer_is_no_reason_to_stop(hub: FakeHub, pack: Path) -> None:
    push_to_hub(pack, "chemist/mine")
    path = fetch("hf:chemist/mine")
    hub.broken = True
    assert fetch("hf:chemist/mine") == path


def test_a_fetched_file_that_was_damaged_is_an_error(hub: FakeHub, pack: Path) -> None:
    push_to_hub(pack, "chemist/mine")
    file = fetch("hf:chemist/mine") / "adapter.safetensors"
    content = file.read_bytes()
    file.resolve().write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(PackError, match=r"adapter\.safetensors is damaged"):
        open_pack("hf:chemist/mine")


def test_a_file_that_was_exchanged_on_the_hub_is_an_error(hub: FakeHub, pack: Path) -> None:
    push_to_hub(pack, "chemist/mine")
    hub.commit("chemist/mine", {"adapter.safetensors": b"something else"})
    with pytest.raises(PackError, match=r"adapter\.safetensors is damaged"):
        open_pack("hf:chemist/mine")


def test_a_pack_in_the_cache_is_not_changed(hub: FakeHub, pack: Path, run, table_path: Path) -> None:
    push_to_hub(pack, "chemist/mine")
    for command in (
        ["calibrate", "hf:chemist/mine", table_path],
        ["evaluate", "hf:chemist/mine", table_path, "--record"],
    ):
        code, _, err = run(*command)
        assert code == 2
        assert "which must not be changed; give the path of a copy" in " ".join(err.split())
    with pytest.raises(InputError):
        check_changeable("hf:a/b")


# --- only data, and only what the manifest names


def test_a_manifest_that_no_parser_follows_is_one_line(hub: FakeHub, pack: Path) -> None:
    push_to_hub(pack, "chemist/mine")
    hub.commit("chemist/mine", {"pack.json": b"[" * 10**5 + b"]" * 10**5})
    with pytest.raises(PackError, match=r"hf:chemist/mine: pack\.json is damaged \(RecursionError: "):
        fetch("hf:chemist/mine")


def test_nothing_but_the_named_files_is_fetched(hub: FakeHub, pack: Path) -> None:
    push_to_hub(pack, "chemist/mine", with_data=True)
    hub.commit("chemist/mine", {"modeling.py": b"raise SystemExit", "config.json": b"{}"})
    path = fetch("hf:chemist/mine")
    assert {file.name for file in path.iterdir()} == {"pack.json", *open_pack(pack).manifest["files"]}
    assert not any("modeling.py" in line or "config.json" in line for line in hub.asked)


@pytest.mark.parametrize(
    "name", ["../pack.safetensors", "/etc/passwd", "a/b.json", "model.py", "weights.pkl", "..\\a.json"]
)
def test_names_that_are_none_of_ours_are_refused(hub: FakeHub, pack: Path, name: str) -> None:
    push_to_hub(pack, "chemist/mine")
    manifest = json.loads((pack / "pack.json").read_text())
    manifest["files"][name] = {"bytes": 1, "sha256": "0"}
    hub.commit("chemist/mine", {"pack.json": json.dumps(manifest).encode(), name: b"x"})
    with pytest.raises(PackError, match="which no pack and no exported folder has"):
        fetch("hf:chemist/mine")
    assert not any(name.replace("\\", "/").split("/")[-1] in line for line in hub.asked)


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b'{"files": 3}', b"\xff"])
def test_a_manifest_that_is_none(hub: FakeHub, content: bytes) -> None:
    hub.commits["chemist/mine"] = [{"pack.json": content}]
    with pytest.raises(PackError, match=r"hf:chemist/mine: pack\.json is damaged"):
        fetch("hf:chemist/mine")


def test_a_repository_of_something_else(hub: FakeHub) -> None:
    hub.commits["chemist/thesis"] = [{"thesis.pdf": b""}]
    with pytest.raises(PackError, match=r"not be fetched \(it holds no pack\.json, export\.json or text_pack\.json\)"):
        fetch("hf:chemist/thesis")


# --- names and errors


def test_addresses() -> None:
    assert parse_address("hf:a/b") == Address("a/b", None)
    assert parse_address("hf:a-1/b.c_2@refs/pr/3") == Address("a-1/b.c_2", "refs/pr/3")
    assert is_address("hf:a")
    assert not is_address(Path("hf/a"))
    for wrong in ("hf:", "hf:a", "hf:a/b/c", "hf:a/b@", "hf:a/b c", "hf:ä/b"):
        with pytest.raises(PackError, match="expected hf:owner/name or hf:owner/name@revision"):
            parse_address(wrong)


def test_the_command_prints_the_address(hub: FakeHub, pack: Path, run) -> None:
    code, out, _ = run("push", pack, "chemist/mine", "--private")
    assert (code, out.strip()) == (0, f"{hub.endpoint}/chemist/mine")
    assert hub.private["chemist/mine"]


def test_a_damaged_pack_is_not_pushed(hub: FakeHub, pack: Path, exported_path: Path, tmp_path: Path) -> None:
    (pack / "prompts.safetensors").write_bytes(b"")
    with pytest.raises(PackError, match="is damaged"):
        push_to_hub(pack, "chemist/mine")
    folder = Path(shutil.copytree(exported_path, tmp_path / "folder"))
    (folder / "scorer.onnx").write_bytes(b"")
    with pytest.raises(PackError, match=r"scorer\.onnx is damaged"):
        push_to_hub(folder, "chemist/mine")
    assert hub.commits == {}


def test_a_hub_that_refuses_is_one_line(hub: FakeHub, pack: Path, run) -> None:
    hub.broken = True
    code, out, err = run("push", pack, "chemist/mine")
    assert (code, out) == (2, "")
    assert "error: cannot push to chemist/mine" in err
    assert "log in with `hf auth login`" in " ".join(err.split())
    with pytest.raises(PackError, match="hf:chemist/mine could not be fetched"):
        fetch("hf:chemist/mine")
