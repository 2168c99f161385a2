"""The base of every model of options: what all of them refuse, wherever a value comes from.

The one thing to know: options come from command lines, YAML, forms and Python. A number that is infinite, or yes where
a number is meant, is refused here, and every number has bounds of its own (a test looks).
"""

import inspect
import textwrap
from collections.abc import Iterator
from typing import Any, get_args

from pydantic import BaseModel, ConfigDict, GetJsonSchemaHandler, ValidationInfo, field_validator
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, PydanticCustomError

OPTIONS_FOLLOW = "\n\nOptions:\n\n"
"""In the docstring of a class of options: here begin its options, which pydantic would not show in `help()`."""


class Options(BaseModel):
    """Options that do not change, of which none is unknown, infinite or not a number."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, coerce_numbers_to_str=True)

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:
        """`help(SegmentJob)` lists the options with what they mean."""
        super().__pydantic_init_subclass__(**kwargs)
        own = cls.__dict__.get("__doc__")
        if own and OPTIONS_FOLLOW not in own:
            cls.__doc__ = own.rstrip() + OPTIONS_FOLLOW + "\n".join(_described(cls))
        # Pydantic's spells out every validator of every option.
        cls.__signature__ = inspect.Signature(list(_parameters(cls)))

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        """A form shows the options itself."""
        made = handler(schema)
        described = handler.resolve_ref_schema(made)
        if "description" in described:
            described["description"] = described["description"].split(OPTIONS_FOLLOW)[0]
        return made

    def __repr_args__(self) -> Iterator[tuple[str | None, Any]]:
        """What is not its default: a job has fifty options, of which few are given."""
        for name, field in type(self).model_fields.items():
            value = getattr(self, name)
            if field.is_required() or value != field.get_default(call_default_factory=True, validated_data={}):
                yield name, value

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


def _described(options: type[BaseModel]) -> Iterator[str]:
    for name, field in options.model_fields.items():
        yield f"    {name}" if field.is_required() else f"    {name} = {field.get_default(call_default_factory=True)!r}"
        yield textwrap.fill(field.description or "", 110, initial_indent=" " * 8, subsequent_indent=" " * 8)


def _parameters(options: type[BaseModel]) -> Iterator[inspect.Parameter]:
    for name, field in options.model_fields.items():
        default = inspect.Parameter.empty if field.is_required() else field.get_default(call_default_factory=True)
        yield inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default)
