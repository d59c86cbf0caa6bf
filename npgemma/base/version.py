"""Which npgemma this is."""

# Of a checkout that was never installed: what packaging tools read as a version, below every release.
UNKNOWN = "0+unknown"


def version() -> str:
    """The installed version."""
    from importlib import metadata  # takes as long as a third of NumPy, and is seldom wanted

    try:
        return metadata.version("npgemma")
    except metadata.PackageNotFoundError:
        return UNKNOWN
