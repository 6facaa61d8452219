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

{{/* Names of cluster-wide objects contain the release's namespace, so that two releases can share a cluster. */}}
{{- define "rowlock.clusterName" -}}
{{ include "rowlock.name" . }}-{{ .Release.Namespace }}
{{- end }}

{{- define "rowlock.serviceAccount" -}}
{{- if .Values.serviceAccount.create -}}
{{ .Values.serviceAccount.name | default (include "rowlock.name" .) }}
{{- else -}}
{{ required "serviceAccount.name is required if serviceAccount.create is false" .Values.serviceAccount.name }}
{{- end }}
{{- end }}

{{/* The only namespace to watch, or nothing. */}}
{{- define "rowlock.namespace" -}}
{{- if and .Values.namespace (or .Values.namespaces .Values.rbac.clusterWide) }}
{{- fail "namespace excludes namespaces and rbac.clusterWide: set only one of the three" }}
{{- end }}
{{- .Values.namespace }}
{{- end }}

{{/* The namespaces whose TaskQueues the operator runs, as a JSON array. Unused with rbac.clusterWide. */}}
{{- define "rowlock.namespaces" -}}
{{- with include "rowlock.namespace" . }}
{{- list . | toJson }}
{{- else }}
{{- append .Values.namespaces .Release.Namespace | uniq | toJson }}
{{- end }}
{{- end }}

{{- define "rowlock.image" -}}
{{- $registry := .root.Values.registry | trimSuffix "/" -}}
{{- /* A digest decides which image is pulled; a tag next to it only informs people. */ -}}
{{ with $registry }}{{ . }}/{{ end }}{{ .image.repository }}
{{- if or .image.tag (not .image.digest) }}:{{ .image.tag | default .root.Chart.AppVersion }}{{ end }}
{{- with .image.digest }}@{{ . }}{{ end }}
{{- end }}

{{/* Rights of the operator on TaskQueues. */}}
{{- define "rowlock.taskQueueRules" -}}
- apiGroups: [rowlock.dev]
  resources: [taskqueues]
  verbs: [list, watch]
- apiGroups: [rowlock.dev]
  resources: [taskqueues/status]
  verbs: [patch]
# To set the first number of replicas of a TaskQueue with scaling External that has none.
- apiGroups: [rowlock.dev]
  resources: [taskqueues/scale]
  verbs: [patch]
# For clusters that check owner references, such as OpenShift.
- apiGroups: [rowlock.dev]
  resources: [taskqueues/finalizers]
  verbs: [update]
# To read its uid, which is part of the name that a database stores as the owner of a queue.
- apiGroups: [""]
  resources: [namespaces]
  resourceNames: [{{ include "rowlock.namespace" . | default "kube-system" }}]
  verbs: [get]
{{- end }}

{{/* Rights of the operator in a namespace. */}}
{{- define "rowlock.namespaceRules" -}}
# The pods of each TaskQueue.
- apiGroups: [apps]
  resources: [deployments]
  verbs: [get, list, watch, create, patch, update]
# To scale the Deployments that TaskQueues name in targetRef.
- apiGroups: [apps]
  resources: [deployments/scale]
  verbs: [patch]
# To limit how many of these pods a node drain evicts at a time.
- apiGroups: [policy]
  resources: [poddisruptionbudgets]
  verbs: [get, list, watch, create, patch]
# To see why pods do not run, and to set the deletion cost of those that a scale-in ends.
- apiGroups: [""]
  resources: [pods]
  verbs: [list, watch, patch]
# Database URLs and CA certificates, by the names that TaskQueues give.
- apiGroups: [""]
  resources: [secrets, configmaps]
  verbs: [get]
# To create events, and to read those of the kubelet about a pod that does not start.
- apiGroups: [events.k8s.io]
  resources: [events]
  verbs: [create, patch, list]
{{- end }}

{{- define "rowlock.subject" -}}
- kind: ServiceAccount
  name: {{ include "rowlock.serviceAccount" . }}
  namespace: {{ .Release.Namespace }}
{{- end }}
