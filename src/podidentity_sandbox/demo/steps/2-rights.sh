# A deployer gets the rights that podidentity needs, and no others

## rights From here on the shell is a deployer's, who has no rights
# must show: succeeded
eval "$(podidentity sandbox principal deployer)"; echo $OBJECT_ID

## rights Without rights it enables nothing
# must show: names a right
podidentity enable

## rights The administrator gives it the roles of the commands
# must show: created
podidentity rights --user $OBJECT_ID -o yaml | podidentity sandbox apply -f -

## rights The owner gives it two roles in Azure
# must show: roles assigned
podidentity rights --azure identity --scope $IDENTITY_ID | podidentity sandbox role --assignee $OBJECT_ID -f -
podidentity rights --azure machines --scope /subscriptions/$AZURE_SUBSCRIPTION_ID/resourceGroups/aks-nodes-west-experimental | podidentity sandbox role --assignee $OBJECT_ID -f -
