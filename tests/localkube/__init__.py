"""A small Kubernetes API server that runs Jobs as processes of this machine."""
