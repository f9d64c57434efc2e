"""WorkloadEntry: types of the API of Istio.

Written by `python -m scripts.istio_schema` from lab/resources/istio.json.
"""

from __future__ import annotations

from lab.kinds.types import WorkloadEntrySpec
from lab.resources.resource import Model


class WorkloadEntry(Model):
    spec: WorkloadEntrySpec
