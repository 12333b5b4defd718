"""`mora-lite serve`: a page on this computer, and an HTTP interface."""

from __future__ import annotations

from typing import Annotated

import typer

from .completion import complete_text_packs
from .messages import say
from .options import Confidence, Device, Dtype, Engine, PackOption, Provider, Tasks, TextPackBase, split_names


def serve(
    *,
    pack: PackOption = "admet",
    tasks: Tasks = None,
    host: Annotated[
        str,
        typer.Option(
            metavar="NAME", help="Address to listen on. Other computers reach all but 127.0.0.1, with a token."
        ),
    ] = "127.0.0.1",
    port: Annotated[
        int | None,
        typer.Option(min=0, max=65535, metavar="N", help="Port to listen on.", show_default="8765, or any free one"),
    ] = None,
    token: Annotated[
        str | None,
        typer.Option(
            metavar="TEXT",
            help="What everybody who asks must know, of 16 characters or more.",
            envvar="MORA_LITE_TOKEN",
            show_envvar=False,
            show_default="none on 127.0.0.1, else a new one",
        ),
    ] = None,
    allow_host: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Name under which the server may be asked, besides its address; repeatable."),
    ] = None,
    browser: Annotated[bool, typer.Option("--browser/--no-browser", help="Open the page in the browser.")] = True,
    text: Annotated[
        str,
        typer.Option(
            metavar="PACK",
            help="A text pack that can be asked too, loaded at the first question; none for none.",
            autocompletion=complete_text_packs,
        ),
    ] = "reactions",
    base: TextPackBase = None,
    device: Device = "auto",
    dtype: Dtype = "auto",
    engine: Engine = "auto",
    provider: Provider = "auto",
    confidence: Confidence = 0.9,
) -> None:
    """Open a page to predict in: type, draw or paste molecules, or drop a table.

    Shows a molecule's values with intervals, domain and the nearest measured
    molecules, or a table to sort, filter and download. The page loads nothing
    from elsewhere. Only this computer reaches it; --host opens it to others,
    who then need the token in the address that is printed. A text pack answers
    questions about reactions, if its base model was pulled. Ctrl-C ends it, and
    nothing of what was asked stays.

    \b
    Examples:
    mora-lite serve
    mora-lite serve --pack ./mine --port 9000 --no-browser
    mora-lite serve --text ./retro --base ./smollm2
    mora-lite serve --host 0.0.0.0 --token "$(openssl rand -hex 16)"
    """
    from ..errors import DeviceError
    from ..screening.model_choice import ModelChoice

    try:
        from ..serve.server import Address, serve
        from ..serve.text import TextSource
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] not in ("fastapi", "uvicorn", "starlette", "pydantic"):
            raise
        raise DeviceError(f"serve needs {error.name}, which is not installed: pip install 'mora-lite[serve]'") from None

    choice = ModelChoice(pack, engine, provider, device, dtype, split_names(tasks), confidence)
    address = Address.of(host, port, token, allow_host or ())
    source = None if text == "none" else TextSource.of(text, base, device, dtype)
    try:
        serve(
            choice.load,
            choice.source(),
            address,
            text=source,
            on_start=_say_where,
            on_note=say,
            open_browser=browser,
        )
    except KeyboardInterrupt:  # as it is meant to end
        say("stopped")


def _say_where(url: str, others: str) -> None:
    say(f"serving on {url}")
    if others:
        say(f"for other computers: {others}")
    say("Ctrl-C ends it")
