"""Keys of endpoints: read from the environment, sent only with the user's consent, never shown.

A recipe may come from a stranger, and a model's URL with it. A key is therefore sent only to a
host that the *user* named for it: in a `--model` or `--set` of the command line, in
`OPENAI_BASE_URL`, with `--key HOST=VARIABLE`, or in the user's own file
(`~/.config/simforge/keys.yaml`, lines `HOST: VARIABLE`). OpenAI's own host may have
`OPENAI_API_KEY`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from simforge.catalog import documents
from simforge.errors import UsageError
from simforge.models import addresses
from simforge.models.contract import ModelSpec
from simforge.types import Access

if TYPE_CHECKING:
    from collections.abc import Callable


DEFAULT_VARIABLE = "OPENAI_API_KEY"


KEYS_FILE = "SIMFORGE_KEYS"
"Variable with the path of the user's file of hosts and variables."


MIN_SECRET = 6
"Shortest secret in characters that is removed from texts; shorter ones occur by chance."


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


def redactor(access: Access) -> Callable[[bytes], bytes]:
    """Return a function that removes the secrets of an endpoint from what its server sent."""
    headers = [value for name, value in access.headers if SECRET_HEADERS.search(name)]
    secrets = [
        secret.encode()
        for value in (read_key(access), *headers)
        for secret in {value, value.rpartition(" ")[2]}
        if len(secret) >= MIN_SECRET
    ]

    def redact(body: bytes) -> bytes:
        for secret in secrets:
            if secret in body:
                body = body.replace(secret, b"[removed]")
        return body

    return redact


@dataclass(frozen=True, slots=True)
class Consent:
    """Which variables the user allows to be sent to which hosts."""

    variables: Mapping[str, frozenset[str]]
    "Environment variables by host."

    def allows(self, host: str, variable: str) -> bool:
        return variable in self.variables.get(host, frozenset())


def consent_of(grants: Iterable[str], typed: Iterable[str]) -> Consent:
    """Return what the user allows: `grants` are `HOST=VARIABLE`, `typed` the texts of the
    command line in which URLs may be named. Raises `UsageError`."""
    allowed: dict[str, set[str]] = {
        addresses.host_of(addresses.OPENAI_URL): {DEFAULT_VARIABLE},
        addresses.host_of(addresses.default_url()): {DEFAULT_VARIABLE},
    }
    for text in typed:
        variables = {DEFAULT_VARIABLE, *re.findall(r"key_variable\W+(\w+)", text)}
        for url in re.findall(r"https?://[^\s,\"'}]+", text):
            allowed.setdefault(addresses.host_of(url), set()).update(variables)
    for grant in grants:
        host, separator, variable = grant.partition("=")
        if not separator or not host or not re.fullmatch(r"\w+", variable):
            raise UsageError(
                f"--key {grant} must be written --key HOST=VARIABLE, for example "
                "--key api.example.com=EXAMPLE_KEY (the name of a variable, not the key)."
            )
        host = addresses.host_of(host) if "://" in host else host.lower()
        allowed.setdefault(host, set()).add(variable)
    for host, variable in _users_file().items():
        allowed.setdefault(host.lower(), set()).add(variable)
    return Consent({host: frozenset(names) for host, names in allowed.items()})


def _users_file() -> dict[str, str]:
    path = Path(os.environ.get(KEYS_FILE, "~/.config/simforge/keys.yaml")).expanduser()
    if not path.is_file():
        return {}
    document = documents.read_file(path)
    mistakes = [
        document.mistake((host,), "must be the name of an environment variable")
        for host, variable in document.value.items()
        if not isinstance(variable, str)
    ]
    documents.raise_if_any(mistakes)
    return dict(document.value)


def with_permitted_key(spec: ModelSpec, consent: Consent) -> tuple[ModelSpec, str]:
    """Return a spec that sends only a key that the user allows, and a sentence about the key
    that is sent or kept back; empty if there is none. Raises `UsageError` if a variable that
    only a recipe names would be sent."""
    variable = spec.access.key_variable
    if not spec.urls or not read_key(spec.access):
        return spec, ""
    hosts = sorted({addresses.host_of(url) for url in spec.urls})
    refused = [host for host in hosts if not consent.allows(host, variable)]
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
