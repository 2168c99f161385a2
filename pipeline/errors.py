"""Everything that the pipeline raises on purpose: one family, messages fit to show a person.

Which class is raised decides what happens next: an `ImageError` becomes that image's row, a `StorageUnavailable` is
tried again, an `InputError` ends the command with exit code 2 before any work starts.
"""


def first_line(error: BaseException) -> str:
    """What an error says, without a traceback or other lines behind it; its type where it says nothing."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


class PipelineError(Exception):
    """Base of the errors that the pipeline raises on purpose."""


class InputError(PipelineError):
    """What was asked for cannot be done as asked: a bad option, source, output or model."""


class WorkerBroken(PipelineError):
    """A worker process that can do no more work, through no fault of the work; another may do it."""


class ShardRefused(PipelineError):
    """Not one image of a shard could be read, for a reason that may be this machine's; another may do it."""


class TakenOver(PipelineError):
    """Another driver has taken over the output, so this one is to leave it alone."""

    def __init__(self, place: str) -> None:
        super().__init__(place)

    def __str__(self) -> str:
        return f"another run took over {self.args[0]}; this one has stopped and left it alone"


class StorageError(PipelineError):
    """A storage call failed."""


class PlaceMissing(StorageError, InputError):
    """There is no such folder or bucket: a name that was given wrong, which no waiting mends."""


class ObjectMissing(StorageError):
    """There is no such object (any more)."""


class ObjectChanged(StorageError):
    """The object's bytes are not the ones that were listed."""


class ObjectTooLarge(StorageError):
    """The object has more bytes than what it is read as can need."""


class NameRefused(StorageError):
    """The storage can have no object of this name; it may have others."""


class ObjectExists(StorageError):
    """A create-only write found an object of that name."""


class AccessDenied(StorageError):
    """Credentials are missing, wrong, or not allowed to do this."""


class CredentialsExpired(AccessDenied):
    """The service no longer accepts the credentials, as they are; renewed ones may do."""


class ObjectArchived(StorageError):
    """The object is in an archive storage class; it must be restored before it can be read."""


class LinkRefused(StorageError):
    """The file lies behind a link that leads out of the folder it was named in, and such links are not followed."""


class StorageUnavailable(StorageError):
    """The storage did not answer, or not properly; worth another try later."""


class UntrustedCertificate(StorageUnavailable):
    """The service's certificate is not trusted; waiting does not help."""


class ImageError(PipelineError):
    """An image that cannot be segmented.

    `reason` is a stable snake_case code to group by; `message` is the sentence for a person.
    """

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(reason, message)
        self.reason = reason
        self.message = message

    def __str__(self) -> str:
        return f"{self.reason}: {self.message}"
