"""For mkdocs: one argument a line on the API page, as the docstrings have them (`name: what it is.`)."""

from __future__ import annotations

import re
from typing import Any


def on_page_content(html: str, page: Any, **_: Any) -> str:
    if page.file.src_path != "api.md":
        return html
    start = {"<p>": "<p>", "\n": "<br>\n"}
    return re.sub(r"(<p>|\n)([a-z][a-z_, ]*): ", lambda m: f"{start[m[1]]}<code>{m[2]}</code>: ", html)
