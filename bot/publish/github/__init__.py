"""Publishing to GitHub: repositories that hold the model in a folder.

``names`` (pure) says what branches, tags and files are called; ``read`` tells what a repository has; ``lfs`` and
``release`` store the files; ``commit`` makes commits; ``host`` is the host of ``bot.publish.loop`` over them.
"""
