"""`announcement`: where my gateway, my log and my Kubo node are."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

import msgspec

from matrix_pypi_bot.core.instants import Instant
from matrix_pypi_bot.core.limits import MAX_PEER_ADDRESSES, MAX_TEXT_CHARACTERS
from matrix_pypi_bot.core.signers import Keyid
from matrix_pypi_bot.core.statements.common import Chained, Form, Subject, Text, Url, check_name_subject

UserId = Annotated[str, msgspec.Meta(pattern=r"\A@[!-9;-~]*:[!-~]+\Z", max_length=MAX_TEXT_CHARACTERS)]


class LogAddress(Form, frozen=True, kw_only=True):
    """Where a log answers, and the origin line of its checkpoints."""

    url: Url
    origin: Text


class KuboPeer(Form, frozen=True, kw_only=True):
    """A Kubo node: its peer id and multiaddresses."""

    peer: Text
    addrs: Annotated[tuple[Text, ...], msgspec.Meta(max_length=MAX_PEER_ADDRESSES)]


class Announcement(Chained, frozen=True, kw_only=True):
    """Subject: the organisation. Addresses are claims: whoever calls them goes through the guarded client."""

    NAME: ClassVar[str] = "announcement"

    user: UserId
    gateway: Url | None
    log: LogAddress
    kubo: KuboPeer | None
    profile: Literal["unixfs-v1-2025"]
    expires: Instant

    def check_names(self, subjects: tuple[Subject, ...]) -> None:
        check_name_subject(subjects, self.signer.org)

    def state_key(self, keyid: Keyid, subjects: tuple[Subject, ...]) -> str | None:
        return self.user
