"""Names that the exporter's tables have and that texts from outside are checked against. Pure; stage 1.

The tables themselves stand in ``exporter.backends``, ``exporter.quantize`` and ``exporter.spec``; the imports of the
first two bring torch along. tests/bot/test_names.py holds these copies to them.
"""

from __future__ import annotations

BACKENDS = ("portable", "xnnpack", "openvino")
PRECISIONS = ("fp32", "8da8w", "8da4w", "8da4w-rtn", "4w", "4w-nncf", "8w", "auto")
EMBEDDINGS = ("8w", "4w", "fp32")
CACHES = ("fp32", "int8")
MOST_TOKENS = 1 << 24
"""Above any model's context length; more can only be a slip."""
MOST_KL = 10.0
"""Nats; a file that answers at random is about as far from its model."""
LEAST_FILE = 10_000
"""Bytes; no file is smaller, so that less can only be a slip of the unit."""
