"""`local:NAME`: an embedded model, a GGUF file or an OpenVINO folder, in the worker's process."""

from __future__ import annotations

from typing import TYPE_CHECKING

from simforge.models import downloads
from simforge.models.providers import Admit, Provider

if TYPE_CHECKING:
    from simforge.models.contract import Model, ModelSpec
    from simforge.models.rate_limits import Bounds
    from simforge.types import Access


class LocalProvider(Provider):
    """Embedded models."""

    about = "a GGUF file or an OpenVINO folder, run in this process"
    embedded = True
    card_note = (
        "The texts come from a small model that runs on a laptop: many answers are "
        "factually wrong, and one answer can appear in several pairs. Good for "
        "testing a training set-up, not for training a real model."
    )

    def resolve(self, name: str, access: Access, server_arguments: str) -> ModelSpec:
        return downloads.resolve(name)

    def ensure_available(self, spec: ModelSpec, needs_choices: bool) -> ModelSpec:
        downloads.model_path(spec.reference.partition(":")[2])
        return spec

    async def open(self, spec: ModelSpec, admit: Admit | None, bounds: Bounds) -> Model:
        from simforge.models.local import LocalModel

        return await LocalModel.open(spec.reference.partition(":")[2])


PROVIDER = LocalProvider()
