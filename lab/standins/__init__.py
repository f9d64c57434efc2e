"""Local programs that play a container image."""

EMBEDDED = "GUESTBOOK_EMBEDDED"
"""When set in the environment, the embedded stand-ins are used where real servers exist, too."""
