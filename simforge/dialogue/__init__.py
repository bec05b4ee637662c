"""A dialogue between a simulated user and candidate assistants.

`play` is one dialogue as one coroutine. `user` is what moves a person, `guards` object to
messages that no person would write, `candidates` asks for the answers of a turn,
`answer_filters` drops answers that must be in no pair, `safety` finds unsafe wishes and
answers, and `style` describes how user messages are written.
"""
