"""The Hub bot as a server: webhooks and comments in, durable jobs, pull requests out.

``settings`` says what it may do, ``records`` and ``store`` keep what it knows, ``intake`` reads events, ``steps`` does
the work, ``bot.workflow`` makes it durable, ``bot.web`` shows it.
"""
