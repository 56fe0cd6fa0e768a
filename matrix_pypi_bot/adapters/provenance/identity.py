"""The publisher in a signing certificate: what its authority wrote there, not what a document says about it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from cryptography.x509 import Certificate, ExtensionNotFound, RFC822Name, SubjectAlternativeName
from pypi_attestations import (
    CircleCIPublisher,
    GitHubPublisher,
    GitLabPublisher,
    GooglePublisher,
)
from pypi_attestations import Publisher as StatedPublisher

from matrix_pypi_bot.core.publisher import Publisher

# Fulcio's extensions, https://github.com/sigstore/fulcio/blob/main/docs/oid-info.md
ISSUER: Final = "1.3.6.1.4.1.57264.1.8"
BUILD_SIGNER: Final = "1.3.6.1.4.1.57264.1.9"
REPOSITORY: Final = "1.3.6.1.4.1.57264.1.12"
REPOSITORY_DIGEST: Final = "1.3.6.1.4.1.57264.1.13"
REPOSITORY_REF: Final = "1.3.6.1.4.1.57264.1.14"
BUILD_CONFIG: Final = "1.3.6.1.4.1.57264.1.18"

_CIRCLECI_PROJECT: Final = "https://circleci.com/api/v2/projects/"
_CIRCLECI_PIPELINE: Final = "/pipeline-definitions/"


class NoPublisher(ValueError):
    """A certificate whose claims make no publisher."""


class UnknownIssuer(ValueError):
    """A certificate of an identity provider that is not known here."""


def publisher_of(certificate: Certificate, claims: Mapping[str, str]) -> Publisher:
    """The publisher that a certificate names; `claims` are its Fulcio extensions by OID. Raises NoPublisher, UnknownIssuer."""
    match claims.get(ISSUER):
        case "https://token.actions.githubusercontent.com":
            repository = _after(claims.get(REPOSITORY), "https://github.com/")
            return Publisher("github", repository, _workflow(claims, "/.github/workflows/"))
        case "https://gitlab.com":
            repository = _after(claims.get(REPOSITORY), "https://gitlab.com/")
            return Publisher("gitlab", repository, _workflow(claims, "//"))
        case "https://accounts.google.com":
            return Publisher("google", _email(certificate))
        case "https://oidc.circleci.com":
            project, found, pipeline = _after(claims.get(BUILD_SIGNER), _CIRCLECI_PROJECT).partition(_CIRCLECI_PIPELINE)
            if not found or not project or not pipeline:
                raise NoPublisher("the certificate names no pipeline")
            return Publisher("circleci", project, pipeline)
        case issuer:
            raise UnknownIssuer(f"identities of {issuer} are not known here")


def stated(publisher: StatedPublisher) -> Publisher:
    """The publisher that a document states, unsigned."""
    match publisher:
        case GitHubPublisher():
            return Publisher("github", publisher.repository, publisher.workflow)
        case GitLabPublisher():
            return Publisher("gitlab", publisher.repository, publisher.workflow_filepath)
        case GooglePublisher():
            return Publisher("google", publisher.email)
        case CircleCIPublisher():
            return Publisher("circleci", publisher.project_id, publisher.pipeline_definition_id)


def _workflow(claims: Mapping[str, str], folder: str) -> str:
    """The workflow's file: what stands between the repository and `@` with the commit or the ref, which are claims of their own."""
    config = _after(claims.get(BUILD_CONFIG), claims[REPOSITORY] + folder)
    for oid in (REPOSITORY_DIGEST, REPOSITORY_REF):
        if (told := claims.get(oid)) and config.endswith(f"@{told}"):
            return config.removesuffix(f"@{told}")
    raise NoPublisher("the certificate's workflow is not of its own commit or ref")


def _email(certificate: Certificate) -> str:
    try:
        names = certificate.extensions.get_extension_for_class(SubjectAlternativeName).value
    except ExtensionNotFound as error:
        raise NoPublisher("the certificate names nobody") from error
    found = names.get_values_for_type(RFC822Name)
    if len(found) != 1:
        raise NoPublisher("the certificate names no email address, or several")
    return str(found[0])


def _after(text: str | None, prefix: str) -> str:
    if text is None or not text.startswith(prefix) or len(text) == len(prefix):
        raise NoPublisher(f"the certificate does not say {prefix}...")
    return text.removeprefix(prefix)
