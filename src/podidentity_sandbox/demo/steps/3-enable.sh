# Pod identity is enabled

## 2 Enable pod identity
# must show: succeeded
podidentity enable

## 3 One NMI pod runs on each node
# must show: one nmi a node
podidentity sandbox get pods -n kube-system | grep -i nmi

## 19 A pod without the label: refused, at once
# must show: identity not found
podidentity sandbox exec stranger -- curl -s -m 15 'http://169.254.169.254/metadata/identity/oauth2/token?api-version=2018-02-01&resource=https://vault.azure.net' -H Metadata:true -w '\n%{http_code} %{time_total}\n'
