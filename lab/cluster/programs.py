"""Images and the local programs that play them."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from lab import versions
from lab.names import PROXY

PYTHON = sys.executable

PROXY_IMAGE = f"docker.io/istio/proxyv2:{versions.istio()}"
"""The image of a proxy, as pods show it."""

INJECTED = "auto"
"""The image in a gateway's manifest for which the injector puts the proxy's."""

SIDECAR = {"name": PROXY, "image": PROXY_IMAGE, "restartPolicy": "Always"}
"""The native sidecar that is injected, as an init container."""


class UnknownImageError(Exception):
    """The lab has no program for an image; the message names those it has."""


@dataclass(frozen=True, slots=True)
class Image:
    """The metadata of an image that decides what a container runs."""

    entrypoint: tuple[str, ...] = ()
    command: tuple[str, ...] = ()
    options_of: str = ""
    """The program that takes arguments which begin with an option."""
    volumes: tuple[str, ...] = ()
    """Folders that are the container's own even where the manifest mounts nothing there."""


def _module(name: str, *volumes: str) -> Image:
    return Image(entrypoint=(PYTHON, "-m", name), volumes=volumes)


_IMAGES: Mapping[str, Image] = {
    "guestbook/ui": _module("services.ui"),
    "guestbook/message": _module("services.message"),
    "guestbook/guestbook": _module("services.guestbook"),
    "mysql": _module("lab.standins.mysql", "/var/lib/mysql"),
    "redis": Image(command=("redis-server",)),
    "envoyproxy/ratelimit": Image(command=("/bin/ratelimit",)),
    "openzipkin/zipkin-slim": _module("lab.standins.zipkin"),
    "curlimages/curl": Image(command=("curl", "--help"), options_of="curl"),
    "istio/proxyv2": Image(),
}

_own: dict[str, Image] = {}
"""The images that the user has given a program."""

_TAGS: Mapping[str, Mapping[str, str]] = {
    "guestbook/ui:v2": {"UI_BACKGROUND": "goldenrod", "DEMO_VERSION": "2.0"},
}
"""The environment that an image has under one tag alone."""

_COMMANDS: Mapping[str, tuple[str, ...]] = {
    "python": (PYTHON,),
    "python3": (PYTHON,),
    "redis-server": (PYTHON, "-m", "lab.standins.redis"),
    "ratelimit": (PYTHON, "-m", "lab.standins.ratelimit"),
    "mysqld": (PYTHON, "-m", "lab.standins.mysql"),
}
"""Programs of images by the command that plays them."""


def split(image: str) -> tuple[str, str]:
    """Returns the lab's name for an image, and its tag.

    The registry and its folders are left out: `docker.io/library/redis:8` is `redis`. Raises
    UnknownImageError.
    """
    if image == INJECTED:
        return split(PROXY_IMAGE)
    name, _, _digest = image.partition("@")
    path, _, last = name.rpartition("/")
    last, _, tag = last.partition(":")
    folder = path.rpartition("/")[2]
    for known in (f"{folder}/{last}", last):
        if known in _own or known in _IMAGES:
            return known, tag
    raise UnknownImageError(
        f'the lab has no program for the image "{image}": give it one with '
        f"`guestbook image {last or image}=COMMAND`; `guestbook image` lists those it has"
    )


def is_proxy(image: str) -> bool:
    """Returns whether an image is Istio's proxy, of whatever registry and version."""
    try:
        return split(image)[0] == split(PROXY_IMAGE)[0]
    except UnknownImageError:
        return False


def program(
    image: str, command: Sequence[str] | None, args: Sequence[str] | None
) -> tuple[list[str], dict[str, str]]:
    """Returns the command line of a container and the environment of its image.

    Kubernetes' rules: `command` replaces the image's entry point and its command, `args` the
    command alone. Raises UnknownImageError.
    """
    name, tag = split(image)
    known = _image(name)
    if command:
        argv = [*command, *(args or ())]
    else:
        argv = [*known.entrypoint, *(args if args is not None else known.command)]
        if known.options_of and argv and argv[0].startswith("-"):
            argv = [known.options_of, *argv]
    return local(argv), dict(_TAGS.get(f"{name}:{tag}", {}))


def image_volumes(image: str) -> tuple[Path, ...]:
    return tuple(map(Path, _image(split(image)[0]).volumes))


def _image(name: str) -> Image:
    return _own.get(name) or _IMAGES[name]


def images() -> dict[str, tuple[str, ...]]:
    """Returns the command line of each image that the lab can run, by the lab's name for it."""
    return {
        name: (*_image(name).entrypoint, *_image(name).command)
        for name in sorted({*_IMAGES, *_own})
    }


def own() -> Mapping[str, tuple[str, ...]]:
    """Returns the entry points of the images that the user has given a program."""
    return {name: image.entrypoint for name, image in _own.items()}


def play(entry_points: Mapping[str, Sequence[str]]) -> None:
    """Has programs of this machine play these images, and no others of the user's."""
    _own.clear()
    _own.update({name: Image(entrypoint=tuple(words)) for name, words in entry_points.items()})


def local(argv: Sequence[str]) -> list[str]:
    """Returns a command line with the program replaced by the one that plays it here."""
    if not argv:
        return []
    base = argv[0].rpartition("/")[2]
    return [*_COMMANDS.get(base, (argv[0],)), *argv[1:]]
