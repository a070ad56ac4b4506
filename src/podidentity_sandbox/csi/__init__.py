"""The Secrets Store CSI driver and its Azure provider: a stand-in that asks NMI as they do.

It runs as a pod of kube-system under the provider's own service account, in the node's network.
A pod that mounts its volume has secrets as files, read with the pod's identity before the pod runs.

parameters   what a SecretProviderClass asks for, refused in the provider's words
nmi          the request for a token, byte for byte, and the answer as Go reads it
provider     a volume's files, from the vault's secrets; an error as Go prints it
driver       volumes published, rotated, unpublished; their files appear all at once
cluster      the API server: classes and events
main         the socket that the kubelet calls, and the whole, assembled

https://secrets-store-csi-driver.sigs.k8s.io
https://azure.github.io/secrets-store-csi-driver-provider-azure
"""
