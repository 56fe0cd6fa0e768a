"""One HTTP request exactly as the test spells it: no redirect followed, no header added but Host, nothing decoded."""

from __future__ import annotations

import http.client
import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar
from urllib.parse import urlsplit

T = TypeVar("T")
TIMEOUT_SECONDS = 30


@dataclass(frozen=True, slots=True)
class Reply:
    """A whole answer; `headers` by lower-case name."""

    status: int
    reason: str
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)

    @property
    def content_type(self) -> str:
        """The Content-Type as it stands, parameters included."""
        return self.headers.get("content-type", "")


def ask(url: str, method: str = "GET", timeout_seconds: float = TIMEOUT_SECONDS, /, **headers: str) -> Reply:
    """The answer to one request; `If_None_Match="x"` is the header If-None-Match. Raises as http.client does when it is cut."""
    with transfer(url, method, timeout_seconds, **headers) as answer:
        return _reply(answer, answer.read())


@contextmanager
def transfer(
    url: str, method: str = "GET", timeout_seconds: float = TIMEOUT_SECONDS, /, **headers: str
) -> Iterator[http.client.HTTPResponse]:
    """A request of which only the head was read; the body is the test's to read, and leaving hangs up."""
    split = urlsplit(url)
    connection = http.client.HTTPConnection(split.hostname or "", split.port, timeout=timeout_seconds)
    try:
        connection.putrequest(method, url[len(f"{split.scheme}://{split.netloc}") :], skip_accept_encoding=True)
        for name, value in headers.items():
            connection.putheader(name.replace("_", "-"), value)
        connection.endheaders()
        with connection.getresponse() as answer:
            yield answer
    finally:
        connection.close()


def at_once(count: int, work: Callable[[], T]) -> list[T]:
    """What `count` threads get that do `work` at the same time."""
    with ThreadPoolExecutor(count) as pool:
        return [future.result() for future in [pool.submit(work) for _ in range(count)]]


def _reply(answer: http.client.HTTPResponse, body: bytes) -> Reply:
    headers = {name.lower(): value for name, value in answer.headers.items()}
    return Reply(answer.status, answer.reason, headers, body)
