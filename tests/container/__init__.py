"""The action as GitHub runs it: the image built by a real engine, the container started as the runner does it."""
