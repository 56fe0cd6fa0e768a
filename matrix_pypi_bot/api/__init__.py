"""The internal HTTP API, for frontends and the command line. One handler = parse, call a service, encode."""

from matrix_pypi_bot.api.server import Api, Tokens, listen
from matrix_pypi_bot.api.services import Services

__all__ = ["Api", "Services", "Tokens", "listen"]
