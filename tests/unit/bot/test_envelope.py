"""Envelopes: what was signed and by whom, agreed with an independent implementation of DSSE."""

from __future__ import annotations

import base64
from typing import Any

import pytest
from securesystemslib.dsse import Envelope as TheirEnvelope
from securesystemslib.exceptions import VerificationError
from securesystemslib.signer import Key, SSlibKey  # type: ignore[attr-defined]  # exported, though not in __all__

from matrix_pypi_bot.core.envelope import pae, read_envelope, seal, verify
from matrix_pypi_bot.core.limits import MAX_PAYLOAD_BYTES
from matrix_pypi_bot.core.rejected import Code, Rejected
from matrix_pypi_bot.core.signers import PinnedKey, SigningKey, verifies
from tests.support.plain_statements import EVIL, KEYS, MAINT, ORGA, ORGB, envelope_of

PAYLOAD = b'{"a":1}'
NOT_CANONICAL = base64.b64encode(b'{"a":1}').decode().replace("Q==", "R==")


def their_key(key: SigningKey) -> Key:
    return SSlibKey(key.keyid, "ed25519", "ed25519", {"public": key.public.hex()})


def code_of(value: object, **more: int) -> Code:
    with pytest.raises(Rejected) as caught:
        verify(read_envelope(value, **more), KEYS)
    return caught.value.code


def test_an_independent_verifier_accepts_our_envelope_and_refuses_another_key() -> None:
    theirs = TheirEnvelope.from_dict(seal(PAYLOAD, ORGA).to_json())
    assert (theirs.payload, theirs.pae()) == (PAYLOAD, pae(PAYLOAD))
    assert set(theirs.verify([their_key(ORGA)], 1)) == {ORGA.keyid}
    with pytest.raises(VerificationError):
        theirs.verify([their_key(ORGB)], 1)


def test_an_envelope_reads_back_the_same() -> None:
    ours = seal(PAYLOAD, ORGB, ORGA)
    assert read_envelope(ours.to_json(), max_signatures=2) == ours
    assert verify(read_envelope(envelope_of(PAYLOAD)), KEYS) == KEYS[ORGA.keyid]


def changed(**parts: object) -> dict[str, Any]:
    return envelope_of(PAYLOAD) | parts


SIGNATURE = envelope_of(PAYLOAD)["signatures"][0]


@pytest.mark.parametrize(
    ("value", "code"),
    [
        (None, Code.ENVELOPE),
        ([], Code.ENVELOPE),
        ({}, Code.ENVELOPE),
        (changed(extra=1), Code.ENVELOPE),
        (changed(payloadType="application/json"), Code.ENVELOPE),
        (changed(payload=1), Code.ENVELOPE),
        (changed(payload="é"), Code.ENVELOPE),
        (changed(payload="e30"), Code.ENVELOPE),
        (changed(payload="e3 0="), Code.ENVELOPE),
        (changed(payload="-_8="), Code.ENVELOPE),
        (changed(payload=NOT_CANONICAL), Code.ENVELOPE),
        (changed(signatures=[]), Code.ENVELOPE),
        (changed(signatures={}), Code.ENVELOPE),
        (changed(signatures=[SIGNATURE, SIGNATURE]), Code.ENVELOPE),
        (changed(signatures=[None]), Code.ENVELOPE),
        (changed(signatures=[SIGNATURE | {"x": 1}]), Code.ENVELOPE),
        (changed(signatures=[SIGNATURE | {"keyid": []}]), Code.ENVELOPE),
        (changed(signatures=[SIGNATURE | {"sig": None}]), Code.ENVELOPE),
        (changed(signatures=[SIGNATURE | {"sig": "?"}]), Code.ENVELOPE),
        (changed(payload=base64.b64encode(b"a" * (MAX_PAYLOAD_BYTES + 1)).decode()), Code.SIZE),
        (changed(payload="?" * 40_000, signatures=[SIGNATURE | {"sig": "?"}]), Code.SIZE),
        (changed(signatures=[SIGNATURE | {"keyid": "\x00" * 900}]), Code.KEY_UNKNOWN),
        (envelope_of(PAYLOAD, EVIL), Code.KEY_UNKNOWN),
        (changed(signatures=[SIGNATURE | {"keyid": ORGB.keyid}]), Code.SIG),
        (changed(signatures=[SIGNATURE | {"sig": ""}]), Code.SIG),
        (changed(signatures=[SIGNATURE | {"sig": "AAAA"}]), Code.SIG),
        (changed(payload="e30="), Code.SIG),
    ],
)
def test_an_envelope_gets_the_code_of_its_first_fault(value: object, code: Code) -> None:
    assert code_of(value) is code


def test_the_largest_payload_is_read() -> None:
    for size in range(MAX_PAYLOAD_BYTES - 2, MAX_PAYLOAD_BYTES + 1):
        assert len(read_envelope(seal(b"a" * size, ORGA).to_json()).payload) == size


def test_several_signatures_are_by_distinct_keys_in_order() -> None:
    both = seal(PAYLOAD, ORGA, ORGB).to_json()
    assert code_of(both) is Code.ENVELOPE
    assert code_of(both | {"signatures": both["signatures"][::-1]}, max_signatures=2) is Code.ENVELOPE  # type: ignore[index]
    assert code_of(both | {"signatures": [SIGNATURE, SIGNATURE]}, max_signatures=2) is Code.ENVELOPE


def test_nothing_verifies_under_a_broken_key() -> None:
    assert not verifies(b"short", ORGA.sign(b"x"), b"x")
    assert not verifies(ORGA.public, b"", b"x")
    assert verifies(ORGA.public, ORGA.sign(b"x"), b"x")


MIRROR_OF_ONE = PinnedKey(public=ORGA.public, org="o", roles=frozenset({"mirror"}), projects=frozenset({"a"}))


@pytest.mark.parametrize(
    ("key", "roles", "project", "may"),
    [
        (KEYS[ORGA.keyid], {"mirror"}, "a", True),
        (KEYS[ORGA.keyid], {"mirror"}, None, True),
        (KEYS[ORGA.keyid], {"maintainer"}, "a", False),
        (KEYS[MAINT.keyid], {"mirror", "maintainer"}, "rfc8785", True),
        (KEYS[MAINT.keyid], {"mirror", "maintainer"}, "rfc8786", False),
        (KEYS[MAINT.keyid], {"mirror", "maintainer"}, None, False),
        (MIRROR_OF_ONE, {"mirror"}, "a", True),
        (MIRROR_OF_ONE, {"mirror"}, "b", False),
        (MIRROR_OF_ONE, {"mirror"}, None, False),
        (PinnedKey(public=b"", org="o", roles=frozenset({"maintainer"})), {"maintainer"}, "a", False),
    ],
)
def test_a_key_acts_in_its_roles_for_its_projects(
    key: PinnedKey, roles: set[str], project: str | None, may: bool
) -> None:
    assert key.may_act_as(frozenset(roles), project) is may
