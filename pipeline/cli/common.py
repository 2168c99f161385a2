"""What the commands of `fcn` share: exit codes, how a flag is spelled, how errors are worded."""

import difflib
import re
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import CycloptsError, Parameter
from cyclopts.validators import Number

from fcn_core.text.printable import printable_lines, shortened, shortened_words

if TYPE_CHECKING:
    from pydantic import BaseModel, ValidationError
    from pydantic_core import ErrorDetails

DONE = 0
FAILED = 1
BAD_INPUT = 2
TOO_MANY_ERRORS = 3
INTERRUPTED = 130

MOST_PROBLEMS = 5
"""Options that a message names."""
LONGEST_VALUE = 120
"""Characters of a value that a message repeats."""

Flag = Annotated[bool, Parameter(negative="")]
"""An option that is there or not, without a --no-... twin."""

Share = Annotated[float, Parameter(validator=Number(gte=0, lte=1))]
"""A fraction."""


def validation_message(error: "ValidationError") -> str:
    """Which options cannot be as they were given, and why, in a line."""
    return _problems(error.title, error.errors())


def _problems(job: str, errors: "list[ErrorDetails]") -> str:
    problems = []
    for item in errors[:MOST_PROBLEMS]:
        if not item["loc"]:
            problems.append(item["msg"].removeprefix("Value error, "))
            continue
        option = "--" + ".".join(str(part) for part in item["loc"]).replace("_", "-")
        if item["type"] == "extra_forbidden":
            problems.append(f"{option}: there is no such option{_meant(job, item['loc'])}")
        elif item["type"] == "missing":
            problems.append(f"{option} is missing")
        elif item["type"] == "switch":
            problems.append(f"{option} {item['msg']}")
        elif item["input"] is None:
            problems.append(f"{option} is empty; give it a value, or leave it out")
        else:
            allowed = _allowed(item.get("ctx", {}).get("expected", ""))
            guess = _guess(str(item["input"]), allowed)
            found = shortened(repr(item["input"]), LONGEST_VALUE)
            message = _in_yamls_words(item["msg"].removeprefix("Value error, "))
            problems.append(f"{option}: {message}, not {found}{guess}")
    more = len(errors) - len(problems)
    return "; ".join(problems) + (f"; and {more} more of the kind" if more else "")


def config_options(job: "type[BaseModel]", path: str, options: Any) -> dict[str, Any]:
    """The options that the file at `path` holds, of which none can be wrong for `job` by itself; {} for an empty file.

    Raises CycloptsError. What is unknown or missing is left to the command line, which has options of its own.
    """
    from pydantic import ValidationError

    if options is None:
        return {}
    if not isinstance(options, dict) or not _named(options):
        raise CycloptsError(msg=f"--config {path} holds no options; write them as name: value, one per line")
    fields = {str(name).replace("-", "_"): value for name, value in options.items()}
    try:
        job.model_validate({name: value for name, value in fields.items() if name in job.model_fields})
    except ValidationError as error:
        wrong = [item for item in error.errors() if item["type"] != "missing"]
        if wrong:
            raise CycloptsError(msg=f"--config {path}: {_problems(error.title, wrong)}") from None
    return options


def _named(options: Any) -> bool:
    """Whether all mappings in YAML have names for keys: 1, null and yes are none."""
    if isinstance(options, dict):
        return all(isinstance(name, str) and _named(value) for name, value in options.items())
    return all(_named(value) for value in options) if isinstance(options, (list, tuple)) else True


def error_text(program: str, message: str) -> str:
    """What a program says before it ends. Whatever a message quotes, no line of it passes for a line of the program."""
    lines = printable_lines(shortened_words(message)).split("\n")
    return f"{program}: " + "\n    ".join(lines)


def _in_yamls_words(message: str) -> str:
    return re.sub(r"dictionary( or instance of \w+)?", "mapping", message.replace("valid tuple", "valid list"))


def _meant(job: str, location: tuple[int | str, ...]) -> str:
    """The option of `job`, a class of options by name, that a misspelt one at `location` may have been meant for."""
    from pydantic import BaseModel

    from pipeline.jobs.distil import DistilJob
    from pipeline.jobs.evaluate import EvaluateJob
    from pipeline.jobs.retrain import RetrainJob
    from pipeline.jobs.segment import SegmentJob
    from pipeline.jobs.train import TrainJob

    options: Any = next(
        (found for found in (SegmentJob, EvaluateJob, TrainJob, RetrainJob, DistilJob) if found.__name__ == job), None
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
    if given.lower() in ("gpu", "nvidia") and "cuda" in choices:
        return " (did you mean cuda?)"
    close = difflib.get_close_matches(given, choices, n=1)
    return f" (did you mean {close[0]}?)" if close else ""
