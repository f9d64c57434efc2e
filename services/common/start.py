"""Shortcuts of the start, a quarter of its CPU time; the first import of each `__main__`."""

import gc
import os
import sys

gc.disable()  # Imports make 100,000 objects, which stay; `run` turns it on again.
os.environ["PYDANTIC_DISABLE_PLUGINS"] = "__all__"  # It would read every package's metadata.
# FastAPI looks for models of pydantic's first version; there are none here.
sys.modules["pydantic.v1"] = None  # type: ignore[assignment]

import pydantic  # noqa: E402

# FastAPI has a model for each part of an OpenAPI document, which only /openapi.json needs.
pydantic.BaseModel.model_config["defer_build"] = True
