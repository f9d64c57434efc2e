"""Shortcuts of the start, a third of its CPU time; the first import of each `__main__`."""

import gc
import os
import sys

gc.disable()  # Imports make 100,000 objects, which stay; `run` turns it on again.
os.environ["PYDANTIC_DISABLE_PLUGINS"] = "__all__"  # It would read every package's metadata.
# Parts that libraries import where they are installed, and that nothing here uses: models of
# pydantic's first version, httpx's command, and metrics of the Redis client.
for unused in ("pydantic.v1", "httpx._main", "opentelemetry.sdk.metrics"):
    sys.modules[unused] = None  # type: ignore[assignment]
