"""OpenRLHF's preference data with messages: `--prompt_key prompt --chosen_key chosen --rejected_key rejected
--apply_chat_template` (OpenRLHF, `datasets/reward_dataset.py`: with a prompt key, both answers are what follows it).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import polars as pl

    from simforge.views import Run


def frame(run: Run) -> pl.LazyFrame:
    return run.pairs().select("prompt", "chosen", "rejected")
