"""Error texts for the values of fields. Pydantic's own texts name types of Python."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

# By the type of pydantic's error, https://docs.pydantic.dev/latest/errors/validation_errors/
_NUMBER, _WHOLE = "give a number", "give a whole number"
_REMEDIES = {
    "bool_parsing": "give `true` or `false`",
    "bool_type": "give `true` or `false`",
    "extra_forbidden": "there is no such field",
    "finite_number": _NUMBER,
    "float_parsing": _NUMBER,
    "float_type": _NUMBER,
    "greater_than_equal": "give at least {ge:g}",
    "int_from_float": _WHOLE,
    "int_parsing": _WHOLE,
    "int_parsing_size": _WHOLE,
    "int_type": _WHOLE,
    "less_than_equal": "give at most {le:g}",
    "list_type": "give a list",
    "literal_error": "give {expected}",
    "missing": "this field is required",
    "string_too_long": "give at most {max_length:,} characters",
    "string_type": "give text",
    "string_unicode": "give text in UTF-8",
    "too_long": "give at most {max_length:,} entries",
}


def remedy(error: "ErrorDetails") -> str:
    """Return the end of a sentence that begins with the field's name and a colon."""
    if error["type"] == "value_error":  # raised by a validator of ours
        return error["msg"].removeprefix("Value error, ")
    text = _REMEDIES.get(error["type"], "this value is not valid")
    return text.format(**error.get("ctx", {})).replace("'", "`")
