"""`openai:NAME@URL`: a model behind any OpenAI-compatible endpoint."""

from __future__ import annotations

from typing import TYPE_CHECKING

from simforge.models import addresses, endpoint, endpoint_checks
from simforge.models.providers import Admit, Provider

if TYPE_CHECKING:
    from simforge.models.contract import Model, ModelSpec
    from simforge.models.rate_limits import Bounds
    from simforge.types import Access


class OpenAIProvider(Provider):
    """Endpoints that speak OpenAI's chat completions."""

    about = "any OpenAI-compatible endpoint"
    draws_many = True
    has_key = True

    def resolve(self, name: str, access: Access, server_arguments: str) -> ModelSpec:
        return endpoint.resolve(name, access, default_url=addresses.default_url())

    def ensure_available(self, spec: ModelSpec, needs_choices: bool) -> ModelSpec:
        return endpoint_checks.check(spec, needs_choices)

    async def open(self, spec: ModelSpec, admit: Admit | None, bounds: Bounds) -> Model:
        return await endpoint.Endpoint.open(spec, admit, bounds)


PROVIDER = OpenAIProvider()
