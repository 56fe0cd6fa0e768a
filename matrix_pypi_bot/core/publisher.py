"""Publishers: who built and uploaded a file, as the certificate of its provenance (PEP 740) names them."""

from __future__ import annotations

from typing import Final

import msgspec

ISSUERS: Final = ("github", "gitlab", "google", "circleci")


class Publisher(msgspec.Struct, frozen=True, omit_defaults=True):
    """Where something was published from: `issuer` is one of `ISSUERS`, `repository` e.g. `trailofbits/rfc8785`.

    For `google` the repository is the service account's email address, for `circleci` the project's id. `workflow` is the workflow's
    file (`circleci`: the id of the pipeline's definition); empty where there is none, and in a pin that takes every one.
    """

    issuer: str
    repository: str
    workflow: str = ""

    def __str__(self) -> str:
        return f"{self.issuer} {self.repository}" + (f" ({self.workflow})" if self.workflow else "")

    @property
    def home(self) -> Publisher:
        """The same without the workflow: as a pin, everything from this repository."""
        return Publisher(self.issuer, self.repository)

    def covers(self, other: Publisher) -> bool:
        """Whether `other` is meant by this one as a pin. Names of repositories differ in more than case."""
        return (
            self.issuer == other.issuer
            and self.repository.lower() == other.repository.lower()
            and self.workflow in ("", other.workflow)
        )
