"""The walk-through with the real az and kubectl: what each of its steps must show.

The steps themselves are read from examples/walkthrough: there is one text of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from podidentity_sandbox.demo import az_judgements as az
from podidentity_sandbox.demo import judgements as judge
from podidentity_sandbox.demo.script import Chapter, Scene
from podidentity_sandbox.demo.story import Judgement, Step
from podidentity_sandbox.world import SandboxError

EXPECTED: Mapping[str, Judgement] = {
    "0": judge.succeeded,
    "1": az.registered,
    "2a": az.enabled,
    "2b": judge.succeeded,
    "3": judge.one_nmi_a_node,
    "4a": az.made,
    "4b": az.vault_made,
    "4c": az.secret_kept,
    "4d": az.identity_made,
    "4e": az.account_made,
    "4f": az.container_made,
    "4g": az.made_before,
    "5": judge.ids_of_the_identity,
    "6": az.may_read_the_vault,
    "7a": az.role_given,
    "7b": az.role_given,
    "8": judge.created,
    "9a": az.pod_identity_added,
    "9b": az.identity_and_binding,
    "9c": az.on_the_scale_set,
    "9d": az.cluster_may_use_it,
    "10a": judge.created,
    "10b": az.running,
    "11": judge.opens_shell,
    "12": judge.token_of_the_identity,
    "13": judge.secret,
    "14": judge.log_names_everything,
    "15": az.signed_in_as_the_identity,
    "16a": az.uploaded,
    "16b": az.in_the_container,
    "17a": judge.succeeded,
    "17b": judge.created,
    "17c": judge.created,
    "17d": judge.secret,
    "18a": judge.created,
    "18b": judge.leaks,
    "19": judge.identity_not_found,
    "20a": judge.created,
    "20b": judge.refused_elsewhere,
    "20c": az.log_says_why,
    "20d": judge.explained,
    "21a": judge.succeeded,
    "21b": judge.vault_refuses,
    "22a": judge.succeeded,
    "22b": judge.fails_closed,
    "22c": judge.succeeded,
    "22d": judge.token_again,
    "23a": az.pod_identity_deleted,
    "23b": az.objects_gone,
    "23c": az.off_the_scale_set,
    "23d": az.refused_again,
}
"""By the step's id."""

_PATIENCE = 90.0
"""Seconds for one step; the longest waits for Azure to know a role everywhere."""


def steps_of(chapters: Sequence[Chapter]) -> list[tuple[str, list[Step]]]:
    """Return the story as `tell` takes it; raise SandboxError unless each step is judged."""
    ids = [scene.id for chapter in chapters for scene in chapter.scenes]
    if sorted(ids) != sorted(EXPECTED):
        odd = ", ".join(sorted(set(ids) ^ set(EXPECTED)) or sorted(ids))
        raise SandboxError(f"steps and expectations do not pair: {odd}")
    return [(chapter.title, [_step(scene) for scene in chapter.scenes]) for chapter in chapters]


def _step(scene: Scene) -> Step:
    return Step(
        number=scene.number,
        name=scene.title,
        command=scene.command,
        judge=EXPECTED[scene.id],
        in_pod=scene.in_pod,
        opens_pod=scene.opens_pod,
        at_terminal=scene.opens_pod,
        seconds=_PATIENCE,
    )
