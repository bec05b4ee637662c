"""`score:NAME@URL`: a reward model behind an endpoint."""

from __future__ import annotations

from typing import TYPE_CHECKING

from simforge.models import scoring_endpoint
from simforge.models.providers import Admit, Provider

if TYPE_CHECKING:
    from simforge.models.contract import Model, ModelSpec
    from simforge.models.rate_limits import Bounds
    from simforge.types import Access


class ScoringProvider(Provider):
    """Endpoints that rate a text."""

    about = "a reward model behind an endpoint"
    scores = True
    has_key = True

    def resolve(self, name: str, access: Access, server_arguments: str) -> ModelSpec:
        return scoring_endpoint.resolve_scorer(name, access)

    def ensure_available(self, spec: ModelSpec, needs_choices: bool) -> ModelSpec:
        return scoring_endpoint.check_scorer(spec)

    async def open(self, spec: ModelSpec, admit: Admit | None, bounds: Bounds) -> Model:
        return await scoring_endpoint.ScoringEndpoint.open(spec, admit, bounds)


PROVIDER = ScoringProvider()
