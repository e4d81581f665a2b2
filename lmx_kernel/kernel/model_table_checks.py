"""What can be wrong with settings of models that are valid by themselves."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import attrs

from lmx_kernel.config.strict import Fault, unknown
from lmx_kernel.config.toml_lines import Key
from lmx_kernel.hookspecs import FORMAT_GROUP
from lmx_kernel.models.backends import Backends
from lmx_kernel.models.model_table import REST_FIELD, ModelTable, ModelValues
from lmx_kernel.models.template_file import check_template
from lmx_kernel.plugins.entry_points import entry_points

PLAIN_FORMAT = "plain"


def faults_of(values: ModelValues, backends: Backends) -> Iterator[Fault]:
    """Yield what is wrong with settings that are valid by themselves.

    :param backends: that may run the model.
    """
    known = attrs.fields_dict(ModelTable).keys() - {REST_FIELD}
    yield from backends.faults(values.backend_keys, known)
    if values.backend is not None and values.backend not in backends.names:
        yield ("backend",), f"there is none of that name; there are {_listed(backends.names)}"
    formats = {PLAIN_FORMAT, *(entry.name for entry in entry_points(FORMAT_GROUP))}
    if values.format is not None and values.format not in formats:
        yield ("format",), f"there is none of that name; there are {_listed(sorted(formats))}"
    if values.chat_template is not None:
        try:
            check_template(values.chat_template)
        except ValueError as error:
            yield ("chat_template",), str(error)


def faults_of_tables(tables: Iterable[ModelValues], backends: Backends) -> Iterator[Fault]:
    """Yield what is wrong with the tables ``[[model]]`` of a config, each with its whole key."""
    for index, table in enumerate(tables):
        for key, why in faults_of(table, backends):
            place: Key = ("model", index, *key)
            yield place, why


def is_foreign(fault: Fault) -> bool:
    """Return whether a fault would be none if another plugin were active."""
    key, why = fault
    return why.startswith(unknown("key", "", ())) or key[-1] in ("backend", "format")


def _listed(names: Iterable[str]) -> str:
    return ", ".join(names)
