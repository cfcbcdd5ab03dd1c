"""Models that are frozen, refuse what they do not know, and say why on one line.

Every model raises `ConfigError`: where the value stood, what was found, what is accepted and, for
a name that does not exist, which one is nearest.
"""

import re
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationError
from pydantic_core import ErrorDetails

from mmu.errors import InputError
from mmu.units import nearest, refusal, shown

MOST_COUNT = (1 << 62) - 1
_TYPES = {"tuple_type": "a list", "model_type": "a table of fields", "dict_type": "a table"}
_TYPES |= {"string_type": "text", "bool_type": "true | false"}


class ConfigError(InputError):
    """A field of the configuration cannot be used.

    Attributes
    ----------
    path : tuple of str and int
        Where the value stood: names of fields and indices of lists.
    text : str
        What was found and what is accepted.
    """

    def __init__(self, path: tuple[str | int, ...], text: str) -> None:
        super().__init__(f"{'.'.join(map(str, path))}: {text}" if path else text)
        self.path = path
        self.text = text


def _explain(detail: ErrorDetails, model: type[BaseModel]) -> ConfigError:
    """Turn the first complaint about a model into one line."""
    path, found, kind = detail["loc"], detail["input"], detail["type"]
    cause = detail.get("ctx", {}).get("error")
    if isinstance(cause, ConfigError):
        return ConfigError(path + cause.path, cause.text)
    if isinstance(cause, Exception):
        return ConfigError(path, str(cause))
    if kind == "extra_forbidden":
        known = list(model.model_fields)
        name = str(path[-1])
        text = f"no such field, found {shown(name)}; accepted: {', '.join(known)}"
        return ConfigError(path, text + nearest(name, known))
    if kind == "missing":
        return ConfigError(path, "missing; a value must be given")
    if kind == "literal_error":
        choices = re.findall(r"'([^']*)'", detail["ctx"]["expected"])
        hint = nearest(found, choices) if isinstance(found, str) else ""
        return ConfigError(path, str(refusal(found, " | ".join(choices), hint)))
    accepted = _TYPES.get(kind, detail["msg"].removeprefix("Input should be "))
    return ConfigError(path, str(refusal(found, accepted)))


class Strict(BaseModel):
    """A frozen model without unknown fields, whose errors are `ConfigError`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    def __init__(self, /, **data: Any) -> None:
        try:
            super().__init__(**data)
        except ValidationError as error:
            raise _explain(error.errors()[0], type(self)) from None


class Whole:
    """Validator of a whole number in a range; a whole float counts, a truth value never."""

    def __init__(self, least: int, most: int) -> None:
        self.least, self.most = least, most

    def __call__(self, value: object) -> int:
        """Return the number, or say which are accepted."""
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, int) or not self._holds(value):
            most = "2^62 - 1" if self.most == MOST_COUNT else self.most
            raise refusal(value, f"a whole number from {self.least} to {most}")
        return value

    def _holds(self, value: int) -> bool:
        return self.least <= value <= self.most


Count = Annotated[int, BeforeValidator(Whole(0, MOST_COUNT))]
Positive = Annotated[int, BeforeValidator(Whole(1, MOST_COUNT))]
