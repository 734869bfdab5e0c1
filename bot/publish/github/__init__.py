"""Publishing to GitHub: repositories that hold the model in a folder.

``names`` (pure) says what branches, tags and files are called; ``read`` tells what a repository has; ``store`` keeps
the files, by ``lfs`` or by ``release``, over ``transfer``; ``commit`` makes commits; ``host`` is the host of
``bot.publish.loop`` over all of them.
"""
