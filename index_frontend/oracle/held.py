"""What is held of the bot's word: a project's document, one file's decision, an absence."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Final, Generic, TypeVar

from index_frontend.oracle.link import PageAnswer
from index_frontend.ports import Page
from matrix_pypi_bot.wire.messages import Decision, PageFile, ProjectDocument, decode_as
from matrix_pypi_bot.wire.names import FileName, FilePath, ProjectName
from matrix_pypi_bot.wire.problems import Problem, ProblemCode

# What a decoded document takes beside its bytes; measured on pages of 10 and of 5,000 files.
_BYTES_PER_FILE: Final = 1_400
_BYTES_PER_PAGE: Final = 2_000

K = TypeVar("K")
V = TypeVar("V")


class Bounded(OrderedDict[K, V], Generic[K, V]):
    """A mapping that keeps the `most` entries that were put into it last."""

    def __init__(self, most: int) -> None:
        super().__init__()
        self._most = most

    def put(self, key: K, value: V) -> tuple[K, V] | None:
        """Set as the newest entry; the oldest one when it had to go."""
        self[key] = value
        self.move_to_end(key)
        return self.popitem(last=False) if len(self) > self._most else None


@dataclass(frozen=True, slots=True)
class Absence:
    """The bot's word that there is nothing to be had, good until `until`."""

    code: ProblemCode
    detail: str
    hint: str
    until: float

    def again(self) -> Problem:
        """The same Problem once more; a new object, because an exception collects the places that it passes."""
        return Problem(self.detail, hint=self.hint, code=self.code)


@dataclass(frozen=True, slots=True)
class HeldDecision:
    """One file's decision that was asked for without its page."""

    decision: Decision
    fresh_until: float


@dataclass(slots=True, kw_only=True, eq=False)
class HeldPage:
    """A project's document. Only its standing ever changes: a 304 of the bot renews it."""

    project: ProjectName
    document: ProjectDocument
    raw: bytes
    files: dict[str, PageFile]
    revision: str
    seq: int
    age_seconds: float
    fresh_until: float
    stale: bool
    has_peers: bool = False
    looked: bool = False  # whether the bot asked upstream for the answer that this came with
    _decisions: dict[str, Decision] = field(default_factory=dict)
    _keys: dict[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, project: ProjectName, raw: bytes, answer: PageAnswer, now: float) -> HeldPage:
        """The document in `raw`, standing as `answer` says. Raises msgspec.MsgspecError when it is none."""
        document = decode_as(ProjectDocument, raw)
        return cls(
            project=project,
            document=document,
            raw=raw,
            files={_key_of_path(file.path): file for file in document.files},
            revision=answer.revision,
            seq=answer.seq,
            age_seconds=answer.age_seconds,
            fresh_until=now + answer.fresh_seconds,
            stale=answer.state == "down",
            has_peers=answer.has_peers,
        )

    def renew(self, answer: PageAnswer, now: float) -> None:
        """The bot said that this revision still is the one."""
        self.seq = answer.seq
        self.age_seconds = answer.age_seconds
        self.fresh_until = now + answer.fresh_seconds
        self.stale = answer.state == "down"
        self.has_peers = answer.has_peers
        self._decisions.clear()  # they carry the age

    def page(self, now: float, *, hit: bool, doubtful: bool = False) -> Page:
        """The port's view of it. `doubtful`: nobody vouches for it now, so it is marked stale and not to be kept by clients."""
        return Page(
            document=self.document,
            raw=self.raw,
            stale=doubtful or self.stale,
            remaining_seconds=0.0 if doubtful else max(0.0, self.fresh_until - now),
            hit=hit,
        )

    def decision(self, key: str) -> Decision | None:
        """The decision on the file under `key`, None when the page does not name it, or says to ask. Made once a file."""
        found = self._decisions.get(key)
        if found is None and (file := self.files.get(key)) is not None and not file.decision.ask:
            found = self._decisions[key] = self._decision_of(file)
        return found

    def asks(self, key: str) -> bool:
        """Whether the page names the file under `key` and leaves it to the bot how it stands."""
        file = self.files.get(key)
        return file is not None and bool(file.decision.ask)

    def path_of(self, name: str) -> str | None:
        """The path of the file called `name`, None when the page does not name it."""
        if not self._keys:
            self._keys = {file.filename: key for key, file in self.files.items()}
        key = self._keys.get(name)
        return None if key is None else self.files[key].path

    def _decision_of(self, file: PageFile) -> Decision:
        metadata = file.core_metadata.get("sha256") if isinstance(file.core_metadata, dict) else None
        return Decision(
            action=file.decision.action,
            http=file.decision.http,
            rule=file.decision.rule,
            reason=file.decision.reason,
            project=self.project,
            file=file.filename,
            path=file.path,
            sha256=file.hashes.get("sha256"),
            size=file.size,
            core_metadata_sha256=metadata,
            urls=(file.upstream_url,) if file.upstream_url else (),
            opened_origins=self.document.view.opened_origins,
            has_peers=self.has_peers,
            view_age_seconds=self.age_seconds,
            seq=self.seq,
            project_status=self.document.project_status.status,
        )

    @property
    def cost(self) -> int:
        """About the bytes of memory that it takes."""
        return len(self.raw) + _BYTES_PER_FILE * len(self.files) + _BYTES_PER_PAGE


def key_of(path: FilePath) -> str:
    """What a file and its metadata are found by: `<64 hex>/<file>`."""
    return f"{path.address}/{path.file}"


def key_of_name(project: ProjectName, file: FileName) -> str:
    """What a file is found by whose path nobody told; no path's key is like it."""
    return f"{project}:{file}"


def _key_of_path(path: str) -> str:
    """The same of a path `/packages/aa/bb/<60 hex>/<file>`; of anything else, a key that nobody asks for."""
    return path[10:12] + path[13:15] + path[16:]
