{{- define "rowlock.name" -}}
{{- $chart := .Values.nameOverride | default .Chart.Name }}
{{- $name := ternary .Release.Name (printf "%s-%s" .Release.Name $chart) (contains $chart .Release.Name) }}
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
{{- /* A digest says what it is; a tag beside it is for people. */ -}}
{{ with $registry }}{{ . }}/{{ end }}{{ .image.repository }}
{{- if or .image.tag (not .image.digest) }}:{{ .image.tag | default .root.Chart.AppVersion }}{{ end }}
{{- with .image.digest }}@{{ . }}{{ end }}
{{- end }}

{{/* What the operator may do with TaskQueues. */}}
{{- define "rowlock.taskQueueRules" -}}
- apiGroups: [rowlock.dev]
  resources: [taskqueues]
  verbs: [list, watch]
- apiGroups: [rowlock.dev]
  resources: [taskqueues/status]
  verbs: [patch]
# What a TaskQueue with scaling External begins with, where nobody has said a number.
- apiGroups: [rowlock.dev]
  resources: [taskqueues/scale]
  verbs: [patch]
# Where owner references are checked, such as on OpenShift.
- apiGroups: [rowlock.dev]
  resources: [taskqueues/finalizers]
  verbs: [update]
# Its uid is a part of the name by which a database knows whose a queue is.
- apiGroups: [""]
  resources: [namespaces]
  resourceNames: [{{ include "rowlock.namespace" . | default "kube-system" }}]
  verbs: [get]
{{- end }}

{{/* What it does in a namespace. */}}
{{- define "rowlock.namespaceRules" -}}
# The pods of each TaskQueue.
- apiGroups: [apps]
  resources: [deployments]
  verbs: [get, list, watch, create, patch, update]
# How many of them a drain of nodes takes at a time.
- apiGroups: [policy]
  resources: [poddisruptionbudgets]
  verbs: [get, list, watch, create, patch]
# Why they do not run.
- apiGroups: [""]
  resources: [pods]
  verbs: [list, watch]
# The URL of a database, and the certificates of its authority, by the names that TaskQueues give.
- apiGroups: [""]
  resources: [secrets, configmaps]
  verbs: [get]
# What it tells people; and what kubelets tell of a pod that hangs.
- apiGroups: [events.k8s.io]
  resources: [events]
  verbs: [create, patch, list]
{{- end }}

{{- define "rowlock.subject" -}}
- kind: ServiceAccount
  name: {{ include "rowlock.serviceAccount" . }}
  namespace: {{ .Release.Namespace }}
{{- end }}
