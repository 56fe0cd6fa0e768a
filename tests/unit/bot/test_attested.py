"""What kept attestations say of a digest beside that it is right: its size, and the CIDs of its blocks."""

from __future__ import annotations

import json

import pytest

from matrix_pypi_bot.core.attested import MAX_CIDS, Attested, attested
from matrix_pypi_bot.wire.cids import DAG_PB, format_cid
from matrix_pypi_bot.wire.digests import sha256_of
from tests.support.plain_statements import attestation, envelope_of

CIDS = [format_cid(DAG_PB, sha256_of(bytes((number,)))) for number in range(5)]


def kept(**changes: object) -> bytes:
    """An attestation as the ledger keeps it."""
    return json.dumps(envelope_of(attestation(**changes))).encode()


def test_the_size_and_the_cids_are_those_that_were_attested() -> None:
    assert attested([]) == Attested(None, ())
    assert attested([kept(size=7, cid=CIDS[0])]) == Attested(7, (CIDS[0],))


def test_each_cid_is_told_once_those_that_count_most_first_and_only_a_few() -> None:
    envelopes = [kept(size=7 + number, cid=cid) for number, cid in enumerate([CIDS[1], CIDS[1], *CIDS])]
    assert attested(envelopes) == Attested(7, (CIDS[1], CIDS[0], CIDS[2]))
    assert MAX_CIDS == 3


@pytest.mark.parametrize("envelope", [b"", b"{}", b"\xff", b'{"payload": "x"}'])
def test_what_can_no_longer_be_read_says_nothing(envelope: bytes) -> None:
    assert attested([envelope, kept(size=7, cid=CIDS[0])]) == Attested(7, (CIDS[0],))
