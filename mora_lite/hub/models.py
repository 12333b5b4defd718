"""Language models in repositories of the Hugging Face hub: `owner/name` or `owner/name@revision`, `hf:` or not.

Fetched are config.json, the safetensors files that the repository's index names (or its one file) and the tokenizer;
nothing pickled, no code, no second format of the same weights. The configuration comes first, so that an architecture
that is not supported is refused before gigabytes are fetched. What was fetched stays in the hub's own cache, and is
compared with the SHA-256 that the hub has of it.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from ..errors import CheckpointError
from ..machine.files import sha256_of
from ..quant.checkpoint import check_architecture
from ..quant.huggingface import INDEX
from ..quant.writer import TOKENIZER_FILES
from .access import HUB_SECONDS, OFFLINE, PREFIX, first_line, import_hub, offline_variable

CONFIG, ONE_FILE = "config.json", "model.safetensors"
_ADDRESS = re.compile(r"(?P<repository>[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*)(?:@(?P<revision>[\w./-]+))?", re.ASCII)


def is_hub_model(name: object) -> bool:
    """Whether this may name a repository of the hub. Where a path of that name exists, the path is meant."""
    text = str(name)
    return text.startswith(PREFIX) or (_ADDRESS.fullmatch(text) is not None and not Path(text).expanduser().exists())


def fetch_model(address: str) -> Path:
    """The model's directory in the hub's cache, with all files it needs.

    The hub is asked which commit it is; when it cannot be asked, what is in the cache will do. HF_HUB_OFFLINE and
    MORA_LITE_OFFLINE are respected. Raises `CheckpointError` when it cannot be had, is damaged, or is of no use here.
    """
    found = _ADDRESS.fullmatch(address.removeprefix(PREFIX))
    if found is None:
        raise CheckpointError(f"got {address!r}, expected owner/name or owner/name@revision of the hub, or a path")
    return _Repository(found["repository"], found["revision"]).fetch()


class _Repository:
    """One revision of a repository. names: its files, None when the hub does not say; why: then, why not."""

    def __init__(self, repository: str, revision: str | None) -> None:
        self.repository, self.revision = repository, revision
        self.hub = import_hub()
        self.names: set[str] | None = None
        self.why = ""
        if variable := offline_variable(OFFLINE):
            self.why = f"{variable} is set"
            return
        try:
            # A plain question first, with a short wait: a download would try for a minute without a network.
            answer = self.hub.HfApi().model_info(repository, revision=revision, timeout=HUB_SECONDS)
            self.names = {file.rfilename for file in answer.siblings}
        # Any error of whichever network library is in use means the same: the hub does not answer.
        except Exception as error:
            self.why = first_line(error)

    def fetch(self) -> Path:
        self._check_names()
        config = self._get(CONFIG)
        content = _read(config)
        check_architecture(Path(self.repository), str(content.get("model_type")), content.get("architectures"))
        self.revision = config.parent.name  # all further files are of the same commit, whatever is pushed meanwhile
        for name in self._weights():
            self._get(name)
        if self.names is not None:
            for name in TOKENIZER_FILES:
                if name in self.names:
                    self._get(name)
        return config.parent

    def _check_names(self) -> None:
        """Raises `CheckpointError` for a repository without what is needed."""
        names = self.names
        if names is None or (CONFIG in names and {ONE_FILE, INDEX} & names):
            return
        if gguf := sorted(name for name in names if name.endswith(".gguf")):
            reason = (
                f"it holds GGUF files; fetch one of them (hf download {self.repository} {gguf[0]}) and give its path"
            )
        elif CONFIG not in names:
            reason = f"it holds no {CONFIG}; is it a model for transformers?"
        else:
            reason = f"it holds no {ONE_FILE}; pickled weights are never read"
        raise CheckpointError(f"{self.repository} cannot be used: {reason}")

    def _weights(self) -> list[str]:
        """Names of the files with weights."""
        if self.names is not None and INDEX not in self.names:
            return [ONE_FILE]
        try:
            index = self._get(INDEX)
        except CheckpointError:
            if self.names is None:
                return [ONE_FILE]  # the cache holds no index: it has one file, or none
            raise
        shards = _read(index).get("weight_map")
        files = sorted({str(file) for file in shards.values()}) if isinstance(shards, dict) else []
        if not files or any(not file.endswith(".safetensors") or file != Path(file).name for file in files):
            raise CheckpointError(f"{self.repository}: {INDEX} names no safetensors files beside it")
        return files

    def _get(self, name: str) -> Path:
        """One file, from the cache or from the hub; what comes from the hub is checked."""
        try:
            known = self.hub.try_to_load_from_cache(self.repository, name, revision=self.revision or "main")
            path = Path(
                self.hub.hf_hub_download(
                    self.repository, name, revision=self.revision, local_files_only=self.names is None
                )
            )
        except Exception as error:  # as above
            cached = ", and it is not in the cache" if self.names is None else ""
            raise CheckpointError(
                f"{PREFIX}{self.repository} could not be fetched ({self.why or first_line(error)}{cached}); check "
                "name, revision and network, and `hf auth login` if it is private; or give a path"
            ) from None
        # The cache calls large files by their SHA-256.
        digest = path.resolve().name
        if str(path) != str(known) and re.fullmatch(r"[0-9a-f]{64}", digest) and sha256_of(path) != digest:
            path.resolve().unlink()
            raise CheckpointError(f"{self.repository}: {name} was damaged on its way (its SHA-256 is wrong); try again")
        return path


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path}: damaged JSON ({error})") from None
    if not isinstance(content, dict):
        raise CheckpointError(f"{path}: expected a JSON object")
    return content
