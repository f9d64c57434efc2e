#!/usr/bin/env bash
# The guestbook with Istio on a local cluster: `scripts/kind.sh up`, `scripts/kind.sh down`.
# A second `up` updates the cluster that is there, pods whose image is another one included. Only the
# cluster named guestbook is touched, whatever the current kubectl context is.
set -euo pipefail
cd "$(dirname "$0")/.."

CLUSTER=guestbook
CONTEXT=kind-$CLUSTER
URL=http://localhost:8080
TIMEOUT=${TIMEOUT:-5m}
KIND_VERSION=0.32.0 # the oldest that knows how to set up the node of k8s/kind.yaml
# shellcheck source-path=SCRIPTDIR/..
. istio/install/versions.env

fail() { echo "error: $1" >&2; exit 1; }
step() { echo "==> $1"; }
kube() { kubectl --context "$CONTEXT" "$@"; }

have_cluster() {
    local clusters
    clusters=$(kind get clusters 2>/dev/null)
    [[ $'\n'$clusters$'\n' == *$'\n'$CLUSTER$'\n'* ]]
}

# The Deployments and their images. Which one a Deployment runs is remembered in an annotation.
PAIRS=(ui=guestbook/ui:v1 message-service=guestbook/message:v1 guestbook-service=guestbook/guestbook:v1)
image_id() { docker image inspect --format '{{.Id}}' "$1"; }
remembered() { kube get deployment "$1" -o 'jsonpath={.metadata.annotations.guestbook-image}'; }

need() { # Names every missing tool at once.
    local missing=() tool
    for tool in "$@"; do
        command -v "$tool" >/dev/null && continue
        case $tool in
        docker) missing+=("docker    https://docs.docker.com/engine/install/") ;;
        kind) missing+=("kind      https://kind.sigs.k8s.io/docs/user/quick-start/#installation (v$KIND_VERSION or newer)") ;;
        kubectl) missing+=("kubectl   https://kubernetes.io/docs/tasks/tools/") ;;
        istioctl) missing+=("istioctl  curl -L https://istio.io/downloadIstio | ISTIO_VERSION=$ISTIO_VERSION sh -   (then put its bin folder on PATH)") ;;
        curl) missing+=("curl      your system's package manager has it") ;;
        esac
    done
    [ ${#missing[@]} = 0 ] && return
    echo "error: missing on this machine:" >&2
    printf '  %s\n' "${missing[@]}" >&2
    echo "Without a cluster, \`make up\` runs the same manifests with Python alone." >&2
    exit 1
}

up() {
    need docker kind kubectl istioctl curl
    docker info >/dev/null 2>&1 || fail "no Docker engine answers; start it (systemctl start docker), or set DOCKER_HOST"
    docker buildx version >/dev/null 2>&1 || fail "docker has no buildx plugin; see https://docs.docker.com/build/install-buildx/"
    local found
    found=$(kind version --quiet 2>/dev/null || true)
    printf '%s\n' "$KIND_VERSION" "${found#v}" | sort -VC \
        || fail "kind is ${found:-of an unknown version}; v$KIND_VERSION or newer is needed"
    found=$(istioctl version --remote=false --short 2>/dev/null || true)
    found=${found##* }
    case $found in
    *"${ISTIO_VERSION%.*}".*) ;;
    *) fail "istioctl is ${found:-of an unknown version}; the exercises are for Istio ${ISTIO_VERSION%.*} (see istio/install/versions.env)" ;;
    esac

    if have_cluster; then
        step "Using the cluster $CLUSTER"
        kind export kubeconfig --name "$CLUSTER" --quiet
        kube get --raw /readyz >/dev/null \
            || fail "the cluster $CLUSTER is not whole (was its creation interrupted?); make kind-down, then make kind"
    else
        ! (exec 3<>/dev/tcp/127.0.0.1/8080) 2>/dev/null \
            || fail "port 8080 of this machine is taken (by \`make up\` or Compose?); stop what uses it"
        step "Creating the cluster $CLUSTER (a minute or two; the first time it downloads the node)"
        kind create cluster --config k8s/kind.yaml --wait 2m ${NODE_IMAGE:+--image "$NODE_IMAGE"}
    fi

    REGISTRY=guestbook TAG=v1 PLATFORMS='' PUSH='' scripts/images.sh
    step "Loading the images into the node"
    kind load docker-image --name "$CLUSTER" \
        guestbook/ui:v1 guestbook/ui:v2 guestbook/message:v1 guestbook/guestbook:v1

    step "Installing Istio $found"
    istioctl install --context "$CONTEXT" -y -f istio/install/istio.yaml -f istio/install/kind.yaml
    kube label namespace default istio-injection=enabled --overwrite

    step "Deploying the guestbook"
    if ! kube get secret mysql-credentials >/dev/null 2>&1; then
        # Through a pipe, not through arguments that other users of this machine could read.
        {
            printf 'apiVersion: v1\nkind: Secret\nmetadata: {name: mysql-credentials}\nstringData:\n'
            printf '  %s: "%s"\n' root-password "$(random)" password "$(random)"
        } | kube create -f -
    fi
    kube apply -k k8s/overlays/kind
    kube apply -f istio/02-ingress/gateway.yaml -f istio/02-ingress/virtual-service.yaml
    # The tag of an image stays the same, so a new one changes no Deployment.
    local pair before
    for pair in "${PAIRS[@]}"; do
        before=$(remembered "${pair%=*}")
        if [ -n "$before" ] && [ "$before" != "$(image_id "${pair#*=}")" ]; then
            kube rollout restart "deployment/${pair%=*}"
        fi
    done

    step "Waiting until every pod is ready (at most $TIMEOUT each)"
    local workload
    for workload in statefulset/mysql deployment/{redis,guestbook-service,message-service,ui}; do
        kube rollout status "$workload" --timeout "$TIMEOUT" || {
            kube get pods >&2
            fail "$workload did not become ready; look with: kubectl --context $CONTEXT describe pods"
        }
    done
    for pair in "${PAIRS[@]}"; do
        kube annotate --overwrite "deployment/${pair%=*}" "guestbook-image=$(image_id "${pair#*=}")" >/dev/null
    done
    step "Waiting for the page"
    curl --noproxy '*' --silent --show-error --fail --output /dev/null --retry 60 --retry-delay 1 --retry-all-errors "$URL/" \
        || fail "$URL does not answer; look with: kubectl --context $CONTEXT -n istio-system logs deploy/istio-ingressgateway"
    echo
    echo "The guestbook: $URL"
    echo "kubectl's context is $CONTEXT. The exercises, one by one: istio/README.md; or all at once:"
    echo "  make setup && .venv/bin/guestbook exercise run --all --target kubectl --context $CONTEXT"
    echo "To remove the cluster: make kind-down"
}

random() { od -An -N16 -tx1 /dev/urandom | tr -d ' \n'; }

down() {
    need kind
    if have_cluster; then
        kind delete cluster --name "$CLUSTER"
    else
        echo "There is no cluster $CLUSTER."
    fi
}

case ${1:-} in
up) up ;;
down) down ;;
*) echo "usage: scripts/kind.sh up|down" >&2; exit 2 ;;
esac
