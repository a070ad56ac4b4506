# NMI goes away, and comes back

## 22a Stop NMI: no node has this label
# must show: succeeded
kubectl patch daemonset nmi -n kube-system --patch '{"spec": {"template": {"spec": {"nodeSelector": {"stopped": "yes"}}}}}' &&
  kubectl delete pods -n kube-system -l app.kubernetes.io/component=nmi

## 22b in the pod: No token from anybody
# must show: fails closed
curl -s -m 15 'http://169.254.169.254/metadata/identity/oauth2/token?api-version=2018-02-01&resource=https://vault.azure.net' -H Metadata:true -w '%{http_code} from curl %{exitcode}'

## 22c Start it again
# must show: succeeded
kubectl patch daemonset nmi -n kube-system --type json --patch '[{"op": "remove", "path": "/spec/template/spec/nodeSelector/stopped"}]' &&
  kubectl rollout status daemonset/nmi -n kube-system --timeout=60s

## 22d in the pod: The pod has its token
# must show: token again
curl -s -m 15 'http://169.254.169.254/metadata/identity/oauth2/token?api-version=2018-02-01&resource=https://vault.azure.net' -H Metadata:true | jq -r .token_type
