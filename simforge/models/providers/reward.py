"""`reward:NAME`: a reward model of the transformers library, in the worker's process."""

from __future__ import annotations

from typing import TYPE_CHECKING

from simforge.models import reward
from simforge.models.providers import Admit, Provider

if TYPE_CHECKING:
    from simforge.models.contract import Model, ModelSpec
    from simforge.models.rate_limits import Bounds
    from simforge.types import Access


class RewardProvider(Provider):
    """Sequence classifiers with one output."""

    about = "a reward model of the transformers library, run in this process"
    scores = True

    def resolve(self, name: str, access: Access, server_arguments: str) -> ModelSpec:
        return reward.resolve(name)

    def ensure_available(self, spec: ModelSpec, needs_choices: bool) -> ModelSpec:
        reward.check(spec.reference.partition(":")[2])
        return spec

    async def open(self, spec: ModelSpec, admit: Admit | None, bounds: Bounds) -> Model:
        return await reward.RewardModel.open(spec.reference.partition(":")[2])


PROVIDER = RewardProvider()
