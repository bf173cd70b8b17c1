"""A model as an HTTP service: OpenAI's protocol, keys, limits, metrics, a page; watched, and swapped while it runs."""

from __future__ import annotations
