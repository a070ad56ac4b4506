# A namespace is given the identity, and a pod of it the label

## 8 The namespace
# must show: created
kubectl apply -f - <<YAML
apiVersion: v1
kind: Namespace
metadata:
  name: $POD_IDENTITY_NAMESPACE
  labels:
    name: $POD_IDENTITY_NAMESPACE
    environment: demo
    itSystemCode: demo
    responsible: demo
YAML

## 8b The colleague may use the identity, too
# must show: role assigned
(eval "$COLLEAGUE"
  podidentity sandbox role --assignee $OBJECT_ID -f - <<JSON
{"Name": "Use of the identity", "AssignableScopes": ["$IDENTITY_ID"],
 "Actions": ["Microsoft.ManagedIdentity/userAssignedIdentities/read", "Microsoft.Authorization/roleDefinitions/read",
             "Microsoft.Authorization/roleAssignments/read", "Microsoft.Authorization/roleAssignments/write"]}
JSON
)

## 9a Give the namespace the identity, as the colleague
# must show: pod identity added
(eval "$COLLEAGUE"
  az aks pod-identity add --resource-group $AKS_CLUSTER_RESOURCE_GROUP_NAME --cluster-name $AKS_CLUSTER_NAME --namespace $POD_IDENTITY_NAMESPACE --name $POD_IDENTITY_NAME --identity-resource-id $IDENTITY_ID)

## 9b The cluster has an AzureIdentity and its binding
# must show: identity and binding
kubectl get azureidentity,azureidentitybinding -n $POD_IDENTITY_NAMESPACE -o json

## 9c The nodes' scale set has the identity
# must show: on the scale set
az vmss identity show --resource-group $AKS_CLUSTER_NODE_GROUP_NAME --name $(az vmss list --resource-group $AKS_CLUSTER_NODE_GROUP_NAME --query '[0].name' -o tsv)

## 9d The cluster may use the identity
# must show: cluster may use it
az role assignment list --scope $IDENTITY_ID --query '[].[roleDefinitionName, principalId]' -o tsv

## 10a The pod, with the label and nothing else
# must show: created
kubectl apply -f - <<YAML
apiVersion: v1
kind: Pod
metadata:
  name: identity-demo
  namespace: $POD_IDENTITY_NAMESPACE
  labels:
    aadpodidbinding: $POD_IDENTITY_NAME
spec:
  containers:
  - name: utils
    image: andriktr/utils:1.0.4
    resources:
      requests:
        cpu: 100m
        memory: 100Mi
      limits:
        cpu: 200m
        memory: 300Mi
YAML

## 10b It runs
# must show: running
kubectl wait --for=condition=Ready pod/identity-demo -n identity-demo --timeout=60s &&
  kubectl get pod identity-demo -n identity-demo
