"""Lines of a hostile page of entries: a leaf, or none; never anything else."""

from __future__ import annotations

import base64
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from matrix_pypi_bot.core.heads import read_head_of
from matrix_pypi_bot.core.instants import Instant
from matrix_pypi_bot.core.leaves import NotALeaf, parsed, read_leaf
from matrix_pypi_bot.core.notes import Checkpoint, cosign, sign_checkpoint
from matrix_pypi_bot.core.tlog import leaf_hash
from tests.support.peer_logs import LogOrg

ORG = LogOrg("orgb", 11)
ORG.introduce(Instant(1_767_225_600))
ORG.attest("mxa-1.0-py3-none-any.whl")
MANIFEST, ATTESTATION = ORG.lines
NOTE = ORG.head(Instant(1_767_225_600))

anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.just(json.loads(ATTESTATION)["payload"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["payload", "signatures", "x"]), inner),
    max_leaves=8,
)


def test_a_leaf_is_its_payload_and_its_envelope_is_kept_in_one_form() -> None:
    told = json.loads(ATTESTATION)
    leaf = read_leaf(json.dumps(told, indent=None, separators=(", ", ": ")).encode() + b"  ")
    payload = base64.b64decode(told["payload"])
    assert (leaf.hash, leaf.envelope, leaf.may_be_manifest) == (leaf_hash(payload), ATTESTATION, False)
    assert parsed(leaf.envelope) == told
    assert read_leaf(MANIFEST).may_be_manifest


@pytest.mark.parametrize(
    "line",
    [
        b"", b"[]", b"null", b'{"payload": 1}', b'{"payload": "a"}', b'{"payload": "\xff"}', b"<html>", b"{" * 60_000,
        b'{"payload": "' + b"A" * 65_536 + b'"}', b'{"payload": "AAAA"', b'{"x": ' + b"[" * 30_000 + b"]" * 30_000 + b"}",
        '{"payload": "\u0661"}'.encode(),
    ],
)  # fmt: skip
def test_a_line_without_a_payload_is_no_leaf(line: bytes) -> None:
    with pytest.raises(NotALeaf):
        read_leaf(line)


def test_of_what_is_no_envelope_the_payload_alone_is_kept() -> None:
    leaf = read_leaf(b'{"payload": "YQ==", "payload": "Yg==", "evil": "\\u202e"}')
    assert (leaf.envelope, leaf.hash) == (b'{"payload":"Yg=="}', leaf_hash(b"b"))


@given(st.one_of(st.binary(max_size=300), anything.map(lambda value: json.dumps(value).encode())))
def test_whatever_a_line_is_it_is_a_leaf_that_is_read_again_as_the_same_or_none(line: bytes) -> None:
    try:
        leaf = read_leaf(line)
    except NotALeaf:
        return
    assert b"\n" not in leaf.envelope
    assert read_leaf(leaf.envelope) == leaf


@given(st.one_of(st.text(max_size=300), st.tuples(st.integers(0, len(NOTE)), st.text(max_size=3)).map(
    lambda change: NOTE[: change[0]] + change[1] + NOTE[change[0] + 1 :]
)))  # fmt: skip
def test_whatever_a_note_is_it_is_that_logs_head_or_none(text: str) -> None:
    head = read_head_of(text, [ORG.note_key])
    assert head is None or (head.size, head.root) == (2, read_root())


def read_root() -> bytes:
    head = read_head_of(NOTE, [ORG.note_key])
    assert head is not None
    return head.root


def test_a_head_that_would_not_fit_into_an_accusation_is_none() -> None:
    checkpoint = Checkpoint("orgb/matrix-pypi", 2, read_root())
    note = sign_checkpoint(checkpoint, ORG.organisation.log)
    text = checkpoint.text() + "extension " + "x" * 2_000 + "\n"
    long = type(note)(text, (type(note.signatures[0])("orgb/matrix-pypi", ORG.note_key.log_hash(),
                      ORG.organisation.log.sign(text.encode())),))  # fmt: skip
    long = long.with_signature(cosign(long, "orgb/matrix-pypi", ORG.organisation.log, Instant(1)))
    assert read_head_of(str(long), [ORG.note_key]) is None
    short = sign_checkpoint(checkpoint, ORG.organisation.log)
    short = short.with_signature(cosign(short, "orgb/matrix-pypi", ORG.organisation.log, Instant(1)))
    stranger = short.with_signature(cosign(short, "orgc/witness", ORG.organisation.mirror, Instant(1)))
    head = read_head_of(str(stranger), [ORG.note_key])
    assert head is not None
    assert head.note == short
