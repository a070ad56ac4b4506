"""The Secrets Store CSI driver and its Azure provider: a stand-in that asks NMI as they do.

It runs as a pod of kube-system under the provider's own service account, in the node's network.
A pod that mounts its volume has secrets as files, read with the pod's identity before the pod runs.

parameters   what a SecretProviderClass asks for, refused in the provider's words
provider     a volume's files: the request for a token, byte for byte, then the vault's secrets
driver       volumes published, rotated, unpublished; classes and events of the API server
__main__     the socket that the kubelet calls, and the whole, assembled

https://secrets-store-csi-driver.sigs.k8s.io
https://azure.github.io/secrets-store-csi-driver-provider-azure
"""
