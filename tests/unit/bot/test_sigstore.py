"""Provenance verified offline, under the root that the operator pinned: a Sigstore made here, and documents of the real one."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from matrix_pypi_bot.adapters.provenance.root import open_verifier, shipped_root
from matrix_pypi_bot.adapters.provenance.verify import MAX_ATTESTATIONS, SigstoreVerifier
from matrix_pypi_bot.core.provenance import MAX_DOCUMENT_BYTES, Finding
from matrix_pypi_bot.core.publisher import Publisher
from matrix_pypi_bot.ports import NotProvenance
from matrix_pypi_bot.wire.digests import Sha256
from matrix_pypi_bot.wire.names import FileName
from matrix_pypi_bot.wire.problems import Problem, ProblemCode
from tests.support.fake_sigstore import EVIL, GITHUB, SIGNED, SLSA, FakeSigstore, Json, document, later

WHEEL = FileName("mxa-1.0-py3-none-any.whl")
DIGEST, OTHER = Sha256("ab" * 32), Sha256("cd" * 32)
SIGSTORE, ELSEWHERE = FakeSigstore(), FakeSigstore("elsewhere")
REAL = Path(__file__).parents[2] / "conformance/vectors/provenance"


@pytest.fixture(scope="module")
def verifier(tmp_path_factory: pytest.TempPathFactory) -> SigstoreVerifier:
    """Trusts the Sigstore made here."""
    file = tmp_path_factory.mktemp("root") / "trusted_root.json"
    file.write_bytes(SIGSTORE.trusted_root())
    return SigstoreVerifier(file)


@pytest.fixture(scope="module")
def public(tmp_path_factory: pytest.TempPathFactory) -> SigstoreVerifier:
    """Trusts the public Sigstore, by the root that came with its library."""
    file = tmp_path_factory.mktemp("root") / "trusted_root.json"
    file.write_bytes(shipped_root())
    return SigstoreVerifier(file)


@pytest.mark.parametrize(
    "publisher",
    [
        GITHUB,
        Publisher("gitlab", "group/sub/mxa", ".gitlab-ci.yml"),
        Publisher("google", "builder@mxa.example"),
        Publisher("circleci", "11111111-2222", "33333333-4444"),
    ],
    ids=str,
)
async def test_a_good_document_proves_its_digest_and_names_its_publisher(
    verifier: SigstoreVerifier, publisher: Publisher
) -> None:
    raw = SIGSTORE.provenance(publisher, WHEEL, DIGEST)
    assert await verifier.document(WHEEL, raw) == Finding(sha256=DIGEST, publishers=(publisher,), signed=SIGNED)


@pytest.mark.parametrize(
    ("file", "sha256", "publisher", "signed"),
    [
        (
            "pypi_attestations-0.0.19.tar.gz",
            "9bb1add04b1b4e182be6b0b80931593f7a291eb49d69b4fd728a5d4cbcdc4bd3",
            Publisher("github", "trailofbits/pypi-attestations", "release.yml"),
            1_733_354_041,
        ),
        (
            "gcb_attestation_test-0.0.0.tar.gz",
            "461317362419124b6012e855423a9078d6de8aed3e74fa78cc74d669b23dc6cf",
            Publisher("google", "919436158236-compute@developer.gserviceaccount.com"),
            1_745_247_747,
        ),
        (
            "circleci_sign_publish_example-0.0.1.dev137-py3-none-any.whl",
            "8cb34da1e27336f11a2c43f3f9c7433bd76f24f470c904724f06ad7f131d9e9f",
            Publisher("circleci", "fdd9283f-e619-46af-8f9c-851f7d3e8b2b", "8e4f8ab2-8d7c-4827-9f15-de076d6d647f"),
            1_770_332_382,
        ),
    ],
)
async def test_real_documents_are_verified_without_opening_a_socket(
    public: SigstoreVerifier, file: str, sha256: str, publisher: Publisher, signed: int
) -> None:
    raw = (REAL / f"{file}.provenance").read_bytes()
    found = await public.document(FileName(file), raw)
    assert found == Finding(sha256=Sha256(sha256), publishers=(publisher,), signed=signed)


async def test_a_real_document_of_another_file_is_a_fault(public: SigstoreVerifier) -> None:
    raw = (REAL / "pypi_attestations-0.0.19.tar.gz.provenance").read_bytes()
    assert (await public.document(FileName("pypi_attestations-0.0.20.tar.gz"), raw)).fault


async def test_several_attestations_agree_or_the_document_is_invalid(verifier: SigstoreVerifier) -> None:
    def both(second: str) -> bytes:
        bundle = SIGSTORE.bundle(GITHUB, WHEEL, DIGEST)
        bundle["attestations"].append(SIGSTORE.attestation(GITHUB, WHEEL, second, kind=SLSA, signed=later(1)))
        return document(bundle)

    assert await verifier.document(WHEEL, both(DIGEST)) == Finding(sha256=DIGEST, publishers=(GITHUB,), signed=later(1))
    assert (await verifier.document(WHEEL, both(OTHER))).fault == "its attestations name different digests"


async def test_every_publisher_of_a_document_is_named(verifier: SigstoreVerifier) -> None:
    raw = document(SIGSTORE.bundle(GITHUB, WHEEL, DIGEST), SIGSTORE.bundle(EVIL, WHEEL, DIGEST))
    assert (await verifier.document(WHEEL, raw)).publishers == (GITHUB, EVIL)


async def test_a_name_may_be_spelled_in_another_way(verifier: SigstoreVerifier) -> None:
    told = SIGSTORE.provenance(GITHUB, "MXA-1.0.tar.gz", DIGEST)
    assert (await verifier.document(FileName("mxa-1.0.tar.gz"), told)).sha256 == DIGEST
    assert (await verifier.document(FileName("mxa-1.0.zip"), told)).fault


def change(path: str, value: Callable[[Any], Any]) -> Callable[[Json], None]:
    """Changes one place of an attestation bundle."""

    def apply(bundle: Json) -> None:
        *steps, last = [int(step) if step.isdigit() else step for step in path.split(".")]
        place: Any = bundle
        for step in steps:
            place = place[step]
        place[last] = value(place[last])

    return apply


def flipped(text: str) -> str:
    data = bytearray(base64.b64decode(text))
    data[-1] ^= 1
    return base64.b64encode(data).decode()


ENTRY = "attestations.0.verification_material.transparency_entries.0"
WRONG = {
    "another signature": change("attestations.0.envelope.signature", flipped),
    "another statement": change("attestations.0.envelope.statement", flipped),
    "another certificate": change("attestations.0.verification_material.certificate", flipped),
    "no certificate": change("attestations.0.verification_material.certificate", lambda _: ""),
    "another time": change(f"{ENTRY}.integratedTime", lambda told: str(int(told) + 1)),
    "another entry": change(f"{ENTRY}.canonicalizedBody", flipped),
    "another promise": change(f"{ENTRY}.inclusionPromise.signedEntryTimestamp", flipped),
    "another tree": change(f"{ENTRY}.inclusionProof.rootHash", flipped),
    "another checkpoint": change(f"{ENTRY}.inclusionProof.checkpoint.envelope", lambda note: note.replace("1", "2", 1)),
    "no entry": change("attestations.0.verification_material.transparency_entries", lambda _: []),
    "another repository stated": change("publisher.repository", lambda _: "mallory/mxa"),
    "another workflow stated": change("publisher.workflow", lambda _: "other.yml"),
    "a shape of its own": change("attestations.0", lambda _: {"version": 1}),
}


@pytest.mark.parametrize("wrong", WRONG.values(), ids=WRONG)
async def test_what_was_tampered_with_is_a_fault(verifier: SigstoreVerifier, wrong: Callable[[Json], None]) -> None:
    bundle = SIGSTORE.bundle(GITHUB, WHEEL, DIGEST)
    wrong(bundle)
    found = await verifier.document(WHEEL, document(bundle))
    assert found.fault
    assert not (found.sha256 or found.unknown)


@pytest.mark.parametrize(
    "statement",
    [
        {"subject": [{"name": "mxa-2.0-py3-none-any.whl", "digest": {"sha256": DIGEST}}]},
        {"subject": [{"name": "../evil", "digest": {"sha256": DIGEST}}]},
        {"subject": [{"name": WHEEL, "digest": {"sha256": DIGEST}}] * 2},
        {"subject": [{"name": WHEEL, "digest": {"sha256": "short"}}]},
        {"subject": [{"name": WHEEL, "digest": {"sha512": "ab" * 64}}]},
        {"subject": []},
        {"_type": "https://in-toto.io/Statement/v0.1"},
    ],
)
async def test_a_good_signature_on_another_statement_is_a_fault(verifier: SigstoreVerifier, statement: Json) -> None:
    raw = SIGSTORE.provenance(GITHUB, WHEEL, DIGEST, **statement)
    assert (await verifier.document(WHEEL, raw)).fault


async def test_a_certificate_that_names_no_publisher_is_a_fault(verifier: SigstoreVerifier) -> None:
    for publisher in (Publisher("github", "", "release.yml"), Publisher("circleci", "p", "")):
        assert (await verifier.document(WHEEL, SIGSTORE.provenance(publisher, WHEEL, DIGEST))).fault


NEW = {
    "another authority": lambda: ELSEWHERE.provenance(GITHUB, WHEEL, DIGEST),
    "another version": lambda: document(SIGSTORE.bundle(GITHUB, WHEEL, DIGEST), version=2),
    "another identity provider": lambda: SIGSTORE.provenance(Publisher("sourcehut", "x"), WHEEL, DIGEST),
    "another kind of statement": lambda: SIGSTORE.provenance(GITHUB, WHEEL, DIGEST, kind="https://new.example/v1"),
    "another log": lambda: changed(f"{ENTRY}.logId.keyId", lambda _: base64.b64encode(b"x" * 32).decode()),
    "a log without a signed time": lambda: changed(f"{ENTRY}.inclusionPromise", lambda _: None),
    "no attestation": lambda: document(SIGSTORE.bundle(GITHUB, WHEEL, DIGEST) | {"attestations": []}),
    "nothing": lambda: document(),
    "a crowd": lambda: document({"publisher": {"kind": "GitHub"}, "attestations": [{}] * (MAX_ATTESTATIONS + 1)}),
}  # fmt: skip


def changed(path: str, value: Callable[[Any], Any]) -> bytes:
    bundle = SIGSTORE.bundle(GITHUB, WHEEL, DIGEST)
    change(path, value)(bundle)
    return document(bundle)


@pytest.mark.parametrize("raw", NEW.values(), ids=NEW)
async def test_what_this_root_or_version_cannot_know_is_no_forgery(
    verifier: SigstoreVerifier, raw: Callable[[], bytes]
) -> None:
    found = await verifier.document(WHEEL, raw())
    assert found.unknown
    assert not (found.sha256 or found.fault)


NO_DOCUMENTS = [
    b"",
    b"<html>",
    b"[]",
    b"{}",
    b"[" * 100_000,
    b'{"version": 1, "attestation_bundles": [5]}',
    b'{"version": 1, "attestation_bundles": [{"publisher": 5, "attestations": []}]}',
    b" " * (MAX_DOCUMENT_BYTES + 1),
    b'{"version": 1, "attestation_bundles": "\xff"}',
]


@pytest.mark.parametrize("raw", NO_DOCUMENTS, ids=lambda raw: raw[:24].decode(errors="replace"))
async def test_what_is_no_document_is_told_apart(verifier: SigstoreVerifier, raw: bytes) -> None:
    with pytest.raises(NotProvenance):
        await verifier.document(WHEEL, raw)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=5), inner, max_size=2),
    max_leaves=5,
)


def places(value: object, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The path of everything inside a JSON value."""
    steps = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(found for step, inner in steps for found in places(inner, (*path, step)))]


HONEST = json.loads(SIGSTORE.provenance(GITHUB, WHEEL, DIGEST))


@given(st.sampled_from(places(HONEST)[1:]), json_values)
def test_whatever_stands_anywhere_in_a_document_nothing_false_is_proven(
    verifier: SigstoreVerifier, path: tuple[Any, ...], value: object
) -> None:
    raw = json.loads(json.dumps(HONEST))
    place = raw
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value
    try:
        found = verifier._document(WHEEL, json.dumps(raw).encode())
    except NotProvenance:
        return
    assert found.sha256 in (None, DIGEST)
    assert found.sha256 is None or found.publishers == (GITHUB,)


async def test_one_bundle_is_verified_by_itself(verifier: SigstoreVerifier) -> None:
    bundle = SIGSTORE.bundle(GITHUB, WHEEL, OTHER)
    assert (await verifier.bundle(WHEEL, bundle)).sha256 == OTHER
    with pytest.raises(NotProvenance):
        await verifier.bundle(WHEEL, {"attestations": []})


def test_a_file_that_is_no_root_is_refused_with_its_name(tmp_path: Path) -> None:
    assert open_verifier(None) is None
    for name, content in {
        "missing": None,
        "empty": b"",
        "object": b"{}",
        "other": b'{"tlogs": [], "ctlogs": []}',
    }.items():
        file = tmp_path / name
        if content is not None:
            file.write_bytes(content)
        with pytest.raises(Problem, match="no trusted root") as refused:
            open_verifier(file)
        assert refused.value.code is ProblemCode.CONFIGURATION
        assert name in refused.value.detail


def test_another_root_is_another_name_for_what_was_found(tmp_path: Path) -> None:
    roots = set()
    for sigstore in (SIGSTORE, ELSEWHERE):
        file = tmp_path / sigstore.name
        file.write_bytes(sigstore.trusted_root())
        opened = open_verifier(file)
        assert opened is not None
        roots.add(opened.root)
    assert len(roots) == 2
