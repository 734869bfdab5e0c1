"""What the local GitHub refuses, in GitHub's own words and shapes (clients and ptebot read them)."""

from __future__ import annotations

from typing import Any

DOCS = "https://docs.github.com/rest"


class ApiError(Exception):
    """A reply that is not a success: HTTP status, ``message``, and GitHub's list of ``errors``."""

    def __init__(
        self,
        status: int,
        message: str,
        errors: list[dict[str, Any]] | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.message, self.errors, self.headers = status, message, errors, headers or {}

    def document(self) -> dict[str, Any]:
        found: dict[str, Any] = {"message": self.message}
        if self.errors is not None:
            found["errors"] = self.errors
        return found | {"documentation_url": DOCS, "status": str(self.status)}


def not_found() -> ApiError:
    return ApiError(404, "Not Found")


def invalid(resource: str, field: str, code: str = "invalid", message: str = "") -> ApiError:
    """422 Validation Failed about one field; a ``message`` makes it a custom one."""
    error = {"resource": resource, "code": "custom" if message else code, "field": field}
    return ApiError(422, "Validation Failed", [error | ({"message": message} if message else {})])


def refused(resource: str, message: str) -> ApiError:
    """422 Validation Failed about the whole."""
    return ApiError(422, "Validation Failed", [{"resource": resource, "code": "custom", "message": message}])


def too_long(resource: str, field: str, limit: int) -> ApiError:
    return invalid(resource, field, message=f"{field} is too long (maximum is {limit} characters)")
