"""``python -m bot.localhub``: the same as ``ptebot localhub``."""

from bot.localhub.cli import localhub_command

if __name__ == "__main__":
    localhub_command()
