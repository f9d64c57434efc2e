"""A running ui."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from uuid import uuid4

import httpx
from prometheus_client.parser import text_string_to_metric_families

from tests.support.service import Service


class Ui(Service):
    """A running ui."""

    def browser(self) -> httpx.Client:
        """A client that keeps cookies and follows no redirect by itself."""
        return httpx.Client(base_url=self.url, timeout=30, trust_env=False)

    def ready(self) -> bool:
        return self._health("readiness") == 200

    def written(self) -> list[str]:
        """Returns all lines up to now; a request of its own is the last of them."""
        path = f"/{uuid4()}"
        httpx.get(self.url + path, timeout=30, trust_env=False)
        self.wait_for_line(path)
        return list(self.lines)

    def counted(self, name: str, **labels: str) -> float:
        """Returns the sum of a counter over its series with these labels."""
        return sum(value for found, value in self._series(name) if labels.items() <= found.items())

    def calls(self, backend: str) -> Counter[str]:
        """Returns the number of calls of a back end by their outcome."""
        return Counter(
            {
                labels["outcome"]: int(value)
                for labels, value in self._series("backend_calls_total")
                if labels["backend"] == backend
            }
        )

    def _series(self, name: str) -> Iterator[tuple[dict[str, str], float]]:
        text = httpx.get(f"{self.management}/metrics", trust_env=False).text
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                if sample.name == name:
                    yield sample.labels, sample.value

    def alive(self) -> bool:
        return self._health("liveness") == 200

    def _health(self, group: str) -> int:
        url = f"{self.management}/actuator/health/{group}"
        return httpx.get(url, trust_env=False).status_code


StartUi = Callable[..., Ui]
