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
{{- end }}

{{/* What is cluster-wide has the release's namespace in its name: two releases may share a cluster. */}}
{{- define "rowlock.clusterName" -}}
{{ include "rowlock.name" . }}-{{ .Release.Namespace }}
{{- end }}

{{- define "rowlock.image" -}}
{{- $registry := .root.Values.registry | trimSuffix "/" -}}
{{ with $registry }}{{ . }}/{{ end }}{{ .image.repository }}:{{ .image.tag | default .root.Chart.AppVersion }}
{{- end }}

{{- define "rowlock.subject" -}}
- kind: ServiceAccount
  name: {{ include "rowlock.name" . }}
  namespace: {{ .Release.Namespace }}
{{- end }}
