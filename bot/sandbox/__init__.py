"""What keeps the exporter away from secrets, other people's files and the network; one module per means.

``privileges`` another user for the child, ``places`` the files that such a child reads and writes, ``seccomp`` the
system calls that it may not make, ``probe`` what of it is in force. ``bot.child`` and ``bot.leash`` use them.
"""
