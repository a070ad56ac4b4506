# Who gets nothing, and how to learn why

## 20a The same label in another namespace
# must show: created
kubectl apply -f manifests/elsewhere.yaml &&
  kubectl wait --for=condition=Ready pod/elsewhere --timeout=60s

## 20b It is refused
# must show: refused elsewhere
kubectl exec elsewhere -- curl -s -m 15 'http://169.254.169.254/metadata/identity/oauth2/token?api-version=2018-02-01&resource=https://vault.azure.net' -H Metadata:true -w '\n%{http_code}\n'

## 20c NMI's log says why
# must show: log says why
kubectl logs -n kube-system -l app.kubernetes.io/component=nmi --tail=-1 | grep pod=elsewhere

## 20d podidentity explains it to the colleague, who is given the rights for that
# must show: explained
(eval "$COLLEAGUE"
  podidentity rights explain --user $OBJECT_ID -o yaml | podidentity sandbox apply -f - >/dev/null &&
    podidentity explain default/elsewhere)

## 21a A vault that grants nothing
# must show: succeeded
az keyvault create --name demo-of-somebody-else-kv --resource-group $GROUP_NAME --location $LOCATION --enable-rbac-authorization false --output none &&
  az keyvault secret set --vault-name demo-of-somebody-else-kv --name $SECRET_NAME --value $SECRET_VALUE --query name -o tsv

## 21b in the pod: The token is no master key
# must show: vault refuses
curl -s 'https://demo-of-somebody-else-kv.vault.azure.net/secrets/aad-pod-identity-demo-secret?api-version=2016-10-01' -H "Authorization: Bearer ${token}" -w '\n%{http_code}\n'
