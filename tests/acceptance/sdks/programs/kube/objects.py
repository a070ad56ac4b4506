"""Built-in objects as the client handles them: each function a sentence, `ns` its own namespace."""

from hands import CORE, gone, pod, refused, until
from kubernetes import client, config, utils


def the_cluster_is_the_kubeconfigs_own_and_has_nodes(_):
    assert config.list_kube_config_contexts()[1]["name"].startswith("sandbox-")
    assert client.VersionApi().get_code().git_version.startswith("v1.")
    (node,) = CORE().list_node().items
    assert {one.type: one.status for one in node.status.conditions}["Ready"] == "True"


def objects_are_made_read_replaced_and_deleted(ns):
    made = CORE().create_namespaced_config_map(ns, {"metadata": {"name": "a"}, "data": {"k": "1"}})
    made.data = {"k": "2"}
    assert CORE().replace_namespaced_config_map("a", ns, made).data == {"k": "2"}
    refused(409, "Conflict", CORE().replace_namespaced_config_map, "a", ns, made)
    gone = CORE().delete_namespaced_config_map("a", ns)
    assert (gone["status"], gone["details"]["name"]) == ("Success", "a")
    refused(404, "NotFound", CORE().read_namespaced_config_map, "a", ns)


def lists_come_selected_and_in_pages(ns):
    for number in range(5):
        labels = {"odd": str(number % 2)}
        CORE().create_namespaced_secret(
            ns, client.V1Secret(metadata={"name": f"s{number}", "labels": labels})
        )
    page = CORE().list_namespaced_secret(ns, limit=3)
    assert (len(page.items), page.metadata.remaining_item_count) == (3, 2)
    rest = CORE().list_namespaced_secret(ns, limit=3, _continue=page.metadata._continue)
    assert [one.metadata.name for one in rest.items] == ["s3", "s4"]
    assert len(CORE().list_namespaced_secret(ns, label_selector="odd in (1)").items) == 2
    assert len(CORE().list_namespaced_secret(ns, field_selector="metadata.name!=s0").items) == 4


def a_patch_is_merged_or_a_list_of_changes(ns):
    apps = client.AppsV1Api()
    labels = {"app": "a"}
    template = {
        "metadata": {"labels": labels},
        "spec": {"containers": [{"name": "c", "image": "i"}]},
    }
    spec = {"selector": {"matchLabels": labels}, "template": template, "replicas": 0}
    apps.create_namespaced_deployment(ns, {"metadata": {"name": "a"}, "spec": spec})
    more = {"spec": {"template": {"spec": {"nodeSelector": {"disk": "fast"}}}}}
    both = apps.patch_namespaced_deployment("a", ns, more).spec.template.spec
    assert (both.node_selector, both.containers[0].name) == ({"disk": "fast"}, "c")
    steps = [{"op": "remove", "path": "/spec/template/spec/nodeSelector"}]
    assert not apps.patch_namespaced_deployment("a", ns, steps).spec.template.spec.node_selector
    assert (
        apps.patch_namespaced_deployment_scale("a", ns, {"spec": {"replicas": 0}}).status.replicas
        == 0
    )


def what_is_wrong_is_told_by_field(ns):
    make = CORE().create_namespaced_pod
    body = pod("a")
    body["spec"]["containers"][0]["image"] = None
    body["spec"]["restartPolicy"] = "Sometimes"
    told = refused(422, "Invalid", make, ns, body)
    fields = [cause["field"] for cause in told["details"]["causes"]]
    assert fields == ["spec.containers[0].image", "spec.restartPolicy"]
    make(ns, pod("b"))
    assert refused(409, "AlreadyExists", make, ns, pod("b"))["message"] == 'pods "b" already exists'
    old = {"preconditions": {"resourceVersion": "1"}}
    refused(409, "Conflict", CORE().delete_namespaced_pod, "b", ns, body=old)


def a_dry_run_writes_nothing(ns):
    make = CORE().create_namespaced_config_map
    assert make(ns, {"metadata": {"name": "a"}}, dry_run="All").metadata.uid
    refused(404, "NotFound", CORE().read_namespaced_config_map, "a", ns)


def an_owner_that_is_deleted_takes_what_it_owns_before_or_after(ns):
    api = client.AppsV1Api()
    for name, policy in (("a", "Foreground"), ("b", "Orphan")):
        labels = {"app": name}
        template = {"metadata": {"labels": labels}, "spec": pod(name)["spec"]}
        spec = {"selector": {"matchLabels": labels}, "template": template}
        api.create_namespaced_replica_set(ns, {"metadata": {"name": name}, "spec": spec})
        options = {"namespace": ns, "label_selector": f"app={name}"}
        until(CORE().list_namespaced_pod, lambda one: one.spec.node_name, **options)
        api.delete_namespaced_replica_set(name, ns, propagation_policy=policy)
        named = {"namespace": ns, "field_selector": f"metadata.name={name}"}
        gone(api.list_namespaced_replica_set, **named)
        left = CORE().list_namespaced_pod(**options).items
        assert len(left) == (policy == "Orphan"), (policy, left)


def files_are_made_one_after_the_other(ns):
    documents = [
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": {"k": "v"}},
        {
            "apiVersion": "v1",
            "kind": "List",
            "items": [pod("p") | {"apiVersion": "v1", "kind": "Pod"}],
        },
    ]
    with client.ApiClient() as api:
        for document in documents:
            utils.create_from_dict(api, document, namespace=ns)
    assert CORE().read_namespaced_config_map("a", ns).data == {"k": "v"}
    assert CORE().read_namespaced_pod("p", ns).spec.service_account_name == "default"


def a_lease_is_held_by_one(ns):
    """As programs elect a leader."""
    api, seconds = client.CoordinationV1Api(), 15
    lease = api.create_namespaced_lease(
        ns,
        {
            "metadata": {"name": "l"},
            "spec": {"holderIdentity": "a", "leaseDurationSeconds": seconds},
        },
    )
    lease.spec.holder_identity = "b"
    api.replace_namespaced_lease("l", ns, lease)
    lease.spec.holder_identity = "c"
    refused(409, "Conflict", api.replace_namespaced_lease, "l", ns, lease)
    assert api.read_namespaced_lease("l", ns).spec.holder_identity == "b"
