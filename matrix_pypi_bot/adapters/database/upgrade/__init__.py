"""The schema's versions, oldest first. A released one is never edited; a change is a new one."""

from mautrix.util.async_db import UpgradeTable

from matrix_pypi_bot.adapters.database.upgrade import v00_first

UPGRADES = UpgradeTable()
UPGRADES.register(v00_first.create, description="first schema")
