"""Keys of endpoints: read from the environment, sent only with the user's consent, never shown.

A recipe may come from a stranger, and a model's URL with it. A key is therefore sent only to a
host that the *user* named for it: in a `--model` or `--set` of the command line, in
`OPENAI_BASE_URL`, with `--key HOST=VARIABLE`, or in the user's own file
(`~/.config/simforge/keys.yaml`, lines `HOST: VARIABLE`). OpenAI's own host may have
`OPENAI_API_KEY`.
"""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path
from urllib.parse import quote

from simforge.catalog import documents
from simforge.errors import UsageError
from simforge.models import addresses
from simforge.models.contract import ModelSpec
from simforge.types import Access

DEFAULT_VARIABLE = "OPENAI_API_KEY"


KEYS_FILE = "SIMFORGE_KEYS"
"Variable with the path of the user's file of hosts and variables."


MIN_SECRET = 6
"Shortest secret in characters that is removed from texts; shorter ones occur by chance."


REMOVED = "[removed]"


SECRET_HEADERS = re.compile(r"auth|key|token|secret|cookie|session", re.IGNORECASE)
"Names of headers whose values are secrets."


def read_key(access: Access) -> str:
    """Return the key of an endpoint, without surrounding white space; empty if there is none.
    Raises `UsageError` for a key that cannot be sent, without showing it."""
    key = os.environ.get(access.key_variable, "").strip() if access.key_variable else ""
    if not key.isascii() or not key.isprintable() or " " in key:
        raise UsageError(
            f"the key in {access.key_variable} has characters that no key has (spaces, line breaks "
            "or letters outside ASCII): set it again."
        )
    return key


class Redactor:
    """Removes the secrets of an endpoint from what its server sent, also where JSON writes
    them with escapes."""

    def __init__(self, access: Access) -> None:
        headers = [
            value for name, value in access.headers if SECRET_HEADERS.search(name)
        ]
        secrets = {
            secret
            for value in (read_key(access), *headers)
            for secret in (value, value.rpartition(" ")[2])
            if len(secret) >= MIN_SECRET
        }
        self._secrets = sorted(secrets, key=len, reverse=True)
        self._escaped = re.compile(
            "|".join(map(_escaped_pattern, self._secrets)).encode()
        )

    def body(self, body: bytes) -> bytes:
        """Return a body without secrets."""
        for secret in self._secrets:
            if secret.encode() in body:
                body = body.replace(secret.encode(), REMOVED.encode())
        if self._secrets and (b"\\u00" in body or b"\\/" in body):
            body = self._escaped.sub(REMOVED.encode(), body)
        return body

    def text(self, text: str) -> str:
        """Return a text, such as a header, without secrets."""
        for secret in self._secrets:
            for written in (secret, quote(secret), quote(secret, safe="")):
                text = text.replace(written, REMOVED)
        return text


def _escaped_pattern(secret: str) -> str:
    """Return a pattern of a secret whose characters may each be escaped as in JSON."""
    return "".join(
        rf"(?:\\?{re.escape(character)}|\\u00(?i:{ord(character):02x}))"
        for character in secret
    )


@dataclass(frozen=True, slots=True)
class Grant:
    """A variable that may be sent to some URLs."""

    pattern: str
    "A host (also with its port), or a pattern of URLs such as `https://*.example.com/*`."
    variable: str

    def covers(self, url: str) -> bool:
        if "://" not in self.pattern:
            return self.pattern in addresses.hosts_of(url)
        return any(
            fnmatchcase(form, self.pattern) for form in (url, f"{url.rstrip('/')}/")
        )


@dataclass(frozen=True, slots=True)
class Consent:
    """Which variables the user allows to be sent to which URLs."""

    grants: tuple[Grant, ...]

    def allows(self, url: str, variable: str) -> bool:
        return any(
            grant.variable == variable and grant.covers(url) for grant in self.grants
        )


def consent_of(
    allowed: Iterable[str], references: Iterable[str], settings: Iterable[str] = ()
) -> Consent:
    """Return what the user allows on the command line: `allowed` are `HOST=VARIABLE`,
    `references` are models, whose URLs may have `OPENAI_API_KEY`, and `settings` are
    `KEY=VALUE`, of which `endpoints` name variables and `models` name URLs. Raises
    `UsageError`."""
    urls = [addresses.OPENAI_URL, addresses.default_url(), *_urls_in(references)]
    grants = []
    for text in settings:
        section = text.partition("=")[0].strip().partition(".")[0]
        if section in ("models", "candidates"):
            urls += _urls_in([text])
        elif section == "endpoints":
            grants += _typed_endpoints(text)
    grants += [Grant(f"{_site(url)}*", DEFAULT_VARIABLE) for url in urls]
    for text in allowed:
        host, separator, variable = text.partition("=")
        if (
            not separator
            or not re.fullmatch(r"[\w.:\[\]-]+", host)
            or not re.fullmatch(r"[A-Za-z_]\w*", variable)
            or variable not in os.environ
        ):
            raise UsageError(
                "--key must be written --key HOST=VARIABLE, for example --key "
                "api.example.com=EXAMPLE_KEY: a host without http:// and without a path, and "
                "the name of an environment variable that is set (not the key itself)."
            )
        grants.append(Grant(host.lower(), variable))
    grants += [Grant(host.lower(), variable) for host, variable in _users_file()]
    return Consent(tuple(grants))


def _urls_in(texts: Iterable[str]) -> list[str]:
    return [
        url for text in texts for url in re.findall(r"https?://[^\s,\"'}\]]+", text)
    ]


def _site(url: str) -> str:
    """Return a pattern of all URLs with the scheme and host of a URL: a key that was allowed
    for https is not sent over http."""
    scheme, _, rest = url.partition("://")
    return f"{scheme}://{glob.escape(rest.partition('/')[0])}/"


def _typed_endpoints(setting: str) -> list[Grant]:
    """Return what a `--set endpoints...` of the command line allows."""
    document = documents.Document("the command line", {})
    document.override(setting)
    endpoints = document.value.get("endpoints")
    return [
        Grant(pattern, str(access.get("key_variable", DEFAULT_VARIABLE)))
        for pattern, access in (
            endpoints if isinstance(endpoints, dict) else {}
        ).items()
        if isinstance(access, dict)
    ]


def _users_file() -> list[tuple[str, str]]:
    path = Path(os.environ.get(KEYS_FILE, "~/.config/simforge/keys.yaml")).expanduser()
    if not path.is_file():
        return []
    document = documents.read_file(path)
    mistakes = [
        document.mistake((host,), "must be a host with the name of a variable")
        for host, variable in document.value.items()
        if not isinstance(variable, str) or not re.fullmatch(r"[\w.:\[\]-]+", str(host))
    ]
    documents.raise_if_any(mistakes)
    return [(str(host), variable) for host, variable in document.value.items()]


def with_permitted_key(spec: ModelSpec, consent: Consent) -> tuple[ModelSpec, str]:
    """Return a spec that sends only a key that the user allows, and a sentence about the key
    that is sent or kept back; empty if there is none. Raises `UsageError` if a variable that
    only a recipe names would be sent."""
    variable = spec.access.key_variable
    if not spec.urls or not read_key(spec.access):
        return spec, ""
    hosts = sorted({addresses.host_of(url) for url in spec.urls})
    refused = sorted(
        {
            addresses.host_of(url)
            for url in spec.urls
            if not consent.allows(url, variable)
        }
    )
    if not refused:
        return spec, f"{variable} is sent to {', '.join(hosts)}"
    grant = " ".join(f"--key {host}={variable}" for host in refused)
    if variable != DEFAULT_VARIABLE:
        raise UsageError(
            f"the recipe wants to send the environment variable {variable} to "
            f"{', '.join(refused)}. If that is right, add {grant}."
        )
    keyless = replace(spec, access=replace(spec.access, key_variable=""))
    return keyless, (
        f"{variable} is not sent to {', '.join(refused)}, which only the recipe names; if that "
        f"server needs it, add {grant}"
    )
