"""A small GitHub on this machine, for tests only: PyGithub, git and git-lfs talk to it unmodified.

What goes in: HTTP requests of GitHub's REST API, of the Git LFS API and of git's smart protocol. What comes
out: what GitHub answers, from repositories that are real git on disk. ``testing.running_github`` starts it;
the tests under ``contract/`` hold its requests and replies to GitHub's own OpenAPI description.
"""
