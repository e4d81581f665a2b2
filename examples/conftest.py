"""Makes every example importable, as if it were installed."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path[:0] = map(str, Path(__file__).parent.glob("lmx-plugin-*"))
