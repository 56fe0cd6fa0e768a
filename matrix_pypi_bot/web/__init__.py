"""The trust pages: what everybody may see of the decisions and the statements behind them, as HTML and as JSON."""

from matrix_pypi_bot.web.handlers import TrustHandlers

__all__ = ["TrustHandlers"]
