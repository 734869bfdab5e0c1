"""A transformers model directory in, proven ExecuTorch ``.pte`` files and a ``report.json`` out.

This package knows no network, no hub and no bot: it reads one directory and writes another.
"""

__version__ = "0.2.0"
