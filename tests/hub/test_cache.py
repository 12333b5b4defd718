"""What is kept on the disk: listed with its size, and removed where it can be had again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mora_lite.errors import InputError
from mora_lite.hub.cache import clear_caches, list_caches


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A base of 5 bytes, its copy of 7, a pack of 3, and 2 bytes of the hub with a link to them."""
    home = tmp_path / "cache"
    monkeypatch.setenv("MORA_LITE_CACHE", str(home))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    for name, size in (("bases/small", 5), ("nf4/abc-1", 7), ("packs/mine", 3)):
        (home / name).mkdir(parents=True)
        (home / name / "file").write_bytes(b"x" * size)
    blobs = tmp_path / "hub" / "models--a--b"
    blobs.mkdir(parents=True)
    (blobs / "blob").write_bytes(b"xx")
    (blobs / "link").symlink_to(blobs / "blob")
    return home


def test_every_kind_is_listed_with_its_size(cache: Path) -> None:
    found = {folder.kind: (folder.names, folder.n_bytes) for folder in list_caches()}
    assert found == {
        "bases": (["small"], 5),
        "nf4": (["abc-1"], 7),
        "packs": (["mine"], 3),
        "hub": (["models--a--b"], 2),
    }


def test_clearing_leaves_what_cannot_be_fetched_again(cache: Path) -> None:
    assert [folder.n_bytes for folder in clear_caches()] == [5, 7]
    assert [folder.n_bytes for folder in list_caches()] == [0, 0, 3, 2]
    assert [folder.kind for folder in clear_caches(["packs"])] == ["packs"]
    assert sorted(path.name for path in cache.iterdir()) == []


def test_the_hub_is_left_to_its_own_program(cache: Path) -> None:
    with pytest.raises(InputError, match="clear it with: hf cache"):
        clear_caches(["hub"])
    with pytest.raises(InputError, match="got 'base'; did you mean bases"):
        clear_caches(["base"])


def test_the_command_shows_and_clears(cache: Path, run: Any) -> None:
    code, out, _ = run("cache")
    assert code == 0
    assert "small" in out
    assert str(cache / "nf4") in out
    code, out, err = run("cache", "clear", "nf4")
    assert (code, out) == (0, "")
    assert "removed" in err
    assert not (cache / "nf4").exists()
    assert (cache / "bases").exists()
    assert run("cache", "cleer")[0] == 2
