"""`vllm:NAME`: a model that the run serves itself with vLLM on a Ray cluster."""

from __future__ import annotations

from typing import TYPE_CHECKING

from simforge.errors import UsageError
from simforge.identity import digest
from simforge.models.contract import ModelSpec
from simforge.models.providers.openai import OpenAIProvider

if TYPE_CHECKING:
    from simforge.types import Access


class VLLMProvider(OpenAIProvider):
    """Models served by the run; once their replicas are up, they are endpoints."""

    about = "a model that the run serves itself on a Ray cluster's accelerators"
    served_by_run = True

    def resolve(self, name: str, access: Access, server_arguments: str) -> ModelSpec:
        if not name:
            raise UsageError(
                "vllm: needs a model: vllm:NAME on the Hub, or a folder that all nodes have."
            )
        settings = (
            ""
            if server_arguments == access.body == "{}"
            else f"?{digest([server_arguments, access.body])}"
        )
        return ModelSpec(
            f"vllm:{name}",
            f"vllm:{name}{settings}",
            "unknown",
            f"{name}, served by vLLM",
            access,
            name,
        )


PROVIDER = VLLMProvider()
