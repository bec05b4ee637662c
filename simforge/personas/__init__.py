"""The people of a run.

A `pack` is a file that declares traits and how each is sampled. `loader` reads it,
`pack_checks` finds its mistakes, `sampling` draws people, `check` compares them with the pack,
`cast` holds them as a table, `spaces` gives them preference profiles, and `written` has a model
write what is not drawn.
"""
