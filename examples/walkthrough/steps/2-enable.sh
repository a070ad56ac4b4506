# Pod identity is enabled on the cluster

## 1 Register the feature
# must show: registered
az feature register --name EnablePodIdentityPreview --namespace Microsoft.ContainerService

## 1b A colleague, who may change the cluster and nothing else
# must show: colleague signed in
COLLEAGUE=$(podidentity sandbox principal --az colleague)
CLUSTER_ID=$(az aks show --resource-group $AKS_CLUSTER_RESOURCE_GROUP_NAME --name $AKS_CLUSTER_NAME --query id -o tsv)
(eval "$COLLEAGUE"
  podidentity sandbox role --assignee $OBJECT_ID -f - <<JSON &&
{"Name": "Pod identities of the cluster", "AssignableScopes": ["$CLUSTER_ID"],
 "Actions": ["Microsoft.ContainerService/managedClusters/read", "Microsoft.ContainerService/managedClusters/write"]}
JSON
    az login --service-principal --username $AZURE_CLIENT_ID --password=$AZURE_CLIENT_SECRET --tenant $TENANT_ID --query '[].name' -o tsv)

## 2a Enable pod identity, as the colleague
# must show: enabled
(eval "$COLLEAGUE"
  az aks update --resource-group $AKS_CLUSTER_RESOURCE_GROUP_NAME --name $AKS_CLUSTER_NAME --enable-pod-identity --subscription "$SUBSCRIPTION")

## 2b NMI is on every node
# must show: succeeded
kubectl rollout status daemonset/nmi -n kube-system --timeout=60s

## 3 One NMI pod runs on each node
# must show: one nmi a node
kubectl get pods -n kube-system | grep -i nmi

## 19 A pod without the label is refused, at once
# must show: identity not found
kubectl exec stranger -- curl -s -m 15 'http://169.254.169.254/metadata/identity/oauth2/token?api-version=2018-02-01&resource=https://vault.azure.net' -H Metadata:true -w '\n%{http_code} %{time_total}\n'
