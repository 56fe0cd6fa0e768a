"""Matrix-PyPI: the appservice. Importing this costs nothing, so that the frontend may share `wire` and `process`."""

__version__ = "0.1.0"
