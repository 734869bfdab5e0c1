"""Steps of the database from one ptebot to the next, run by ``bot.server.migrate``.

To change a table: change ``bot/server/tables.py``, and write ``versions/vNNNN_WORD.py`` as the last one is written. A
step that is released is never changed. It runs on SQLite and on PostgreSQL, inside one transaction with all others.
"""
