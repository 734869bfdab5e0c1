"""One small module per command of ``ptebot``.

To add a command: write a module here with a click command named ``command``, and add its line to the
table. A module is imported when its command is asked for, so nothing heavy belongs at its top.
"""

COMMANDS = {
    "run": "bot.commands.run:command",
    "export": "bot.commands.export:command",
    "validate": "bot.commands.validate:command",
    "inspect": "bot.commands.inspect:command",
    "rebuild": "bot.commands.rebuild:command",
    "localhub": "bot.localhub.cli:localhub_command",
    "demo": "bot.commands.demo:command",
    "serve": "bot.commands.serve:command",
    "worker": "bot.commands.worker:command",
    "jobs": "bot.commands.jobs:command",
    "hook": "bot.commands.hook:command",
    "hosted": "bot.commands.hosted:command",
    "backup": "bot.commands.backup:command",
    "restore": "bot.commands.backup:restore",
    "doctor": "bot.commands.doctor:command",
}
"""Name to ``module:attribute``, in the order of the help text."""
