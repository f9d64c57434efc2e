"""The pod template: containers, environment, volumes and probes, as far as the lab plays them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints, model_validator

from lab.kinds.mesh_config import annotation
from lab.resources.checks import exactly_one
from lab.resources.fields import inert, refused
from lab.resources.metadata import label_problems
from lab.resources.resource import Check, Model, Problem
from lab.resources.values import duplicates

Port = Annotated[int, Field(ge=1, le=65535)]
PortName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$")]
HostName = Annotated[PortName, StringConstraints(max_length=63)]
Count = Annotated[int, Field(ge=0)]
Positive = Annotated[int, Field(ge=1)]
EnvName = Annotated[str, StringConstraints(pattern=r"^[^=\s\x00]+$")]

NO_TOKENS = "there is no API server that would take a token"
_ONE_USER = "all processes run as the user who started the lab, on its file system"
_ONE_MACHINE = "there is one machine, nothing to choose from"


class LabelSelector(Model):
    match_labels: dict[str, str] | None = None

    def matches(self, labels: dict[str, str]) -> bool:
        return all(labels.get(key) == value for key, value in (self.match_labels or {}).items())


class KeyRef(Model):
    name: str
    key: str
    optional: bool = False


class FieldRef(Model):
    field_path: str
    api_version: str = "v1"


class EnvSource(Model):
    one_of = (("configMapKeyRef", "secretKeyRef", "fieldRef"),)
    config_map_key_ref: KeyRef | None = None
    secret_key_ref: KeyRef | None = None
    field_ref: FieldRef | None = None
    resource_field_ref: Any = refused("the lab sets no limits; write the value")


class EnvVar(Model):
    name: EnvName
    value: str | None = None
    value_from: EnvSource | None = None


class NameRef(Model):
    name: str
    optional: bool = False


class EnvFrom(Model):
    one_of = (("configMapRef", "secretRef"),)
    prefix: str = ""
    config_map_ref: NameRef | None = None
    secret_ref: NameRef | None = None


class ExecAction(Model):
    command: list[str] = Field(min_length=1)


class Header(Model):
    name: str
    value: str


class HTTPGetAction(Model):
    port: Port | PortName
    path: str = "/"
    scheme: Literal["HTTP", "HTTPS"] = "HTTP"
    http_headers: list[Header] = Field(default_factory=list)
    host: Any = refused("a probe asks the container's own address")


class TCPSocketAction(Model):
    port: Port | PortName
    host: Any = refused("a probe asks the container's own address")


class SleepAction(Model):
    seconds: Count


class Probe(Model):
    one_of = (("httpGet", "tcpSocket", "exec"),)
    exec: ExecAction | None = None
    http_get: HTTPGetAction | None = None
    tcp_socket: TCPSocketAction | None = None
    grpc: Any = refused("use httpGet, tcpSocket or exec")
    initial_delay_seconds: Count = 0
    period_seconds: Positive = 10
    timeout_seconds: Positive = 1
    success_threshold: Positive = 1
    failure_threshold: Positive = 3
    termination_grace_period_seconds: Count | None = None


class LifecycleHandler(Model):
    exec: ExecAction | None = None
    http_get: HTTPGetAction | None = None
    sleep: SleepAction | None = None


class Lifecycle(Model):
    pre_stop: LifecycleHandler | None = None
    post_start: Any = refused("start what is needed in the command itself")


class ContainerPort(Model):
    container_port: Port
    name: PortName | None = None
    protocol: Literal["TCP"] = "TCP"
    host_port: Any = refused("a pod's ports are reached through its address or a Service")


class VolumeMount(Model):
    name: str
    mount_path: str
    sub_path: str | None = None
    read_only: bool = False


class Capabilities(Model):
    add: list[str] | None = None
    drop: list[str] | None = None


class SeccompProfile(Model):
    type: str
    localhost_profile: str | None = None


class SecurityContext(Model):
    run_as_user: int | None = None
    run_as_group: int | None = None
    run_as_non_root: bool | None = None
    allow_privilege_escalation: bool | None = None
    privileged: bool | None = None
    read_only_root_filesystem: bool | None = None
    capabilities: Capabilities | None = None
    seccomp_profile: SeccompProfile | None = None


class Sysctl(Model):
    name: str
    value: str


class PodSecurityContext(Model):
    run_as_user: int | None = None
    run_as_group: int | None = None
    run_as_non_root: bool | None = None
    fs_group: int | None = None
    fs_group_change_policy: str | None = None
    supplemental_groups: list[int] | None = None
    seccomp_profile: SeccompProfile | None = None
    sysctls: list[Sysctl] | None = None


class ResourceRequirements(Model):
    limits: dict[str, str | int | float] | None = None
    requests: dict[str, str | int | float] | None = None


class Container(Model):
    name: PortName
    image: str
    image_pull_policy: Literal["Always", "IfNotPresent", "Never"] | None = None
    command: list[str] | None = None
    args: list[str] | None = None
    working_dir: str | None = None
    ports: list[ContainerPort] = Field(default_factory=list)
    env: list[EnvVar] = Field(default_factory=list)
    env_from: list[EnvFrom] = Field(default_factory=list)
    volume_mounts: list[VolumeMount] = Field(default_factory=list)
    startup_probe: Probe | None = None
    readiness_probe: Probe | None = None
    liveness_probe: Probe | None = None
    lifecycle: Lifecycle | None = None
    restart_policy: Any = refused("sidecar containers of your own are not played")
    stdin: bool = False
    tty: bool = False
    resources: ResourceRequirements | None = inert("processes share the machine without limits")
    security_context: SecurityContext | None = inert(_ONE_USER)
    termination_message_path: str | None = inert("the log says why a container ended")
    termination_message_policy: str | None = inert("the log says why a container ended")


class InjectedContainer(Model):
    """The sidecar as `kube-inject` writes it; other init containers are refused."""

    name: str
    image: str
    restart_policy: Literal["Always"]

    @model_validator(mode="before")
    @classmethod
    def _sidecar(cls, value: Any) -> Any:
        """Refuses others before their fields are looked at, which would be as many errors."""
        if isinstance(value, dict) and value.get("name") != "istio-proxy":
            raise ValueError("init containers are not played: do the work in the container's start")
        return value


class KeyToPath(Model):
    key: str
    path: str
    mode: int | None = None


class ConfigMapVolume(Model):
    name: str
    items: list[KeyToPath] | None = None
    default_mode: int | None = None
    optional: bool = False


class SecretVolume(Model):
    secret_name: str
    items: list[KeyToPath] | None = None
    default_mode: int | None = None
    optional: bool = False


class EmptyDirVolume(Model):
    medium: str | None = None
    size_limit: str | int | None = None


class ClaimVolume(Model):
    claim_name: str
    read_only: bool = False


class Volume(Model):
    one_of = (("configMap", "secret", "emptyDir", "persistentVolumeClaim"),)
    name: str
    config_map: ConfigMapVolume | None = None
    secret: SecretVolume | None = None
    empty_dir: EmptyDirVolume | None = None
    persistent_volume_claim: ClaimVolume | None = None
    host_path: Any = refused("use a ConfigMap, a Secret, an emptyDir or a claim")
    projected: Any = refused("use a ConfigMap, a Secret, an emptyDir or a claim")
    csi: Any = refused("use a ConfigMap, a Secret, an emptyDir or a claim")
    downward_api: Any = refused("use fieldRef in the environment", alias="downwardAPI")


class TopologySpreadConstraint(Model):
    max_skew: int
    topology_key: str
    when_unsatisfiable: str
    label_selector: LabelSelector | None = None
    min_domains: int | None = None
    match_label_keys: list[str] | None = None


class PodSpec(Model):
    containers: list[Container] = Field(min_length=1)
    init_containers: list[InjectedContainer] = Field(default_factory=list)
    volumes: list[Volume] = Field(default_factory=list)
    service_account_name: str = "default"
    service_account: str | None = None
    restart_policy: Literal["Always", "OnFailure", "Never"] = "Always"
    termination_grace_period_seconds: Count = 30
    enable_service_links: bool = True
    hostname: HostName | None = None
    subdomain: HostName | None = None
    host_network: Any = refused("every pod has its own address")
    dns_policy: Any = refused("the lab itself writes what a pod resolves names with")
    dns_config: Any = refused("the lab itself writes what a pod resolves names with")
    host_aliases: Any = refused("the lab itself writes what a pod resolves names with")
    automount_service_account_token: bool | None = inert(NO_TOKENS)
    security_context: PodSecurityContext | None = inert(_ONE_USER)
    topology_spread_constraints: list[TopologySpreadConstraint] | None = inert(_ONE_MACHINE)
    affinity: dict[str, Any] | None = inert(_ONE_MACHINE)
    node_name: str | None = inert(_ONE_MACHINE)
    node_selector: dict[str, str] | None = inert(_ONE_MACHINE)
    tolerations: list[dict[str, Any]] | None = inert(_ONE_MACHINE)
    priority_class_name: str | None = inert(_ONE_MACHINE)
    scheduler_name: str | None = inert(_ONE_MACHINE)


class TemplateMetadata(Model):
    labels: dict[str, str] = Field(default_factory=dict)
    annotations: dict[str, str] = Field(default_factory=dict)
    name: str | None = None
    creation_timestamp: str | None = None


class PodTemplate(Model):
    metadata: TemplateMetadata = Field(default_factory=TemplateMetadata)
    spec: PodSpec


def _containers(containers: list[Container]) -> Iterator[Problem]:
    for index, name in duplicates(container.name for container in containers):
        yield Problem((index, "name"), f'the name "{name}" is used twice')
    for index, container in enumerate(containers):
        if container.name == "istio-proxy" and len(containers) > 1:
            yield Problem((index, "name"), "istio-proxy is the name of the sidecar")


def _probe_ports(container: Container) -> Iterator[Problem]:
    names = {port.name for port in container.ports}
    probes = {
        "startupProbe": container.startup_probe,
        "readinessProbe": container.readiness_probe,
        "livenessProbe": container.liveness_probe,
    }
    for field, probe in probes.items():
        actions = (probe.http_get, probe.tcp_socket) if probe is not None else ()
        for key, action in zip(("httpGet", "tcpSocket"), actions, strict=False):
            if action is not None and isinstance(action.port, str) and action.port not in names:
                yield Problem((field, key, "port"), f'no port is named "{action.port}"')


def mounts(spec: PodSpec, claims: tuple[str, ...] = ()) -> Iterator[Problem]:
    """Checks that each volume that is mounted exists; `claims` are those of a StatefulSet."""
    volumes = {*claims, *(volume.name for volume in spec.volumes)}
    for index, container in enumerate(spec.containers):
        for number, mount in enumerate(container.volume_mounts):
            if mount.name not in volumes:
                path = ("containers", index, "volumeMounts", number, "name")
                yield Problem(path, f'no volume is named "{mount.name}"')


POD_CHECKS = (
    Check(
        "**.volumes[]",
        exactly_one,
        "exactly one of configMap, secret, emptyDir, persistentVolumeClaim",
    ),
    Check("**.containers", _containers),
    Check(
        "**.volumeMounts[].mountPath",
        lambda path: path.startswith("/") and path != "/",
        "an absolute path below /",
    ),
    Check(
        "**.env[]",
        lambda variable: variable.value is None or variable.value_from is None,
        "value and valueFrom exclude each other",
    ),
    Check(
        "**.env[].valueFrom", exactly_one, "exactly one of configMapKeyRef, secretKeyRef, fieldRef"
    ),
    Check("**.envFrom[]", exactly_one, "exactly one of configMapRef, secretRef"),
    Check(
        "**.startupProbe|readinessProbe|livenessProbe",
        exactly_one,
        "exactly one of httpGet, tcpSocket, exec",
    ),
    Check(
        "**.startupProbe|livenessProbe.successThreshold", lambda count: count == 1, "must be 1 here"
    ),
    Check("**.containers[]", _probe_ports),
)
"""The checks of a pod's spec, also in a template."""


def _selector(spec: Any) -> Iterator[Problem]:
    labels = spec.template.metadata.labels
    if not spec.selector.match_labels:
        yield Problem(("selector",), "matchLabels is required")
    elif not spec.selector.matches(labels):
        yield Problem(
            ("template", "metadata", "labels"), "`selector` does not match template `labels`"
        )
    yield from label_problems(labels, ("template", "metadata", "labels"))


TEMPLATE_CHECKS = (Check("spec", _selector), *POD_CHECKS, *annotation.TEMPLATE_CHECKS)
