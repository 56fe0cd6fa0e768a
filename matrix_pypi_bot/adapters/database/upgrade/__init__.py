"""The schema's versions, oldest first. A released one is never edited; a change is a new one."""

from mautrix.util.async_db import UpgradeTable

from matrix_pypi_bot.adapters.database.upgrade import (
    v00_first,
    v01_rules,
    v02_reports,
    v03_log,
    v04_claims,
    v05_peer_logs,
    v06_provenance,
    v07_rooms,
    v08_policies,
)

UPGRADES = UpgradeTable()
UPGRADES.register(v00_first.create, description="first schema")
UPGRADES.register(v01_rules.remember_rules, description="rules of the change stream")
UPGRADES.register(v02_reports.keep_reports_that_differ, description="reports that differ are kept beside one another")
UPGRADES.register(v03_log.build_the_tree, description="tree and checkpoints of the log")
UPGRADES.register(v04_claims.keep_claims, description="what statements claim of files, and verdicts")
UPGRADES.register(v05_peer_logs.keep_copies, description="copies of the logs of others")
UPGRADES.register(v06_provenance.make_room_for_provenance, description="provenance")
UPGRADES.register(v07_rooms.know_rooms_of_others, description="rooms of other organisations")
UPGRADES.register(v08_policies.remember_what_was_lacked, description="how old a file can be at most")
