"""The composition root: the only place that knows all parts of the bot."""

from matrix_pypi_bot.app.process import run

__all__ = ["run"]
