"""Custom resources, watches, streams and rights, in the manner of `objects`."""

from hands import CORE, GROUP, defined, failure, refused, running
from kubernetes import client, dynamic, stream, watch


def our_resources_live_as_custom_objects(ns):
    defined()
    api, place = client.CustomObjectsApi(), (*GROUP, ns, "azureidentities")
    body = {
        "apiVersion": "/".join(GROUP),
        "kind": "AzureIdentity",
        "metadata": {"name": "a"},
        "spec": {"type": 0, "clientID": "x", "unknown": 1},
    }
    made = api.create_namespaced_custom_object(*place, body)
    assert made["spec"] == {"type": 0, "clientID": "x"}
    changed = api.patch_namespaced_custom_object(*place, "a", {"spec": {"clientID": "y"}})
    assert changed["metadata"]["generation"] == 2
    changed["spec"]["clientID"] = "z"
    api.replace_namespaced_custom_object(*place, "a", changed)
    everywhere = api.list_cluster_custom_object(*GROUP, "azureidentities")["items"]
    assert [one["spec"]["clientID"] for one in everywhere] == ["z"]
    wrong = {**body, "metadata": {"name": "b"}, "spec": {"type": "one"}}
    told = refused(422, "Invalid", api.create_namespaced_custom_object, *place, wrong)
    assert told["details"]["causes"][0]["field"] == "spec.type"
    api.delete_namespaced_custom_object(*place, "a")
    assert api.list_namespaced_custom_object(*place)["items"] == []


def a_watch_tells_what_happens_after_a_list(ns):
    api = CORE()
    version = api.list_namespaced_config_map(ns).metadata.resource_version
    api.create_namespaced_config_map(ns, {"metadata": {"name": "a"}})
    api.patch_namespaced_config_map("a", ns, {"data": {"k": "v"}})
    api.delete_namespaced_config_map("a", ns)
    seen, watcher = [], watch.Watch()
    options = {"namespace": ns, "resource_version": version}
    for event in watcher.stream(api.list_namespaced_config_map, **options):
        seen.append((event["type"], event["object"].data))
        if event["type"] == "DELETED":
            watcher.stop()
    assert seen == [("ADDED", None), ("MODIFIED", {"k": "v"}), ("DELETED", {"k": "v"})]


def a_watch_from_a_forgotten_version_is_410_and_one_from_a_new_list_goes_on(ns):
    defined()
    api, place = client.CustomObjectsApi(), (*GROUP, ns, "azureidentitybindings")
    call = api.list_namespaced_custom_object

    def watched():
        return next(iter(watch.Watch().stream(call, *place, resource_version="1")))

    error = failure(watched)
    assert error.status == 410, error
    assert error.reason.startswith("Expired: too old resource version: 1 ("), error
    version = call(*place)["metadata"]["resourceVersion"]
    metadata = {"name": "b"}
    body = {"apiVersion": "/".join(GROUP), "kind": "AzureIdentityBinding", "metadata": metadata}
    api.create_namespaced_custom_object(*place, {**body, "spec": {"selector": "s"}})
    events = watch.Watch().stream(call, *place, resource_version=version, timeout_seconds=100)
    event = next(iter(events))
    assert (event["type"], event["object"]["metadata"]["name"]) == ("ADDED", "b")


def a_program_runs_in_a_pod_with_its_streams_and_exit_code(ns):
    running(ns, "shell")
    script = ["sh", "-c", "echo out; echo err >&2; read line; echo got $line; exit 7"]
    held = stream.stream(
        CORE().connect_get_namespaced_pod_exec,
        *("shell", ns),
        command=script,
        stdin=True,
        stdout=True,
        stderr=True,
        tty=False,
        _preload_content=False,
    )
    held.write_stdin("a line\n")
    held.run_forever(timeout=100)
    assert (held.read_stdout(), held.read_stderr()) == ("out\ngot a line\n", "err\n")
    assert held.returncode == 7
    held.close()
    execute = CORE().connect_get_namespaced_pod_exec
    error = failure(stream.stream, execute, "nobody", ns, command=["true"], stdout=True)
    assert error.reason.startswith("Handshake status 404 Not Found"), error
    assert 'pods \\"nobody\\" not found' in error.reason, error


def a_log_is_read_and_followed_to_its_end(ns):
    running(ns, "teller", "sh", "-c", "echo one; echo two; sleep 1; echo three; exec sleep 999")
    lines = watch.Watch().stream(CORE().read_namespaced_pod_log, name="teller", namespace=ns)
    assert [next(lines) for _ in range(3)] == ["one", "two", "three"]
    assert CORE().read_namespaced_pod_log("teller", ns, tail_lines=1) == "three\n"


def an_account_has_tokens_and_is_who_they_say(ns):
    asked = {"spec": {"audiences": None, "expirationSeconds": 3600}}
    CORE().create_namespaced_service_account(ns, {"metadata": {"name": "robot"}})
    made = CORE().create_namespaced_service_account_token("robot", ns, asked)
    assert made.status.expiration_timestamp.tzinfo
    theirs = client.Configuration.get_default_copy()
    theirs.refresh_api_key_hook = None
    theirs.api_key = {"BearerToken": f"Bearer {made.status.token}"}
    with client.ApiClient(theirs) as robot:
        me = client.AuthenticationV1Api(robot).create_self_subject_review({})
        assert me.status.user_info.username == f"system:serviceaccount:{ns}:robot"
        told = refused(403, "Forbidden", CORE(robot).list_namespaced_secret, ns)
        assert told["message"] == (
            f'secrets is forbidden: User "system:serviceaccount:{ns}:robot" cannot list resource '
            f'"secrets" in API group "" in the namespace "{ns}"'
        )
    review = client.AuthenticationV1Api().create_token_review(
        {"spec": {"token": made.status.token}}
    )
    assert review.status.authenticated


def rights_are_asked_for_oneself_and_for_others(ns):
    api = client.AuthorizationV1Api()
    wish = {"verb": "use", "group": GROUP[0], "resource": "azureidentities", "namespace": ns}
    mine = api.create_self_subject_access_review({"spec": {"resourceAttributes": wish}})
    assert mine.status.allowed
    account = f"system:serviceaccount:{ns}:default"
    spec = {"user": account, "resourceAttributes": wish}
    assert not api.create_subject_access_review({"spec": spec}).status.allowed
    rbac = client.RbacAuthorizationV1Api()
    rule = {"verbs": ["use"], "apiGroups": [GROUP[0]], "resources": ["azureidentities"]}
    rbac.create_namespaced_role(ns, {"metadata": {"name": "user"}, "rules": [rule]})
    to = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "user"}
    who = [{"kind": "ServiceAccount", "name": "default", "namespace": ns}]
    rbac.create_namespaced_role_binding(
        ns, {"metadata": {"name": "user"}, "roleRef": to, "subjects": who}
    )
    assert api.create_subject_access_review({"spec": spec}).status.allowed
    rules = api.create_self_subject_rules_review({"spec": {"namespace": ns}})
    assert any("*" in one.verbs for one in rules.status.resource_rules)


def the_dynamic_client_finds_and_makes_what_discovery_tells(ns):
    """As Ansible uses it."""
    defined()
    found = dynamic.DynamicClient(client.ApiClient())
    identities = found.resources.get(api_version="/".join(GROUP), kind="AzureIdentity")
    spec = {"type": 0, "resourceID": "/r", "clientID": "c"}
    body = {"kind": "AzureIdentity", "apiVersion": "/".join(GROUP), "metadata": {"name": "d"}}
    identities.create(body={**body, "spec": spec}, namespace=ns)
    assert identities.get(name="d", namespace=ns).spec.clientID == "c"
    kinds = {one.kind for one in found.resources.search(group="apps")}
    assert {"Deployment", "ReplicaSet", "DaemonSet"} <= kinds
