{{/* How NMI's pods are replaced: what makes a pod unavailable leaves no room for a surge. */}}
{{- define "podidentity.updateStrategy" -}}
{{- $strategy := deepCopy (.Values.nmi.updateStrategy | default (dict "type" "RollingUpdate" "rollingUpdate" (dict "maxSurge" 1 "maxUnavailable" 0))) -}}
{{- if include "podidentity.dropsSurge" . -}}
{{- $_ := unset $strategy.rollingUpdate "maxSurge" -}}
{{- else if ne $strategy.type "RollingUpdate" -}}
{{- $_ := unset $strategy "rollingUpdate" -}}
{{- end -}}
{{- toYaml $strategy -}}
{{- end }}

{{- define "podidentity.dropsSurge" -}}
{{- $strategy := .Values.nmi.updateStrategy | default dict -}}
{{- $unavailable := dig "rollingUpdate" "maxUnavailable" 0 $strategy | toString -}}
{{- if and (eq ($strategy.type | default "RollingUpdate") "RollingUpdate") (not (has $unavailable (list "0" "0%"))) }}true{{ end -}}
{{- end }}

{{/* Fails where NMI of `podidentity enable` is in the cluster, and that of this release is not yet: a node has one NMI. Helm finds nothing where it only renders. */}}
{{- define "podidentity.onlyOne" -}}
{{- $mine := lookup "apps/v1" "DaemonSet" .Release.Namespace (include "podidentity.nmi" .) -}}
{{- if ne (dig "metadata" "labels" "app.kubernetes.io/part-of" "" $mine) "podidentity" -}}
{{- range (lookup "apps/v1" "DaemonSet" "" "").items -}}
{{- $labels := .metadata.labels | default dict -}}
{{- if and (eq (dig "app.kubernetes.io/name" "" $labels) "podidentity") (eq (dig "app.kubernetes.io/component" "" $labels) "nmi") -}}
{{- fail (printf `

NMI of podidentity enable is in this cluster (DaemonSet %s/%s), and a node has one NMI. Take it away, and give Helm the same command again; the rules of the nodes stay meanwhile, and pods get no token:

    podidentity disable --namespace %s
    helm upgrade --install %s deploy/chart --namespace %s --take-ownership --force-conflicts …

` .metadata.namespace .metadata.name .metadata.namespace $.Release.Name $.Release.Namespace) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end }}

{{/* Another folder of network namespaces: the volume, where it is mounted, and the flag. */}}
{{- define "podidentity.netnsDir" -}}
{{- $path := .path -}}
{{- range .pod.volumes }}{{ if eq .name "netns" }}{{ $_ := set .hostPath "path" $path }}{{ end }}{{ end -}}
{{- range .pod.containers -}}
{{- range .volumeMounts }}{{ if eq .name "netns" }}{{ $_ := set . "mountPath" $path }}{{ end }}{{ end -}}
{{- $_ := set . "args" (has "--netns-dir=/run/netns" .args | ternary (append (without .args "--netns-dir=/run/netns") (printf "--netns-dir=%s" $path)) .args) -}}
{{- end -}}
{{- end }}

{{/* NMI's flags by the values, a list; a later one wins. */}}
{{- define "podidentity.nmiFlags" -}}
{{- $nmi := .Values.nmi -}}
{{- $flags := list -}}
{{- if eq .Values.operationMode "standard" }}{{ $flags = append $flags "--operation-mode=standard" }}{{ end -}}
{{- if include "podidentity.asNode" . }}{{ $flags = append $flags "--tokens-as=node" }}{{ end -}}
{{- with .Values.aks.extensions -}}
{{- $flags = append $flags (printf "--exception-namespaces=%s" (concat . (list "kube-system" $.Release.Namespace) | uniq | sortAlpha | join ",")) -}}
{{- end -}}
{{- if .Values.startupTaint.enabled }}{{ $flags = append $flags (printf "--startup-taint=%s" (.Values.startupTaint.key | default "aadpodidentity.k8s.io/agent-not-ready")) }}{{ end -}}
{{- if eq .Values.backend "lrp" }}{{ $flags = append $flags "--backend=lrp" }}{{ end -}}
{{- with .Values.tokens.identitiesNamespace }}{{ if ne . "podidentity-identities" }}{{ $flags = append $flags (printf "--identities-namespace=%s" .) }}{{ end }}{{ end -}}
{{- $words := dict
  "--http-probe-port" ($nmi.probePort | toString | eq "8085" | ternary "" $nmi.probePort)
  "--prometheus-port" $nmi.prometheusPort
  "--metrics-secure-port" ($nmi.metricsSecurePort | toString | eq "9447" | ternary "" $nmi.metricsSecurePort)
  "--retry-attempts-for-created" $nmi.retryAttemptsForCreated
  "--retry-attempts-for-assigned" $nmi.retryAttemptsForAssigned
  "--find-identity-retry-interval" $nmi.findIdentityRetryIntervalInSeconds
  "--log-format" $nmi.loggingFormat
  "--authorization" ($nmi.authorization | eq "rbac" | ternary "" $nmi.authorization)
  "--audit-log" $nmi.auditLog
  "--custom-user-agent" .Values.customUserAgent
-}}
{{- range $flag := keys $words | sortAlpha -}}
{{- $word := include "podidentity.text" (get $words $flag) -}}
{{- if $word }}{{ $flags = append $flags (printf "%s=%s" $flag $word) }}{{ end -}}
{{- end -}}
{{- if not (has (include "podidentity.text" $nmi.logVerbosity) (list "" "0")) }}{{ $flags = append $flags (printf "--v=%v" $nmi.logVerbosity) }}{{ end -}}
{{- $switches := dict
  "--enableScaleFeatures" (list $nmi.enableScaleFeatures true)
  "--block-instance-metadata" (list $nmi.blockInstanceMetadata false)
  "--metadata-header-required" (list $nmi.metadataHeaderRequired true)
  "--set-retry-after-header" (list $nmi.setRetryAfterHeader false)
  "--forceNamespaced" (list (not .Values.compat.crossNamespace) true)
  "--compat-cross-namespace" (list .Values.compat.crossNamespace false)
  "--compat-foreign-secrets" (list .Values.compat.foreignSecrets false)
  "--compat-any-label-exceptions" (list .Values.compat.anyLabelExceptions false)
  "--compat-text-errors" (list .Values.compat.textErrors false)
  "--compat-open-metrics" (list .Values.compat.openMetrics false)
-}}
{{- range $flag := keys $switches | sortAlpha -}}
{{- $pair := get $switches $flag -}}
{{- $word := include "podidentity.text" (first $pair) | lower -}}
{{- if and $word (ne $word (last $pair | toString)) }}{{ $flags = append $flags (printf "%s=%s" $flag $word) }}{{ end -}}
{{- end -}}
{{- concat $flags ($nmi.extraArgs | default list) | toYaml -}}
{{- end }}

{{/* "true" or "": whether NMI waits for a controller's records. */}}
{{- define "podidentity.standard" -}}
{{- $mode := "" -}}
{{- range include "podidentity.nmiFlags" . | fromYamlArray -}}
{{- if hasPrefix "--operation-mode=" . }}{{ $mode = trimPrefix "--operation-mode=" . }}{{ end -}}
{{- end -}}
{{- if eq $mode "standard" }}true{{ end -}}
{{- end }}

{{/* "true" or "": whether NMI asks for tokens of service accounts, for federated identities. */}}
{{- define "podidentity.asks" -}}
{{- range .Values.rbac.identityTypes }}{{ if eq (toString .) "3" }}true{{ end }}{{ end -}}
{{- end }}

{{/* "true" or "": whether it does so as its node. */}}
{{- define "podidentity.asNode" -}}
{{- if and (include "podidentity.asks" .) (include "podidentity.since" (dict "root" . "value" .Values.tokens.asNode "version" "1.36")) }}true{{ end -}}
{{- end }}
