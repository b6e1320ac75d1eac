{{- /*
SPDX-License-Identifier: Apache-2.0

Fails for values that values.schema.json allows, and that do not fit each other. Each definition takes the root.
*/ -}}

{{- define "swiglu.checks" -}}
{{- include "swiglu.checkResources" . -}}
{{- include "swiglu.checkArguments" . -}}
{{- include "swiglu.checkMlps" . -}}
{{- include "swiglu.checkReplicas" . -}}
{{- include "swiglu.checkScrapes" . -}}
{{- end -}}

{{- /* Enough memory to start, a budget within it, and requests that Kubernetes takes. */ -}}
{{- define "swiglu.checkResources" -}}
{{- $resources := include "swiglu.resources" . | fromYaml -}}
{{- $limits := $resources.limits -}}
{{- $requests := $resources.requests -}}
{{- $memory := include "swiglu.bytes" $limits.memory | int64 -}}
{{- if lt $memory (include "swiglu.bytes" "64Mi" | int64) -}}
{{- fail (printf "resources.limits.memory is %s; the server needs 64Mi at least" $limits.memory) -}}
{{- end -}}
{{- if ge (include "swiglu.bytes" (default "" .Values.memoryBudget) | int64) $memory -}}
{{- fail (printf "memoryBudget is %s and resources.limits.memory %s; make the budget at most half of the limit"
  .Values.memoryBudget $limits.memory) -}}
{{- end -}}
{{- if gt (include "swiglu.milliCores" $requests.cpu | int64) (include "swiglu.milliCores" $limits.cpu | int64) -}}
{{- fail (printf "resources.requests.cpu is %s and resources.limits.cpu %s; make the request at most the limit"
  $requests.cpu $limits.cpu) -}}
{{- end -}}
{{- range $name := list "memory" "ephemeral-storage" -}}
{{- $request := get $requests $name -}}
{{- $limit := get $limits $name -}}
{{- if and $limit (gt (include "swiglu.bytes" $request | int64) (include "swiglu.bytes" $limit | int64)) -}}
{{- fail (printf "resources.requests.%s is %s and resources.limits.%s %s; make the request at most the limit"
  $name $request $name $limit) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- /* No flag from which other fields follow. */ -}}
{{- define "swiglu.checkArguments" -}}
{{- $values := dict "device" "device" "drain_delay" "drainDelaySeconds" "drain_timeout" "drainTimeoutSeconds" -}}
{{- range $argument := .Values.extraArgs -}}
{{- with get $values (regexFind "[a-z_]+" $argument) -}}
{{- fail (printf "extraArgs has %s; set %s instead, because other fields of the pods follow from it" $argument .) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "swiglu.checkMlps" -}}
{{- $names := list -}}
{{- range .Values.mlps -}}
{{- if has .name $names -}}
{{- fail (printf "mlps: two MLPs have the name '%s'; give each one a name of its own" .name) -}}
{{- end -}}
{{- $names = append $names .name -}}
{{- end -}}
{{- end -}}

{{- /* A rollout that can go on, and room for KEDA to choose. */ -}}
{{- define "swiglu.checkReplicas" -}}
{{- $rollout := include "swiglu.rollingUpdate" . | fromYaml -}}
{{- $most := max (toString $rollout.maxSurge | trimSuffix "%") (toString $rollout.maxUnavailable | trimSuffix "%") -}}
{{- if eq 0 (int $most) -}}
{{- fail (printf "rollingUpdate: maxSurge is %v and maxUnavailable %v; make one of them larger than 0"
  $rollout.maxSurge $rollout.maxUnavailable) -}}
{{- end -}}
{{- with .Values.autoscaling -}}
{{- if and .enabled (ge (int .minReplicas) (int .maxReplicas)) -}}
{{- fail (printf "autoscaling: minReplicas is %v and maxReplicas %v; make maxReplicas the larger one" .minReplicas .maxReplicas) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "swiglu.checkScrapes" -}}
{{- with .Values.serviceMonitor -}}
{{- if gt (include "swiglu.seconds" .scrapeTimeout | int64) (include "swiglu.seconds" .interval | int64) -}}
{{- fail (printf "serviceMonitor: scrapeTimeout is %s and interval %s; make the timeout at most the interval"
  .scrapeTimeout .interval) -}}
{{- end -}}
{{- end -}}
{{- end -}}
