"""Replies where a request came from: permission, reactions, the one comment, a check, a link back. Stage 6."""
