"""Which files of a folder are whole, in which order they came, and how versions are numbered."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from saerl_assets.domain.arrivals import Seen, Watched, look_again, newest_keys, next_key, split_key


def seen(name: str, n_bytes: int = 1, modified: int = 0, changed: int = 0) -> Seen:
    return Seen(name, n_bytes, modified, changed)


def test_a_file_is_whole_once_it_has_not_changed_between_two_looks() -> None:
    first, whole = look_again({}, [seen("a", 10)])
    assert whole == []
    second, whole = look_again(first, [seen("a", 20)])
    assert whole == []
    third, whole = look_again(second, [seen("a", 20, modified=1)])
    assert whole == []
    _, whole = look_again(third, [seen("a", 20, modified=1)])
    assert whole == ["a"]


def test_files_come_in_the_order_of_their_arrival_whatever_they_are_called() -> None:
    first, _ = look_again({}, [seen("z", changed=5)])
    second, _ = look_again(first, [seen("z", changed=5), seen("a", changed=9), seen("m", changed=7)])
    _, whole = look_again(second, [seen("a", changed=9), seen("m", changed=7), seen("z", changed=5)])
    assert whole == ["z", "m", "a"]


def test_a_file_that_is_written_again_keeps_its_place_but_waits() -> None:
    remembered, _ = look_again({}, [seen("a", changed=1), seen("b", changed=2)])
    remembered, whole = look_again(remembered, [seen("a", 2, changed=3), seen("b", changed=2)])
    assert whole == ["b"]
    _, whole = look_again(remembered, [seen("a", 2, changed=3), seen("b", changed=2)])
    assert whole == ["a", "b"]


def test_attempts_are_remembered_until_the_file_changes() -> None:
    tried = {"a": Watched(1, 0, 1, 2)}
    assert look_again(tried, [seen("a")])[0]["a"].n_attempts == 2
    assert look_again(tried, [seen("a", 5)])[0]["a"].n_attempts == 0


@given(st.lists(st.lists(st.tuples(st.sampled_from("abcd"), st.integers(0, 2)), unique_by=lambda x: x[0]), max_size=6))
def test_what_is_whole_was_there_before_with_the_same_size_and_numbers_are_distinct(
    looks: list[list[tuple[str, int]]],
) -> None:
    remembered: dict[str, Watched] = {}
    before: dict[str, int] = {}
    for look in looks:
        remembered, whole = look_again(remembered, [seen(name, size) for name, size in look])
        now = dict(look)
        assert set(whole) == {name for name, size in now.items() if before.get(name) == size}
        assert set(remembered) == set(now)
        numbers = [watched.number for watched in remembered.values()]
        assert len(set(numbers)) == len(numbers)
        before = now


def test_versions_of_a_name() -> None:
    known = ["math-v1", "math-v10", "math-v9", "math-hard-v2"]
    assert newest_keys(known) == {"math": "math-v10", "math-hard": "math-hard-v2"}
    assert next_key("math-v1", known) == "math-v11"
    assert next_key("code-v3", known) == "code-v3"
    assert split_key("a-v-v12") == ("a-v", 12)
