{{/*
The objects of a file of files/, as {items: [...]}. These are the manifests that `podidentity enable`
applies (./scripts/chart copies them), placed in the release: its namespace, its names of NMI's
account and roles, its labels. NMI and MIC have the archived chart's labels, all else keeps its own.
*/}}
{{- define "podidentity.objects" -}}
{{- $root := .root -}}
{{- $nmi := include "podidentity.nmi" $root -}}
{{- $namespace := $root.Release.Namespace -}}
{{- $text := $root.Files.Get (printf "files/%s" .file) | replace "serviceaccount:kube-system:podidentity-nmi" (printf "serviceaccount:%s:%s" $namespace $nmi) -}}
{{- range .replaced -}}
{{- $text = $text | replace (first .) (last .) -}}
{{- end -}}
{{- $items := list -}}
{{- range regexSplit "(?m)^---$" $text -1 -}}
{{- $document := fromYaml . -}}
{{- if hasKey $document "Error" -}}{{- fail $document.Error -}}{{- end -}}
{{- if eq $document.kind "List" -}}
{{- $items = concat $items $document.items -}}
{{- else -}}
{{- $items = append $items $document -}}
{{- end -}}
{{- end -}}
{{- $named := dict "podidentity-nmi" $nmi "podidentity-mic" (include "podidentity.mic" $root) -}}
{{- $own := list "ServiceAccount" "ClusterRole" "ClusterRoleBinding" "Role" "RoleBinding" -}}
{{- range $items -}}
{{- if and (has .kind $own) (hasKey $named .metadata.name) -}}
{{- $_ := set .metadata "name" (get $named .metadata.name) -}}
{{- end -}}
{{- if and (eq (.metadata.namespace | default "") "kube-system") (not $.keepsNamespace) -}}{{- $_ := set .metadata "namespace" $namespace -}}{{- end -}}
{{- range .subjects -}}
{{- if eq .kind "ServiceAccount" -}}
{{- $_ := set . "namespace" $namespace -}}
{{- if hasKey $named .name -}}{{- $_ := set . "name" (get $named .name) -}}{{- end -}}
{{- end -}}
{{- end -}}
{{- $role := dig "roleRef" "name" "" . -}}
{{- if hasKey $named $role -}}{{- $_ := set .roleRef "name" (get $named $role) -}}{{- end -}}
{{- $component := index (.metadata.labels | default dict) "app.kubernetes.io/component" -}}
{{- $labels := include "podidentity.labels" (dict "root" $root "component" $component) | fromYaml -}}
{{- if not (has $component (list "nmi" "mic")) -}}{{- $labels = mergeOverwrite $labels (.metadata.labels | default dict) -}}{{- end -}}
{{- $_ := set .metadata "labels" $labels -}}
{{- end -}}
{{- toYaml (dict "items" $items) -}}
{{- end }}

{{/* A quantity of Kubernetes as a number. */}}
{{- define "podidentity.amount" -}}
{{- $suffix := toString . | regexFind "[A-Za-z]*$" -}}
{{- $units := dict "" 1 "n" 1e-9 "u" 1e-6 "m" 1e-3 "k" 1e3 "M" 1e6 "G" 1e9 "T" 1e12 "P" 1e15 "E" 1e18 -}}
{{- $power := 1.0 -}}
{{- range list "Ki" "Mi" "Gi" "Ti" "Pi" "Ei" }}{{ $power = mulf $power 1024 }}{{ $_ := set $units . $power }}{{ end -}}
{{- mulf (toString . | trimSuffix $suffix | float64) (get $units $suffix) | printf "%.17g" -}}
{{- end }}

{{/* Fails where a container asks for more than it may have. */}}
{{- define "podidentity.withinLimits" -}}
{{- $limits := dig "limits" dict (.resources | default dict) | default dict -}}
{{- range $name, $asked := dig "requests" dict (.resources | default dict) | default dict -}}
{{- $most := get $limits $name -}}
{{- if and (hasKey $limits $name) (gt (include "podidentity.amount" $asked | float64) (include "podidentity.amount" $most | float64)) -}}
{{- fail (printf "%s.requests.%s is %v, above its limit of %v: a container cannot ask for more than it may have" $.of $name $asked $most) -}}
{{- end -}}
{{- end -}}
{{- end }}

{{/* A manifest's affinity, and the one that is asked for: nodes must satisfy both. */}}
{{- define "podidentity.affinity" -}}
{{- $affinity := mergeOverwrite (deepCopy .own) (omit (deepCopy .asked) "nodeAffinity") -}}
{{- with .asked.nodeAffinity -}}
{{- $ours := dig "nodeAffinity" "requiredDuringSchedulingIgnoredDuringExecution" "nodeSelectorTerms" (list (dict "matchExpressions" list)) $affinity | first -}}
{{- $terms := list -}}
{{- range dig "requiredDuringSchedulingIgnoredDuringExecution" "nodeSelectorTerms" list . -}}
{{- $terms = append $terms (set (deepCopy .) "matchExpressions" (concat (.matchExpressions | default list) $ours.matchExpressions)) -}}
{{- end -}}
{{- $node := deepCopy . -}}
{{- $_ := set $node "requiredDuringSchedulingIgnoredDuringExecution" (dict "nodeSelectorTerms" ($terms | default (list $ours))) -}}
{{- $_ := set $affinity "nodeAffinity" $node -}}
{{- end -}}
{{- toYaml $affinity -}}
{{- end }}

{{/*
A DaemonSet for nodes, as the values have it: with the image, and placed as NMI is. With `selector` its
pods have these labels, and are known by them; with `args` all its containers have these flags as well.
*/}}
{{- define "podidentity.daemonSet" -}}
{{- $root := .root -}}
{{- $set := .set -}}
{{- $values := $root.Values.nmi -}}
{{- $template := $set.spec.template -}}
{{- $pod := $template.spec -}}
{{- with .selector -}}
{{- $_ := set $set.spec "selector" (dict "matchLabels" .) -}}
{{- $_ := set $template.metadata "labels" (mergeOverwrite (deepCopy ($.labels | default dict)) (deepCopy .) (dict "app.kubernetes.io/part-of" "podidentity")) -}}
{{- end -}}
{{- with .annotations -}}
{{- $_ := set $template.metadata "annotations" (mergeOverwrite (deepCopy .) ($template.metadata.annotations | default dict)) -}}
{{- end -}}
{{- with $values.priorityClassName }}{{ $_ := set $pod "priorityClassName" . }}{{ end -}}
{{- $_ := set $pod "nodeSelector" $values.nodeSelector -}}
{{- $tolerations := $values.tolerations | default list -}}
{{- if $root.Values.startupTaint.enabled -}}
{{- $mine := dict "key" ($root.Values.startupTaint.key | default "aadpodidentity.k8s.io/agent-not-ready") "operator" "Exists" -}}
{{- if not (or (has (dict "operator" "Exists") $tolerations) (has $mine $tolerations)) -}}
{{- $tolerations = append $tolerations $mine -}}
{{- end -}}
{{- end -}}
{{- $_ := set $pod "tolerations" $tolerations -}}
{{- $affinity := include "podidentity.affinity" (dict "own" ($pod.affinity | default dict) "asked" ($values.affinity | default dict)) | fromYaml -}}
{{- with $affinity }}{{ $_ := set $pod "affinity" . }}{{ end -}}
{{- with $root.Values.imagePullSecrets }}{{ $_ := set $pod "imagePullSecrets" . }}{{ end -}}
{{- with $values.seLinuxOptions }}{{ $_ := set $pod.securityContext "seLinuxOptions" . }}{{ end -}}
{{- with $values.appArmorProfile }}{{ $_ := set $pod.securityContext "appArmorProfile" . }}{{ end -}}
{{- range $pod.containers -}}
{{- $_ := set . "image" (include "podidentity.image" $root) -}}
{{- $_ := set . "imagePullPolicy" $root.Values.image.imagePullPolicy -}}
{{- if $.args }}{{ $_ := set . "args" (concat .args $.args) }}{{ end -}}
{{- end -}}
{{- toYaml $set -}}
{{- end }}

{{/*
The annotations of a custom resource, as {} or with what makes it a hook. Where the API server does not serve these
kinds yet, it comes after their definitions: Helm reads all that is no hook before it makes the first. The hook says
whose it is, and so a later upgrade takes it into the release.
*/}}
{{- define "podidentity.afterDefinitions" -}}
{{- $lacking := false -}}
{{- range list "AzureIdentity" "AzureIdentityBinding" "AzurePodIdentityException" -}}
{{- if not ($.Capabilities.APIVersions.Has (printf "aadpodidentity.k8s.io/v1/%s" .)) }}{{ $lacking = true }}{{ end -}}
{{- end -}}
{{- if $lacking -}}
helm.sh/hook: post-install,post-upgrade,post-rollback
meta.helm.sh/release-name: {{ .Release.Name | quote }}
meta.helm.sh/release-namespace: {{ .Release.Namespace | quote }}
{{- end -}}
{{- end }}

{{/* What asks Azure in a pod asks by the proxy of a Secret, as `podidentity enable --proxy-secret` has it. */}}
{{- define "podidentity.byProxy" -}}
{{- $pod := .pod -}}
{{- with .root.Values.proxy.secretName -}}
{{- $secret := . -}}
{{- $bundle := list (dict "key" "ca-bundle.crt" "path" "ca-bundle.crt") -}}
{{- $_ := set $pod "volumes" (append $pod.volumes (dict "name" "proxy" "secret" (dict "secretName" $secret "optional" true "items" $bundle))) -}}
{{- range $pod.containers -}}
{{- if has .name (list "serve" "mic") -}}
{{- $env := .env -}}
{{- range list "HTTPS_PROXY" "NO_PROXY" "SSL_CERT_FILE" -}}
{{- $env = append $env (dict "name" . "valueFrom" (dict "secretKeyRef" (dict "name" $secret "key" . "optional" true))) -}}
{{- end -}}
{{- $_ := set . "env" $env -}}
{{- $_ := set . "volumeMounts" (append .volumeMounts (dict "name" "proxy" "mountPath" "/var/run/secrets/podidentity-proxy" "readOnly" true)) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end }}
