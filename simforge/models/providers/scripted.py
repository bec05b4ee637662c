"""`scripted:` and `scripted:module:function`: a plain function of the request."""

from __future__ import annotations

from typing import TYPE_CHECKING

from simforge.models import scripted
from simforge.models.providers import Admit, Provider

if TYPE_CHECKING:
    from simforge.models.contract import Model, ModelSpec
    from simforge.models.rate_limits import Bounds
    from simforge.types import Access


class ScriptedProvider(Provider):
    """Functions in place of models, for rehearsals and tests."""

    about = "a function in place of a model, for rehearsals and tests"
    is_placeholder = True
    card_note = (
        "**A scripted model wrote this: the texts have no meaning and are for dry runs "
        "only.**"
    )

    def names_code(self, name: str) -> bool:
        return bool(name)

    def resolve(self, name: str, access: Access, server_arguments: str) -> ModelSpec:
        return scripted.resolve(name)

    async def open(self, spec: ModelSpec, admit: Admit | None, bounds: Bounds) -> Model:
        return scripted.ScriptedModel(spec.reference.partition(":")[2])


PROVIDER = ScriptedProvider()
