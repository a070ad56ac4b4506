{{/* Names and labels. Those of DaemonSet, Deployment, their accounts and selectors are the archived chart's: else an upgrade of its release would be refused (a selector is immutable). */}}

{{- define "podidentity.name" -}}
{{ regexReplaceAll "[.-]+$" (.Values.nameOverride | default "aad-pod-identity" | trunc 59) "" }}
{{- end }}

{{- define "podidentity.fullname" -}}
{{- $name := .Values.nameOverride | default "aad-pod-identity" -}}
{{- $whole := contains $name .Release.Name | ternary .Release.Name (printf "%s-%s" .Release.Name $name) -}}
{{ regexReplaceAll "[.-]+$" (.Values.fullnameOverride | default $whole | trunc 58) "" }}
{{- end }}

{{- define "podidentity.nmi" -}}
{{ include "podidentity.name" . }}-nmi
{{- end }}

{{- define "podidentity.mic" -}}
{{ include "podidentity.name" . }}-mic
{{- end }}

{{- define "podidentity.selector" -}}
app.kubernetes.io/name: {{ include "podidentity.name" .root | quote }}
app.kubernetes.io/instance: {{ .root.Release.Name | quote }}
app.kubernetes.io/component: {{ .component }}
{{- end }}

{{/* Labels of every object; component is that of its manifest. */}}
{{- define "podidentity.labels" -}}
app.kubernetes.io/name: {{ include "podidentity.name" .root | quote }}
app.kubernetes.io/instance: {{ .root.Release.Name | quote }}
{{- with .component }}
app.kubernetes.io/component: {{ . }}
{{- end }}
app.kubernetes.io/part-of: podidentity
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" }}
{{- end }}

{{/* Fails where a group of values is missing: Helm itself would speak of a nil pointer. */}}
{{- define "podidentity.requireDefaults" -}}
{{- range list "image" "nmi" "mic" "mic.federation" "mic.leaderElection" "mic.customCloud" "rbac" "tokens" "lrp" "proxy" "startupTaint" "nodeUnit" "aks" "compat" "serviceMonitor" "prometheusRule" "dashboards" "networkPolicy" "test" -}}
{{- $there := $.Values -}}
{{- range splitList "." . }}{{ $there = index $there . }}{{ end -}}
{{- if not (kindIs "map" $there) -}}
{{- fail (printf `

value %s is missing. If your values have the key without a value, which takes its defaults away, leave the key out. Otherwise these are the defaults of another chart or version, in place of this one's, as --reuse-values has them. Give Helm the same command with --reset-then-reuse-values (3.14), or with --values and your file.

` .) -}}
{{- end -}}
{{- end -}}
{{- end }}

{{/* The image of all programs; fails where there is none. */}}
{{- define "podidentity.image" -}}
{{- $repository := .Values.image.repository -}}
{{- $tag := .Values.image.tag | default .Chart.AppVersion -}}
{{- if or (not $repository) (hasSuffix "aad-pod-identity" $repository) -}}
{{- fail (printf `

image.repository %s. Build the image, push it where the nodes may pull it, and name it:

    ./scripts/image
    skopeo copy --all oci-archive:dist/image/podidentity-%s.tar docker://REGISTRY/podidentity:%s
    helm upgrade --install %s deploy/chart --namespace %s --reset-then-reuse-values --set image.repository=REGISTRY/podidentity

` (empty $repository | ternary "is not set" (printf "%s is the archived project's, whose programs do not know the arguments of this chart" $repository)) .Chart.AppVersion $tag .Release.Name .Release.Namespace) -}}
{{- end -}}
{{- if .Values.image.digest -}}
{{ $repository }}@{{ .Values.image.digest }}
{{- else -}}
{{ $repository }}:{{ $tag }}
{{- end -}}
{{- end }}

{{/* A value as text; "" for a key without a value. */}}
{{- define "podidentity.text" -}}
{{- if not (kindIs "invalid" .) }}{{ toString . }}{{ end -}}
{{- end }}

{{/* "true" or "": a value that may be a word. */}}
{{- define "podidentity.on" -}}
{{- if eq (toString . | lower) "true" }}true{{ end -}}
{{- end }}

{{/* "true" or "": what is on from a version of Kubernetes on, unless the value says otherwise. */}}
{{- define "podidentity.since" -}}
{{- if eq (toString .value) "auto" -}}
{{- if semverCompare (printf ">=%s-0" .version) .root.Capabilities.KubeVersion.Version }}true{{ end -}}
{{- else -}}
{{- include "podidentity.on" .value -}}
{{- end -}}
{{- end }}

{{/* Name of the release's ClusterRole by which a resource may be used: a client id, or an ARM id in lower case. Those of `podidentity add` and `grant` have another name, and stay theirs. */}}
{{- define "podidentity.useRole" -}}
{{- $name := .resource -}}
{{- if contains "/" $name -}}
{{- $name = printf "%s-%s" (regexReplaceAll "[^a-z0-9-]+" (base $name) "-" | trunc 63) (sha256sum .resource | trunc 12) -}}
{{- end -}}
{{ include "podidentity.fullname" .root }}-use-{{ $name }}
{{- end }}
