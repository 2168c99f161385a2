"""Everything that fcn_core raises on purpose: one family, so that a caller can catch `FcnError` and show the message.

A message is one sentence for a person: it names the thing, says what was found, and what to do.
"""


class FcnError(Exception):
    """Base of the errors that fcn_core raises on purpose."""


class LabelError(FcnError, ValueError):
    """A label set, palette or mask that cannot be right."""


class BundleError(FcnError):
    """A model bundle that is missing, damaged or made for something else."""


class WeightsError(FcnError):
    """A weight file that cannot be read, or holds nothing that fits the network."""


class DecodeError(FcnError):
    """An image file that cannot be decoded.

    `reason` is a stable snake_case code to group by; `message` is the sentence for a person.
    """

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(reason, message)
        self.reason = reason
        self.message = message

    def __str__(self) -> str:
        return f"{self.reason}: {self.message}"


class DataError(FcnError):
    """A training or evaluation example that cannot be used."""


class DeviceError(FcnError):
    """A device or precision that was asked for and is not there."""


class PredictionError(FcnError, RuntimeError):
    """A network's scores of an image that are not finite numbers, so that they name no class."""


class ExportError(FcnError):
    """A model that cannot be written in another program's format."""


class CheckpointError(FcnError):
    """A training state that is missing, damaged or of another network."""


class DivergedError(FcnError):
    """The loss is no longer a finite number."""
