# Who gets nothing, and why

## 20 The same label in another namespace
# must show: created
podidentity sandbox apply --wait -f - <<YAML
apiVersion: v1
kind: Pod
metadata: {name: elsewhere, namespace: default, labels: {aadpodidbinding: aad-pod-identity-demo}}
spec:
  nodeName: aks-nodepool1-12345678-vmss000000
  containers:
  - name: main
    image: andriktr/utils:1.0.4
YAML

## 20 … is refused
# must show: refused elsewhere
podidentity sandbox exec elsewhere -- curl -s -m 15 'http://169.254.169.254/metadata/identity/oauth2/token?api-version=2018-02-01&resource=https://vault.azure.net' -H Metadata:true -w '\n%{http_code}\n'

## 20 … and told why
# must show: explained
podidentity explain default/elsewhere

## forged A pod that may send raw packets, as any pod may
# must show: created
podidentity sandbox apply --wait -f - <<YAML
apiVersion: v1
kind: Pod
metadata: {name: mallory, namespace: default}
spec:
  nodeName: aks-nodepool1-12345678-vmss000000
  containers:
  - name: main
    image: andriktr/utils:1.0.4
YAML

## forged It speaks with its neighbour's address, by arp
# must show: forged
NEIGHBOUR=$(podidentity sandbox get pod identity-demo -n identity-demo -o json | jq -r .status.podIP)
podidentity sandbox exec mallory -- python3 -m podidentity_sandbox.demo.forger --seconds 5 --trick arp --claim $NEIGHBOUR

## forged It speaks with its neighbour's address, by mac
# must show: forged
podidentity sandbox exec mallory -- python3 -m podidentity_sandbox.demo.forger --seconds 5 --trick mac --claim $NEIGHBOUR
