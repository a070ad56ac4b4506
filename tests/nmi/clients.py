"""Requests of each client, byte for byte: recorded from it or, where it could not run, read.

The lines are without Host, and those of TOKEN_REQUESTS without Metadata, which all send alike.

https://github.com/AzureAD/microsoft-authentication-library-for-python msal/managed_identity.py
https://github.com/Azure/azure-sdk-for-js sdk/identity/identity/src/credentials
https://github.com/Azure/go-autorest autorest/adal/token.go
https://github.com/AzureAD/microsoft-authentication-library-for-go apps/managedidentity
https://github.com/AzureAD/microsoft-authentication-library-for-dotnet src/client (ManagedIdentity)
https://github.com/AzureAD/microsoft-authentication-library-for-java msal4j-sdk
"""

from __future__ import annotations

from tests.fakes import CLIENT, RESOURCE_ID, VAULT

PATH = "/metadata/identity/oauth2/token"
ENCODED = "https%3A%2F%2Fvault.azure.net"
ENCODED_ID = RESOURCE_ID.replace("/", "%2F")
MSAL = """
    x-client-SKU: MSAL.Python
    x-client-Ver: 1.39.0
    x-ms-client-request-id: 3c4f5a1e-0000-4000-8000-000000000000
"""
OBJECT = "77777777-2222-3333-4444-555555555555"

# name → request; all get the pod's one identity.
TOKEN_REQUESTS = {
    "az 2.91": f"GET {PATH}?api-version=2018-02-01&resource={ENCODED} HTTP/1.1{MSAL}",
    "az 2.91 --client-id": f"GET {PATH}?api-version=2018-02-01&resource={ENCODED}"
    f"&client_id={CLIENT} HTTP/1.1{MSAL}",
    "az 2.91 --resource-id": f"GET {PATH}?api-version=2018-02-01&resource={ENCODED}"
    f"&msi_res_id={ENCODED_ID} HTTP/1.1{MSAL}",
    "az 2.91 --object-id": f"GET {PATH}?api-version=2018-02-01&resource={ENCODED}"
    f"&object_id={OBJECT} HTTP/1.1{MSAL}",
    "azure-identity 1.27 sync": f"GET {PATH}?api-version=2018-02-01&resource={VAULT} HTTP/1.1{MSAL}"
    "User-Agent: azsdk-python-identity/1.27.0 Python/3.11.7",
    "azure-identity 1.27 sync, by resource id": f"GET {PATH}?api-version=2018-02-01"
    f"&resource={VAULT}&msi_res_id={RESOURCE_ID} HTTP/1.1{MSAL}",
    "azure-identity 1.27 aio, resource_id": f"GET {PATH}?api-version=2018-02-01"
    f"&resource={VAULT}&resource_id={RESOURCE_ID} HTTP/1.1",
    "azure-identity 1.27 aio, mi_res_id": f"GET {PATH}?api-version=2018-02-01"
    f"&resource={VAULT}&mi_res_id={RESOURCE_ID} HTTP/1.1",
    "@azure/identity": f"GET {PATH}?api-version=2018-02-01&resource={ENCODED} HTTP/1.1\n"
    "Content-Type: application/x-www-form-urlencoded",
    "@azure/identity, by client id": f"GET {PATH}?api-version=2018-02-01&resource={ENCODED}"
    f"&client_id={CLIENT} HTTP/1.1",
    "go-autorest adal": f"GET {PATH}?api-version=2018-02-01&mi_res_id={ENCODED_ID}"
    f"&resource={ENCODED} HTTP/1.1\nUser-Agent: Go/go1.24 (amd64-linux) go-autorest/adal/v1.0.0",
    "azidentity for Go": f"GET {PATH}?api-version=2018-02-01&claims=%7B%7D&client_id={CLIENT}"
    f"&resource={ENCODED} HTTP/1.1",
    "MSAL.NET": f"GET {PATH}?api-version=2018-02-01&resource={ENCODED}&client_id={CLIENT}"
    " HTTP/1.1\nx-client-SKU: MSAL.NetCore",
    "msal4j": f"GET /{PATH}?resource={ENCODED}%2F&api-version=2018-02-01&client_id={CLIENT}"
    " HTTP/1.1",
    "java.net.http": f"GET {PATH}?api-version=2018-02-01&resource={ENCODED}%2F HTTP/1.1\n"
    "Connection: Upgrade, HTTP2-Settings\nUpgrade: h2c\nHTTP2-Settings: AAEAAEAAAAIAAAAA",
    "AppAuthentication for .NET": f"GET {PATH}?resource={VAULT}&api-version=2019-11-01"
    f"&client_id={CLIENT} HTTP/1.1",
    "msrestazure": f"GET {PATH}?resource={ENCODED}&api-version=2018-02-01"
    f"&msi_res_id={ENCODED_ID} HTTP/1.1",
    "Terraform": f"GET {PATH}?api-version=2018-02-01&client_id={CLIENT}&resource={ENCODED}"
    " HTTP/1.1\nX-Ms-Identity: 1",
    "AzCopy": f"GET {PATH}?api-version=2018-02-01&client_id={CLIENT.upper()}&resource={ENCODED}"
    " HTTP/1.1",
    "curl": f"GET {PATH}?api-version=2018-02-01&resource={VAULT}/ HTTP/1.1\n"
    "User-Agent: curl/8.14.1\nAccept: */*",
    "azure-identity 1.27 sync, by object id": f"GET {PATH}?api-version=2018-02-01"
    f"&resource={VAULT}&object_id={OBJECT} HTTP/1.1{MSAL}",
    "azure-identity 1.27 aio, by client id": f"GET {PATH}?api-version=2018-02-01"
    f"&resource={VAULT}&client_id={CLIENT} HTTP/1.1",
    "azure-identity 1.27 aio, msi_res_id": f"GET {PATH}?api-version=2018-02-01"
    f"&resource={VAULT}&msi_res_id={RESOURCE_ID} HTTP/1.1",
    "@azure/identity, by object id": f"GET {PATH}?api-version=2018-02-01&resource={ENCODED}"
    f"&object_id={OBJECT} HTTP/1.1\nContent-Type: application/x-www-form-urlencoded",
    "@azure/identity, by resource id": f"GET {PATH}?api-version=2018-02-01&resource={ENCODED}"
    f"&msi_res_id={ENCODED_ID} HTTP/1.1\nContent-Type: application/x-www-form-urlencoded",
    "go-autorest adal, by client id": f"GET {PATH}?api-version=2018-02-01&client_id={CLIENT}"
    f"&resource={ENCODED} HTTP/1.1\nUser-Agent: Go/go1.24 (amd64-linux) go-autorest/adal/v1.0.0",
    "azidentity for Go, by object id": f"GET {PATH}?api-version=2018-02-01&object_id={OBJECT}"
    f"&resource={ENCODED} HTTP/1.1",
    "azidentity for Go, by resource id": f"GET {PATH}?api-version=2018-02-01"
    f"&msi_res_id={ENCODED_ID}&resource={ENCODED} HTTP/1.1",
    "MSAL.NET, by resource id": f"GET {PATH}?api-version=2018-02-01&resource={ENCODED}"
    f"&msi_res_id={ENCODED_ID} HTTP/1.1\nx-client-SKU: MSAL.NetCore",
    "MSAL.NET, by object id": f"GET {PATH}?api-version=2018-02-01&resource={ENCODED}"
    f"&object_id={OBJECT} HTTP/1.1\nx-client-SKU: MSAL.NetCore",
    "MSAL with claims and its capabilities": f"GET {PATH}?api-version=2018-02-01"
    f"&resource={ENCODED}&claims=%7B%22access_token%22%3A%7B%7D%7D&xms_cc=CP1"
    "&token_sha256_to_refresh=e3b0c44298fc1c149afbf4c8996fb92427ae41e4 HTTP/1.1",
    "msal4j, by resource id": f"GET /{PATH}?resource={ENCODED}%2F&api-version=2018-02-01"
    f"&mi_res_id={ENCODED_ID} HTTP/1.1",
    "msrestazure, by object id": f"GET {PATH}?resource={ENCODED}&api-version=2018-02-01"
    f"&object_id={OBJECT} HTTP/1.1",
    "AzCopy, by resource id": f"GET {PATH}?api-version=2018-02-01&msi_res_id={ENCODED_ID}"
    f"&resource={ENCODED} HTTP/1.1",
    "App Service's names": f"GET {PATH}?api-version=2017-09-01&clientid={CLIENT}"
    f"&resource={ENCODED} HTTP/1.1",
    "names in capitals": f"GET {PATH}?API-Version=2018-02-01&Resource={ENCODED}"
    f"&Client_ID={CLIENT} HTTP/1.1",
    "encoded names": f"GET {PATH}?api%2Dversion=2018-02-01&%72esource={ENCODED}"
    f"&client%5Fid={CLIENT} HTTP/1.1",
    "an id without a value": f"GET {PATH}?resource={ENCODED}&client_id= HTTP/1.1",
    "two names of one id": f"GET {PATH}?resource={ENCODED}&client_id={CLIENT}"
    f"&clientid={CLIENT.upper()} HTTP/1.1",
    "a slash at the end": f"GET {PATH}/?resource={ENCODED} HTTP/1.1",
    "HTTP/1.0": f"GET {PATH}?resource={ENCODED} HTTP/1.0",
    "metadata in capitals": f"GET /METADATA/identity/oauth2/token?resource={ENCODED} HTTP/1.1",
}

ASKED_WITH_SLASH = {"msal4j", "msal4j, by resource id", "java.net.http", "curl"}

# name → request of those that only look whether somebody is there.
PROBES = {
    "azure-identity's chain": f"GET {PATH}?api-version=2018-02-01&resource={VAULT} HTTP/1.1",
    "@azure/identity's chain": f"GET {PATH} HTTP/1.1",
    "go-autorest's MSIAvailable": f"GET {PATH}?api-version=2018-02-01 HTTP/1.1",
    "Azure.Identity for .NET's chain": f"GET {PATH}?api-version=2018-02-01&resource={ENCODED}"
    f"&msi-res-id={ENCODED_ID} HTTP/1.1",
    "azure-identity for Java's chain": f"GET {PATH}?api-version=2018-02-01 HTTP/1.1",
    "azure-identity 1.10, in a chain or not": f"GET {PATH}?api-version=2018-02-01"
    f"&resource={VAULT} HTTP/1.1\nUser-Agent: azsdk-python-identity/1.10.0 Python/3.9.2",
    "Azure.Identity for .NET's chain, by client id": f"GET {PATH}?api-version=2018-02-01"
    f"&resource={ENCODED}&client_id={CLIENT} HTTP/1.1",
    "azure-identity 1.5": f"GET {PATH} HTTP/1.1\nMetadata: true",
    "MSAL.NET's source detection": f"GET {PATH}?api-version=2018-02-01 HTTP/1.1\nMetadata: true",
}
