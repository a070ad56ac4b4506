# The secret as a file

## 17 The driver and its Azure provider
# must show: succeeded
podidentity sandbox csi

## 17 What to read from which vault, and a pod that mounts it
# must show: created
podidentity sandbox apply --wait -f - <<YAML
apiVersion: secrets-store.csi.x-k8s.io/v1
kind: SecretProviderClass
metadata: {name: demo, namespace: identity-demo}
spec:
  provider: azure
  parameters:
    usePodIdentity: "true"
    keyvaultName: aad-pod-identity-demo-kv
    tenantID: $AZURE_TENANT_ID
    objects: |
      array:
      - |
        objectName: aad-pod-identity-demo-secret
        objectType: secret
---
apiVersion: v1
kind: Pod
metadata: {name: with-secret, namespace: identity-demo, labels: {aadpodidbinding: aad-pod-identity-demo}}
spec:
  nodeName: aks-nodepool1-12345678-vmss000000
  containers:
  - name: main
    image: andriktr/utils:1.0.4
    volumeMounts: [{name: store, mountPath: /mnt/secrets-store, readOnly: true}]
  volumes:
  - name: store
    csi:
      driver: secrets-store.csi.k8s.io
      readOnly: true
      volumeAttributes: {secretProviderClass: demo}
YAML

## 17 The secret is a file in the pod
# must show: secret
podidentity sandbox exec -n identity-demo with-secret -- cat /mnt/secrets-store/aad-pod-identity-demo-secret
