"""What a second `enable` keeps of the first, decided from a DaemonSet and a command line."""

from __future__ import annotations

from typing import Any

import click
import pytest

from podidentity import manifests
from podidentity.cli.commands.enable import EVERYTHING, FORGETTABLE, enable
from podidentity.cli.kept_options import (
    RECORD,
    Told,
    kept_of,
    told_now,
)
from podidentity.cli.output import CommandError


def now(*words: str) -> Told:
    """Return what a command line tells."""
    context = enable.make_context("enable", list(words))
    return told_now(context, context.params["nmi_arg"])


def there(told: Told, *, image: str = manifests.IMAGE, **more: Any) -> dict[str, Any]:
    """Return NMI's DaemonSet as an `enable` that was told this leaves it."""
    *_, made = manifests.nmi(image=image, extra_args=told.flags, **more)
    record = " ".join(told.record(enable))
    made["metadata"]["annotations"] = {RECORD: record} if record else {}
    found: dict[str, Any] = made
    return found


@pytest.mark.parametrize(
    "words",
    [
        ["--backend=lrp"],
        ["--identity-type=0", "--identity-type=3"],
        ["--no-admission-policies", "--node-tokens", "--no-aks-exception"],
        ["--admission-policies", "--no-node-tokens"],
        ["--token-audience=api://a", "--token-audience=api://b"],
        ["--startup-taint=example.com/wait"],
        ["--proxy-secret=by-proxy"],
        [
            "--profile=aks-automatic",
            *("--toleration=a", "--toleration=b=c", "--toleration=d:NoExecute"),
            *("--toleration=e=f:NoSchedule", "--toleration=g="),
        ],
        ["--nmi-arg=--hold=1", "--nmi-arg=--debug-port=8087"],
    ],
    ids=lambda words: words[0],
)
def test_an_enable_that_is_told_nothing_keeps_it_and_says_the_same_words(words: list[str]) -> None:
    kept = kept_of(there(now(*words)), enable)
    assert kept == now(*words)
    assert sorted(kept.words(enable)) == sorted(words)


@pytest.mark.parametrize(
    ("before", "words", "after"),
    [
        ([], ["--hold=1"], ["--hold=1"]),
        (["--hold=0", "--ambiguous=reject"], [], ["--hold=0", "--ambiguous=reject"]),
        (["--hold=0", "--ambiguous=reject"], ["--hold=1"], ["--ambiguous=reject", "--hold=1"]),
        (["--hold=0", "--ambiguous=reject"], ["--hold-"], ["--ambiguous=reject"]),
        (["--hold=0"], ["--hold-", "--hold=1"], ["--hold=1"]),
        (["--hold", "0", "--ambiguous=reject"], ["--hold=1"], ["--ambiguous=reject", "--hold=1"]),
        (["--hold=0"], ["--hold=1", "--hold=2"], ["--hold=1", "--hold=2"]),
        (["--compat-text-errors"], ["--hold=1"], ["--compat-text-errors", "--hold=1"]),
        (["--hold=0", "-v=5"], ["--hold=1"], ["-v=5", "--hold=1"]),
        (["-v", "5", "--hold=0"], ["--v=6"], ["--hold=0", "--v=6"]),
        (["-v=5"], ["--v-"], []),
        (["--audit-log", "-", "--hold=0"], ["--audit-log=a"], ["--hold=0", "--audit-log=a"]),
        (["5", "-v=5"], [], ["5", "-v=5"]),
        ([], ["--hold=1-", "hold-"], ["--hold=1-", "hold-"]),
        ([], ["hold-"], ["hold-"]),
        ([], ["--compat-text-errors"], ["--compat-text-errors"]),
    ],
)
def test_a_flag_of_nmi_counts_for_itself_alone(
    before: list[str], words: list[str], after: list[str]
) -> None:
    told = Told(flags=tuple(words))
    kept = Told(flags=tuple(before)).left_by(told)
    assert list(kept.and_now(told).flags) == after


def test_of_an_option_of_enable_the_later_value_counts_and_the_others_stay() -> None:
    before, told = (
        now("--backend=lrp", "--node-tokens"),
        now("--backend=nftables", "--proxy-secret=p"),
    )
    left = before.left_by(told)
    assert left.options == {"node_tokens": True}
    together = {"node_tokens": True, "backend": "nftables", "proxy_secret": "p"}
    assert left.and_now(told).options == together
    assert before.and_now(told).options == together


def test_what_is_not_there_was_told_nothing() -> None:
    assert kept_of(None, enable) == Told()
    bare = there(Told())
    del bare["metadata"]["annotations"]
    assert kept_of(bare, enable) == Told()
    del bare["spec"]["template"]["spec"]["containers"][0]["image"]
    assert kept_of(bare, enable) == Told()


def test_the_record_is_an_annotation_by_this_name_and_has_what_the_objects_do_not_tell() -> None:
    assert now("--image=i:1", "--nmi-arg=--hold=1").record(enable) == []
    made = there(Told())
    made["metadata"]["annotations"] = {"aadpodidentity.k8s.io/enabled-with": "--backend=lrp"}
    assert kept_of(made, enable).options == {"backend": "lrp"}


def test_what_follows_from_the_cluster_is_nothing_that_enable_was_told() -> None:
    derived = ("--exception-namespaces=flux-system,kube-system", "--operation-mode=standard")
    told = now("--nmi-arg=--exception-namespaces=mine", "--nmi-arg=--operation-mode=managed")
    made = there(told, derived_args=derived, as_node=True, startup_taint="a", policy=True)
    (args, _) = (each["args"] for each in made["spec"]["template"]["spec"]["containers"])
    assert set(derived) < set(args)
    assert kept_of(made, enable).flags == told.flags


@pytest.mark.parametrize(
    ("image", "kept"),
    [
        (manifests.IMAGE, {}),
        ("localhost/podidentity:0.1.0", {}),
        ("podidentity:0.1.0", {}),
        ("localhost/podidentity:mine", {"image": "localhost/podidentity:mine"}),
        ("r.example.com/podidentity:0.2.0", {"image": "r.example.com/podidentity:0.2.0"}),
    ],
)
def test_an_image_that_nobody_named_goes_with_its_version(image: str, kept: dict[str, str]) -> None:
    assert kept_of(there(Told(), image=image), enable).options == kept


def test_flags_that_0_1_was_told_are_kept_and_neither_its_own_nor_those_without_effect() -> None:
    own = ["--operation-mode=managed", "--forceNamespaced", "--http-probe-port=8085"]
    paths = ["--netns-dir=/run/netns", "--cgroup-root=/c", "--proc-sys-net=/host/proc/sys/net"]
    told = ["--audit-log=/var/log/a", "--operation-mode=standard"]
    made = there(Told())
    args = ["nmi", "--node=$(NODE_NAME)", *own, *paths, *told]
    made["spec"]["template"]["spec"]["containers"] = [{"name": "nmi", "args": args}]
    assert list(kept_of(made, enable).flags) == told


@pytest.mark.parametrize("option", [each for each in FORGETTABLE if each != EVERYTHING])
def test_one_option_is_forgotten_and_the_others_are_not(option: str) -> None:
    told = now(
        *("--image=i:1", "--nmi-arg=--hold=1", "--identity-type=0", "--no-admission-policies"),
        *("--node-tokens", "--token-audience=a", "--startup-taint", "--backend=lrp"),
        "--proxy-secret=by-proxy",
        *("--profile=aks-automatic", "--toleration=a", "--no-aks-exception"),
    )
    left = told.without([option]).words(enable)
    gone = set(told.words(enable)) - set(left)
    assert [each.removeprefix("--").removeprefix("no-").partition("=")[0] for each in gone] == [
        option
    ]
    assert told.without([EVERYTHING]) == Told()


@pytest.mark.parametrize(
    "text", ["--no-such-option", "--profile=none", "--help", "--image=i:1", "'"]
)
def test_a_record_that_cannot_be_read_is_said_with_the_way_out(text: str) -> None:
    made = there(Told())
    made["metadata"]["annotations"] = {RECORD: text}
    with pytest.raises(CommandError, match="--forget all"):
        kept_of(made, enable)


def test_a_flag_that_nmi_has_not_cannot_be_taken_back() -> None:
    with pytest.raises(CommandError, match="NMI has no flag --hodl"):
        now("--nmi-arg=--hodl-")


def test_each_option_of_enable_is_kept_or_is_of_one_run_alone() -> None:
    of_one_run = {
        *("agents", "nmi_arg", "nmi_args", "grants", "node_labels", "with_mic", "mic_arg"),
        *("forget", "wait", "timeout", "dry_run", "output", "kubeconfig", "context"),
    }
    options = {each.name: each.opts[0] for each in enable.params if isinstance(each, click.Option)}
    kept = {name for name, option in options.items() if option.removeprefix("--") in FORGETTABLE}
    assert set(options) == (kept - {"nmi_arg"}) | of_one_run
