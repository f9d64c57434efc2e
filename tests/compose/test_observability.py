"""Prometheus understands its configuration, and every query of the dashboard shows something.

The images of Prometheus and Grafana can't be had everywhere; Debian's Prometheus reads the same
configuration here, with the same services behind it.
"""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from tests.support.guestbook import Guestbook
from tests.support.prometheus import Prometheus, require, running
from tests.support.repository import ROOT
from tests.support.service import Service
from tests.support.wait import wait

CONFIGURATION = ROOT / "compose/prometheus/prometheus.yml"
DASHBOARD = json.loads((ROOT / "compose/grafana/dashboards/guestbook.json").read_text())
PROVISIONING = ROOT / "compose/grafana/provisioning"
COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
QUERIES = [
    pytest.param(target["expr"], id=f"{panel['title']}-{target['refId']}")
    for panel in DASHBOARD["panels"]
    for target in panel["targets"]
]


def _configuration(services: dict[str, Service]) -> dict[str, Any]:
    """The file, with addresses of this machine in place of Compose's DNS names."""
    configuration: dict[str, Any] = yaml.safe_load(CONFIGURATION.read_text())
    (job,) = (j for j in configuration["scrape_configs"] if j["job_name"] == "guestbook")
    (names,) = job.pop("dns_sd_configs")
    assert set(names["names"]) == services.keys()
    job["static_configs"] = [
        {
            "targets": [httpx.URL(service.management).netloc.decode()],
            "labels": {"__meta_dns_name": name},
        }
        for name, service in services.items()
    ]
    configuration["scrape_configs"] = [job]
    return configuration


@pytest.fixture(scope="module")
def prometheus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    """A Prometheus that has watched the three services at work."""
    require("prometheus")
    folder = tmp_path_factory.mktemp("prometheus")
    with Guestbook(folder) as guestbook:
        ui = guestbook.start_ui()
        services = {
            "ui": ui,
            "message-service": guestbook.message,
            "guestbook-service": guestbook.guestbook,
        }
        with running(folder, _configuration(services)) as found:
            wait(
                lambda: found.shows('up{job="guestbook"} == 1', 3),
                "Prometheus to scrape the three services",
            )
            message = guestbook.message.url
            with httpx.Client(base_url=ui.url) as browser:
                wanted = {
                    ("ui", "200"),
                    ("message-service", "503"),
                    ("guestbook-service", "201"),
                }

                def watched() -> bool:
                    """Some good and some bad seconds, until each is in two scrapes."""
                    browser.post("/greet", data={"name": "Ada", "message": "Watched"})
                    browser.get("/")
                    httpx.get(f"{message}/misbehave")
                    browser.get("/")
                    httpx.get(f"{message}/behave")
                    rate = "sum by (service, status) (rate(http_requests_total[1m])) > 0"
                    rates = {tuple(r["metric"].values()) for r in found.query(rate)}
                    return wanted <= rates

                wait(watched, "rates of good and bad answers", 60)
            yield found


def _filled_in(expression: str) -> str:
    """The query as Grafana sends it with the variable at "All"."""
    filled = expression.replace("$__rate_interval", "1m").replace("$service", ".+")
    assert "$" not in filled, f"a variable that the dashboard does not have: {filled}"
    return filled


def test_prometheus_takes_its_configuration() -> None:
    require("promtool")
    check = subprocess.run(
        ["promtool", "check", "config", CONFIGURATION], capture_output=True, text=True
    )
    assert check.returncode == 0, check.stdout + check.stderr


@pytest.mark.parametrize("expression", QUERIES)
def test_every_query_of_the_dashboard_shows_something(
    prometheus: Prometheus, expression: str
) -> None:
    series = prometheus.query(_filled_in(expression))
    assert series, expression
    assert all(row["value"][1] != "NaN" for row in series), series


def test_the_variable_lists_the_services(prometheus: Prometheus) -> None:
    (variable,) = DASHBOARD["templating"]["list"]
    selector, label = re.fullmatch(
        r"label_values\((.*), (\w+)\)", variable["query"]["query"]
    ).groups()  # type: ignore[union-attr]
    services = {row["metric"][label] for row in prometheus.query(selector)}
    assert services == {"ui", "message-service", "guestbook-service"}


def test_panels_do_not_overlap_and_have_one_data_source() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken, panel["title"]
        assert max(x for x, _ in cells) < 24
        taken |= cells
        assert panel["datasource"]["uid"] == "prometheus"
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])


def test_grafana_is_provisioned_with_what_is_mounted() -> None:
    """The data source's name, the folder of the dashboard and the home page fit together."""
    (source,) = yaml.safe_load((PROVISIONING / "datasources/prometheus.yaml").read_text())[
        "datasources"
    ]
    assert source["uid"] == "prometheus"
    assert source["url"] == "http://prometheus:9090"
    interval = yaml.safe_load(CONFIGURATION.read_text())["global"]["scrape_interval"]
    assert source["jsonData"]["timeInterval"] == interval
    (provider,) = yaml.safe_load((PROVISIONING / "dashboards/guestbook.yaml").read_text())[
        "providers"
    ]
    mounts = dict(reversed(volume.split(":")[:2]) for volume in COMPOSE["grafana"]["volumes"])
    folder = ROOT / mounts[provider["options"]["path"]]
    home = COMPOSE["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    assert (folder / Path(home).name).is_file()
    assert (ROOT / mounts["/etc/grafana/provisioning"]).samefile(PROVISIONING)
