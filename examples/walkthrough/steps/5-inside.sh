# Inside the pod: a token, the secret, a blob

## 11 A shell inside the pod's network
# must show: opens shell
kubectl exec -n identity-demo identity-demo -it -- sh

## 12 in the pod: Ask the metadata service for a token
# must show: token of the identity
export token=$(curl -s 'http://169.254.169.254/metadata/identity/oauth2/token?api-version=2018-02-01&resource=https://vault.azure.net' -H Metadata:true | jq -r ".access_token")

## 13 in the pod: Read the secret with it
# must show: secret
curl -s 'https://aad-pod-identity-demo-kv.vault.azure.net/secrets/aad-pod-identity-demo-secret?api-version=2016-10-01' -H "Authorization: Bearer ${token}" | jq -r ".value"

## 14 What NMI wrote about it
# must show: log names everything
PODS=($(kubectl get pods -n kube-system -o name | grep -i nmi))
for pod in "${PODS[@]}"; do kubectl logs "$pod" -n kube-system; done

## 15 in the pod: az signs in as the identity
# must show: signed in as the identity
az login --identity

## 16a in the pod: az uploads a blob
# must show: uploaded
export STORAGE_ACC_NAME=aadpodidentitydemo STORAGE_CONTAINER_NAME=pod-identity-demo
echo "" > identity-demo.txt
az storage blob upload --account-name $STORAGE_ACC_NAME --container-name $STORAGE_CONTAINER_NAME --file identity-demo.txt --name identity-demo.txt

## 16b The blob is in the container
# must show: in the container
az storage blob list --account-name $STORAGE_ACC_NAME --container-name $STORAGE_CONTAINER_NAME --query '[].name' -o tsv
