{{/* How MIC signs in to Azure: federation and secret need nothing of its node. */}}
{{- define "podidentity.micSignsInBy" -}}
{{- $secret := .Values.adminsecret | default dict -}}
{{- if .Values.mic.federation.clientID -}}federation
{{- else if include "podidentity.on" $secret.useMSI -}}managed identity
{{- else if or $secret.clientID $secret.existingSecret -}}secret
{{- else -}}file
{{- end -}}
{{- end }}

{{/* Files of the node, of whom the values' are as good as none where they are empty. */}}
{{- define "podidentity.cloudConfig" -}}
{{ .cloudConfig | default "/etc/kubernetes/azure.json" }}
{{- end }}
{{- define "podidentity.customCloud" -}}
{{ .customCloud.configPath | default "/etc/kubernetes/akscustom.json" }}
{{- end }}

{{/* MIC's flags by the values, a list; a later one wins. */}}
{{- define "podidentity.micFlags" -}}
{{- $mic := .Values.mic -}}
{{- $by := include "podidentity.micSignsInBy" . -}}
{{- $flags := list -}}
{{- with .Values.aks.extensions -}}
{{- $flags = append $flags (printf "--exception-namespaces=%s" (concat . (list "kube-system" $.Release.Namespace) | uniq | sortAlpha | join ",")) -}}
{{- end -}}
{{- $words := dict
  "--cloudconfig" (eq $by "file" | ternary (include "podidentity.cloudConfig" $mic) "")
  "--azure-client-id" $mic.federation.clientID
  "--azure-tenant-id" $mic.federation.tenantID
  "--assign" (eq $mic.assign "pods" | ternary "" $mic.assign)
  "--leader-election-instance" $mic.leaderElection.instance
  "--leader-election-namespace" $mic.leaderElection.namespace
  "--leader-election-name" $mic.leaderElection.name
  "--leader-election-duration" $mic.leaderElection.duration
  "--http-probe-port" $mic.probePort
  "--prometheus-port" $mic.prometheusPort
  "--immutable-user-msis" ($mic.immutableUserMSIs | default list | join ",")
  "--createDeleteBatch" $mic.createDeleteBatch
  "--identity-assignment-reconcile-interval" $mic.identityAssignmentReconcileInterval
  "--log-format" $mic.loggingFormat
  "--authorization" (eq .Values.nmi.authorization "rbac" | ternary "" .Values.nmi.authorization)
  "--custom-user-agent" .Values.customUserAgent
-}}
{{- range $flag := keys $words | sortAlpha -}}
{{- $word := include "podidentity.text" (get $words $flag) -}}
{{- if $word }}{{ $flags = append $flags (printf "%s=%s" $flag $word) }}{{ end -}}
{{- end -}}
{{- if include "podidentity.on" $mic.customCloud.enabled -}}
{{- $flags = concat $flags (list "--cloud=AzureStackCloud" (printf "--azure-environment-file=%s" (include "podidentity.customCloud" $mic))) -}}
{{- end -}}
{{- if $mic.attachForNodeNetwork }}
{{- if ne .Values.nmi.authorization "rbac" }}{{ fail "mic.attachForNodeNetwork needs nmi.authorization rbac: MIC attaches only what the pod's service account may use" }}{{ end -}}
{{- $flags = append $flags "--attach-for-node-network=true" -}}
{{- end -}}
{{- if .Values.compat.crossNamespace }}{{ $flags = append $flags "--compat-cross-namespace=true" }}{{ end -}}
{{- if not (has (include "podidentity.text" $mic.logVerbosity) (list "" "0")) }}{{ $flags = append $flags (printf "--v=%v" $mic.logVerbosity) }}{{ end -}}
{{- concat $flags ($mic.extraArgs | default list) | toYaml -}}
{{- end }}

{{/* MIC's Deployment, of files/mic.yaml, as the values have it. */}}
{{- define "podidentity.micDeployment" -}}
{{- $root := .root -}}
{{- $mic := $root.Values.mic -}}
{{- $name := include "podidentity.mic" $root -}}
{{- $by := include "podidentity.micSignsInBy" $root -}}
{{- $kept := ($root.Values.adminsecret | default dict).existingSecret | default "" -}}
{{- $selector := include "podidentity.selector" (dict "root" $root "component" "mic") | fromYaml -}}
{{- $deployment := .deployment -}}
{{- $template := $deployment.spec.template -}}
{{- $pod := $template.spec -}}
{{- $container := first $pod.containers -}}
{{- $_ := set $deployment.metadata "name" $name -}}
{{- $_ := set $deployment.spec "replicas" $mic.replicas -}}
{{- $_ := set $deployment.spec "selector" (dict "matchLabels" $selector) -}}
{{- $_ := set $template.metadata "labels" (mergeOverwrite (deepCopy ($mic.podLabels | default dict)) $selector (dict "app.kubernetes.io/part-of" "podidentity")) -}}
{{- $annotations := deepCopy ($mic.podAnnotations | default dict) -}}
{{- if and (has $by (list "secret" "managed identity")) (not $kept) -}}
{{- $_ := set $annotations "checksum/config" (toJson $root.Values.adminsecret | sha256sum) -}}
{{- end -}}
{{- with $annotations }}{{ $_ := set $template.metadata "annotations" . }}{{ end -}}
{{- $_ := set $pod "serviceAccountName" $name -}}
{{- with $mic.priorityClassName }}{{ $_ := set $pod "priorityClassName" . }}{{ end -}}
{{- $_ := set $pod "nodeSelector" ($mic.nodeSelector | default dict) -}}
{{- with $mic.tolerations }}{{ $_ := set $pod "tolerations" . }}{{ end -}}
{{- $_ := set $pod "affinity" (include "podidentity.affinity" (dict "own" ($pod.affinity | default dict) "asked" ($mic.affinity | default dict)) | fromYaml) -}}
{{- range $pod.topologySpreadConstraints }}{{ $_ := set . "labelSelector" (dict "matchLabels" $selector) }}{{ end -}}
{{- with $mic.topologySpreadConstraints }}{{ $_ := set $pod "topologySpreadConstraints" . }}{{ end -}}
{{- with $root.Values.imagePullSecrets }}{{ $_ := set $pod "imagePullSecrets" . }}{{ end -}}
{{- $_ := set $container "image" (include "podidentity.image" $root) -}}
{{- $_ := set $container "imagePullPolicy" $root.Values.image.imagePullPolicy -}}
{{- $_ := set $container "args" (concat $container.args (include "podidentity.micFlags" $root | fromYamlArray)) -}}
{{- include "podidentity.withinLimits" (dict "of" "mic.resources" "resources" $mic.resources) -}}
{{- $_ := set $container "resources" $mic.resources -}}
{{- $port := $mic.probePort | default 8080 | int -}}
{{- $_ := set $container.readinessProbe.httpGet "port" $port -}}
{{- $_ := set $container.livenessProbe.httpGet "port" $port -}}
{{- $env := list -}}
{{- range $container.env -}}
{{- $key := dig "valueFrom" "secretKeyRef" dict . -}}
{{- if not $key -}}{{- $env = append $env . -}}
{{- else if has $by (list "secret" "managed identity") -}}
{{- $_ := set $key "name" ($kept | default $name) -}}{{- $env = append $env . -}}
{{- end -}}
{{- end -}}
{{- if eq $by "managed identity" -}}
{{- range $variable, $key := dict "USE_MSI" "UseMSI" "USER_ASSIGNED_MSI_CLIENT_ID" "UserAssignedMSIClientID" -}}
{{- $env = append $env (dict "name" $variable "valueFrom" (dict "secretKeyRef" (dict "name" ($kept | default $name) "key" $key "optional" true))) -}}
{{- end -}}
{{- end -}}
{{- $_ := set $container "env" $env -}}
{{- $files := list -}}
{{- if eq $by "file" }}{{ $files = append $files (list "cloud-config" (include "podidentity.cloudConfig" $mic)) }}{{ end -}}
{{- if include "podidentity.on" $mic.customCloud.enabled }}{{ $files = append $files (list "custom-cloud" (include "podidentity.customCloud" $mic)) }}{{ end -}}
{{- range $files -}}
{{- $_ := set $pod "volumes" (append $pod.volumes (dict "name" (first .) "hostPath" (dict "path" (last .) "type" "File"))) -}}
{{- $_ := set $container "volumeMounts" (append $container.volumeMounts (dict "name" (first .) "mountPath" (last .) "readOnly" true)) -}}
{{- end -}}
{{- if $files -}}{{- /* Those files are root's. */ -}}
{{- $_ := set $pod "securityContext" (mergeOverwrite $pod.securityContext (dict "runAsUser" 0 "runAsGroup" 0 "runAsNonRoot" false)) -}}
{{- end -}}
{{- include "podidentity.byProxy" (dict "root" $root "pod" $pod) -}}
{{- toYaml $deployment -}}
{{- end }}
