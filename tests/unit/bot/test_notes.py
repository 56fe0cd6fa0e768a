"""Notes of C2SP: what is one, who signed it, and when a witness saw it."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from matrix_pypi_bot.core.instants import LAST_SECOND
from matrix_pypi_bot.core.notes import (
    Checkpoint,
    InvalidNote,
    Note,
    NoteKey,
    NoteSignature,
    cosign,
    cosigned_at,
    is_signed_by,
    parse_checkpoint,
    parse_note,
    sign_checkpoint,
)
from tests.support.plain_statements import NOW, ORGA, ORGB

HEAD = Checkpoint("orga/matrix-pypi", 3, b"r" * 32)
LOG = NoteKey(HEAD.origin, ORGA.public)
WITNESS = NoteKey("orgb/witness", ORGB.public)
NOTE = sign_checkpoint(HEAD, ORGA)
SEEN = NOTE.with_signature(cosign(NOTE, WITNESS.name, ORGB, NOW))
ROOT = base64.b64encode(HEAD.root).decode()
LINE = "\u2014 a AAAAAAA=\n"

# The example that the specification of signed notes prints, with the verifier key it gives.
EXAMPLE = """\
If you think cryptography is the answer to your problem,
then you don't know what your problem is.

\u2014 PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=
"""
NEUMANN = "ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"


def test_the_specifications_own_example_verifies() -> None:
    key = NoteKey("PeterNeumann", base64.b64decode(NEUMANN)[1:])
    assert key.log_hash().hex() == "c74f20a3"
    assert is_signed_by(parse_note(EXAMPLE), key)
    assert str(parse_note(EXAMPLE)) == EXAMPLE


def test_a_note_reads_back_the_same() -> None:
    assert parse_note(str(SEEN)) == SEEN
    assert parse_checkpoint(SEEN.text) == HEAD
    assert parse_checkpoint(SEEN.text + "an extension\n") == HEAD


def test_a_log_and_its_witness_are_told_apart() -> None:
    assert is_signed_by(SEEN, LOG)
    assert cosigned_at(SEEN, WITNESS) == NOW
    assert not is_signed_by(SEEN, NoteKey(HEAD.origin, ORGB.public))
    assert not is_signed_by(SEEN, WITNESS)
    assert cosigned_at(NOTE, WITNESS) is None
    assert cosigned_at(SEEN, LOG) is None


def test_signing_again_replaces_the_line_and_the_newest_time_counts() -> None:
    later = cosign(NOTE, WITNESS.name, ORGB, type(NOW)(NOW + 60))
    assert SEEN.with_signature(later).signatures == (*NOTE.signatures, later)
    both = Note(NOTE.text, (*SEEN.signatures, later))
    assert cosigned_at(both, WITNESS) == NOW + 60


def test_another_text_is_signed_by_nobody() -> None:
    grown = Note(Checkpoint(HEAD.origin, 4, HEAD.root).text(), SEEN.signatures)
    assert not is_signed_by(grown, LOG)
    assert cosigned_at(grown, WITNESS) is None


def test_a_bad_signature_under_a_known_name_spoils_the_note() -> None:
    forged = NoteSignature(LOG.name, LOG.log_hash(), b"x" * 64)
    assert not is_signed_by(Note(NOTE.text, (*NOTE.signatures, forged)), LOG)


def test_a_time_that_cannot_be_written_is_no_time() -> None:
    blob = (LAST_SECOND + 1).to_bytes(8)
    signed = ORGB.sign(f"cosignature/v1\ntime {LAST_SECOND + 1}\n{NOTE.text}".encode())
    assert (
        cosigned_at(Note(NOTE.text, (NoteSignature(WITNESS.name, WITNESS.witness_hash(), blob + signed),)), WITNESS)
        is None
    )


@pytest.mark.parametrize(
    "text",
    [
        "",
        "text\n",
        "text\n\n",
        "\n\n" + LINE,
        "text\n\n" + LINE[:-1],
        "text\n\n- a AAAAAAA=\n",
        "text\n\n\u2014 a+b AAAAAAA=\n",
        "text\n\n\u2014 é AAAAAAA=\n",
        "text\n\n\u2014  AAAAAAA=\n",
        "text\n\n\u2014 a\n",
        "text\n\n\u2014 a AAAA\n",
        "text\n\n\u2014 a AAAAAA\n",
        "text\n\n\u2014 a AAAAAAB=\n",
        "text\n\n\u2014 a é\n",
        "text\r\n\n" + LINE,
        "te\ud800xt\n\n" + LINE,
        "text\n\n" + LINE * 65,
        "x" * 70_000 + "\n\n" + LINE,
    ],
)
def test_other_texts_are_no_notes(text: str) -> None:
    with pytest.raises(InvalidNote):
        parse_note(text)


@pytest.mark.parametrize(
    "text",
    [
        "o\n3\n",
        f"o\n3\n{ROOT}",
        f"\n3\n{ROOT}\n",
        f"o\n03\n{ROOT}\n",
        f"o\n-1\n{ROOT}\n",
        f"o\n3 \n{ROOT}\n",
        f"o\n\u0661\n{ROOT}\n",
        f"o\n{2**63}\n{ROOT}\n",
        f"o\n{'9' * 5_000}\n{ROOT}\n",
        "o\n3\nAAAA\n",
        "o\n3\n?\n",
        f"{'o' * 300}\n3\n{ROOT}\n",
        f"o\n3\n{ROOT}\n\nx\n",
    ],
)
def test_other_notes_are_no_checkpoints(text: str) -> None:
    with pytest.raises(InvalidNote):
        parse_checkpoint(text)


@given(st.text() | st.text(alphabet="\u2014 aA=\n"))
def test_any_text_is_a_note_or_refused(text: str) -> None:
    try:
        assert str(parse_note(text)) == text
    except InvalidNote:
        return
