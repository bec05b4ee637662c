"""A run, from a recipe to a sealed dataset.

`pipeline` shows it on one page. `plan` lists the scenarios, `casting` prepares the people,
`shards` is the unit of work, `executors` play shards in this process or on Ray, `folder` is the
run folder, and `sealing` turns its parts into a dataset version.
"""
