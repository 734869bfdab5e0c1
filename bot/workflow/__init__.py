"""The durable job: which step comes after which, how often it is tried, and who goes on after a kill. Stages 2 to 6.

The only package that knows the job engine (DBOS Transact 3.4): its API changed between major versions, and may again.
``queue`` asks for jobs and may be used by any process that has the database; ``engine`` does them. The engine keeps the
outcome of every step that ended; a step that was killed runs again, here or on another machine, so every step looks
before it acts (``bot.server.steps``).
"""
