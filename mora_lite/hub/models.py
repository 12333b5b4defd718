"""Language models in repositories of the Hugging Face hub: `owner/name` or `owner/name@revision`, `hf:` or not.

Only config.json, the tokenizer and the safetensors files that the repository's index names (or its one file) are
fetched: nothing pickled, no code, no second format of the same weights. The configuration comes first, so that an
architecture that is not supported is refused before gigabytes are fetched. What was fetched stays in the hub's own
cache, and is compared with the SHA-256 that the hub has of it.
"""

from __future__ import annotations

from pathlib import Path

from ..errors import CheckpointError
from ..quant.checkpoint import check_architecture
from ..quant.huggingface import INDEX, read_json
from ..quant.writer import TOKENIZER_FILES
from .access import PREFIX, Snapshot, import_hub, match_address

CONFIG, ONE_FILE = "config.json", "model.safetensors"


def is_hub_model(name: object) -> bool:
    """Whether this may name a repository of the hub. Where a path of that name exists, the path is meant."""
    text = str(name)
    return text.startswith(PREFIX) or (match_address(text) is not None and not Path(text).expanduser().exists())


def fetch_model(address: str) -> Path:
    """The model's directory in the hub's cache, with all files it needs.

    The hub is asked which commit it is; when it cannot be asked, the cache is used. HF_HUB_OFFLINE and
    MORA_LITE_OFFLINE are respected. Raises `CheckpointError` when it cannot be fetched, is damaged or not supported.
    """
    parsed = match_address(address)
    if parsed is None:
        raise CheckpointError(f"got {address!r}, expected owner/name or owner/name@revision of the hub, or a path")
    snapshot = Snapshot(parsed, CheckpointError)
    _check_names(snapshot)
    config = snapshot.get(CONFIG)
    content = read_json(config)
    check_architecture(Path(parsed.repository), str(content.get("model_type")), content.get("architectures"))
    for name in _weight_files(snapshot):
        snapshot.get(name)
    for name in TOKENIZER_FILES:
        if snapshot.names is not None and name in snapshot.names:
            snapshot.get(name)
    return config.parent


def find_model(address: str) -> Path | None:
    """The model's directory in the hub's cache, unchecked and perhaps not whole; None where it is not there."""
    parsed = match_address(address)
    if parsed is None:
        return None
    found = import_hub().try_to_load_from_cache(parsed.repository, CONFIG, revision=parsed.revision or "main")
    return Path(found).parent if isinstance(found, str) else None


def _check_names(snapshot: Snapshot) -> None:
    """Raises `CheckpointError` for a repository without what is needed."""
    names, repository = snapshot.names, snapshot.address.repository
    if names is None or (CONFIG in names and {ONE_FILE, INDEX} & names):
        return
    if gguf := sorted(name for name in names if name.endswith(".gguf")):
        reason = f"it holds GGUF files; fetch one of them (hf download {repository} {gguf[0]}) and give its path"
    elif CONFIG not in names:
        reason = f"it holds no {CONFIG}; is it a model for transformers?"
    else:
        reason = f"it holds no {ONE_FILE}; pickled weights are never read"
    raise CheckpointError(f"{repository} cannot be used: {reason}")


def _weight_files(snapshot: Snapshot) -> list[str]:
    """Names of the files with weights."""
    if snapshot.names is not None and INDEX not in snapshot.names:
        return [ONE_FILE]
    try:
        index = snapshot.get(INDEX)
    except CheckpointError:
        if snapshot.names is None:
            return [ONE_FILE]  # the cache holds no index: it has one file, or none
        raise
    shards = read_json(index).get("weight_map")
    files = sorted({str(file) for file in shards.values()}) if isinstance(shards, dict) else []
    if not files or any(not file.endswith(".safetensors") or file != Path(file).name for file in files):
        raise CheckpointError(f"{snapshot.address.repository}: {INDEX} names no safetensors files beside it")
    return files
