"""Compile the native reader to WebAssembly, as `make reader` does: `python tests/support/reader_wasm.py FILE`.

It needs the package ziglang of version `ZIG`: the same sources then give the same bytes on every machine. At the end of
the file, in a section of its own, is the SHA-256 of the sources, so that a file that is out of date is known as such
without a compiler.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
import tempfile
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SOURCES = ROOT / "mora_lite" / "chem" / "csrc"
SHIPPED = ROOT / "export" / "page" / "reader.wasm"
ZIG = "0.17.1"
STACK = 1 << 20  # bytes; the linker puts it first, so what overflows it traps
FLAGS = (
    "--target=wasm32-wasi -mexec-model=reactor -std=c11 -O2 -msimd128 -Wl,--strip-all "
    f"-Wl,-z,stack-size={STACK} -Wl,--export=__heap_base "
    "-Wno-bitwise-conditional-parentheses -Werror=frame-larger-than -Wframe-larger-than=65536"
)
SECTION = b"sources"


def sources() -> list[Path]:
    """What is compiled, with the header; in the order of their names."""
    return [path for path in sorted(SOURCES.iterdir()) if path.name != "module.c"]


def sources_sha256() -> str:
    """Of all of them and of how they are compiled."""
    digest = hashlib.sha256(f"{ZIG} {FLAGS}\n".encode())
    for path in sources():
        digest.update(f"{path.name}\n".encode())
        digest.update(path.read_bytes().replace(b"\r\n", b"\n"))
    return digest.hexdigest()


def compile_reader(file: Path) -> None:
    """Write the module. Raises `CalledProcessError` when it does not compile."""
    names = [path.name for path in sources() if path.suffix == ".c"]
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder) / "reader.wasm"
        command = [sys.executable, "-m", "ziglang", "cc", *FLAGS.split(), *names, "-o", str(made)]
        subprocess.run(command, cwd=SOURCES, check=True)
        content = made.read_bytes()
    body = bytes([len(SECTION)]) + SECTION + sources_sha256().encode()
    assert len(body) < 128  # one byte holds the length
    file.write_bytes(content + bytes([0, len(body)]) + body)


def recorded_sha256(file: Path) -> str:
    """What the end of the file says of its sources."""
    return file.read_bytes()[-64:].decode("ascii", "replace")


if __name__ == "__main__":
    if metadata.version("ziglang") != ZIG:
        sys.exit(f"ziglang: got {metadata.version('ziglang')}, expected {ZIG}: pip install ziglang=={ZIG}")
    compile_reader(Path(sys.argv[1]))
