"""Publishing, fetching and reading dataset versions.

`releases` holds what all places have in common; `huggingface` is the Hugging Face Hub, `urls`
is any store that fsspec knows; `loading` reads a version from a folder, a URL or the Hub.
"""
