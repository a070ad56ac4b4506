"""The Instance Metadata Service of the sandbox's virtual machines.

https://learn.microsoft.com/azure/virtual-machines/instance-metadata-service
"""
