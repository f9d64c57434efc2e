"""The kubectl target, against a stand-in that is strict about its command line."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from lab.cli import main
from lab.exercises import load
from lab.exercises.format import Expect
from lab.exercises.result import Result, StepResult
from lab.exercises.runner import Runner
from lab.exercises.steps import Change
from lab.exercises.target import Command, CommandError, KubectlTarget
from tests.support.cluster import Cluster, exercise, running
from tests.support.lab import COMMAND
from tests.support.repository import ISTIO, LESSONS, ROOT
from tests.support.silence import Silence
from tests.support.wait import wait


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    with running(tmp_path / "cluster") as started:
        monkeypatch.setenv("PATH", started.environment["PATH"])
        monkeypatch.setenv("STANDIN", str(started.home))
        yield started


def target(cluster: Cluster, guestbook: Command = main) -> KubectlTarget:
    return KubectlTarget(guestbook, "kind-guestbook", cluster.url)


def play(cluster: Cluster, istio: Path, narrator: Silence | None = None) -> Result:
    lessons = load.read_all(istio)
    lesson = next(lesson for lesson in lessons if lesson.name == "99-own")
    state = cluster.home / "state"
    runner = Runner(
        target(cluster), narrator or Silence(), istio=istio, lessons=[lesson], state=state
    )
    result = runner.run(lesson)
    assert list(state.iterdir()) == []
    return result


BREAK = {
    "step": "The page says that the guestbook is away",
    "apply": "abort.yaml",
    "send": {"url": "/"},
    "expect": {"answer": {"status": 200, "text": "currently unavailable"}},
}


def test_a_run_leaves_the_cluster_as_it_was(cluster: Cluster, tmp_path: Path) -> None:
    before = cluster.essence()
    result = play(cluster, exercise(tmp_path, [BREAK]))
    assert result.passed, result
    assert cluster.essence() == before
    assert ["apply", "-f"] in [call[2:4] for call in cluster.calls]


def test_every_call_names_the_context(cluster: Cluster, tmp_path: Path) -> None:
    play(cluster, exercise(tmp_path, [BREAK]))
    assert cluster.calls
    assert {tuple(call[:2]) for call in cluster.calls} == {("--context", "kind-guestbook")}


def test_a_failing_run_puts_everything_back_and_says_what_it_saw(
    cluster: Cluster, tmp_path: Path
) -> None:
    before = cluster.essence()
    wrong = {**BREAK, "expect": {"answer": {"status": 404}}}
    result = play(cluster, exercise(tmp_path, [wrong, {"step": "never done"}]))
    assert [step.outcome for step in result.steps] == ["failed"]
    (difference,) = result.steps[0].differences
    assert difference.expected == "status 404"
    assert difference.seen.startswith("status 200")
    assert cluster.essence() == before


def test_what_was_there_before_comes_back_as_it_was(cluster: Cluster, tmp_path: Path) -> None:
    """A visitor's own VirtualService of the same name is replaced, and put back."""
    own = {
        "apiVersion": "networking.istio.io/v1",
        "kind": "VirtualService",
        "metadata": {"name": "guestbook-service", "labels": {"mine": "yes"}},
        "spec": {"hosts": ["guestbook-service"], "http": [{"timeout": "7s"}]},
    }
    target(cluster).run(["kubectl", "apply", "-f", "-"], stdin=json.dumps(own))
    before = cluster.essence()
    check = {"step": "it was set aside", "send": {"url": "/"}}
    check["expect"] = {"answer": {"no_text": "currently unavailable"}}
    result = play(cluster, exercise(tmp_path, [check, BREAK]))
    assert result.failed is None, result
    assert cluster.essence() == before


def test_labels_of_namespaces_are_taken_back(cluster: Cluster, tmp_path: Path) -> None:
    space = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "demo"}}
    target(cluster).run(["kubectl", "apply", "-f", "-"], stdin=json.dumps(space))
    step = {"step": "label", "label": {"demo": "istio-injection=enabled"}}
    assert play(cluster, exercise(tmp_path, [step, BREAK])).passed
    assert cluster.objects["namespace||demo"]["metadata"]["labels"] == {}


def test_an_interrupted_run_puts_everything_back(cluster: Cluster, tmp_path: Path) -> None:
    class Impatient(Silence):
        def ended(self, result: StepResult) -> None:
            raise KeyboardInterrupt

    before = cluster.essence()
    with pytest.raises(KeyboardInterrupt):
        play(cluster, exercise(tmp_path, [BREAK]), Impatient())
    assert cluster.essence() == before


def test_a_step_cannot_pass_on_what_was_so_before_its_change(
    cluster: Cluster, tmp_path: Path
) -> None:
    """The proxies have the rule a second after the API server."""
    cluster.lags(0.3, 0.5, 1.0)
    old = {**BREAK, "expect": {"answer": {"no_text": "currently unavailable"}}}
    failed = play(cluster, exercise(tmp_path / "1", [old])).failed
    assert failed is not None
    assert failed.differences[0].seen == "it is there"
    assert play(cluster, exercise(tmp_path / "2", [BREAK])).passed


def test_an_exercise_begins_when_the_proxies_have_forgotten_the_one_before(
    cluster: Cluster, tmp_path: Path
) -> None:
    cluster.lags(0.3, 0.5, 1.0)
    look = {"step": "The page is whole", "send": {"url": "/"}}
    look["expect"] = {"answer": {"no_text": "currently unavailable"}}
    istio = exercise(tmp_path, [look, BREAK])
    assert play(cluster, istio).passed
    assert play(cluster, istio).passed


def test_an_exercise_begins_when_old_connections_are_drained(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A connection that was open before keeps the policy of the exercise before."""
    monkeypatch.setattr("lab.exercises.propagation.PATIENCE", 1.0)
    monkeypatch.setattr("lab.exercises.propagation.QUIET", 0.1)
    containers = [{"name": "app", "image": "a"}, {"name": "istio-proxy", "image": "p"}]
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "old"}}
    manifest = json.dumps({**pod, "spec": {"containers": containers}})
    target(cluster).run(["kubectl", "apply", "-f", "-"], stdin=manifest)
    statistics = cluster.home / "proxies/old-stats?filter=^listener_manager.total_.*_draining$"
    statistics.parent.mkdir()
    statistics.write_text("listener_manager.total_filter_chains_draining: 2\n")
    result = play(cluster, exercise(tmp_path / "1", [BREAK]))
    assert result.problems == ["connections of before are still open in 1 s: old"]
    statistics.write_text("listener_manager.total_filter_chains_draining: 0\n")
    assert play(cluster, exercise(tmp_path / "2", [BREAK])).passed


def test_a_proxy_that_never_takes_the_change_is_named(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lab.exercises.propagation.PATIENCE", 2.0)
    cluster.lags(0.1, 0.2, 1000)
    result = play(cluster, exercise(tmp_path, [BREAK]))
    assert "ui-0.default has not acknowledged its routes" in result.problems[0]


LOGS: list[tuple[dict[str, Any], bool]] = [
    ({"line": "arrived"}, True),
    ({"line": "arrived", "exactly": 2}, True),
    ({"line": "/ARRIVED|arrived/", "at_most": 1}, False),
    ({"line": "old line"}, False),
]


@pytest.mark.parametrize(("logs", "fits"), LOGS)
def test_only_lines_that_came_since_the_step_began_count(
    cluster: Cluster, tmp_path: Path, logs: dict[str, Any], fits: bool
) -> None:
    path = cluster.home / "logs" / "ui-0"
    path.parent.mkdir()
    path.write_text("old line\n")

    istio = exercise(tmp_path, [{**BREAK, "expect": {"logs": [{"of": "app=ui", **logs}]}}])
    lessons = load.read_all(istio)
    lesson = next(lesson for lesson in lessons if lesson.name == "99-own")

    class Writing(KubectlTarget):
        """Two lines come in after the first look."""

        looked = False

        def run(self, argv: Any, **more: Any) -> Any:
            done = super().run(argv, **more)
            if argv[:3] == ["kubectl", "logs", "ui-0"] and not self.looked:
                self.looked = True
                with path.open("a") as log:
                    log.write("arrived\narrived\n")
            return done

    world = Writing(main, "kind-guestbook", cluster.url)
    runner = Runner(world, Silence(), istio=istio, lessons=[lesson], state=cluster.home / "state")
    change = None if fits else Change({}, str(BREAK["step"]))  # what must fail needs less patience
    assert runner.run(lesson, change).passed == fits


def test_numbers_of_a_proxy(cluster: Cluster, tmp_path: Path) -> None:
    proxies = cluster.home / "proxies"
    proxies.mkdir()
    name = "outbound|80||message-service.default.svc.cluster.local"
    for pod in ("ui-0", "ui-1"):
        (proxies / f"{pod}-stats").write_text(f"cluster.{name};.upstream_rq_retry: 3\nother: x\n")
        flags = f"{name}::127.0.0.1:8080::health_flags::/failed_outlier_check\n"
        (proxies / f"{pod}-clusters").write_text(flags)
        (proxies / f"{pod}-stats-prometheus").write_text(
            '# TYPE t counter\nistio_requests_total{response_code="200",app="x"} 4\n'
        )
    expect = {
        "stats": [
            {"of": "app=ui", "name": "message.*retry$", "since_start": True, "exactly": 6},
            {"of": "app=ui", "name": "message.*retry$", "exactly": 0},
        ],
        "endpoints": [
            {"of": "app=ui", "cluster": name, "pod": "message-service-0", "ejected": True}
        ],
        "metrics": [
            {
                "of": "app=ui",
                "name": "istio_requests_total",
                "labels": {"response_code": "/^2/"},
                "exactly": 0,
            }
        ],
        "pods": [{"of": "app=ui", "number": 2, "ready": "1/1", "containers": "ui"}],
    }
    assert play(cluster, exercise(tmp_path, [{**BREAK, "expect": expect}])).passed
    wrong = {**expect, "endpoints": [{**expect["endpoints"][0], "ejected": False}]}
    steps = [{**BREAK, "expect": wrong, "within": "1s"}]
    failed = play(cluster, exercise(tmp_path / "2", steps)).failed
    assert failed is not None
    assert "ui-0: /failed_outlier_check" in failed.differences[0].seen


@pytest.mark.parametrize("lesson", LESSONS, ids=[lesson.name for lesson in LESSONS])
def test_kubectl_understands_every_command_of_every_exercise(
    cluster: Cluster, lesson: load.Lesson
) -> None:
    """Without its checks every step must pass: the stand-in takes each command as kubectl would."""
    istioctl = cluster.home / "bin/istioctl"
    istioctl.write_text("#!/bin/sh\nexit 0\n")
    istioctl.chmod(0o755)
    steps = [
        step.model_copy(update={"expect": Expect(), "minute_left": None})
        for step in lesson.exercise.steps
    ]
    unchecked = lesson.exercise.model_copy(update={"steps": steps})
    plain = load.Lesson(lesson.name, lesson.folder, unchecked)
    before = cluster.essence()
    state = cluster.home / "state"
    runner = Runner(
        target(cluster, _guestbook),
        Silence(),
        istio=ISTIO,
        lessons=LESSONS,
        state=state,
    )
    result = runner.run(plain)
    assert result.passed, result
    assert [step.outcome for step in result.steps].count("passed") >= len(steps) - 2
    assert cluster.essence() == before


def _guestbook(argv: list[str]) -> int:
    if argv[:2] == ["token", "--manifest"]:
        sys.stdout.write(Path(argv[2]).read_text())
    elif argv[0] == "token":
        sys.stdout.write("a.b.c")
    return 0


def cli(cluster: Cluster, folder: Path, *argv: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*COMMAND, "exercise", *argv, "--target", "kubectl", "--ingress", cluster.url],
        cwd=folder,
        env={**cluster.environment, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def broken(cluster: Cluster) -> bool:
    try:
        return "virtualservice|default|guestbook-service" in cluster.objects
    except ValueError:  # read while it was written
        return False


WAIT = {
    "step": "something that never happens",
    "send": {"url": "/"},
    "within": "5m",
    "expect": {"answer": {"status": 404}},
}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_a_run_and_the_cluster_is_as_before(
    cluster: Cluster, tmp_path: Path, number: signal.Signals
) -> None:
    exercise(tmp_path, [BREAK, WAIT])
    before = cluster.essence()
    process = cli(cluster, tmp_path, "run", "own")
    wait(lambda: broken(cluster), seconds=60)
    process.send_signal(number)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 130, output
    assert "interrupted; everything is as it was before" in output
    assert cluster.essence() == before
    assert not list((cluster.home / "state").iterdir())


def test_after_a_kill_clean_puts_back_what_was_there(cluster: Cluster, tmp_path: Path) -> None:
    exercise(tmp_path, [BREAK, WAIT])
    before = cluster.essence()
    process = cli(cluster, tmp_path, "run", "own")
    wait(lambda: broken(cluster), seconds=60)
    process.kill()
    process.communicate()
    assert broken(cluster)
    done = cli(cluster, tmp_path, "clean")
    output, _ = done.communicate(timeout=60)
    assert done.returncode == 0, output
    assert cluster.essence() == before
    assert not list((cluster.home / "state").iterdir())


def test_a_record_is_not_put_back_into_another_cluster(cluster: Cluster, tmp_path: Path) -> None:
    exercise(tmp_path, [BREAK, WAIT])
    process = cli(cluster, tmp_path, "run", "own")
    wait(lambda: broken(cluster), seconds=60)
    process.kill()
    process.communicate()
    (record,) = (cluster.home / "state").iterdir()
    assert record.name == "exercise-kind-guestbook.json"
    other = cli(cluster, tmp_path, "clean", "--context", "another")
    other.communicate(timeout=60)
    assert list((cluster.home / "state").iterdir()) == [record]


def test_two_runs_at_once_are_refused(cluster: Cluster, tmp_path: Path) -> None:
    exercise(tmp_path, [BREAK, WAIT])
    first = cli(cluster, tmp_path, "run", "own")
    wait(lambda: broken(cluster), seconds=60)
    second = cli(cluster, tmp_path, "run", "own")
    output, _ = second.communicate(timeout=60)
    assert second.returncode != 0
    assert "are being run already" in output
    first.send_signal(signal.SIGINT)
    first.communicate(timeout=60)
    assert not broken(cluster)


def test_the_transcript_the_report_and_the_exit_status(cluster: Cluster, tmp_path: Path) -> None:
    exercise(tmp_path, [BREAK, {**WAIT, "within": "1s"}])
    process = cli(cluster, tmp_path, "run", "own", "--junit", "out/report.xml")
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "$ kubectl --context kind-guestbook apply -f istio/99-own/abort.yaml" in output
    assert f"$ curl -sS -i {cluster.url}/" in output
    assert "✓ status 200 and text currently unavailable" in output
    assert "✗ expected status 404" in output
    assert "seen     status 200" in output
    suite = ElementTree.parse(tmp_path / "out/report.xml").getroot()[0]
    assert suite.attrib["tests"] == "2"
    assert suite.attrib["failures"] == "1"
    failure = suite.find("testcase/failure")
    assert failure is not None
    assert failure.attrib["message"] == "expected status 404"


def test_a_counterproof_passes_when_its_step_fails(cluster: Cluster, tmp_path: Path) -> None:
    exercise(tmp_path, [BREAK])
    process = cli(cluster, tmp_path, "run", "own", "--counterproof")
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 0, output
    assert "as it must, that step failed" in output


def test_a_counterproof_fails_when_nothing_fails(cluster: Cluster, tmp_path: Path) -> None:
    exercise(tmp_path, [{**BREAK, "expect": {"answer": {"status": 200}}}])
    process = cli(cluster, tmp_path, "run", "own", "--counterproof")
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "had to fail, but every step passed" in output


def test_without_kubectl_a_person_is_told(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(cluster.home))
    with pytest.raises(CommandError, match="kubectl is not installed, or not on PATH"):
        target(cluster).run(["kubectl", "get", "pods"])


def test_a_port_forward_ends_with_its_use(cluster: Cluster) -> None:
    with target(cluster).forward("istio-system", "svc/zipkin", 9411) as port:
        assert port > 0
        assert cluster.calls[-1][2:] == [
            "port-forward",
            "-n",
            "istio-system",
            "svc/zipkin",
            ":9411",
        ]
    wait(lambda: not _running(str(cluster.home)), seconds=60)


def _running(home: str) -> bool:
    """Whether a stand-in of this cluster is still alive."""
    for path in Path("/proc").glob("[0-9]*/environ"):
        try:
            environment = path.read_bytes()
            command = path.with_name("cmdline").read_bytes()
        except OSError:
            continue
        if f"STANDIN={home}".encode() in environment and b"port-forward" in command:
            return int(path.parent.name) != os.getpid()
    return False


@pytest.mark.parametrize(
    ("more", "url"),
    [
        ({"status": {"loadBalancer": {"ingress": [{"ip": "10.1.2.3"}]}}}, "http://10.1.2.3"),
        ({"status": {"loadBalancer": {"ingress": [{"hostname": "lb.x"}]}}}, "http://lb.x"),
        ({"metadata": {"annotations": {"guestbook-url": "http://here:8081"}}}, "http://here:8081"),
        ({}, "http://localhost:"),
    ],
)
def test_the_ingress_is_found(cluster: Cluster, more: dict[str, Any], url: str) -> None:
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "spec": {"ports": [{"port": 80}]},
        **more,
        "metadata": {
            "name": "istio-ingressgateway",
            "namespace": "istio-system",
            **more.get("metadata", {}),
        },
    }
    world = KubectlTarget(main)
    world.run(["kubectl", "apply", "-f", "-"], stdin=json.dumps(service))
    assert world.ingress().startswith(url)
    world.close()


def test_without_istio_a_person_is_told(cluster: Cluster) -> None:
    with pytest.raises(load.ExerciseError, match="istio/install/README"):
        KubectlTarget(main).ingress()
