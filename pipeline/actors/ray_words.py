"""What Ray says, as one line for a person: without colours, ids and representations of objects.

Whatever of Ray's reaches a message, a note or a record goes through `plain`. Its own texts run over many lines, of
which the first rarely says why.
"""

import re

from ray.exceptions import ActorDiedError, RayError, RayTaskError

from fcn_core.errors import FcnError
from pipeline.errors import PipelineError

_ANSI = re.compile(r"\x1b(?:\[[0-9;?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[@-_])")
_OBJECT = re.compile(r"<(?:[\w.<>]*\.)?(\w+)(?: object)? at 0x[0-9a-fA-F]+>")
_ID = re.compile(r"\b(\w*(?:ObjectRef|ActorID|TaskID|NodeID|WorkerID|JobID|UniqueID|PlacementGroupID))\([^()]*\)")
_ACTOR_HANDLE = re.compile(r"\bActor\((\w+), ?[0-9a-f]+\)")
_MOST = 300

_ENDED = "Worker unexpectedly exits"
"""Of whatever ended a process, memory or not, Ray says that one of three things is common."""


def plain(error: BaseException | str) -> str:
    """One line of an error, or of a text, of Ray's."""
    if isinstance(error, RayTaskError):
        cause = error.cause
        if isinstance(cause, Exception) and not isinstance(cause, RayTaskError):
            return plain(f"{type(cause).__name__}: {_first(str(cause)) or 'no message'}")
        return plain(_first(str(error), last=True))
    text = str(error).strip() or type(error).__name__
    if isinstance(error, ActorDiedError):
        return _of_death(text)
    return clean(_first(text))


def in_one_line(error: BaseException) -> str:
    """The first line of any error, with its type where it is not one of ours."""
    if isinstance(error, RayError):
        return plain(error)
    line = clean(str(error).strip().partition("\n")[0]) or "no message"
    return line if isinstance(error, PipelineError | FcnError) else f"{type(error).__name__}: {line}"


def clean(text: str, most: int = _MOST) -> str:
    """A text without colours and other control sequences, and without representations of objects, on one line."""
    text = _ACTOR_HANDLE.sub(r"\1", _ID.sub(r"\1", _OBJECT.sub(r"\1", _ANSI.sub("", text))))
    text = " ".join(text.split())
    return text if len(text) <= most else text[: most - 3] + "..."


def _of_death(text: str) -> str:
    """The sentence that says why an actor is dead; of its fields, where the process was."""
    fields = dict(re.findall(r"^\t(\w+): (.*)$", text, re.MULTILINE))
    why = [line for line in text.splitlines()[1:] if line.strip() and not line.startswith("\t")]
    place = f" (process {fields['pid']} on {fields.get('ip', 'its node')})" if "pid" in fields else ""
    if not why:
        return clean(_first(text))
    if _ENDED in why[0]:
        return f"the actor's process{place} was killed or crashed"
    return clean(why[0].rstrip(".")) + place


def _first(text: str, last: bool = False) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()] or [""]
    return lines[-1 if last else 0]
