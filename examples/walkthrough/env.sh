# The names of the story. Source it in a shell of the sandbox: `. ./env.sh`.
export SUBSCRIPTION="My Azure Subscription"
export TENANT_ID=$(az account show --subscription "$SUBSCRIPTION" --query tenantId -o tsv)
export LOCATION=westeurope

export GROUP_NAME=aad-pod-identity-demo
export KEYVAULT_NAME=aad-pod-identity-demo-kv
export IDENTITY_NAME=aad-pod-identity-demo-identity
export STORAGE_ACC_NAME=aadpodidentitydemo
export STORAGE_CONTAINER_NAME=pod-identity-demo

export AKS_CLUSTER_RESOURCE_GROUP_NAME=aks-west-experimental
export AKS_CLUSTER_NODE_GROUP_NAME=aks-nodes-west-experimental
export AKS_CLUSTER_NAME=aks-experimental

export SECRET_NAME=aad-pod-identity-demo-secret
export SECRET_VALUE=MySuperSecretDemoPassword

export POD_IDENTITY_NAME=aad-pod-identity-demo
export POD_IDENTITY_NAMESPACE=identity-demo
