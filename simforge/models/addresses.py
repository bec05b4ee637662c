"""Addresses of endpoints: `NAME@URL[,URL...]`, how routes are appended, and which proxy is used.

A URL is stored with the data and shown in messages, so one that holds a password or a key is
refused. Query strings that are no secret stay (`?api-version=2024-10-21`), and routes are
inserted before them.
"""

from __future__ import annotations

import logging
import os
import re
import urllib.request
from dataclasses import dataclass
from functools import lru_cache
from urllib.parse import parse_qsl, urlsplit, urlunsplit

from simforge.errors import UsageError

log = logging.getLogger("simforge")


OPENAI_URL = "https://api.openai.com/v1"


SECRET_PARAMETERS = re.compile(
    r"(?:^|[-_.])(?:key|token|secret|password|passwd|pwd|sig|signature|auth|code|bearer|sas)$"
    r"|apikey$",
    re.IGNORECASE,
)
"Names of query parameters that hold a key."


@dataclass(frozen=True, slots=True)
class Address:
    """A parsed reference."""

    model: str
    urls: tuple[str, ...]


def parse(name: str, provider: str, example: str, default_url: str = "") -> Address:
    """Parse `NAME@URL[,URL...]`. Raises `UsageError`; its message shows no URL that holds a
    secret."""
    if _holds_secret(name):
        raise UsageError(
            f"the URL of a model of the provider {provider} holds a password or a key, and it "
            "would be stored with the data: leave it out, put the key into an environment "
            "variable, and name that variable in the recipe (endpoints.URL.key_variable)."
        )
    model, separator, urls = name.rpartition("@")
    if not separator and default_url:
        model, urls = name, default_url
    parsed_urls = tuple(
        url.strip().rstrip("/") for url in urls.split(",") if url.strip()
    )
    if not model or not parsed_urls or not all(map(_is_url, parsed_urls)):
        raise UsageError(
            f"{provider}:{name} must be written {provider}:NAME@URL, for example {example}."
        )
    return Address(model, parsed_urls)


def default_url() -> str:
    """Return the URL of references without one: `OPENAI_BASE_URL`, else OpenAI's."""
    return os.environ.get("OPENAI_BASE_URL", "").strip() or OPENAI_URL


def host_of(url: str) -> str:
    """Return host and port of a URL, in lower case; the port only if the URL names one that is
    not the usual one. Raises `UsageError` if it is no URL."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise UsageError(f"{url.split('@')[-1]} is not a URL.") from None
    host = parts.netloc.rpartition("@")[2].lower()
    usual = {"https": 443, "http": 80}.get(parts.scheme)
    return host.removesuffix(f":{port}") if port is not None and port == usual else host


def hosts_of(url: str) -> set[str]:
    """Return the ways in which a host can be written: with its port, and without it if the port
    is the usual one. Raises `UsageError` if it is no URL."""
    host = host_of(url)
    usual = {"https": 443, "http": 80}.get(urlsplit(url).scheme)
    named = re.search(r":\d+$", host) is not None
    return {host} if named else {host, f"{host}:{usual}"}


def route(url: str, path: str) -> str:
    """Append a path to a URL, before its query."""
    parts = urlsplit(url)
    return urlunsplit(parts._replace(path=parts.path.rstrip("/") + path))


def _is_url(url: str) -> bool:
    try:
        parts = urlsplit(url)
        port = parts.port  # raises for a number that is no port
    except ValueError:
        return False
    return (
        parts.scheme in ("http", "https")
        and bool(parts.hostname)
        and port != 0
        and not re.search(r"[\s\x00-\x1f]", url)
    )


def _holds_secret(name: str) -> bool:
    for url in re.findall(r"https?://[^,\s]*", name, re.IGNORECASE):
        if "@" in url.split("//", 1)[1].split("/", 1)[0]:
            return True
        # a fragment is no part of what is sent, but it would be stored
        for parameter, value in parse_qsl(
            re.sub("[?#;]", "&", url.partition("?")[2])
        ) + (parse_qsl(url.partition("#")[2])):
            if value and SECRET_PARAMETERS.search(parameter):
                return True
    return False


@lru_cache(maxsize=256)
def proxy_for(url: str) -> str | None:
    """Return the proxy for a URL from the usual variables (`HTTP_PROXY`, `HTTPS_PROXY`,
    `ALL_PROXY`, `NO_PROXY`), for all clients alike; `None` for none. A SOCKS proxy is not
    supported: it is passed over with a warning."""
    host = urlsplit(url).hostname or ""
    if host in ("localhost", "127.0.0.1", "::1"):
        return None
    proxies = urllib.request.getproxies_environment()
    try:
        if urllib.request.proxy_bypass_environment(host_of(url), proxies):  # type: ignore[attr-defined]
            return None
    except (ValueError, re.error):
        log.warning("NO_PROXY cannot be read and is passed over")
    proxy = proxies.get(urlsplit(url).scheme) or proxies.get("all")
    if not proxy:
        return None
    if "://" not in proxy:
        proxy = f"http://{proxy}"
    if not proxy.startswith(("http://", "https://")):
        log.warning(
            "the proxy %s:// is not supported: %s is called directly",
            proxy.partition("://")[0],
            host,
        )
        return None
    return proxy
