"""The kit for authors of engines."""

from __future__ import annotations

import pytest

pytest.register_assert_rewrite(
    "lmx_kernel.testing.engine_checks",
    "lmx_kernel.testing.engine_feature_checks",
    "lmx_kernel.testing.logits_checks",
)
