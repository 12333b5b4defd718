"""`python -m mora_lite.cli` is `mora-lite`."""

from __future__ import annotations

import sys

from .app import main

sys.exit(main())
