"""The check of an endpoint before a run starts: is the server up, is the key right, does it have
the model?

The check refuses only what would certainly fail. A server that lists no models, lists them in its
own way, or does not list the one that was asked for (`llama3` for `llama3:latest`, names of a
router) is asked for one short answer instead, and taken at its word.
"""

from __future__ import annotations

import asyncio
import json
import logging
import ssl
from dataclasses import replace
from typing import TYPE_CHECKING

from simforge.errors import ModelError, suggest
from simforge.models import addresses, keys
from simforge.models.contract import ModelSpec
from simforge.models.replies import MAX_BODY, error_text
from simforge.models.thinking import split_thinking
from simforge.types import Access

if TYPE_CHECKING:
    import httpx
    import openai


log = logging.getLogger("simforge")


CHECK_TIMEOUT = 20.0
"Seconds that a server may take to list its models."


ANSWER_TIMEOUT = 120.0
"Seconds that a server may take for a short answer: it may have to load the model first."


CHECK_RETRIES = 2
"Retries of a request that could not be sent; more only delay the message that nobody answers."


CHOICE_PROBES = 3
"Number of test calls before a server is considered unable to enforce choices."


def check(spec: ModelSpec, needs_choices: bool) -> ModelSpec:
    """Check each URL of a model. If the run needs choices, also test whether the server enforces
    them. Raises `ModelError` if the key, URL or model is certainly wrong."""
    return asyncio.run(_check_urls(spec, needs_choices))


async def _check_urls(spec: ModelSpec, needs_choices: bool) -> ModelSpec:
    for url in spec.urls:
        async with _client(url, spec.access) as client:
            await _check_key_and_model(client, url, spec)
    if not needs_choices:
        return spec
    async with _client(spec.urls[0], spec.access) as client:
        return replace(spec, enforces_choices=await _enforces_choices(client, spec))


def _client(url: str, access: Access) -> openai.AsyncOpenAI:
    import httpx
    import openai

    # the same view of proxies and certificates as the client of the run
    http = httpx.AsyncClient(
        trust_env=False,
        proxy=addresses.proxy_for(url),
        verify=ssl.create_default_context(),
        follow_redirects=False,
    )
    parts = httpx.URL(url)
    return openai.AsyncOpenAI(
        base_url=str(parts.copy_with(query=None)),
        api_key=keys.read_key(access) or "none",
        default_headers=dict(access.headers),
        default_query=dict(parts.params),
        max_retries=CHECK_RETRIES,
        timeout=CHECK_TIMEOUT,
        http_client=http,
    )


async def _check_key_and_model(
    client: openai.AsyncOpenAI, url: str, spec: ModelSpec
) -> None:
    import openai

    redact = keys.Redactor(spec.access)
    try:
        response = await client.models.with_raw_response.list()
        names = _model_names(response.http_response)
    except openai.APIConnectionError as problem:
        cause = problem.__cause__ or problem
        raise ModelError(
            f"{url} cannot be reached: {str(cause) or 'no answer'}. Is the server up?"
        ) from None
    except openai.APIStatusError as problem:
        if problem.status_code == 401:
            raise _wrong_key(url, spec.access, problem, redact) from None
        names = []
    except (ValueError, RecursionError):  # not the list that the protocol describes
        names = []
    if spec.model not in names:
        await _try_one_answer(client, url, spec, names)


def _model_names(response: httpx.Response) -> list[str]:
    """Return the names that a server lists, in the forms that servers use; empty if there are
    none that can be read."""
    if len(response.content) > MAX_BODY:
        return []
    content = json.loads(response.content)
    if isinstance(content, dict):
        content = content.get("data") or content.get("models")
    if not isinstance(content, list):
        return []
    names = [
        entry.get("id") or entry.get("name") if isinstance(entry, dict) else entry
        for entry in content
    ]
    return [name for name in names if isinstance(name, str)]


async def _try_one_answer(
    client: openai.AsyncOpenAI, url: str, spec: ModelSpec, names: list[str]
) -> None:
    """Ask a server that does not list the model for a short answer. Raises `ModelError` if it
    refuses."""
    import openai

    redact = keys.Redactor(spec.access)
    try:
        await client.with_options(
            timeout=ANSWER_TIMEOUT
        ).chat.completions.with_raw_response.create(
            model=spec.model,
            messages=[{"role": "user", "content": "Answer with one word: hello."}],
            extra_body={"max_tokens": 8, **json.loads(spec.access.body)},
        )
    except openai.AuthenticationError as problem:
        raise _wrong_key(url, spec.access, problem, redact) from None
    except openai.APIStatusError as problem:
        words = error_text(redact.body(problem.response.content[:MAX_BODY]))
        if problem.status_code in (402, 403):
            raise ModelError(
                f"{url} refuses ({problem.status_code}): {words}"
            ) from None
        if problem.status_code == 404:
            hint = suggest(spec.model, names) if names else f" ({words})"
            raise ModelError(f"{url} has no model {spec.model!r}{hint}") from None
        if 300 <= problem.status_code < 400:
            target = redact.text(problem.response.headers.get("Location", "nowhere"))
            raise ModelError(
                f"{url} redirects to {target[:200]}; redirects are not followed: give the URL of "
                "the server itself."
            ) from None
        if names and problem.status_code == 400 and spec.model in words:
            raise ModelError(
                f"{url} has no model {spec.model!r}{suggest(spec.model, names)}"
            ) from None
        # any other refusal may be of this request only: the run adapts, or tells it
    except openai.APIConnectionError as problem:
        log.warning(
            "%s did not answer a test call (%s)", url, problem.__cause__ or problem
        )
    if names:
        log.warning("%s does not list the model %s, but it is used", url, spec.model)


def _wrong_key(
    url: str, access: Access, problem: openai.APIStatusError, redact: keys.Redactor
) -> ModelError:
    words = error_text(redact.body(problem.response.content[:MAX_BODY]))
    if not access.key_variable:
        return ModelError(
            f"{url} needs a key ({words}), and none is allowed for it: add --key "
            f"{addresses.host_of(url)}=VARIABLE."
        )
    verb = "look at" if keys.read_key(access) else "set"
    return ModelError(f"{url} refuses the key ({words}): {verb} {access.key_variable}.")


async def _enforces_choices(client: openai.AsyncOpenAI, spec: ModelSpec) -> bool:
    """Test whether a server enforces choices, by offering only words that no model would say. A
    server that ignores the constraint, as vLLM ignores field names of older versions, answers
    something else. Verdicts are then read from the text of its answers."""
    import openai

    choices = ("zyxwv", "vwxyz")
    for probe in range(CHOICE_PROBES):
        try:
            answer = await client.chat.completions.create(
                model=spec.model,
                messages=[
                    {"role": "user", "content": f"Answer with a number. ({probe})"}
                ],
                max_tokens=8,
                extra_body={
                    **json.loads(spec.access.body),
                    "structured_outputs": {"choice": list(choices)},
                },
            )
            text = answer.choices[0].message.content or ""
        except openai.APIStatusError:
            break  # the server does not know the field
        except openai.APIConnectionError:
            continue
        except (ValueError, LookupError, TypeError, AttributeError):
            break  # the answer is not what the protocol says
        if split_thinking(text).visible in choices:
            return True
    log.warning(
        "%s does not keep to choices: verdicts are read from its text, else unreadable",
        spec.model,
    )
    return False
