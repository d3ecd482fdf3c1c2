"""One self-contained HTML file: styles, scripts and data are inside, and a content security policy allows them by their hashes and
nothing else: no network, no frame, no other script.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

import jinja2
from markupsafe import Markup

_STATIC = files("maskbatch.web") / "static"


@dataclass(frozen=True, slots=True)
class Page:
    """The parts of a page.

    Attributes:
        title: of the window.
        template: Jinja2 of what stands in ``<body>``; everything that is put in is escaped.
        values: for the template.
        styles: CSS.
        scripts: JavaScript, run in this order after the body.
        data: JSON for the scripts, read with ``JSON.parse(document.getElementById("data").textContent)``.
        columns: binary data in base64, as text of ``<script type="text/plain" id="columns">``.
    """

    title: str
    template: str
    values: dict[str, Any]
    styles: Sequence[str]
    scripts: Sequence[str]
    data: Any
    columns: str = ""


_SHELL = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{{ policy }}">
<meta name="viewport" content="width=device-width,initial-scale=1">
<meta name="referrer" content="no-referrer">
<meta name="color-scheme" content="light dark">
<meta name="robots" content="noindex">
<title>{{ title }}</title>
{% for style in styles %}<style>{{ style }}</style>
{% endfor %}</head>
<body>
{{ body }}
<script type="application/json" id="data">{{ data }}</script>
<script type="text/plain" id="columns">{{ columns }}</script>
{% for script in scripts %}<script>{{ script }}</script>
{% endfor %}</body>
</html>
"""


def environment() -> jinja2.Environment:
    """Templates that escape what is put in, and fail on a name that is missing."""
    return jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True, loader=None
    )


def render(page: Page) -> str:
    """The HTML of a page."""
    env = environment()
    body = env.from_string(page.template).render(page.values)
    return env.from_string(_SHELL).render(
        policy=_policy(page),
        title=page.title,
        styles=[Markup(style) for style in page.styles],
        scripts=[Markup(script) for script in page.scripts],
        body=Markup(body),
        data=Markup(script_json(page.data)),
        columns=page.columns,
    )


def script_json(value: Any) -> str:
    """JSON that cannot end the script element it stands in, nor open a comment there."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")


def static_text(name: str) -> str:
    """A file of ``maskbatch/web/static``."""
    return (_STATIC / name).read_text(encoding="utf-8")


def _policy(page: Page) -> str:
    scripts = " ".join(map(_hash, page.scripts))
    # Scripts set the `style` property, which a policy does not concern; style *attributes* are not used.
    styles = " ".join(map(_hash, page.styles))
    return (
        f"default-src 'none'; script-src {scripts}; style-src {styles}; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
