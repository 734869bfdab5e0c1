"""A small Hub on this machine, for demos and tests: the unmodified huggingface_hub client talks to it.

What goes in: HTTP requests of the Hub's API. What comes out: repositories as real git commits and blobs
on disk, discussions, pull requests, webhook deliveries, and pages for a person. It stands outside the
way of one request: it plays the Hub at both of that way's ends.
"""
