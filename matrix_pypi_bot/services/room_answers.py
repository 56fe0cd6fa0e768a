"""The answers to commands in rooms, as lines of text."""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Final

from matrix_pypi_bot.core.instants import Instant
from matrix_pypi_bot.core.keyring import MAINTAINER_ORG
from matrix_pypi_bot.core.signers import keyid_of
from matrix_pypi_bot.ports import Clock
from matrix_pypi_bot.services.explain import Explainer, told_of
from matrix_pypi_bot.services.members import Members
from matrix_pypi_bot.services.relay import Relay, read_blob
from matrix_pypi_bot.services.trust_pages import TrustPages
from matrix_pypi_bot.wire.messages import Explanation
from matrix_pypi_bot.wire.names import (
    FileName,
    InvalidName,
    ProjectName,
    candidate_projects,
    parse_file_name,
    project_and_version,
)
from matrix_pypi_bot.wire.problems import Problem, ProblemCode

MAX_FILES: Final = 10
MAX_EVIDENCE: Final = 15
_DIGITS: Final = 12
_HELP: Final = (
    "!pypi status [VERSION or FILE]: how the project's files stand",
    "!pypi why FILE: the decision on a file, and every piece of evidence",
    "!pypi attest BLOB: publish a maintainer's statement, as `matrix-pypi attest` prints it",
    "!pypi keys: whose keys speak here",
    "!pypi peers: the organisations that this one trusts, and how they stand",
)


class RoomAnswers:
    """Each answer begins with the organisation's name: several bots may answer one question."""

    def __init__(
        self, *, org: str, explainer: Explainer, pages: TrustPages, members: Members, relay: Relay, clock: Clock
    ) -> None:
        self._org = org
        self._explainer = explainer
        self._pages = pages
        self._members = members
        self._relay = relay
        self._clock = clock
        self._answers: Mapping[str, Callable[[Sequence[str], ProjectName | None], Awaitable[list[str]]]] = {
            "help": self._help,
            "status": self._status,
            "why": self._why,
            "attest": self._attest,
            "keys": self._keys,
            "peers": self._peers,
        }

    async def lines(self, words: Sequence[str], project: ProjectName | None) -> list[str]:
        """The answer to `!pypi <words>` in the room of `project` (None: in another one). Raises Problem."""
        name, *rest = words or ["help"]
        answer = self._answers.get(name.lower())
        if answer is None:
            raise Problem(
                f"{self._org}: there is no command {name[:40]}; !pypi help lists them", code=ProblemCode.BAD_REQUEST
            )
        try:
            first, *more = await answer(rest, project)
        except Problem as problem:
            raise Problem(f"{self._org}: {problem.detail}", hint=problem.hint, code=problem.code) from problem
        return [f"{self._org}: {first}", *more]

    async def _help(self, words: Sequence[str], project: ProjectName | None) -> list[str]:
        return ["I answer for one organisation:", *_HELP]

    async def _status(self, words: Sequence[str], project: ProjectName | None) -> list[str]:
        if project is None:
            raise _say("ask in the room of a project")
        told = await self._pages.project(project)
        asked = words[0] if words else None
        files = {file: one for file, one in told.files.items() if asked is None or _is_meant(FileName(file), asked)}
        if asked is not None and not files:
            raise _say(f"no file of {asked[:80]} is known here")
        age = f"page {told.view_age_seconds:.0f} s old"
        rules = Counter(f"{one.decision.action} {one.decision.rule}" for one in files.values())
        counts = ", ".join(f"{count} {rule}" for rule, count in rules.most_common())
        lines = [f"{project}, upstream {told.state}, {age}: {len(files)} files, {counts}"]
        if asked is None:
            return lines
        for file in sorted(files)[:MAX_FILES]:
            one = files[file]
            by = f", attested by {', '.join(one.attested_by)}" if one.attested_by else ""
            lines.append(f"{file}: {one.decision.action} {one.decision.rule}{by}")
        return lines + _rest(len(files) - MAX_FILES)

    async def _why(self, words: Sequence[str], project: ProjectName | None) -> list[str]:
        if len(words) != 1:
            raise _say("say which: !pypi why FILE")
        file = parse_file_name(words[0])
        explanation = await self._explained(file, project)
        decision, evidence = told_of(explanation, file)
        lines = [f"{file}: {decision.action} {decision.rule}", *([decision.reason] if decision.reason else [])]
        for one in evidence[:MAX_EVIDENCE]:
            digest = f" {one.sha256[:_DIGITS]}" if one.sha256 is not None else ""
            lines.append(f"- {one.kind}{digest} {one.detail}")
        return [*lines, *_rest(len(evidence) - MAX_EVIDENCE), f"/trust/{explanation.project}/{file} has the statements"]

    async def _explained(self, file: FileName, project: ProjectName | None) -> Explanation:
        for candidate in (project,) if project is not None else candidate_projects(file):
            try:
                await self._pages.project(candidate)  # of what is private, nothing is told in rooms either
                return await self._explainer.explain(candidate, file)
            except Problem as problem:
                if problem.code is not ProblemCode.NOT_FOUND:
                    raise
        raise _say(f"nothing is known of {file}")

    async def _attest(self, words: Sequence[str], project: ProjectName | None) -> list[str]:
        if len(words) != 1 or project is None:
            raise _say("in the room of its project: !pypi attest BLOB, where `matrix-pypi attest FILE` prints the blob")
        done = await self._relay.take(read_blob(words[0]), room=project)
        return [f"{done.file}: {'published' if done.new else 'known already'}, statement {done.statement_id[:16]}"]

    async def _keys(self, words: Sequence[str], project: ProjectName | None) -> list[str]:
        ring, lines = self._members.keyring, []
        for member in ring.members:
            if member.manifest is None:
                lines.append(f"{member.org.name}: no manifest is known")
                continue
            keys = [key for key in member.manifest.keys if key.revoked is None]
            shown = ", ".join(f"{keyid_of(bytes.fromhex(key.key))[:16]} ({', '.join(key.roles)})" for key in keys)
            lines.append(f"{member.org.name}: manifest {member.manifest.version}, {shown}")
        maintainers = [
            key.keyid[:16] for key in ring.keys.values() if key.org == MAINTAINER_ORG and project in key.projects
        ]
        if maintainers:
            lines.append(f"maintainers of {project}: {', '.join(sorted(maintainers))}")
        return ["keys that speak here", *lines]

    async def _peers(self, words: Sequence[str], project: ProjectName | None) -> list[str]:
        if not self._members.pinned:
            return ["trusts no other organisation"]
        now, standing = Instant.of_ms(self._clock.now_ms()), self._members.standing()
        outcasts, silent = standing.outcasts(), standing.silent()
        lines = []
        for org in self._members.pinned:
            manifest = self._members.manifest(org.name)
            words_of = [
                "no manifest is known" if manifest is None else f"manifest {manifest.version} until {manifest.expires}",
                *(["expired: it does not count"] if manifest is not None and manifest.expires <= now else []),
                *(["suspended: it signed something false"] if org.name in outcasts else []),
                *(["its log is silent"] if org.name in silent else []),
            ]
            lines.append(f"{org.name}: {', '.join(words_of)}")
        return [f"trusts {len(lines)} other organisations", *lines]


def _is_meant(file: FileName, asked: str) -> bool:
    """Whether a person who says this version or file name means the file."""
    if file == asked:
        return True
    try:
        return project_and_version(file)[1] == asked
    except InvalidName:
        return False


def _rest(more: int) -> list[str]:
    return [f"and {more} more"] if more > 0 else []


def _say(detail: str) -> Problem:
    return Problem(detail, code=ProblemCode.BAD_REQUEST)
