"""OpenRLHF's preference data with messages: `--data.prompt_key prompt --data.chosen_key chosen --data.rejected_key
rejected --data.apply_chat_template` (OpenRLHF 0.11, `datasets/reward_dataset.py`: with a prompt key, both answers are
what follows it). For `margin_loss_enable` give it the view `trl_reward`, which has a `margin`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import polars as pl

    from simforge.views import Run


def frame(run: Run) -> pl.LazyFrame:
    return run.pairs().select("prompt", "chosen", "rejected")
