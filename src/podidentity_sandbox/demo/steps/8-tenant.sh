# A tenant asks for what is his neighbour's

## tenant In his namespace he names his neighbour's client id
# must show: created
podidentity sandbox apply --wait -f - <<YAML
apiVersion: v1
kind: Namespace
metadata: {name: tenant}
---
apiVersion: aadpodidentity.k8s.io/v1
kind: AzureIdentity
metadata: {name: mine, namespace: tenant}
spec: {type: 0, clientID: $IDENTITY_CLIENT_ID, resourceID: $IDENTITY_ID}
---
apiVersion: aadpodidentity.k8s.io/v1
kind: AzureIdentityBinding
metadata: {name: mine, namespace: tenant}
spec: {azureIdentity: mine, selector: mine}
YAML

## tenant … and labels a pod with it
# must show: created
podidentity sandbox apply --wait -f - <<YAML
apiVersion: v1
kind: Pod
metadata: {name: hopeful, namespace: tenant, labels: {aadpodidbinding: mine}}
spec:
  nodeName: aks-nodepool1-12345678-vmss000000
  containers:
  - name: main
    image: andriktr/utils:1.0.4
YAML

## tenant An AzureIdentity is a request, not a permission
# must show: not permitted
podidentity sandbox exec -n tenant hopeful -- curl -s -m 15 'http://169.254.169.254/metadata/identity/oauth2/token?api-version=2018-02-01&resource=https://vault.azure.net' -H Metadata:true -w '\n%{http_code}\n'

## tenant Who may use which identity
# must show: only one is permitted
podidentity list -o json
