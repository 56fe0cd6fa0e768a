"""The keys that settings classes have, and those that an example file shows."""

from __future__ import annotations

import re
from pathlib import Path

from msgspec.inspect import StructType, Type, type_info
from ruamel.yaml import YAML

from matrix_pypi_bot.process.settings import Section

_SECTION = re.compile(r"([a-z_]+):")
_COMMENTED_KEY = re.compile(r"  # ([a-z_]+): (\S+|\[.*\])")  # `# url: https://...`; prose has spaces after its colons


def keys_of(kind: type[Section]) -> set[str]:
    """`{"listen.host", "workers", ...}`."""

    def walk(info: Type, before: str) -> set[str]:
        if not isinstance(info, StructType):
            return {before.rstrip(".")}
        return set().union(*(walk(field.type, f"{before}{field.name}.") for field in info.fields))

    return walk(type_info(kind), "")


def keys_in_example(file: Path) -> set[str]:
    """The same for a YAML file; keys that are commented out count."""
    shown, section = set(), ""
    for key, value in YAML(typ="safe", pure=True).load(file.read_text()).items():
        if value is not None:  # else a section whose keys are all commented out
            shown |= {f"{key}.{name}" for name in value} if isinstance(value, dict) and value else {key}
    for line in file.read_text().splitlines():
        if found := _SECTION.match(line):
            section = found[1]
        if found := _COMMENTED_KEY.fullmatch(line):
            shown.add(f"{section}.{found[1]}")
    return shown
