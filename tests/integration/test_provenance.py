"""Provenance through the whole stack: a file is verified before its first byte, and its document is there when upstream is not."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from pypi_attestations import Attestation, Distribution
from sigstore.models import TrustedRoot
from sigstore.verify import Verifier
from sigstore.verify.policy import OIDCSourceRepositoryURI

from matrix_pypi_bot.core.publisher import Publisher
from matrix_pypi_bot.wire.messages import PROVENANCE_TYPE
from tests.integration.conftest import ENVIRONMENT
from tests.support.dists import Dist, wheel
from tests.support.fake_sigstore import EVIL, GITHUB, FakeSigstore, later
from tests.support.http_client import ask
from tests.support.installers import INSTALLERS, Environment, Installer
from tests.support.stack import Stack
from tests.support.upstream import Upstream
from tests.support.waiting import wait_until

pytestmark = pytest.mark.integration
SIGSTORE = FakeSigstore()


@pytest.fixture(scope="module")
def proving(running_upstream: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A stack that trusts the Sigstore of these tests instead of the public one."""
    home = tmp_path_factory.mktemp("proving") / "home"
    (home / "orga").mkdir(parents=True)
    (home / "orga/trusted_root.json").write_bytes(SIGSTORE.trusted_root())
    with Stack(home, "--upstream", running_upstream.url, environment=ENVIRONMENT) as stack:
        yield stack


def document(dist: Dist, publisher: Publisher = GITHUB, sha256: str | None = None, **options: int) -> bytes:
    return SIGSTORE.provenance(publisher, dist.filename, sha256 or dist.sha256, **options)


def command(stack: Stack, *arguments: str) -> str:
    """What `matrix-pypi` prints about this stack."""
    program = Path(sys.executable).with_name("matrix-pypi")
    done = subprocess.run(
        [program, *arguments, "--home", stack.home], check=True, capture_output=True, text=True, timeout=60
    )
    return done.stdout


@pytest.mark.parametrize("installer", INSTALLERS, ids=lambda installer: installer.name)
def test_an_install_verifies_provenance_and_the_page_then_names_our_copy(
    proving: Stack, upstream: Upstream, name: str, installer: Installer, tmp_path: Path
) -> None:
    dist = wheel(name)
    upstream.prove(dist, document(dist))
    outcome = installer.install(proving.org.simple, name, environment=Environment.empty(tmp_path / "environment"))
    assert outcome.packages == {name: "1.0"}, outcome.output
    path = f"/integrity/{name}/{dist.filename}"
    assert upstream.hits("GET", path) == 1

    def listed() -> str | None:
        told: str | None = proving.page(name).json["files"][0]["provenance"]
        return told if told is not None and told.startswith("../../provenance/") else None

    told = wait_until(listed, "the page names our copy of the provenance")
    upstream.off()
    reply = proving.get(told.removeprefix("../.."))
    assert (reply.status, reply.content_type) == (200, PROVENANCE_TYPE)
    upstream.on()
    assert reply.body == ask(upstream.files_origin + path).body
    [attestation] = json.loads(reply.body)["attestation_bundles"][0]["attestations"]
    check(tmp_path, Attestation.model_validate(attestation), Distribution(name=dist.filename, digest=dist.sha256))


def check(folder: Path, attestation: Attestation, dist: Distribution) -> None:
    """The document, as its own library reads and verifies it."""
    root = folder / "root.json"
    root.write_bytes(SIGSTORE.trusted_root())
    verifier = Verifier(trusted_root=TrustedRoot.from_file(str(root)))
    policy = OIDCSourceRepositoryURI(f"https://github.com/{GITHUB.repository}")
    _, payload = verifier.verify_dsse(attestation.to_bundle(), policy)
    [subject] = json.loads(payload)["subject"]
    assert (subject["name"], subject["digest"]["sha256"]) == (dist.name, dist.digest)


def test_a_file_whose_provenance_proves_other_bytes_never_leaves(proving: Stack, upstream: Upstream, name: str) -> None:
    dist = wheel(name)
    upstream.prove(dist, document(dist, sha256="ab" * 32))
    assert proving.page(name).status == 200
    reply = proving.file(dist)
    assert (reply.status, reply.headers["x-matrix-pypi-rule"]) == (403, "R4")
    assert "it proves abababababab" in reply.reason
    assert upstream.hits("GET", dist) == 0


def test_a_new_publisher_is_refused_until_an_operator_approves(proving: Stack, upstream: Upstream, name: str) -> None:
    one, two = wheel(name, "1.0"), wheel(name, "2.0")
    upstream.prove(one, document(one))
    assert proving.page(name).status == 200
    assert proving.file(one).status == 200
    upstream.prove(two, document(two, EVIL, signed=later(1)))
    proving.page_once(name, lambda page: two.filename in page.body.decode(), "lists the new file")
    refused = proving.everywhere(two.path, lambda reply: reply.status == 403, "refuses")
    assert "R6 the publisher changed" in refused.reason
    assert str(EVIL) in refused.reason
    command(proving, "approve", two.filename, "--reason", "they moved")
    assert proving.everywhere(two.path, lambda reply: reply.status == 200, "serves").body == two.content
    told = command(proving, "explain", two.filename, "--json")
    assert f"another publisher: {EVIL}" in told
    assert f"of first sight: {GITHUB.home}" in told
