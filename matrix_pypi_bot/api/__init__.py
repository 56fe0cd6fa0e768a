"""HTTP: the internal API, for frontends and the command line, and the public pages. One handler = parse, call a service, encode."""

from matrix_pypi_bot.api.public import PublicApi
from matrix_pypi_bot.api.server import Api, Tokens, listen
from matrix_pypi_bot.api.services import Services

__all__ = ["Api", "PublicApi", "Services", "Tokens", "listen"]
