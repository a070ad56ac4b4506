# A namespace is given an identity

## 5 Sign in to ARM
# must show: succeeded
ARM_TOKEN=$(curl -s https://login.microsoftonline.com/$AZURE_TENANT_ID/oauth2/v2.0/token -d grant_type=client_credentials -d client_id=$AZURE_CLIENT_ID --data-urlencode client_secret=$AZURE_CLIENT_SECRET -d scope=https://management.azure.com/.default | jq -r .access_token)

## 5 Look the managed identity up
# must show: ids of the identity
IDENTITY=$(curl -s "https://management.azure.com/subscriptions/$AZURE_SUBSCRIPTION_ID/resourceGroups/aad-pod-identity-demo/providers/Microsoft.ManagedIdentity/userAssignedIdentities/aad-pod-identity-demo-identity?api-version=2023-01-31" -H "Authorization: Bearer $ARM_TOKEN")
IDENTITY_ID=$(jq -r .id <<<$IDENTITY)
IDENTITY_CLIENT_ID=$(jq -r .properties.clientId <<<$IDENTITY)
echo $IDENTITY_ID $IDENTITY_CLIENT_ID

## 8 The namespace
# must show: created
podidentity sandbox apply -f - <<YAML
apiVersion: v1
kind: Namespace
metadata:
  name: identity-demo
  labels: {name: identity-demo, environment: demo, itSystemCode: demo, responsible: demo}
YAML

## 9 Give the namespace the identity
# must show: identity added
podidentity add --namespace identity-demo --name aad-pod-identity-demo --identity-resource-id $IDENTITY_ID

## 10 The pod, with the label and nothing else
# must show: created
podidentity sandbox apply --wait -f - <<YAML
apiVersion: v1
kind: Pod
metadata: {name: identity-demo, namespace: identity-demo, labels: {aadpodidbinding: aad-pod-identity-demo}}
spec:
  nodeName: aks-nodepool1-12345678-vmss000000
  containers:
  - name: main
    image: andriktr/utils:1.0.4
    resources:
      requests: {cpu: 100m, memory: 100Mi}
      limits: {cpu: 200m, memory: 300Mi}
YAML
