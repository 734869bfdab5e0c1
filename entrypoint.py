"""The door of the container: GitHub's runner starts this file, ``bot.action.main`` does the work."""

from bot.action.main import main

raise SystemExit(main())
