"""The wire contract: everything that crosses HTTP or the queue, in pydantic, and nothing else."""
