"""What attestations say of a digest beside that it is right: its size, and the CIDs of its blocks."""

from __future__ import annotations

from typing import Any

from matrix_pypi_bot.core.attested import MAX_CIDS, Attested, attested
from matrix_pypi_bot.core.claims import Claim, Facts
from matrix_pypi_bot.core.envelope import StatementId
from matrix_pypi_bot.core.signers import Keyid
from matrix_pypi_bot.wire.cids import DAG_PB, format_cid
from matrix_pypi_bot.wire.digests import Sha256, sha256_of
from matrix_pypi_bot.wire.names import FileName

CIDS = [format_cid(DAG_PB, sha256_of(bytes((number,)))) for number in range(5)]


def claim(**facts: Any) -> Claim:
    return Claim(
        statement_id=StatementId("1" * 64), kind="attestation", file=FileName("mxa-1.0.zip"), subject=Sha256("a" * 64),
        org="orga", keyid=Keyid("2" * 64), index="pypi", word="bytes", received_ms=0, facts=Facts(**facts),
    )  # fmt: skip


def test_the_size_and_the_cids_are_those_that_were_attested() -> None:
    assert attested([]) == Attested(None, ())
    assert attested([claim(size=7, cid=CIDS[0])]) == Attested(7, (CIDS[0],))


def test_each_cid_is_told_once_those_that_count_most_first_and_only_a_few() -> None:
    claims = [claim(size=7 + number, cid=cid) for number, cid in enumerate([CIDS[1], CIDS[1], *CIDS])]
    assert attested(claims) == Attested(7, (CIDS[1], CIDS[0], CIDS[2]))
    assert MAX_CIDS == 3
