# Pod identity is enabled on the cluster

## 1 Register the feature
az feature register --name EnablePodIdentityPreview --namespace Microsoft.ContainerService

## 2a Enable pod identity
az aks update --resource-group $AKS_CLUSTER_RESOURCE_GROUP_NAME --name $AKS_CLUSTER_NAME --enable-pod-identity --subscription "$SUBSCRIPTION"

## 2b NMI is on every node
kubectl rollout status daemonset/nmi -n kube-system --timeout=60s

## 3 One NMI pod runs on each node
kubectl get pods -n kube-system | grep -i nmi

## 19 A pod without the label is refused, at once
kubectl exec stranger -- curl -s -m 15 'http://169.254.169.254/metadata/identity/oauth2/token?api-version=2018-02-01&resource=https://vault.azure.net' -H Metadata:true -w '\n%{http_code} %{time_total}\n'
