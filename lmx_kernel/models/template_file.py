"""A chat template that the owner of a model puts in place of the model's own."""

from __future__ import annotations

from pathlib import Path

from lmx_kernel.errors import InvalidRequestError

MAX_BYTES = 1 << 20


def read_template(path: Path) -> str:
    """Return the Jinja source in a file.

    :raises ValueError: it cannot be read, is larger than 1 MiB, or is not UTF-8.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
        if len(data) > MAX_BYTES:
            raise ValueError(f"{path}: larger than {MAX_BYTES} bytes")
        return data.decode()
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: not UTF-8") from error
    except OSError as error:
        raise ValueError(f"{path}: cannot be read: {error.strerror}") from error


def check_template(path: Path) -> None:
    """Compile the Jinja source in a file, as a worker would.

    :raises ValueError: it cannot be read, or does not compile.
    """
    from lmx_kernel.text.template import ChatTemplate  # noqa: PLC0415 - the daemon renders none

    source = read_template(path)
    try:
        ChatTemplate(source, {})
    except InvalidRequestError as error:
        raise ValueError(f"{path}: {error.message}") from error
