"""Log lines taken apart, as whoever collects them would."""

import json
import re

_TIME = re.compile(r"time=20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z ")
_PAIR = re.compile(r'(\w+)=("(?:[^"\\]|\\.)*"|[^\s"=\\]+)(?: |$)')


def without_time(line: str) -> str:
    """A line of a log but for its time, which is first and in UTC. Raises AssertionError where it has none."""
    assert _TIME.match(line), line
    return _TIME.sub("", line)


def parse(line: str) -> dict[str, str]:
    """The pairs of a line. Raises AssertionError where anything of it is no pair."""
    pairs, at = {}, 0
    while at < len(line):
        match = _PAIR.match(line, at)
        assert match, f"not key=value from column {at}: {line!r}"
        name, value = match.groups()
        assert name not in pairs, f"twice: {name} in {line!r}"
        pairs[name] = json.loads(value) if value.startswith('"') else value
        at = match.end()
    return pairs
