"""Error messages for invalid fields. They replace Pydantic's, which mention Python types."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

# The keys are Pydantic's error types: https://docs.pydantic.dev/latest/errors/validation_errors/
_NUMBER, _INTEGER, _BOOLEAN = "must be a number", "must be an integer", "must be `true` or `false`"
_PREDICATES = {
    "bool_parsing": _BOOLEAN,
    "bool_type": _BOOLEAN,
    "extra_forbidden": "is not a known field",
    "finite_number": _NUMBER,
    "float_parsing": _NUMBER,
    "float_type": _NUMBER,
    "greater_than_equal": "must be at least {ge:g}",
    "int_from_float": _INTEGER,
    "int_parsing": _INTEGER,
    "int_parsing_size": _INTEGER,
    "int_type": _INTEGER,
    "less_than_equal": "must be at most {le:g}",
    "list_type": "must be a list",
    "literal_error": "must be {expected}",
    "missing": "is required",
    "string_too_long": "must have at most {max_length:,} characters",
    "string_type": "must be a string",
    "string_unicode": "must be UTF-8 text",
    "too_long": "must have at most {max_length:,} entries",
}


def field_error(field: str, error: "ErrorDetails") -> str:
    """Return one sentence about the error, such as "`temperature` must be at most 1."."""
    if error["type"] == "value_error":  # raised by a validator in Steno
        predicate = error["msg"].removeprefix("Value error, ")
    else:
        template = _PREDICATES.get(error["type"], "is not valid")
        predicate = template.format(**error.get("ctx", {})).replace("'", "`")
    return f"`{field[:100]}` {predicate}."
