"""Where shards are played: `local` in this process, `ray` on a cluster.

An executor maps a picklable job over shards and yields results as they finish. It knows no
stage of a dialogue, and it never changes what is made.
"""
