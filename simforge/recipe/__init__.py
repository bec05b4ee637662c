"""A recipe: what a run makes.

`schema` is what a recipe file may contain, `conditions` are the ways to steer a candidate,
`prompts` are what dialogues start from, `behavior` is how people behave and write, and `setup`
is everything that all dialogues of a run share.
"""
