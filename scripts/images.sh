#!/usr/bin/env bash
# Builds the images: ui:v1, ui:v2 (another background), message:v1, guestbook:v1.
#
#   REGISTRY   what the names begin with (default: localhost/guestbook, which no registry serves)
#   TAG        default v1; with another TAG the second ui is ui:TAG-v2
#   PLATFORMS  for example linux/amd64,linux/arm64; these images are pushed to REGISTRY, since an
#              engine can't hold them, with a software bill of materials and provenance
#   PUSH=1     push without PLATFORMS
#   PYTHON_IMAGE   another base image than the one services/Dockerfile pins
#
# Further arguments are docker buildx bake's.
set -euo pipefail
cd "$(dirname "$0")/.."

fail() { echo "error: $1" >&2; exit 1; }

command -v docker >/dev/null || fail "docker is missing; see https://docs.docker.com/engine/install/"
docker buildx version >/dev/null 2>&1 || fail "docker has no buildx plugin; see https://docs.docker.com/build/install-buildx/"
docker info >/dev/null 2>&1 || fail "no Docker engine answers; start it (systemctl start docker), or set DOCKER_HOST"

export REGISTRY=${REGISTRY:-localhost/guestbook} TAG=${TAG:-v1}
# shellcheck source-path=SCRIPTDIR/..
. scripts/build-info.sh
[ "$TAG" != latest ] || fail "TAG=latest says nothing about what runs; name a version"

# An engine's own builder, on its classic image store, knows one platform and no attestations.
simple_builder() {
    local driver store
    driver=$(docker buildx inspect | awk '/^Driver:/ && !d {d = $2} END {print d}')
    store=$(docker info --format '{{.DriverStatus}}')
    [ "$driver" = docker ] && [[ $store != *io.containerd.snapshotter* ]]
}
SBOM_GENERATOR=docker/buildkit-syft-scanner:1.12.0@sha256:ae4f3b554449e7e25548e7d8ccc029d17357348e30c6e3df01b92bc93654d6a9
CREATE="first: docker buildx create --name guestbook --use"

options=()
if [ -n "${PLATFORMS:-}" ]; then
    options+=(--set "*.platform=$PLATFORMS")
    PUSH=1
fi
[ -z "${PUSH:-}" ] || [ "$REGISTRY" != localhost/guestbook ] \
    || fail "PUSH and PLATFORMS need REGISTRY=…, a registry to push to"
if [ -z "${PUSH:-}" ]; then
    options+=(--load --provenance=false)
elif simple_builder; then
    [ -z "${PLATFORMS:-}" ] || fail "this builder (driver docker) builds for one platform only; $CREATE"
    echo "note: without bill of materials and provenance, which this builder (driver docker) can't make; for them $CREATE" >&2
    options+=(--push)
else
    options+=(--push "--sbom=generator=$SBOM_GENERATOR" --provenance=mode=max)
fi

echo "==> Building $REGISTRY/{ui,message,guestbook}:$TAG${PLATFORMS:+ for $PLATFORMS}"
docker buildx bake --file docker-bake.hcl "${options[@]}" "$@"
[ -n "${PUSH:-}" ] || docker image ls --filter "reference=$REGISTRY/*"
