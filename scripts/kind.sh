#!/usr/bin/env bash
# The guestbook with Istio on a local cluster: `scripts/kind.sh up`, `scripts/kind.sh down`.
# A second `up` updates the cluster that is there, pods whose image is another one included. Only the
# cluster named guestbook is touched, whatever the current kubectl context is.
#
#   GUESTBOOK_PORT   port of this machine for the page (default 8080), kept for the cluster's life
#   NODE_IMAGE       another node than k8s/kind.yaml's
#   TIMEOUT          how long to wait for each workload (default 5m)
#   PREBUILT=1       take the images localhost/guestbook/… as the engine has them, without a build
set -euo pipefail
cd "$(dirname "$0")/.."

CLUSTER=guestbook
CONTEXT=kind-$CLUSTER
PORT=${GUESTBOOK_PORT:-8080}
TIMEOUT=${TIMEOUT:-5m}
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

# The port that the cluster was created with; empty where that can't be asked.
published_port() { { docker port "$CLUSTER-control-plane" 30080/tcp 2>/dev/null || true; } | sed -n '1s/.*://p'; }

# The Deployments and their images. Which one a Deployment runs is remembered in an annotation.
OURS=localhost/guestbook
PAIRS=("ui=$OURS/ui:v1" "message-service=$OURS/message:v1" "guestbook-service=$OURS/guestbook:v1")
IMAGES=("$OURS"/{ui:v1,ui:v2,message:v1,guestbook:v1})
image_id() { docker image inspect --format '{{.Id}}' "$1"; }
remembered() { kube get deployment "$1" -o 'jsonpath={.metadata.annotations.guestbook-image}'; }

# The command that installs a tool on this system.
get() {
    local os arch
    os=$(uname -s | tr '[:upper:]' '[:lower:]')
    arch=$(uname -m | sed 's/x86_64/amd64/; s/aarch64/arm64/')
    case $1-$os in
    docker-darwin) echo "brew install --cask docker && open -a Docker" ;;
    docker-*) echo "curl -fsSL https://get.docker.com | sh" ;;
    kind-*) into_path kind "https://kind.sigs.k8s.io/dl/v$KIND_VERSION/kind-$os-$arch" ;;
    kubectl-*) into_path kubectl "https://dl.k8s.io/release/$(node_version)/bin/$os/$arch/kubectl" ;;
    istioctl-*) echo "curl -L https://istio.io/downloadIstio | ISTIO_VERSION=$ISTIO_VERSION sh - && export PATH=\$PWD/istio-$ISTIO_VERSION/bin:\$PATH" ;;
    curl-darwin) echo "brew install curl" ;;
    curl-*) echo "sudo apt-get install curl" ;;
    esac
}
into_path() { echo "curl -fLo $1 $2 && sudo install $1 /usr/local/bin/"; }
node_version() { sed -n 's/.*kindest\/node:\(v[0-9.]*\).*/\1/p' k8s/kind.yaml; }

need() { # Names every missing tool at once.
    local missing=() tool
    for tool in "$@"; do
        command -v "$tool" >/dev/null && continue
        missing+=("$(printf '%-9s %s' "$tool" "$(get "$tool")")")
    done
    [ ${#missing[@]} = 0 ] && return
    echo "error: missing on this machine, each with the command that brings it:" >&2
    printf '  %s\n' "${missing[@]}" >&2
    echo "Without a cluster, \`make up\` runs the same manifests with Python alone." >&2
    exit 1
}

up() {
    need docker kind kubectl istioctl curl
    docker info >/dev/null 2>&1 || fail "no Docker engine answers; start it (systemctl start docker), or set DOCKER_HOST"
    docker buildx version >/dev/null 2>&1 || fail "docker has no buildx plugin; see https://docs.docker.com/build/install-buildx/"
    local found port
    found=$(kind version --quiet 2>/dev/null || true)
    printf '%s\n' "$KIND_VERSION" "${found#v}" | sort -VC \
        || fail "kind is ${found:-of an unknown version}; v$KIND_VERSION or newer is needed: $(get kind)"
    found=$(istioctl version --remote=false --short 2>/dev/null || true)
    found=${found##* }
    if ! [[ $found =~ ^v?([0-9]+\.[0-9]+)\. && " $ISTIO_TESTED " == *" ${BASH_REMATCH[1]} "* ]]; then
        echo "warning: istioctl is ${found:-of an unknown version}; the exercises were run on Istio ${ISTIO_TESTED// / and }. To get that:" >&2
        echo "  $(get istioctl)" >&2
    fi

    if have_cluster; then
        step "Using the cluster $CLUSTER"
        port=$(published_port)
        [ -z "$port" ] || [ "${GUESTBOOK_PORT:-$port}" = "$port" ] \
            || fail "the cluster $CLUSTER was created with port $port; for port $GUESTBOOK_PORT remove it first: make kind-down"
        PORT=${port:-$PORT}
        kind export kubeconfig --name "$CLUSTER" --quiet
        kube get --raw /readyz >/dev/null \
            || fail "the cluster $CLUSTER is not whole (was its creation interrupted?); make kind-down, then make kind"
    else
        ! (exec 3<>"/dev/tcp/127.0.0.1/$PORT") 2>/dev/null \
            || fail "port $PORT of this machine is taken (by \`make up\` or Compose?); stop what uses it, or take another: GUESTBOOK_PORT=8081 make kind"
        step "Creating the cluster $CLUSTER (a minute or two; the first time it downloads the node)"
        sed "s/hostPort: 8080/hostPort: $PORT/" k8s/kind.yaml \
            | kind create cluster --config - --wait 2m ${NODE_IMAGE:+--image "$NODE_IMAGE"}
    fi
    local url=http://localhost:$PORT

    [ -n "${PREBUILT:-}" ] || REGISTRY='' TAG=v1 PLATFORMS='' PUSH='' scripts/images.sh
    step "Loading the images into the node"
    kind load docker-image --name "$CLUSTER" "${IMAGES[@]}"

    step "Installing Istio $found"
    istioctl install --context "$CONTEXT" -y -f istio/install/istio.yaml -f istio/install/kind.yaml
    kube label namespace default istio-injection=enabled --overwrite
    # Where `guestbook exercise run` finds the page; nothing in the cluster knows the port of this machine.
    kube -n istio-system annotate --overwrite service istio-ingressgateway "guestbook-url=$url"

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
    curl --noproxy '*' --silent --show-error --fail --output /dev/null --retry 60 --retry-delay 1 --retry-all-errors "$url/" \
        || fail "$url does not answer; look with: kubectl --context $CONTEXT -n istio-system logs deploy/istio-ingressgateway"
    echo
    echo "The guestbook: $url"
    echo "kubectl's context is $CONTEXT. The exercises, one by one (istio/README.md), after:"
    echo "  export INGRESS=$url"
    echo "or all at once:"
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

[ -z "${GUESTBOOK_ENV:-}" ] || fail "in this shell kubectl is the lab's; first: eval \"\$(guestbook env --off)\""
case ${1:-} in
up) up ;;
down) down ;;
*) echo "usage: scripts/kind.sh up|down" >&2; exit 2 ;;
esac
