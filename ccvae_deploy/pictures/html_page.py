"""What all HTML pages share: head, style sheet, pictures as data URIs. Touches nothing.

A page needs no network and no script. Its parts are given as HTML; who makes them escapes the text in them.
"""

import base64
from collections.abc import Iterable

from ..records.pages import MARK
from .plots import escaped

STYLE = """
:root{color-scheme:light dark;--ink:#222;--soft:#666;--line:#ccc;--a:#3b6ea8;--b:#d08a2e;--paper:#fff}
@media(prefers-color-scheme:dark){:root{--ink:#ddd;--soft:#999;--line:#444;--a:#6fa3e0;--b:#e0a85c;--paper:#181818}}
body{font:15px/1.45 system-ui,sans-serif;color:var(--ink);background:var(--paper);max-width:1140px;margin:2em auto;
padding:0 1em}
h1{font-size:1.5em}h2{font-size:1.15em;margin-top:2em}th{text-align:left;padding-right:1.5em;font-weight:600;
vertical-align:top}.row{display:flex;flex-wrap:wrap;gap:1.5em}figure{margin:0}figcaption,.note{color:var(--soft);
font-size:.85em}.pair{width:264px;overflow-wrap:anywhere}.pair img{vertical-align:top;image-rendering:auto}
svg text{font:11px system-ui,sans-serif;fill:var(--ink)}.end{text-anchor:end}.middle{text-anchor:middle}
.s0{fill:var(--a)}.s1{fill:var(--b);fill-opacity:.65}.axis{stroke:var(--line)}.k0{color:var(--a)}.k1{color:var(--b)}
"""


def page(title: str, parts: Iterable[str], style: str = "") -> bytes:
    """A page of HTML parts under a title; nothing in it may load or run, whatever a file is called.

    Args:
        title: plain text.
        style: rules beside those that all pages have.
    """
    whole = [
        "<!doctype html>",
        '<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">',
        '<meta http-equiv="Content-Security-Policy" '
        "content=\"default-src 'none'; img-src data:; style-src 'unsafe-inline'\">",
        f'<meta name="generator" content="{MARK}">',
        f"<title>{escaped(title)}</title><style>{STYLE}{style}</style></head><body>",
        f"<h1>{escaped(title)}</h1>",
        *parts,
        "</body></html>",
    ]
    return "\n".join(whole).encode("utf-8", "backslashreplace")


def data_uri(jpeg: bytes) -> str:
    """A JPEG file as the source of an `<img>`."""
    return f"data:image/jpeg;base64,{base64.b64encode(jpeg).decode('ascii')}"
