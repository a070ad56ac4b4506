# An identity, a vault with a secret, a storage account

## 4a A resource group
# must show: made
az group create --name $GROUP_NAME --location $LOCATION --subscription "$SUBSCRIPTION"

## 4b A vault; its access policies are what the story uses, while az now makes vaults with roles
# must show: vault made
az keyvault create --name $KEYVAULT_NAME --resource-group $GROUP_NAME --location $LOCATION --enable-rbac-authorization false

## 4c A secret in it
# must show: secret kept
az keyvault secret set --vault-name $KEYVAULT_NAME --name $SECRET_NAME --value $SECRET_VALUE

## 4d A managed identity
# must show: identity made
az identity create --name $IDENTITY_NAME --resource-group $GROUP_NAME --location $LOCATION

## 4e A storage account
# must show: account made
az storage account create --name $STORAGE_ACC_NAME --resource-group $GROUP_NAME --location $LOCATION --kind StorageV2 --sku Standard_LRS --encryption-services blob --https-only true --access-tier Hot

## 4f A container in it
# must show: container made
az storage container create --name $STORAGE_CONTAINER_NAME --public-access off --account-name $STORAGE_ACC_NAME

## 4g A second run of each: what can be said twice, is; a vault's name is taken
# must show: made before
az group create --name $GROUP_NAME --location $LOCATION --subscription "$SUBSCRIPTION" --query properties.provisioningState -o tsv
az keyvault create --name $KEYVAULT_NAME --resource-group $GROUP_NAME --location $LOCATION --enable-rbac-authorization false
az keyvault secret set --vault-name $KEYVAULT_NAME --name $SECRET_NAME --value $SECRET_VALUE --query value -o tsv
az identity create --name $IDENTITY_NAME --resource-group $GROUP_NAME --location $LOCATION --query name -o tsv
az storage account create --name $STORAGE_ACC_NAME --resource-group $GROUP_NAME --location $LOCATION --kind StorageV2 --sku Standard_LRS --encryption-services blob --https-only true --access-tier Hot --query provisioningState -o tsv
az storage container create --name $STORAGE_CONTAINER_NAME --public-access off --account-name $STORAGE_ACC_NAME --query created -o tsv

## 5 The ids of the identity
# must show: ids of the identity
IDENTITY_ID=$(az identity show --name $IDENTITY_NAME --resource-group $GROUP_NAME --query id -o tsv)
IDENTITY_CLIENT_ID=$(az identity show --name $IDENTITY_NAME --resource-group $GROUP_NAME --query clientId -o tsv)
echo $IDENTITY_ID $IDENTITY_CLIENT_ID

## 6 The identity may read the vault
# must show: may read the vault
az keyvault set-policy --name $KEYVAULT_NAME --secret-permissions get --spn $IDENTITY_CLIENT_ID --output none &&
  az keyvault set-policy --name $KEYVAULT_NAME --key-permissions get --spn $IDENTITY_CLIENT_ID --output none &&
  az keyvault set-policy --name $KEYVAULT_NAME --certificate-permissions get --spn $IDENTITY_CLIENT_ID

## 7a The identity may use the storage account
# must show: role given
STORAGE_ACC_ID=$(az storage account show --name $STORAGE_ACC_NAME --query id -o tsv)
az role assignment create --role "Contributor" --assignee "$IDENTITY_CLIENT_ID" --scope $STORAGE_ACC_ID

## 7b The identity may read the group of the nodes
# must show: role given
NODE_GROUP_ID=$(az group show --name $AKS_CLUSTER_NODE_GROUP_NAME --query id -o tsv)
az role assignment create --role "Reader" --assignee "$IDENTITY_CLIENT_ID" --scope $NODE_GROUP_ID
