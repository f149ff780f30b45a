"""The schema's history (Alembic), shipped with the package and run by `Database.open(create=True)`.

A new revision is a file in `versions/`, and its id in the two names below; tests compare the models with the head.
"""

HEAD = "0098"
"""The newest revision; kept here so that opening a database needs no Alembic (a test compares the two)."""

KNOWN = frozenset({"0001", "0020", "0030", "0040", "0075", "0098"})
"""Every revision that this version can migrate from."""
