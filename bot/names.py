"""Names that the exporter's tables have and that texts from outside are checked against. Pure; stage 1.

The tables themselves stand in ``exporter.backends`` and ``exporter.quantize``, whose import brings torch along;
tests/bot/test_names.py holds these copies to them.
"""

from __future__ import annotations

BACKENDS = ("portable", "xnnpack", "openvino")
PRECISIONS = ("fp32", "8da4w")
MOST_TOKENS = 1 << 24
"""Above any model's context length; more can only be a slip."""
