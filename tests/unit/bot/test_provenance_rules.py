"""What verified provenance means for a project: whose it has to be, what came before, what vanished."""

from __future__ import annotations

import msgspec
import pytest

from matrix_pypi_bot.core.evidence import Doubt, Proves
from matrix_pypi_bot.core.index_file import IndexFile
from matrix_pypi_bot.core.provenance import (
    MAX_CARRIED_BYTES,
    Finding,
    ProvenancePolicy,
    carried,
    first_pin,
    vanished,
    witness,
)
from matrix_pypi_bot.core.publisher import Publisher
from matrix_pypi_bot.wire.digests import Sha256
from matrix_pypi_bot.wire.names import FileName, ProjectName
from tests.unit.bot.test_rule import entry

DIGEST = Sha256("ab" * 32)
WHEEL = FileName("mxa-1.0-py3-none-any.whl")
OURS = Publisher("github", "trailofbits/mxa", "release.yml")
THEIRS = Publisher("github", "mallory/mxa", "release.yml")
SIGNED = 1_750_000_000  # 2025-06-15T15:06:40Z
GOOD = Finding(sha256=DIGEST, publishers=(OURS,), signed=SIGNED)
PIN = first_pin(WHEEL, GOOD)
EARLIER, LATER = "2025-06-01T00:00:00.123456Z", "2025-07-01T00:00:00Z"


@pytest.mark.parametrize(
    ("pin", "publisher", "covers"),
    [
        (OURS, OURS, True),
        (OURS, Publisher("github", "TrailOfBits/MXA", "release.yml"), True),
        (OURS, Publisher("github", "trailofbits/mxa", "other.yml"), False),
        (OURS, Publisher("gitlab", "trailofbits/mxa", "release.yml"), False),
        (OURS, THEIRS, False),
        (OURS.home, Publisher("github", "trailofbits/mxa", "other.yml"), True),
        (OURS.home, THEIRS, False),
    ],
)
def test_a_pin_covers_its_repository_and_the_workflow_if_it_names_one(
    pin: Publisher, publisher: Publisher, covers: bool
) -> None:
    assert pin.covers(publisher) is covers


def test_a_publisher_is_told_in_one_line() -> None:
    assert str(OURS) == "github trailofbits/mxa (release.yml)"
    assert str(OURS.home) == "github trailofbits/mxa"


def test_what_nobody_looked_at_or_can_judge_is_no_evidence() -> None:
    assert witness(None, (), PIN, None) is None
    assert witness(Finding(unknown="another format"), (OURS,), None, None) is None


def test_what_fails_is_invalid_whoever_the_publisher_is() -> None:
    assert witness(Finding(fault="a bad signature"), (), None, None) is Doubt.INVALID


def test_the_first_publisher_is_believed_and_the_next_one_is_not() -> None:
    other = msgspec.structs.replace(GOOD, publishers=(THEIRS,), signed=SIGNED + 1)
    assert witness(GOOD, (), None, None) == Proves(DIGEST)
    assert witness(GOOD, (), PIN, None) == Proves(DIGEST)
    assert witness(other, (), PIN, EARLIER) is Doubt.PUBLISHER_CHANGED


def test_one_of_several_publishers_is_enough() -> None:
    both = msgspec.structs.replace(GOOD, publishers=(THEIRS, OURS))
    assert witness(both, (), PIN, None) == Proves(DIGEST)


def test_another_workflow_of_the_repository_is_no_other_publisher_at_first_sight() -> None:
    renamed = Publisher("github", "trailofbits/mxa", "publish.yml")
    assert witness(msgspec.structs.replace(GOOD, publishers=(renamed,)), (), PIN, None) == Proves(DIGEST)


@pytest.mark.parametrize(
    ("signed", "uploaded", "is_before"),
    [
        (SIGNED - 1, EARLIER, True),
        (SIGNED - 1, LATER, False),
        (SIGNED - 1, None, False),
        (SIGNED - 1, "2025-13-01T00:00:00Z", False),
        (SIGNED, EARLIER, False),
    ],
)
def test_p8_who_signed_and_uploaded_before_the_pin_was_signed_is_no_new_publisher(
    signed: int, uploaded: str | None, is_before: bool
) -> None:
    former = msgspec.structs.replace(GOOD, publishers=(THEIRS,), signed=signed)
    assert witness(former, (), PIN, uploaded) == (Proves(DIGEST) if is_before else Doubt.PUBLISHER_CHANGED)


def test_the_operator_s_pins_override_first_sight_and_know_no_before() -> None:
    former = msgspec.structs.replace(GOOD, publishers=(THEIRS,), signed=SIGNED - 1)
    assert witness(GOOD, (THEIRS,), PIN, None) is Doubt.PUBLISHER_CHANGED
    assert witness(former, (OURS,), PIN, EARLIER) is Doubt.PUBLISHER_CHANGED
    assert witness(former, (OURS, THEIRS), PIN, LATER) == Proves(DIGEST)


def page(*with_provenance: str, without: tuple[str, ...] = ()) -> dict[FileName, IndexFile]:
    files = {}
    for version in (*with_provenance, *without):
        name = FileName(f"mxa-{version}-py3-none-any.whl")
        told = "https://index.example/p" if version in with_provenance else None
        files[name] = msgspec.structs.replace(entry(name, DIGEST), provenance=told)
    return files


NEW = FileName("mxa-4.0-py3-none-any.whl")


def test_p10_a_new_file_without_provenance_after_three_releases_with_it_is_told() -> None:
    before = page("1.0", "2.0", "3.0")
    assert vanished(before, page("1.0", "2.0", "3.0", without=("4.0",))) == [NEW]
    assert vanished({}, page("1.0", "2.0", "3.0", without=("4.0",))) == [NEW]


def test_p10_two_releases_are_no_habit_and_a_file_is_told_of_once() -> None:
    assert vanished(page("1.0", "2.0"), page("1.0", "2.0", without=("4.0",))) == []
    steady = page("1.0", "2.0", "3.0", without=("4.0",))
    assert vanished(steady, steady) == []


def test_p10_provenance_taken_off_every_file_is_told_of_each() -> None:
    assert len(vanished(page("1.0", "2.0", "3.0"), page(without=("1.0", "2.0", "3.0")))) == 3


def test_names_that_tell_no_version_are_no_releases() -> None:
    odd = {FileName(f"mxa-{n}.exe"): entry(FileName(f"mxa-{n}.exe"), DIGEST) for n in range(3)}
    steady = {name: msgspec.structs.replace(file, provenance="https://index.example/p") for name, file in odd.items()}
    assert vanished(steady, steady | page(without=("4.0",))) == []


def test_everything_that_decides_is_in_the_fingerprint() -> None:
    policies = [
        ProvenancePolicy(root="a"),
        ProvenancePolicy(root="b"),
        ProvenancePolicy(root="a", quarantine=False),
        ProvenancePolicy(root="a", pins={ProjectName("mxa"): (OURS,)}),
        ProvenancePolicy(root="a", served_at="https://pypi.example"),
    ]
    assert len({msgspec.json.encode(policy.fingerprint) for policy in policies}) == len(policies)


def test_an_accusation_carries_one_attestation_if_it_is_small_enough() -> None:
    def raw(size: int) -> bytes:
        bundle = {"publisher": {"kind": "GitHub"}, "attestations": ["a" * size, "b"]}
        return msgspec.json.encode({"version": 1, "attestation_bundles": [bundle, bundle]})

    assert carried(raw(5)) == {"publisher": {"kind": "GitHub"}, "attestations": ["aaaaa"]}
    assert carried(raw(MAX_CARRIED_BYTES)) is None
