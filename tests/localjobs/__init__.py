"""Jobs and buckets for a local Hub: commands run as processes of this machine."""
