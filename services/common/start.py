"""Shortcuts of the start, a quarter of its CPU time; the first import of each `__main__`."""

import gc
import os
import sys

gc.disable()  # Imports make 100,000 objects, which stay; `run` turns it on again.
os.environ["PYDANTIC_DISABLE_PLUGINS"] = "__all__"  # It would read every package's metadata.
# FastAPI looks for models of pydantic's first version; there are none here.
sys.modules["pydantic.v1"] = None  # type: ignore[assignment]
