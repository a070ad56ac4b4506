# The identity is taken back

## 23a Take it back
# must show: pod identity deleted
(eval "$COLLEAGUE"
  az aks pod-identity delete --resource-group $AKS_CLUSTER_RESOURCE_GROUP_NAME --cluster-name $AKS_CLUSTER_NAME --namespace $POD_IDENTITY_NAMESPACE --name $POD_IDENTITY_NAME)

## 23b AzureIdentity and binding are gone
# must show: objects gone
kubectl get azureidentity,azureidentitybinding -n $POD_IDENTITY_NAMESPACE

## 23c The identity is off the scale set
# must show: off the scale set
az vmss identity show --resource-group $AKS_CLUSTER_NODE_GROUP_NAME --name $(az vmss list --resource-group $AKS_CLUSTER_NODE_GROUP_NAME --query '[0].name' -o tsv)

## 23d in the pod: The pod's next request is refused
# must show: refused again
curl -s -m 15 'http://169.254.169.254/metadata/identity/oauth2/token?api-version=2018-02-01&resource=https://vault.azure.net' -H Metadata:true -w '\n%{http_code}\n'
