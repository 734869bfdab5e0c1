"""What keeps the exporter away from secrets, other people's files and the network; one module per means.

``ladder`` chooses the wall. For a child of this process: ``privileges`` another user, ``places`` and ``shared`` the
files that it reads and writes, ``landlock`` those that it may see, ``seccomp`` the system calls that it may not make,
``bounds`` how much it may take, ``turns`` one run of a name at a time, ``probe`` what of it is in force; ``bot.child``,
``bot.leash`` and ``bubblewrap`` use them. The others run containers, and jobs on other machines.
"""
