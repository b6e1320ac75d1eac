#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# Prints the rules as the PrometheusRule of a Kubernetes cluster with the Prometheus operator, out of the files that a plain
# Prometheus reads: `deploy/prometheus/prometheus_rule.sh | kubectl apply -f -`.
set -eu
cd "$(dirname "$0")/rules"
cat <<'TEXT'
apiVersion: monitoring.coreos.com/v1
kind: PrometheusRule
metadata:
  name: swiglu
  labels:
    app.kubernetes.io/name: swiglu
spec:
  groups:
TEXT
for file in *.yml; do
  sed -n '/^groups:$/,$p' "$file" | sed -e 1d -e 's/^./  &/'
done
