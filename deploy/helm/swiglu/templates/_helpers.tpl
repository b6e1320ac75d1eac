{{- /*
SPDX-License-Identifier: Apache-2.0

Names, labels and the numbers that follow from the values. Each definition says what its argument is.
*/ -}}

{{- /* The name of the objects; of the root. */ -}}
{{- define "swiglu.fullname" -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- $full := ternary .Release.Name (printf "%s-%s" .Release.Name $name) (contains $name .Release.Name) -}}
{{- default $full .Values.fullnameOverride | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{- /* The labels by which objects find the pods; of the root. */ -}}
{{- define "swiglu.selectorLabels" -}}
app.kubernetes.io/name: {{ include "swiglu.fullname" . | quote }}
{{- end -}}

{{- /* The metadata that all objects have; of {root, labels, annotations}, the last two optional. */ -}}
{{- define "swiglu.metadata" -}}
{{- $own := dict
  "app.kubernetes.io/instance" .root.Release.Name
  "app.kubernetes.io/managed-by" .root.Release.Service
  "app.kubernetes.io/version" .root.Chart.AppVersion
  "helm.sh/chart" (printf "%s-%s" .root.Chart.Name .root.Chart.Version) -}}
{{- $selector := include "swiglu.selectorLabels" .root | fromYaml -}}
{{- $annotations := mergeOverwrite (dict) (default dict .root.Values.annotations) (default dict .annotations) -}}
namespace: {{ .root.Release.Namespace | quote }}
labels:
  {{- mergeOverwrite (dict) (default dict .root.Values.labels) (default dict .labels) $own $selector | toYaml | nindent 2 }}
{{- with $annotations }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{- /* The image; of the root. */ -}}
{{- define "swiglu.image" -}}
{{- with .Values.image -}}
{{- if .digest -}}
{{ .repository }}@{{ .digest }}
{{- else -}}
{{ .repository }}:{{ default $.Chart.AppVersion .tag }}
{{- end -}}
{{- end -}}
{{- end -}}

{{- /* The limits and requests of a replica; of the root. */ -}}
{{- define "swiglu.resources" -}}
{{- $gpu := eq .Values.device "gpu" -}}
{{- $defaults := ternary (dict "cpu" 8 "memory" "8Gi") (dict "cpu" 4 "memory" "4Gi") $gpu -}}
{{- $limits := merge (dict) (default dict .Values.resources.limits) $defaults -}}
{{- $requests := merge (dict) (default dict .Values.resources.requests) $limits -}}
{{- range $kind, $values := dict "limits" $limits "requests" $requests }}
{{ $kind }}:
  {{- range $name, $value := $values }}
  {{ $name }}: {{ $value | toString | quote }}
  {{- end }}
  {{- if $gpu }}
  {{ $.Values.gpuResource }}: {{ $.Values.gpus | toString | quote }}
  {{- end }}
{{- end }}
{{- end -}}

{{- /* The thousandths of a core: of 4, "4" or "500m". */ -}}
{{- define "swiglu.milliCores" -}}
{{- $text := toString . -}}
{{- hasSuffix "m" $text | ternary (trimSuffix "m" $text | int64) (mul ($text | int64) 1000) -}}
{{- end -}}

{{- /* The whole cores of a limit, but at least one, and at most 256: the server takes no more threads. */ -}}
{{- define "swiglu.cores" -}}
{{- div (include "swiglu.milliCores" . | int64) 1000 | max 1 | min 256 -}}
{{- end -}}

{{- /* The bytes of a size of Kubernetes or of the server's flags: of "4Gi" or "4GiB"; 0 of "". */ -}}
{{- define "swiglu.bytes" -}}
{{- $unit := get (dict "Ki" 1024 "Mi" 1048576 "Gi" 1073741824 "Ti" 1099511627776) (regexFind "[A-Z]i" .) -}}
{{- mul (regexFind "^[0-9]+" . | int64) (default 1 $unit) -}}
{{- end -}}

{{- /* The seconds of a duration such as "15s" or "1m". */ -}}
{{- define "swiglu.seconds" -}}
{{- mul (regexFind "^[0-9]+" . | int64) (get (dict "s" 1 "m" 60 "h" 3600) (regexFind "[a-z]$" .)) -}}
{{- end -}}

{{- /* Half of a memory limit such as "4Gi", as the server's flags write it: "2GiB". */ -}}
{{- define "swiglu.halfOfMemory" -}}
{{- $mebibytes := div (include "swiglu.bytes" . | int64) 2097152 -}}
{{- if mod $mebibytes 1024 -}}
{{ $mebibytes }}MiB
{{- else -}}
{{ div $mebibytes 1024 }}GiB
{{- end -}}
{{- end -}}

{{- /* The server's command line, a list; of the root. */ -}}
{{- define "swiglu.arguments" -}}
{{- $limits := (include "swiglu.resources" . | fromYaml).limits -}}
{{- $cores := include "swiglu.cores" $limits.cpu -}}
- --grpc_address=0.0.0.0:8001
- --metrics_address=0.0.0.0:8002
- --drain_delay={{ .Values.drainDelaySeconds }}s
- --drain_timeout={{ .Values.drainTimeoutSeconds }}s
- --log_format=json
{{- if eq .Values.device "gpu" }}
- --device=cuda
- --io_threads={{ $cores }}
{{- else }}
- --device=cpu
- --io_threads={{ $cores }}
- --lanes_per_device={{ min 64 $cores }}
{{- end }}
- --memory_budget_bytes={{ default (include "swiglu.halfOfMemory" $limits.memory) .Values.memoryBudget }}
{{- range $mlp := .Values.mlps }}
- {{ printf "--mlp=%s=/weights/%s/%s" .name .name (default "" .path) | trimSuffix "/" | quote }}
{{- with .layers }}
- {{ printf "--mlp_layers=%s=%s" $mlp.name . | quote }}
{{- end }}
{{- end }}
{{- with .Values.extraArgs }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- /* maxSurge and maxUnavailable of a rollout; of the root. */ -}}
{{- define "swiglu.rollingUpdate" -}}
{{- $gpu := eq .Values.device "gpu" -}}
{{- $defaults := ternary (dict "maxSurge" 0 "maxUnavailable" 1) (dict "maxSurge" 1 "maxUnavailable" 0) $gpu -}}
{{- mergeOverwrite $defaults (default dict .Values.rollingUpdate) | toYaml -}}
{{- end -}}

{{- /* The labels of the pods that may call the server, or nothing if no pod's labels allow that; of the root. */ -}}
{{- define "swiglu.clientLabels" -}}
{{- $labels := .Values.networkPolicy.clientLabels -}}
{{- if not (kindIs "invalid" $labels) -}}
{{- default (dict "swiglu-client" "true") $labels | toYaml -}}
{{- end -}}
{{- end -}}

{{- /* The name of the Service of the metrics: one of its own if the server's is reachable from outside; of the root. */ -}}
{{- define "swiglu.metricsServiceName" -}}
{{- $name := include "swiglu.fullname" . -}}
{{- if has .Values.service.type (list "Headless" "ClusterIP") -}}
{{ $name }}
{{- else -}}
{{ $name | trunc 55 | trimSuffix "-" }}-metrics
{{- end -}}
{{- end -}}

{{- /* The service account of the pods, or nothing for that of the namespace; of the root. */ -}}
{{- define "swiglu.serviceAccountName" -}}
{{- with .Values.serviceAccount -}}
{{- default (ternary (include "swiglu.fullname" $) "" .create) .name -}}
{{- end -}}
{{- end -}}

{{- /* The security contexts of the pods and of their containers: the Pod Security Standard `restricted`. */ -}}
{{- define "swiglu.podSecurityContext" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
seccompProfile:
  type: RuntimeDefault
{{- end -}}
{{- define "swiglu.securityContext" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop:
    - ALL
{{- end -}}
