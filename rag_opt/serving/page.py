"""The page of a service: a question, the answer, its sources with what the question's words mark in them, a thumb."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from jinja2 import Environment, StrictUndefined

TEMPLATE = Path(__file__).with_name("page.html.j2")
# 'unsafe-inline', since script and style are part of the page, which loads no other file.
CONTENT_POLICY = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


@lru_cache
def render_page(model: str, *, has_generator: bool, needs_key: bool) -> str:
    """The page for a model; a model without a generator has no answer to show, only sources."""
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string(TEMPLATE.read_text("utf-8"))
    return template.render(model=model, has_generator=has_generator, needs_key=needs_key)
