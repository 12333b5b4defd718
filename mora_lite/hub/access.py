"""The dialogue with the Hugging Face hub: addresses, whether the network is allowed, and the files of one revision."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any, NamedTuple

from ..errors import DeviceError, MoraLiteError, first_line
from ..machine.files import sha256_of

PREFIX = "hf:"  # of an address on the hub
OFFLINE = "HF_HUB_OFFLINE"
HUB_SECONDS = 5
_ADDRESS = re.compile(r"(?:hf:)?(?P<repository>\w[\w.-]*/\w[\w.-]*)(?:@(?P<revision>[\w./-]+))?", re.ASCII)


class Address(NamedTuple):
    """repository: `owner/name`. revision: branch, tag or commit; None is the main branch."""

    repository: str
    revision: str | None


def match_address(text: str) -> Address | None:
    """`owner/name` or `owner/name@revision`, with `hf:` before it or without; None for anything else."""
    match = _ADDRESS.fullmatch(text)
    return None if match is None else Address(match["repository"], match["revision"])


class Snapshot:
    """The files of a repository at one commit, in the hub's own cache, which is also used without a network.

    names: the files of the repository; None when the hub did not say.
    error_type: of what is raised when a file cannot be fetched.
    """

    def __init__(self, address: Address, error_type: type[MoraLiteError]) -> None:
        self.address, self._error = address, error_type
        self.names: set[str] | None = None
        self._revision = address.revision
        self._hub = import_hub()
        self._reason = ""  # why the hub did not say
        if variable := offline_variable(OFFLINE):
            self._reason = f"{variable} is set"
            return
        try:
            # A plain question first, with a short wait: a download would try for a minute without a network.
            answer = self._hub.HfApi().model_info(address.repository, revision=address.revision, timeout=HUB_SECONDS)
            self.names = {file.rfilename for file in answer.siblings}
        # Any error of whichever network library is in use means the same: the hub does not answer.
        except Exception as error:
            self._reason = first_line(error)

    def get(self, name: str) -> Path:
        """One file; all further files are of the same commit, whatever is pushed meanwhile."""
        repository, offline = self.address.repository, self.names is None
        try:
            cached = self._hub.try_to_load_from_cache(repository, name, revision=self._revision or "main")
            path = Path(self._hub.hf_hub_download(repository, name, revision=self._revision, local_files_only=offline))
        except Exception as error:  # as above
            raise self.failure(self._reason or first_line(error)) from None
        # The cache calls large files by their SHA-256.
        digest = path.resolve().name
        if str(path) != str(cached) and re.fullmatch(r"[0-9a-f]{64}", digest) and sha256_of(path) != digest:
            path.resolve().unlink()
            raise self._error(f"{repository}: {name} was damaged on its way (its SHA-256 is wrong); try again")
        self._revision = path.parent.name
        return path

    def failure(self, reason: str) -> MoraLiteError:
        """The error that the files cannot be had, for a reason."""
        at = f"@{self.address.revision}" if self.address.revision else ""
        cached = ", and it is not in the cache" if self.names is None else ""
        return self._error(
            f"{PREFIX}{self.address.repository}{at} could not be fetched ({reason}{cached}); check name, revision and "
            "network, and `hf auth login` if it is private; or give a path"
        )


def import_hub() -> Any:
    """The package huggingface_hub. Raises `DeviceError` when it is not installed."""
    try:
        import huggingface_hub
    except ImportError as error:
        raise DeviceError(f"huggingface_hub cannot be imported ({error}); run: pip install huggingface_hub") from None
    return huggingface_hub


def offline_variable(*variables: str) -> str | None:
    """The environment variable that forbids the network, MORA_LITE_OFFLINE or one of these; None when none does."""
    for variable in ("MORA_LITE_OFFLINE", *variables):
        if os.environ.get(variable, "").upper() in ("1", "ON", "YES", "TRUE"):
            return variable
    return None
