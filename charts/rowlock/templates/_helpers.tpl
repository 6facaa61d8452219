{{- define "rowlock.name" -}}
{{- $name := ternary .Release.Name (printf "%s-%s" .Release.Name .Chart.Name) (contains .Chart.Name .Release.Name) }}
{{- $name | trunc 46 | trimSuffix "-" }}-operator
{{- end }}

{{- define "rowlock.selector" -}}
app.kubernetes.io/name: rowlock-operator
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "rowlock.labels" -}}
{{ include "rowlock.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* What is cluster-wide has the release's namespace in its name: two releases may share a cluster. */}}
{{- define "rowlock.clusterName" -}}
{{ include "rowlock.name" . }}-{{ .Release.Namespace }}
{{- end }}

{{- define "rowlock.serviceAccount" -}}
{{- if .Values.serviceAccount.create -}}
{{ .Values.serviceAccount.name | default (include "rowlock.name" .) }}
{{- else -}}
{{ required "serviceAccount.name is required where serviceAccount.create is false" .Values.serviceAccount.name }}
{{- end }}
{{- end }}

{{/* The only namespace, if it is to be one alone. */}}
{{- define "rowlock.namespace" -}}
{{- if and .Values.namespace (or .Values.namespaces .Values.rbac.clusterWide) }}
{{- fail "namespace is for one namespace alone: leave it empty, or namespaces and rbac.clusterWide" }}
{{- end }}
{{- .Values.namespace }}
{{- end }}

{{/* Where TaskQueues are run, as a JSON array; it means nothing with rbac.clusterWide. */}}
{{- define "rowlock.namespaces" -}}
{{- with include "rowlock.namespace" . }}
{{- list . | toJson }}
{{- else }}
{{- append .Values.namespaces .Release.Namespace | uniq | toJson }}
{{- end }}
{{- end }}

{{- define "rowlock.image" -}}
{{- $registry := .root.Values.registry | trimSuffix "/" -}}
{{ with $registry }}{{ . }}/{{ end }}{{ .image.repository }}:{{ .image.tag | default .root.Chart.AppVersion }}
{{- end }}

{{- define "rowlock.subject" -}}
- kind: ServiceAccount
  name: {{ include "rowlock.serviceAccount" . }}
  namespace: {{ .Release.Namespace }}
{{- end }}
