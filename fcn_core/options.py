"""The base of every model of options: what all of them refuse, wherever a value comes from.

The one thing to know: options come from command lines, YAML, forms and Python. A number that is infinite, or yes where
a number is meant, is refused here, and every number has bounds of its own (a test looks).
"""

from typing import Any, get_args

from pydantic import BaseModel, ConfigDict, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError


class Options(BaseModel):
    """Options that do not change, of which none is unknown, infinite or not a number."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, coerce_numbers_to_str=True)

    @field_validator("*", mode="before")
    @classmethod
    def _no_switch_for_a_number(cls, value: Any, info: ValidationInfo) -> Any:
        """Python takes True for 1, so `batch_size: yes` would be a batch of one."""
        switches = isinstance(value, bool) or (isinstance(value, (list, tuple)) and any(v is True for v in value))
        if switches and not _holds(cls.model_fields[info.field_name or ""].annotation, bool):
            raise PydanticCustomError("switch", "is yes or no, which it cannot be (YAML reads a bare `yes` or `on` so)")
        return value


def _holds(annotation: Any, kind: type) -> bool:
    return annotation is kind or any(_holds(part, kind) for part in get_args(annotation))
