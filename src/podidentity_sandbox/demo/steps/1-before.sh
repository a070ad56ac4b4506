# Before: the metadata service is open to every pod

## 0 Where the sandbox is
# must show: succeeded
eval "$(podidentity sandbox env)"; echo $KUBECONFIG

## 4 A managed identity, and a vault that it may read
# must show: prepared
eval "$(podidentity sandbox prepare)"; echo $IDENTITY_CLIENT_ID $IDENTITY_ID

## 10 A pod that is entitled to nothing
# must show: created
podidentity sandbox apply --wait -f - <<YAML
apiVersion: v1
kind: Pod
metadata: {name: stranger, namespace: default}
spec:
  nodeName: aks-nodepool1-12345678-vmss000000
  containers:
  - name: main
    image: andriktr/utils:1.0.4
YAML

## 18 Before: any pod takes the node's own identity
# must show: leaks
podidentity sandbox exec stranger -- curl -s -m 15 'http://169.254.169.254/metadata/identity/oauth2/token?api-version=2018-02-01&resource=https://vault.azure.net' -H Metadata:true
