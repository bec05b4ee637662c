"""A dataset and its files: tables, Parquet, manifest, card, Croissant, licences, splits,
validation and diff.

`tables` declares every column once. A dataset version is a folder with a manifest that lists
each file with its digest.
"""
