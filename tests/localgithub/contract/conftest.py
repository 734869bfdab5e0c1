"""The tools for all contract tests of a session."""

from __future__ import annotations

import pytest

from tests.localgithub.contract.tools import Tools, tools


@pytest.fixture(scope="session")
def contract() -> Tools:
    """prism and GitHub's description, installed on first use."""
    return tools()
