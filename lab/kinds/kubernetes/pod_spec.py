"""The pod template: containers, environment, volumes and probes, as far as the lab plays them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints, field_validator

from lab.resources.istio import refused
from lab.resources.kubernetes import KubernetesModel, LabelSelector, inert, spec_problems
from lab.resources.metadata import label_problems
from lab.resources.resource import Path, Problem

Port = Annotated[int, Field(ge=1, le=65535)]
PortName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$")]
Count = Annotated[int, Field(ge=0)]
Positive = Annotated[int, Field(ge=1)]
EnvName = Annotated[str, StringConstraints(pattern=r"^[^=\s\x00]+$")]

NO_TOKENS = "there is no API server that would take a token"
_ONE_USER = "all processes run as the user who started the lab, on its file system"
_ONE_MACHINE = "there is one machine, nothing to choose from"


class KeyRef(KubernetesModel):
    name: str
    key: str
    optional: bool = False


class FieldRef(KubernetesModel):
    field_path: str
    api_version: str = "v1"


class EnvSource(KubernetesModel):
    config_map_key_ref: KeyRef | None = None
    secret_key_ref: KeyRef | None = None
    field_ref: FieldRef | None = None
    resource_field_ref: Any = refused("the lab sets no limits; write the value")


class EnvVar(KubernetesModel):
    name: EnvName
    value: str | None = None
    value_from: EnvSource | None = None


class NameRef(KubernetesModel):
    name: str
    optional: bool = False


class EnvFrom(KubernetesModel):
    prefix: str = ""
    config_map_ref: NameRef | None = None
    secret_ref: NameRef | None = None


class ExecAction(KubernetesModel):
    command: list[str] = Field(min_length=1)


class Header(KubernetesModel):
    name: str
    value: str


class HTTPGetAction(KubernetesModel):
    port: Port | PortName
    path: str = "/"
    scheme: Literal["HTTP", "HTTPS"] = "HTTP"
    http_headers: list[Header] = Field(default_factory=list)
    host: Any = refused("a probe asks the container's own address")


class TCPSocketAction(KubernetesModel):
    port: Port | PortName
    host: Any = refused("a probe asks the container's own address")


class SleepAction(KubernetesModel):
    seconds: Count


class Probe(KubernetesModel):
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


class LifecycleHandler(KubernetesModel):
    exec: ExecAction | None = None
    http_get: HTTPGetAction | None = None
    sleep: SleepAction | None = None


class Lifecycle(KubernetesModel):
    pre_stop: LifecycleHandler | None = None
    post_start: Any = refused("start what is needed in the command itself")


class ContainerPort(KubernetesModel):
    container_port: Port
    name: PortName | None = None
    protocol: Literal["TCP"] = "TCP"
    host_port: Any = refused("a pod's ports are reached through its address or a Service")


class VolumeMount(KubernetesModel):
    name: str
    mount_path: str
    sub_path: str | None = None
    read_only: bool = False


class Capabilities(KubernetesModel):
    add: list[str] | None = None
    drop: list[str] | None = None


class SeccompProfile(KubernetesModel):
    type: str
    localhost_profile: str | None = None


class SecurityContext(KubernetesModel):
    run_as_user: int | None = None
    run_as_group: int | None = None
    run_as_non_root: bool | None = None
    allow_privilege_escalation: bool | None = None
    privileged: bool | None = None
    read_only_root_filesystem: bool | None = None
    capabilities: Capabilities | None = None
    seccomp_profile: SeccompProfile | None = None


class Sysctl(KubernetesModel):
    name: str
    value: str


class PodSecurityContext(KubernetesModel):
    run_as_user: int | None = None
    run_as_group: int | None = None
    run_as_non_root: bool | None = None
    fs_group: int | None = None
    fs_group_change_policy: str | None = None
    supplemental_groups: list[int] | None = None
    seccomp_profile: SeccompProfile | None = None
    sysctls: list[Sysctl] | None = None


class ResourceRequirements(KubernetesModel):
    limits: dict[str, str | int | float] | None = None
    requests: dict[str, str | int | float] | None = None


class Container(KubernetesModel):
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


class InjectedContainer(KubernetesModel):
    """The sidecar as `kube-inject` writes it; other init containers are refused."""

    name: str
    image: str
    restart_policy: Literal["Always"]

    @field_validator("name")
    @classmethod
    def _sidecar(cls, name: str) -> str:
        if name != "istio-proxy":
            raise ValueError("init containers are not played: do the work in the container's start")
        return name


class KeyToPath(KubernetesModel):
    key: str
    path: str
    mode: int | None = None


class ConfigMapVolume(KubernetesModel):
    name: str
    items: list[KeyToPath] | None = None
    default_mode: int | None = None
    optional: bool = False


class SecretVolume(KubernetesModel):
    secret_name: str
    items: list[KeyToPath] | None = None
    default_mode: int | None = None
    optional: bool = False


class EmptyDirVolume(KubernetesModel):
    medium: str | None = None
    size_limit: str | int | None = None


class ClaimVolume(KubernetesModel):
    claim_name: str
    read_only: bool = False


class Volume(KubernetesModel):
    name: str
    config_map: ConfigMapVolume | None = None
    secret: SecretVolume | None = None
    empty_dir: EmptyDirVolume | None = None
    persistent_volume_claim: ClaimVolume | None = None
    host_path: Any = refused("use a ConfigMap, a Secret, an emptyDir or a claim")
    projected: Any = refused("use a ConfigMap, a Secret, an emptyDir or a claim")
    csi: Any = refused("use a ConfigMap, a Secret, an emptyDir or a claim")
    downward_api: Any = refused("use fieldRef in the environment", alias="downwardAPI")


class TopologySpreadConstraint(KubernetesModel):
    max_skew: int
    topology_key: str
    when_unsatisfiable: str
    label_selector: LabelSelector | None = None
    min_domains: int | None = None
    match_label_keys: list[str] | None = None


class PodSpec(KubernetesModel):
    containers: list[Container] = Field(min_length=1)
    init_containers: list[InjectedContainer] = Field(default_factory=list)
    volumes: list[Volume] = Field(default_factory=list)
    service_account_name: str = "default"
    service_account: str | None = None
    restart_policy: Literal["Always", "OnFailure", "Never"] = "Always"
    termination_grace_period_seconds: Count = 30
    enable_service_links: bool = True
    hostname: str | None = None
    host_network: Any = refused("every pod has its own address")
    dns_policy: Any = refused("the lab has no DNS server")
    dns_config: Any = refused("the lab has no DNS server")
    host_aliases: Any = refused("the lab has no DNS server")
    automount_service_account_token: bool | None = inert(NO_TOKENS)
    security_context: PodSecurityContext | None = inert(_ONE_USER)
    topology_spread_constraints: list[TopologySpreadConstraint] | None = inert(_ONE_MACHINE)
    affinity: dict[str, Any] | None = inert(_ONE_MACHINE)
    node_selector: dict[str, str] | None = inert(_ONE_MACHINE)
    tolerations: list[dict[str, Any]] | None = inert(_ONE_MACHINE)
    priority_class_name: str | None = inert(_ONE_MACHINE)
    scheduler_name: str | None = inert(_ONE_MACHINE)


class TemplateMetadata(KubernetesModel):
    labels: dict[str, str] = Field(default_factory=dict)
    annotations: dict[str, str] = Field(default_factory=dict)
    name: str | None = None
    creation_timestamp: str | None = None


class PodTemplate(KubernetesModel):
    metadata: TemplateMetadata = Field(default_factory=TemplateMetadata)
    spec: PodSpec


_HANDLERS = ("exec", "http_get", "tcp_socket")


def _env_problems(container: Container, path: Path) -> Iterator[Problem]:
    for index, variable in enumerate(container.env):
        where = (*path, "env", index)
        source = variable.value_from
        if source is None:
            continue
        if variable.value is not None:
            yield Problem(where, "value and valueFrom exclude each other")
        chosen = [source.config_map_key_ref, source.secret_key_ref, source.field_ref]
        if sum(item is not None for item in chosen) != 1:
            yield Problem(
                (*where, "valueFrom"), "exactly one of configMapKeyRef, secretKeyRef, fieldRef"
            )
    for index, item in enumerate(container.env_from):
        if (item.config_map_ref is None) == (item.secret_ref is None):
            yield Problem((*path, "envFrom", index), "exactly one of configMapRef, secretRef")


def _probe_problems(container: Container, path: Path) -> Iterator[Problem]:
    names = {port.name for port in container.ports}
    probes = {
        "startupProbe": container.startup_probe,
        "readinessProbe": container.readiness_probe,
        "livenessProbe": container.liveness_probe,
    }
    for field, probe in probes.items():
        if probe is None:
            continue
        if sum(getattr(probe, handler) is not None for handler in _HANDLERS) != 1:
            yield Problem((*path, field), "exactly one of httpGet, tcpSocket, exec")
        if field != "readinessProbe" and probe.success_threshold != 1:
            yield Problem((*path, field, "successThreshold"), "must be 1 here")
        for key, action in (("httpGet", probe.http_get), ("tcpSocket", probe.tcp_socket)):
            if action is not None and isinstance(action.port, str) and action.port not in names:
                yield Problem((*path, field, key, "port"), f'no port is named "{action.port}"')


def pod_problems(spec: PodSpec, path: Path) -> Iterator[Problem]:
    """What the API server, or the lab, refuses in a pod's spec."""
    yield from spec_problems(spec, path)
    seen: set[str] = set()
    volumes = {volume.name for volume in spec.volumes}
    for index, volume in enumerate(spec.volumes):
        sources = (
            volume.config_map,
            volume.secret,
            volume.empty_dir,
            volume.persistent_volume_claim,
        )
        if sum(source is not None for source in sources) != 1:
            yield Problem(
                (*path, "volumes", index),
                "exactly one of configMap, secret, emptyDir, persistentVolumeClaim",
            )
    for index, container in enumerate(spec.containers):
        where = (*path, "containers", index)
        if container.name in seen:
            yield Problem((*where, "name"), f'the name "{container.name}" is used twice')
        if container.name == "istio-proxy" and len(spec.containers) > 1:
            yield Problem((*where, "name"), "istio-proxy is the name of the sidecar")
        seen.add(container.name)
        for number, mount in enumerate(container.volume_mounts):
            if mount.name not in volumes:
                yield Problem(
                    (*where, "volumeMounts", number, "name"), f'no volume is named "{mount.name}"'
                )
            if not mount.mount_path.startswith("/") or mount.mount_path == "/":
                yield Problem(
                    (*where, "volumeMounts", number, "mountPath"), "an absolute path below /"
                )
        yield from _env_problems(container, where)
        yield from _probe_problems(container, where)


def template_problems(
    template: PodTemplate, selector: LabelSelector, claims: tuple[str, ...] = ()
) -> Iterator[Problem]:
    """`pod_problems` for a template, and whether the selector selects it."""
    labels = template.metadata.labels
    if not selector.match_labels:
        yield Problem(("spec", "selector"), "matchLabels is required")
    elif not selector.matches(labels):
        yield Problem(
            ("spec", "template", "metadata", "labels"),
            "`selector` does not match template `labels`",
        )
    yield from label_problems(labels, ("spec", "template", "metadata", "labels"))
    for problem in pod_problems(template.spec, ("spec", "template", "spec")):
        if any(f'no volume is named "{claim}"' == problem.reason for claim in claims):
            continue
        yield problem
