# The secret as a file

## 17a The Secrets Store CSI driver and its Azure provider
# must show: succeeded
podidentity sandbox csi

## 17b What to read from which vault, with the pod's identity
# must show: created
kubectl apply -f - <<YAML
apiVersion: secrets-store.csi.x-k8s.io/v1
kind: SecretProviderClass
metadata:
  name: identity-demo
  namespace: $POD_IDENTITY_NAMESPACE
spec:
  provider: azure
  parameters:
    usePodIdentity: "true"
    keyvaultName: $KEYVAULT_NAME
    tenantId: $TENANT_ID
    objects: |
      array:
      - |
        objectName: $SECRET_NAME
        objectType: secret
YAML

## 17c A pod that mounts it
# must show: created
kubectl apply -f manifests/with-secret.yaml &&
  kubectl wait --for=condition=Ready pod/with-secret -n $POD_IDENTITY_NAMESPACE --timeout=60s

## 17d The secret is a file in the pod
# must show: secret
kubectl exec with-secret -n $POD_IDENTITY_NAMESPACE -- cat /mnt/secrets-store/$SECRET_NAME
