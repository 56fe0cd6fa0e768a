"""`/provenance/<project>/<file>`: PEP 740 documents that the bot verified, passed through. Only names that were checked go on."""

from __future__ import annotations

from typing import Final
from urllib.parse import quote

from aiohttp import web

from index_frontend.handlers.passing import Passing
from matrix_pypi_bot.wire.messages import PROVENANCE, PROVENANCE_TYPE
from matrix_pypi_bot.wire.names import parse_file_name, parse_project
from matrix_pypi_bot.wire.problems import Problem, ProblemCode

_ESCAPES: Final = {"%2B": "+", "%2b": "+", "%21": "!"}  # of a local version and of an epoch, as clients write them


class ProvenanceHandler:
    """Answers for provenance documents."""

    def __init__(self, passing: Passing) -> None:
        self._passing = passing

    async def handle(self, request: web.BaseRequest, page: str, query: str) -> web.StreamResponse:
        """To `/provenance/<page>`; a query means nothing here. Raises Problem."""
        project, slash, name = page.partition("/")
        if not slash:
            raise Problem("matrix-pypi: provenance is at /provenance/<project>/<file>", code=ProblemCode.NOT_FOUND)
        for escape, character in _ESCAPES.items():
            name = name.replace(escape, character)
        path = f"{PROVENANCE}/{parse_project(project)}/{quote(parse_file_name(name))}"
        return await self._passing.answer(request, path, PROVENANCE_TYPE)
