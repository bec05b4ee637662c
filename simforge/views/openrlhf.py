"""View in OpenRLHF's preference format with messages: `--data.prompt_key prompt
--data.chosen_key chosen --data.rejected_key rejected --data.apply_chat_template` (OpenRLHF
0.11, `datasets/reward_dataset.py`: with a prompt key, both answers hold only what follows the
prompt). For `margin_loss_enable` use the view `trl_reward`, which has a `margin`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import polars as pl

    from simforge.views import ViewSource


def frame(run: ViewSource) -> pl.LazyFrame:
    return run.pairs().select("prompt", "chosen", "rejected")
