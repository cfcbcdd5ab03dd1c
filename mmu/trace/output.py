"""Files that appear whole or not at all."""

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mmu.errors import InputError


@contextmanager
def cannot_write(target: Path) -> Iterator[None]:
    """Turn what the operating system objects to into a line for the user."""
    try:
        yield
    except OSError as error:
        raise InputError(f"{target}: cannot be written: {error.strerror or error}") from None


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Give a temporary file beside `path` that becomes `path` if nothing goes wrong, else vanishes.

    Raises
    ------
    InputError
        `path` cannot be written there: no such folder, no permission, a folder, a device.
    """
    target = Path(path)
    with cannot_write(target):
        if target.is_dir():
            raise InputError(f"{target}: cannot be written: it is a folder; name a file")
        if target.exists() and not target.is_file():
            raise InputError(f"{target}: cannot be written: it is not a regular file; name a file")
        if not target.parent.is_dir():
            raise InputError(f"{target}: cannot be written: there is no folder {target.parent}")
        temporary = target.with_name(f".{secrets.token_hex(8)}.part")
        os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
    try:
        yield temporary
        with cannot_write(target):
            temporary.replace(target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
