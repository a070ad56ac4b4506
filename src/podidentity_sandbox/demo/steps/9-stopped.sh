# NMI goes away, and comes back

## 22 Stop NMI on all nodes
# must show: succeeded
podidentity disable

## 22 in the pod: No token from anybody: the rules stay
# must show: fails closed
curl -s -m 15 'http://169.254.169.254/metadata/identity/oauth2/token?api-version=2018-02-01&resource=https://vault.azure.net' -H Metadata:true -w '%{http_code} from curl %{exitcode}'

## 22 Start it again
# must show: succeeded
podidentity enable

## 22 in the pod: … and the pod has its token
# must show: token again
curl -s -m 15 'http://169.254.169.254/metadata/identity/oauth2/token?api-version=2018-02-01&resource=https://vault.azure.net' -H Metadata:true | jq -r .token_type
