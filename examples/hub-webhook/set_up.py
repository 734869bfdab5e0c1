"""Once, on your machine: have the Hub run relay.py as a Job whenever a model gets new files.

    GITHUB_TOKEN=... python examples/hub-webhook/set_up.py acme/tiny OWNER/REPOSITORY

In: your Hub login (``hf auth login``), the model, and the GitHub repository whose workflow is to run. Out: a webhook.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from huggingface_hub import create_webhook, run_uv_job


def main(model: str, repository: str) -> None:
    """Make the Job that the webhook repeats, and the webhook."""
    names = {"MODEL": model, "GITHUB_REPOSITORY": repository}
    job = run_uv_job(str(Path(__file__).with_name("relay.py")), env=names, flavor="cpu-basic", timeout="5m")
    webhook = create_webhook(
        job_id=job.id,
        watched=[{"type": "model", "name": model}],
        domains=["repo"],
        secrets={"GITHUB_TOKEN": os.environ["GITHUB_TOKEN"]},
    )
    print(f"Webhook {webhook.id} tells {repository} of new files in {model}.")


if __name__ == "__main__":
    main(*sys.argv[1:])
