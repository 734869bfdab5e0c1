"""What GitHub's runner does for an action with ``runs.using: docker``, done here: the same mounts and environment in,
the same reading of log and files out. Written after the runner's source (actions/runner: ActionRunner.cs,
ContainerActionHandler.cs, ActionCommand.cs, ActionCommandManager.cs, OutputManager.cs, FileCommandManager.cs).
"""

from tests.runner.action import Result, Running, run_action, start_action
from tests.runner.job import Job

__all__ = ["Job", "Result", "Running", "run_action", "start_action"]
