"""How Ray is reached, and what is said where it cannot be."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import pytest

from mora_lite.errors import DeviceError
from mora_lite.screening import ray_cluster
from mora_lite.screening.ray_cluster import connected


def test_without_ray_the_extra_is_named(run, monkeypatch, pack_path, tmp_path):
    (tmp_path / "a.smi").write_text("CCO\n")
    monkeypatch.setitem(sys.modules, "ray.data", None)
    code, _, err = run("screen", tmp_path / "a.smi", "-o", tmp_path / "run", "--pack", pack_path, "--engine", "ray")
    assert code == 2
    assert err.startswith("error: --engine ray needs Ray")
    assert err.endswith('pip install "mora-lite[ray]"\n')
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("address", ["127.0.0.1:1", "ray://head:10001", "head:port"])
def test_an_address_that_does_not_answer_is_told_at_once(monkeypatch, address):
    idle = SimpleNamespace(is_initialized=lambda: False)
    monkeypatch.setattr(ray_cluster, "import_ray", lambda: idle)
    with pytest.raises(DeviceError, match=f"{address}.*--ray-address auto"), connected(address, 1):
        pass
