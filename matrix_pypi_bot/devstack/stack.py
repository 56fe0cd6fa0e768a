"""`matrix-pypi up`: homeservers, bots and frontends as processes of this machine, kept running until told to stop."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from matrix_pypi_bot.devstack.children import Part
from matrix_pypi_bot.devstack.ports import LOOPBACK, check_frontends
from matrix_pypi_bot.devstack.preparing import Prepared
from matrix_pypi_bot.devstack.probes import room_of_alias
from matrix_pypi_bot.devstack.processes import part_names, parts, ready_lines, stack_json, starting
from matrix_pypi_bot.devstack.progress import Progress
from matrix_pypi_bot.devstack.signals import Signals
from matrix_pypi_bot.devstack.supervisor import Stopped, Supervisor
from matrix_pypi_bot.process.secret_files import read_secret

START_SECONDS: Final = 180.0  # for one organisation: a slow disk and a busy machine; 5 s are usual


class Stack:
    """A prepared stack that runs."""

    def __init__(self, prepared: Prepared, progress: Progress, signals: Signals) -> None:
        self._prepared = prepared
        self._progress = progress
        self._parts = [parts(prepared, org) for org in prepared.orgs]
        self._supervisor = Supervisor(signals, say=progress.say, changed=self._pids_changed)
        self._trust_rooms: dict[str, str] = {}

    def run(self) -> None:
        """Start, say `ready`, watch. Returns after a signal, when all children have ended; raises what kept it from starting."""
        try:
            self._start()
            self._progress.done()
            for line in ready_lines(self._prepared, self._progress.seconds):
                self._progress.say(line)
            self._supervisor.watch()
        except Stopped:
            self._progress.done()
            self._progress.say("stopping")
        finally:
            self._supervisor.stop()
            self._prepared.home.write("pids.json", [])

    def _start(self) -> None:
        self._progress.say(f"{starting(self._prepared)} in {self._prepared.home.folder}")
        first = [self._of_all(process) for process in ("kubo", "homeserver", "bot")]
        for group in first:
            self._supervisor.start(*group)
        self._wait([part.name for group in first for part in group])
        # Once more: another stack may have been starting on the same port, and its answers would be taken for those of ours.
        check_frontends(self._prepared.frontend_host, self._prepared.frontend_ports)
        # Last: whoever finds a port of theirs open finds everything else working.
        frontends = self._of_all("frontend")
        self._supervisor.start(*frontends)
        self._find_trust_rooms()  # already, while they start: a homeserver's first answer is slow
        self._wait([part.name for part in frontends], also=self._find_trust_rooms)
        self._write_stack_file()

    def _of_all(self, process: str) -> list[Part]:
        """That process of every organisation that has it."""
        return [processes[process] for processes in self._parts if process in processes]

    def _wait(self, names: Sequence[str], also: Any = lambda: True) -> None:
        not_started = {*part_names(self._prepared)} - {*self._supervisor.pids}
        self._supervisor.wait_ready(
            names,
            timeout_seconds=START_SECONDS * len(self._prepared.orgs),
            tick=lambda waiting: self._progress.waiting_for(waiting | not_started),
            also=also,
        )

    def _find_trust_rooms(self) -> bool:
        """Whether the trust room of every organisation is known."""
        for org in self._prepared.orgs:
            name, ports = org.plan.name, org.plan.ports
            if name not in self._trust_rooms:
                token = read_secret(org.settings.appservice.as_token_file)
                room = room_of_alias(LOOPBACK, ports.client, f"#pypi-trust:{ports.server_name}", token=token)
                self._trust_rooms |= {} if room is None else {name: room}
        return len(self._trust_rooms) == len(self._prepared.orgs)

    def _pids_changed(self) -> None:
        pids = self._supervisor.pids
        marks = {part.name: part.mark for part in self._supervisor.parts}
        self._prepared.home.write(
            "pids.json", [{"name": name, "pid": pid, "mark": marks[name]} for name, pid in pids.items()]
        )
        if self._prepared.home.stack_file.exists():
            self._write_stack_file()

    def _write_stack_file(self) -> None:
        content = stack_json(self._prepared, trust_rooms=self._trust_rooms, pids=self._supervisor.pids)
        self._prepared.home.write(self._prepared.home.stack_file.name, content)
