"""Rules: https://kubernetes.io/docs/concepts/overview/working-with-objects/names/."""

from __future__ import annotations

import pytest

from podidentity_sandbox.cluster import names


@pytest.mark.parametrize("name", ["a", "a-b", "a.b", "0", "a" * 253])
def test_a_subdomain_name_is_taken(name: str) -> None:
    assert names.subdomain_faults(name) == []


@pytest.mark.parametrize("name", ["", "A", "a_b", "-a", "a-", "a..b", "a.", "ä", "a" * 254, "a\n"])
def test_another_name_is_not(name: str) -> None:
    assert names.subdomain_faults(name)


def test_a_label_name_has_no_dots_and_63_letters() -> None:
    assert names.label_faults("a" * 63) == []
    assert names.label_faults("a.b")
    assert names.label_faults("a" * 64) == ["must be no more than 63 bytes"]


def test_a_role_may_have_colons_but_no_slash() -> None:
    assert names.path_faults("system:node") == []
    assert names.path_faults("a/b") == ["may not contain '/'"]
    assert names.path_faults("..") == ["may not be '..'"]


@pytest.mark.parametrize(
    ("key", "good"),
    [
        ("app", True),
        ("app.kubernetes.io/name", True),
        ("A_b.c", True),
        ("", False),
        ("/name", False),
        ("a/", False),
        ("a/b/c", False),
        ("Prefix/name", False),
        ("-x", False),
    ],
)
def test_the_key_of_a_label_has_a_name_and_perhaps_a_prefix(key: str, good: bool) -> None:
    assert (names.qualified_faults(key) == []) is good


@pytest.mark.parametrize(("value", "good"), [("", True), ("A.b_c-1", True), ("a b", False)])
def test_the_value_of_a_label_may_be_empty(value: str, good: bool) -> None:
    assert (names.value_faults(value) == []) is good


def test_a_generated_name_is_valid_and_new_each_time() -> None:
    made = {names.generated("nmi-") for _ in range(20)}
    assert len(made) == 20
    assert all(name.startswith("nmi-") and not names.subdomain_faults(name) for name in made)
