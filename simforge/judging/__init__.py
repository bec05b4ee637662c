"""Which of two answers a person prefers, and how reliable that verdict is.

`judge` asks models in the ways of `forms/`, `parsing` reads their replies, `rules` decides
without a model, `aggregation` combines verdicts, `pairing` turns judgments into pairs, and
`reliability` measures judges.
"""
