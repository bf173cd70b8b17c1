"""Which hosts are this machine, and what stands between it and another."""

from __future__ import annotations

import os
import ssl
from functools import lru_cache
from ipaddress import ip_address
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass


def is_loopback(host: str) -> bool:
    """Whether a host's name or address is this machine by its very form; nothing is looked up."""
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


def get_proxy(url: str) -> str | None:
    """The proxy that the environment names for an address; None where it is asked directly, as this machine is."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    # urllib spares only what NO_PROXY names, and that need not be this machine.
    if is_loopback(host) or proxy_bypass(host):
        return None
    found = getproxies()
    return found.get(parts.scheme) or found.get("all")


def load_certificates(trust_env: bool) -> ssl.SSLContext:
    """The certificates that an HTTP client would read for itself, those that the environment names where it is trusted.

    They are read once a process: that takes longer than a short call, and each thread has its client. Raises OSError
    where a file that is named can't be read.
    """
    # The values are the cache's key: with other files in the environment other certificates are read.
    return _read_certificates(trust_env, *(os.environ.get(name, "") for name in ("SSL_CERT_FILE", "SSL_CERT_DIR")))


@lru_cache(maxsize=8)
def _read_certificates(trust_env: bool, *_named: str) -> ssl.SSLContext:
    # The HTTP library of openai's client, which is given this context.
    import httpx2

    return httpx2.create_ssl_context(trust_env=trust_env)
