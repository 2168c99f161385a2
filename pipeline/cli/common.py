"""What the commands of `fcn` share: exit codes, how a flag is spelled, how errors are worded."""

import difflib
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from fcn_core.text.printable import printable_lines

if TYPE_CHECKING:
    from pydantic import ValidationError

DONE = 0
FAILED = 1
BAD_INPUT = 2
TOO_MANY_ERRORS = 3
INTERRUPTED = 130

Flag = Annotated[bool, Parameter(negative="")]
"""An option that is there or not, without a --no-... twin."""


def validation_message(error: "ValidationError") -> str:
    """Which options cannot be as they were given, and why, in a line."""
    problems = []
    for item in error.errors():
        if not item["loc"]:
            problems.append(item["msg"].removeprefix("Value error, "))
            continue
        option = "--" + ".".join(str(part) for part in item["loc"]).replace("_", "-")
        if item["type"] == "extra_forbidden":
            problems.append(f"{option}: there is no such option{_meant(error.title, item['loc'])}")
        elif item["type"] == "missing":
            problems.append(f"{option} is missing")
        else:
            allowed = _allowed(item.get("ctx", {}).get("expected", ""))
            guess = _guess(str(item["input"]), allowed)
            problems.append(f"{option}: {item['msg'].removeprefix('Value error, ')}, not {item['input']!r}{guess}")
    return "; ".join(problems)


def error_text(program: str, message: str) -> str:
    """What a program says before it ends. Whatever a message quotes, no line of it passes for a line of the program."""
    return f"{program}: " + printable_lines(message).replace("\n", "\n    ")


def _meant(job: str, location: tuple[int | str, ...]) -> str:
    """The option of `job`, a class of options by name, that a misspelt one at `location` may have been meant for."""
    from pydantic import BaseModel

    from pipeline.jobs.evaluate import EvaluateJob
    from pipeline.jobs.retrain import RetrainJob
    from pipeline.jobs.segment import SegmentJob
    from pipeline.jobs.train import TrainJob

    options: Any = next(
        (found for found in (SegmentJob, EvaluateJob, TrainJob, RetrainJob) if found.__name__ == job), None
    )
    for part in location[:-1]:
        field = options.model_fields.get(part) if options is not None else None
        options = field.annotation if field is not None else None
        options = options if isinstance(options, type) and issubclass(options, BaseModel) else None
    return _guess(str(location[-1]), list(options.model_fields)) if options is not None else ""


def _allowed(expected: str) -> list[str]:
    """The choices in pydantic's "'auto', 'cpu' or 'cuda'"."""
    return expected.replace(" or ", ", ").replace("'", "").split(", ") if "'" in expected else []


def _guess(given: str, choices: list[str]) -> str:
    close = difflib.get_close_matches(given, choices, n=1)
    return f" (did you mean {close[0]}?)" if close else ""
