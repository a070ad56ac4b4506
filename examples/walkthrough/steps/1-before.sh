# Before: the metadata service is open to every pod

## 18a A pod that is entitled to nothing
# must show: created
kubectl apply -f manifests/stranger.yaml &&
  kubectl wait --for=condition=Ready pod/stranger --timeout=60s

## 18b Any pod takes the node's own identity
# must show: leaks
kubectl exec stranger -- curl -s -m 15 'http://169.254.169.254/metadata/identity/oauth2/token?api-version=2018-02-01&resource=https://vault.azure.net' -H Metadata:true
