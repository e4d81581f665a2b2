"""What LMX expects of a plugin of each kind, as classes that the author's tests derive from.

pytest collects the tests of the base classes with those of the derived one::

    from lmx_kernel.testing.conformance.router import RouterConformance

    class TestShort(RouterConformance):
        module = "lmx_short"

Each module has one kind. A class says which attributes and fixtures the derived one must have.
"""

from __future__ import annotations

from pkgutil import iter_modules

import pytest

# Failed assertions are shown with their values, as in the author's own tests.
pytest.register_assert_rewrite(*(f"{__name__}.{module.name}" for module in iter_modules(__path__)))
