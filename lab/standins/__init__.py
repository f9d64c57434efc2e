"""Local programs that play a container image."""
