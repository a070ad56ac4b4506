# The names of the story

## 0 In a shell of the sandbox
# must show: succeeded
cd examples/walkthrough && . ./env.sh &&
  az account show --query name -o tsv
