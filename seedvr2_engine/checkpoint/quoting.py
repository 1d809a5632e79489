"""Names that come from files, in sentences for people."""


def quoted(name: str) -> str:
    """Return a name from a file so that it fits a one-line message: printable and at most 200 characters."""
    return name if len(name) <= 200 and name.isprintable() else ascii(name[:200])
