"""Where the judge's endpoint is, and the key to it: from settings, the environment or a Prefect block. The key is shown
nowhere, and travels encrypted or not at all."""

from __future__ import annotations

import ipaddress
import os

import httpx2 as httpx

from sgpo_core.config.base import ConfigError
from sgpo_core.config.judge import EndpointSettings

URL, KEY = "SGPO_JUDGE_URL", "SGPO_JUDGE_API_KEY"


def base_url(settings: EndpointSettings) -> str:
    """Where the server is, without a slash at the end."""
    url = (settings.url or os.environ.get(URL, "")).strip().rstrip("/")
    if not url:
        raise ConfigError(
            f"judge=endpoint needs a server: set judge.endpoint.url or {URL}, as in http://127.0.0.1:8000/v1"
        )
    try:
        parsed = httpx.URL(url)
    except (httpx.InvalidURL, UnicodeError):
        parsed = httpx.URL("")
    if parsed.userinfo or parsed.query or parsed.fragment:  # not shown: it may hold the key
        raise ConfigError(f"judge.endpoint.url (or {URL}) may hold no user, password or query: the key goes to {KEY}")
    if parsed.scheme not in ("http", "https") or not parsed.host:
        raise ConfigError(f"judge.endpoint.url (or {URL}) is no base URL such as http://127.0.0.1:8000/v1: {url!r}")
    return url


def is_loopback(url: str) -> bool:
    host = httpx.URL(url).host
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def api_key(settings: EndpointSettings, url: str) -> str:
    """The key, "" for none. Refused where others could read it on its way, or where it is none."""
    key = (_from_block(settings.key_block) if settings.key_block else os.environ.get(KEY, "")).strip()
    source = f"Prefect block {settings.key_block!r}" if settings.key_block else KEY
    if not (key.isascii() and key.isprintable() and " " not in key):
        raise ConfigError(f"the key of {source} holds blanks or characters that no key has: was it pasted whole?")
    if key and httpx.URL(url).scheme == "http" and not is_loopback(url):
        raise ConfigError(
            f"the key of {source} would travel unencrypted to {url}: use https, or a tunnel to 127.0.0.1; a server "
            "that wants no key may be reached over http without one"
        )
    return key


def _from_block(name: str) -> str:
    from prefect.blocks.system import Secret  # slow to import

    try:
        return str(Secret.load(name).get())  # type: ignore[union-attr]
    except ValueError:
        raise ConfigError(
            f"judge.endpoint.key_block={name}: there is no such Prefect Secret block; make one on Prefect's page "
            f"Blocks, or leave the setting empty and set {KEY}"
        ) from None
