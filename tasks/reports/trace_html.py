"""Pages of untrusted text: everything is escaped, invisible characters are named, and no script but ours can run."""

from __future__ import annotations

import re
from base64 import b64encode
from functools import cache
from hashlib import sha256
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template
from markupsafe import Markup, escape

_TEMPLATES = Path(__file__).with_name("templates") / "traces"

# Characters that a reader can't see, or that change what others look like: controls (but for newline and tab), soft
# hyphens, zero-width and bidirectional marks, unusual line ends, lone surrogates and invisible tags.
_INVISIBLE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180e\u200b-\u200f\u2028-\u202e"
    "\u2060-\u206f\u3164\ufeff\uffa0\ufff9-\ufffb\ud800-\udfff\U000e0000-\U000e0fff]+"
)


def template(name: str) -> Template:
    """A template of the traces, with everything that it takes but its data."""
    return _environment().get_template(name)


@cache
def _environment() -> Environment:
    environment = Environment(
        autoescape=True,
        undefined=StrictUndefined,
        loader=FileSystemLoader(_TEMPLATES),
        trim_blocks=True,
        lstrip_blocks=True,
    )
    style, script = ((_TEMPLATES / name).read_text(encoding="utf-8").strip() for name in ("style.css", "script.js"))
    environment.filters.update(visible=visible, number=number)
    environment.globals.update(
        style=Markup(style),
        script=Markup(script),
        # Even a hole in the escaping runs nothing: what isn't exactly our script and style is refused by the browser.
        policy=f"default-src 'none'; script-src {_hash(script)}; style-src {_hash(style)}; base-uri 'none'; "
        "form-action 'none'",
    )
    return environment


def _hash(text: str) -> str:
    return f"'sha256-{b64encode(sha256(text.encode()).digest()).decode()}'"


def number(value: float) -> str:
    """Three digits, and a minus sign that is as wide as a digit."""
    return f"{value:.3g}".replace("-", "−")


def visible(text: str) -> Markup:
    """The text as HTML: nothing in it is markup, and invisible characters are named."""
    parts, position = [], 0
    for match in _INVISIBLE.finditer(text):
        names = " ".join(f"U+{ord(character):04X}" for character in match.group())
        parts += [escape(text[position : match.start()]), Markup("<b class=control>{}</b>").format(names)]
        position = match.end()
    return Markup().join([*parts, escape(text[position:])])
