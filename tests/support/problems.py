"""What every refusal of the frontend has to look like, whatever its reason."""

from __future__ import annotations

from tests.support.http_client import Reply


def problem(reply: Reply) -> str:
    """The line that pip and uv show of a refusal. Raises AssertionError when either of them would show nothing.

    uv reads `application/problem+json`, exactly so and without parameters; pip prints the reason phrase.
    """
    assert reply.content_type == "application/problem+json", (reply.status, reply.content_type, reply.body[:200])
    told = reply.json
    assert set(told) >= {"type", "title", "status", "detail"}
    assert (told["status"], told["detail"]) == (reply.status, reply.reason)
    line: str = told["detail"]
    assert line
    assert line.isascii()
    assert line.isprintable()
    return line
