#!/bin/sh
# Install the add-ons of the observability exercise, at the version of Istio: Prometheus, Grafana,
# Kiali (from Istio's samples) and Zipkin (addons/zipkin.yaml). `./addons.sh delete` takes them away.
#
# One by one, not the whole samples folder: Jaeger's file there would take Zipkin's Services over.
set -eu

here=$(dirname "$0")
. "$here/versions.env"
samples="https://raw.githubusercontent.com/istio/istio/$ISTIO_VERSION/samples/addons"
kubectl=${KUBECTL:-kubectl}

case "${1:-apply}" in
  apply)
    for addon in prometheus grafana kiali; do
      echo "==> $addon"
      $kubectl apply -f "$samples/$addon.yaml"
    done
    echo "==> zipkin"
    $kubectl apply -f "$here/addons/zipkin.yaml" -f "$here/telemetry.yaml"
    for addon in prometheus grafana kiali zipkin; do
      $kubectl -n istio-system rollout status "deployment/$addon" --timeout=300s
    done
    ;;
  delete)
    for addon in kiali grafana prometheus; do
      $kubectl delete --ignore-not-found -f "$samples/$addon.yaml"
    done
    $kubectl delete --ignore-not-found -f "$here/telemetry.yaml" -f "$here/addons/zipkin.yaml"
    ;;
  *)
    echo "usage: $0 [apply|delete]" >&2
    exit 2
    ;;
esac
