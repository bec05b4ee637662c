"""The form `survey`: a finished dialogue, by questions about its first answer."""

from __future__ import annotations

from simforge.judging.forms import JudgeForm

FORM = JudgeForm(
    about="one finished dialogue in one call",
    variables={"persona": "x", "wants": "x", "attributes": []},
    ask=None,
    combine=None,
    calls=lambda compared, dimensions, answers: 0.0,
)
