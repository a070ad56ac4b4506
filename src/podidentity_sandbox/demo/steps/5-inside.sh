# Inside the pod: a token, and the secret

## 11 A shell inside the pod's network
# must show: opens shell
podidentity sandbox exec -n identity-demo -i identity-demo -- sh

## 12 in the pod: Ask the metadata service for a token
# must show: token of the identity
export token=$(curl -s -m 15 'http://169.254.169.254/metadata/identity/oauth2/token?api-version=2018-02-01&resource=https://vault.azure.net' -H Metadata:true | jq -r ".access_token")

## 13 in the pod: Read the secret with it
# must show: secret
curl -s 'https://aad-pod-identity-demo-kv.vault.azure.net/secrets/aad-pod-identity-demo-secret?api-version=2016-10-01' -H "Authorization: Bearer ${token}" | jq -r ".value"

## 21 in the pod: A vault that grants nothing
# must show: vault refuses
curl -s 'https://demo-of-somebody-else-kv.vault.azure.net/secrets/aad-pod-identity-demo-secret?api-version=2016-10-01' -H "Authorization: Bearer ${token}" -w '\n%{http_code}\n'

## 14 What NMI wrote about it
# must show: log names everything
for pod in $(podidentity sandbox get pods -n kube-system -o name | grep -i nmi); do
  podidentity sandbox logs -n kube-system "$pod"
done
