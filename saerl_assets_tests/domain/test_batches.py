from __future__ import annotations

from typing import TYPE_CHECKING, get_args

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from saerl_assets.domain.batches import Plan, fill_up, plan_manifest
from saerl_assets.domain.errors import SaerlError
from saerl_assets.domain.manifests import manifest_digest
from saerl_assets.domain.spec import BatchSpec, ControlArm

if TYPE_CHECKING:
    from random import Random

CONTROLS = get_args(ControlArm)
ARMS = sorted(["balanced", "clustered", *CONTROLS])
GROUP = ["arm", "epoch"]
HYGIENE = ("contaminated", "near_duplicate")
FILTERS = {"filtered": "random_drop", "out_of_range": "random_drop"}
"""What a filter drops, and what stands for it in the arm that drops at random."""


def candidates_of(n: int, *, n_clusters: int = 4, kept: float = 0.9, seed: int = 0) -> pl.DataFrame:
    rng = np.random.default_rng(seed)
    return pl.DataFrame(
        {
            "prompt_id": [f"{number:032x}" for number in rng.permutation(n)],
            "cluster_id": rng.integers(0, n_clusters, n).astype(np.uint32) * 3,
            # Few values, so that there are ties.
            "difficulty": rng.integers(0, 10, n) / 4,
            "n_tokens": rng.integers(1, 100, n).astype(np.uint32),
            "kept": rng.random(n) < kept,
            "quality": rng.random(n),
            # What two controls are planned on: other clusters, and difficulties with ties of their own.
            "dense_cluster_id": rng.integers(0, n_clusters + 1, n).astype(np.uint32) * 2,
            "dense_difficulty": rng.integers(0, 8, n) / 2 - 1,
            "true_difficulty": rng.integers(0, 5, n).astype(np.float64),
        }
    )


def with_reasons(candidates: pl.DataFrame, code: str, *, fraction: float) -> pl.DataFrame:
    """Some candidates, always the same ones of the same frame, with a reason to be left out."""
    rng = np.random.default_rng([candidates.height, len(code)])
    chosen = pl.Series(rng.random(candidates.height) < fraction)
    reason = pl.when(chosen).then(pl.format("{} because.", "prompt_id"))
    return candidates.with_columns(reason.alias(code))


@st.composite
def cases(draw: st.DrawFn) -> tuple[pl.DataFrame, BatchSpec, int]:
    candidates = candidates_of(
        draw(st.integers(1, 70)),
        n_clusters=draw(st.integers(1, 6)),
        kept=draw(st.sampled_from([0.6, 0.9, 1.0])),
        seed=draw(st.integers(0, 1000)),
    )
    for code in draw(st.sampled_from([(), ("contaminated",), ("near_duplicate",), HYGIENE])):
        candidates = with_reasons(candidates, code, fraction=draw(st.sampled_from([0.0, 0.2, 0.5])))
    if draw(st.booleans()):
        candidates = with_reasons(candidates, "out_of_range", fraction=draw(st.sampled_from([0.0, 0.3, 0.6])))
    spec = BatchSpec(
        planner=draw(st.sampled_from(["clustered", "balanced"])),
        batch_size=draw(st.integers(1, 9)),
        mix_fraction=draw(st.sampled_from([0.0, 0.25, 0.7, 1.0])),
        clusters_per_batch=draw(st.integers(1, 5)),
        curriculum=draw(st.sampled_from(["none", "sorted", "staged"])),
        stage_fraction=draw(st.sampled_from([0.1, 0.25, 0.9])),
        tail=draw(st.sampled_from(["drop", "short", "pad"])),
        epochs=draw(st.integers(1, 2)),
        first_epoch=draw(st.sampled_from([0, 0, 3])),
        max_prompt_tokens=draw(st.sampled_from([None, 60])),
        controls=CONTROLS,
    )
    return candidates, spec, draw(st.integers(0, 3))


def plan(candidates: pl.DataFrame, spec: BatchSpec | None = None, *, seed: int = 0, **fields: object) -> Plan:
    return plan_manifest(
        candidates,
        spec or BatchSpec.model_validate({"batch_size": 4, "controls": CONTROLS} | fields),
        key="some-v1",
        seed=seed,
    )


def epochs_of(spec: BatchSpec) -> range:
    return range(spec.first_epoch, spec.first_epoch + spec.epochs)


def is_plannable(candidates: pl.DataFrame, spec: BatchSpec) -> bool:
    fits = candidates.filter(
        (pl.col("n_tokens") <= (spec.max_prompt_tokens or 1000)) & pl.col("kept") & is_clean(candidates)
    )
    return fits.height >= (spec.batch_size if spec.tail == "drop" else 1)


def is_clean(candidates: pl.DataFrame) -> pl.Expr:
    """What hygiene and the range of difficulty leave."""
    codes = [code for code in (*HYGIENE, "out_of_range") if code in candidates.columns]
    return pl.all_horizontal(pl.lit(value=True), *(pl.col(code).is_null() for code in codes))


@settings(max_examples=150, deadline=None)
@given(cases())
def test_every_prompt_is_ordered_once_or_deferred_and_batches_are_whole(
    case: tuple[pl.DataFrame, BatchSpec, int],
) -> None:
    candidates, spec, seed = case
    if not is_plannable(candidates, spec):
        with pytest.raises(SaerlError):
            plan(candidates, spec, seed=seed)
        return
    planned = plan(candidates, spec, seed=seed)
    everyone = sorted(candidates["prompt_id"])
    assert set(planned.manifest["epoch"].unique()) == set(epochs_of(spec))
    for arm in ARMS:
        for epoch in epochs_of(spec):
            rows = planned.manifest.filter(arm=arm, epoch=epoch)
            deferred = planned.deferred.filter(arm=arm, epoch=epoch)
            own = rows.filter(~pl.col("is_padding"))
            assert sorted([*own["prompt_id"], *deferred["prompt_id"]]) == everyone
            check_batches(rows, spec)
            check_purity(rows, spec, arm, candidates)
            assert deferred.filter(reason_code="too_long").height == (
                candidates.filter(pl.col("n_tokens") > (spec.max_prompt_tokens or 1000)).height
            )
    check_true_values(planned, candidates)
    check_arms_agree(planned, spec)
    check_hygiene(planned, candidates, spec)


def check_batches(rows: pl.DataFrame, spec: BatchSpec) -> None:
    size = spec.batch_size
    assert rows["step"].to_list() == [place // size for place in range(rows.height)]
    assert rows["slot"].to_list() == [place % size for place in range(rows.height)]
    if spec.tail != "short":
        assert rows.height % size == 0
    own = rows.filter(~pl.col("is_padding"))
    assert not own.select("step", "prompt_id").is_duplicated().any()
    assert rows["is_padding"].to_list() == sorted(rows["is_padding"])
    assert rows.height - own.height < size
    if spec.tail != "pad":
        assert own.height == rows.height
    elif own.height >= size:
        last = rows.filter(pl.col("step") == pl.col("step").max())
        assert last["prompt_id"].n_unique() == size
    assert rows["prompt_id"].to_list()[own.height :] == [
        own["prompt_id"][place % own.height] for place in range(rows.height - own.height)
    ]


def check_purity(rows: pl.DataFrame, spec: BatchSpec, arm: str, candidates: pl.DataFrame) -> None:
    """Unmixed batches of `clustered` hold one of the clusters they are drawn from, but for as many as there are."""
    follows_clusters = arm == "clustered" or (
        spec.planner == "clustered" and arm in {"length_difficulty", "random_drop", "true_difficulty", "dense_state"}
    )
    if follows_clusters and spec.mix_fraction == 0.0:
        cluster = "dense_cluster_id" if arm == "dense_state" else "cluster_id"
        drawn = rows.select("step", "prompt_id").join(candidates.select("prompt_id", cluster), on="prompt_id")
        n_clusters = drawn.group_by("step").agg(pl.col(cluster).n_unique())[cluster]
        assert (n_clusters > 1).sum() <= drawn[cluster].n_unique()


def check_true_values(planned: Plan, candidates: pl.DataFrame) -> None:
    """Also in arms that plan with other clusters and difficulties."""
    columns = ["prompt_id", "cluster_id", "difficulty"]
    shown = planned.manifest.select(columns).unique().sort("prompt_id")
    assert shown.equals(candidates.select(columns).join(shown, on="prompt_id", how="semi").sort("prompt_id"))


def check_arms_agree(planned: Plan, spec: BatchSpec) -> None:
    """The same prompts and the same number of batches in all arms; the control of the filter matches in
    count."""
    for epoch in epochs_of(spec):
        rows = {arm: planned.manifest.filter(arm=arm, epoch=epoch) for arm in ARMS}
        wanted = rows[spec.planner]
        for arm in ARMS:
            assert rows[arm].height == wanted.height
            own = rows[arm].filter(~pl.col("is_padding"))["prompt_id"]
            if arm != "random_drop":
                assert sorted(own) == sorted(wanted.filter(~pl.col("is_padding"))["prompt_id"])
        deferred = planned.deferred.filter(epoch=epoch)
        dropped = deferred.filter(arm="random_drop")["reason_code"]
        filtered = deferred.filter(arm=spec.planner)["reason_code"].replace(FILTERS)
        assert dropped.sort().to_list() == filtered.sort().to_list()


def check_hygiene(planned: Plan, candidates: pl.DataFrame, spec: BatchSpec) -> None:
    """What hygiene leaves out is left out of every arm and epoch for its own reason, and of random_drop's draw."""
    left = candidates.filter(pl.col("n_tokens") <= (spec.max_prompt_tokens or 1000))
    for code in HYGIENE:
        told = left.filter(pl.col(code).is_not_null()) if code in left.columns else left[:0]
        reasons = dict(told.select("prompt_id", code).iter_rows()) if told.height else {}
        for arm in ARMS:
            for epoch in epochs_of(spec):
                rows = planned.deferred.filter(arm=arm, epoch=epoch, reason_code=code)
                assert dict(rows.select("prompt_id", "reason").iter_rows()) == reasons
        assert planned.manifest.filter(pl.col("prompt_id").is_in(list(reasons))).is_empty()
        left = left.filter(~pl.col("prompt_id").is_in(list(reasons)))


@settings(max_examples=25, deadline=None)
@given(cases(), st.randoms(use_true_random=False))
def test_the_plan_depends_on_the_set_of_candidates_only(
    case: tuple[pl.DataFrame, BatchSpec, int], random: Random
) -> None:
    candidates, spec, seed = case
    if not is_plannable(candidates, spec):
        return
    order = list(range(candidates.height))
    random.shuffle(order)
    one, other = plan(candidates, spec, seed=seed), plan(candidates[order], spec, seed=seed)
    assert one.manifest_id == other.manifest_id
    assert one.manifest.equals(other.manifest)
    assert one.deferred.equals(other.deferred)
    assert one.manifest_id == manifest_digest(one.manifest, one.deferred, key="some-v1")


@pytest.mark.parametrize("tail", ["drop", "short", "pad"])
@pytest.mark.parametrize("curriculum", ["none", "sorted", "staged"])
@pytest.mark.parametrize("planner", ["clustered", "balanced"])
def test_every_combination_keeps_every_rule(planner: str, curriculum: str, tail: str) -> None:
    """Nothing left to chance: both planners, all curricula and tails, three epochs, from no mixing to a full one."""
    candidates = candidates_of(61, kept=0.8)
    for mix_fraction in (0.0, 0.25, 1.0):
        fields = {"planner": planner, "curriculum": curriculum, "tail": tail, "mix_fraction": mix_fraction}
        spec = BatchSpec.model_validate({"batch_size": 8, "epochs": 3, "controls": CONTROLS, **fields})
        planned = plan(candidates, spec)
        for (arm, _), rows in planned.manifest.group_by("arm", "epoch", maintain_order=True):
            check_batches(rows, spec)
            check_purity(rows, spec, str(arm), candidates)
        check_true_values(planned, candidates)
        check_arms_agree(planned, spec)
        orders = planned.manifest.group_by(GROUP, maintain_order=True).agg("prompt_id")
        assert orders["prompt_id"].n_unique() == len(ARMS) * 3, "every arm and epoch has an order of its own"
        in_order = planned.manifest.filter(~pl.col("is_padding")).select(*GROUP, "prompt_id")
        once = pl.concat([in_order, planned.deferred.select(*GROUP, "prompt_id")])
        assert not once.is_duplicated().any()
        assert once.group_by(GROUP).len()["len"].to_list() == [61] * len(ARMS) * 3


@settings(max_examples=25, deadline=None)
@given(cases(), st.integers(1, 3))
def test_later_epochs_planned_by_themselves_are_those_planned_ahead(
    case: tuple[pl.DataFrame, BatchSpec, int], n_before: int
) -> None:
    candidates, spec, seed = case
    if not is_plannable(candidates, spec):
        return
    ahead = spec.model_copy(update={"first_epoch": 0, "epochs": n_before + 2})
    later = spec.model_copy(update={"first_epoch": n_before, "epochs": 2})
    one, other = plan(candidates, ahead, seed=seed), plan(candidates, later, seed=seed)
    for frame, whole in ((other.manifest, one.manifest), (other.deferred, one.deferred)):
        assert frame.drop("manifest_id").equals(whole.filter(pl.col("epoch") >= n_before).drop("manifest_id"))


def test_frames_are_those_of_the_tables() -> None:
    planned = plan(candidates_of(30))
    assert planned.manifest.schema == {
        "manifest_id": pl.String,
        "arm": pl.String,
        "epoch": pl.UInt32,
        "step": pl.UInt32,
        "slot": pl.UInt32,
        "prompt_id": pl.String,
        "cluster_id": pl.UInt32,
        "difficulty": pl.Float64,
        "is_padding": pl.Boolean,
    }
    assert planned.deferred.schema == {
        "manifest_id": pl.String,
        "arm": pl.String,
        "epoch": pl.UInt32,
        "prompt_id": pl.String,
        "reason_code": pl.String,
        "reason": pl.String,
    }
    assert planned.manifest["manifest_id"].unique().to_list() == [planned.manifest_id]
    assert planned.manifest.equals(planned.manifest.sort("arm", "epoch", "step", "slot"))
    assert planned.deferred.equals(planned.deferred.sort("arm", "epoch", "prompt_id"))


def test_every_epoch_arm_and_seed_has_its_own_order() -> None:
    # Equal lengths, so that every arm has ties to break.
    candidates = candidates_of(60, kept=1.0).with_columns(n_tokens=pl.lit(5, dtype=pl.UInt32))
    planned, other = plan(candidates, epochs=3), plan(candidates, epochs=3, seed=1)
    orders = {
        tuple(rows["prompt_id"]) for frame in (planned.manifest, other.manifest) for rows in frame.partition_by(GROUP)
    }
    assert len(orders) == 2 * 3 * len(ARMS)


def test_more_epochs_leave_the_first_ones_as_they_are() -> None:
    one, two = plan(candidates_of(50)), plan(candidates_of(50), epochs=2)
    assert one.manifest.drop("manifest_id").equals(two.manifest.filter(epoch=0).drop("manifest_id"))


def test_the_order_of_controls_in_the_spec_does_not_matter() -> None:
    some = plan(candidates_of(30), controls=("shuffle", "easy_to_hard"))
    same = plan(candidates_of(30), controls=("easy_to_hard", "shuffle", "shuffle"))
    assert some.manifest_id == same.manifest_id
    assert sorted(some.manifest["arm"].unique()) == ["balanced", "clustered", "easy_to_hard", "shuffle"]


def test_dropped_tails_differ_between_epochs_and_not_between_arms() -> None:
    planned = plan(candidates_of(43, kept=1.0), batch_size=8, epochs=4, curriculum="sorted")
    tails = planned.deferred.filter(reason_code="tail").group_by(GROUP).agg(pl.col("prompt_id").sort())
    assert (tails["prompt_id"].list.len() == 3).all()
    by_epoch = {tuple(tail) for tail in tails.filter(arm="clustered")["prompt_id"]}
    assert len(by_epoch) == 4
    assert {tuple(tail) for tail in tails["prompt_id"]} == by_epoch


def test_reasons_say_what_happened() -> None:
    candidates = candidates_of(40, kept=0.8).with_columns(reason=pl.lit("score 0.02 is among the lowest 20%"))
    planned = plan(candidates, batch_size=7, max_prompt_tokens=90)
    reasons = dict(planned.deferred.filter(arm="clustered").select("reason_code", "reason").iter_rows())
    assert reasons["filtered"] == "score 0.02 is among the lowest 20%"
    assert reasons["too_long"].startswith("It has 9")
    assert reasons["too_long"].endswith("tokens, more than batches.max_prompt_tokens = 90.")
    assert "when cut into batches of 7" in reasons["tail"]
    assert not set(planned.deferred["reason_code"]) - {"filtered", "too_long", "tail", "random_drop"}


def test_what_ranks_outside_is_deferred_with_its_reason_and_random_drop_leaves_out_as_many_at_random() -> None:
    outside = pl.int_range(pl.len()) < 6
    candidates = candidates_of(20, kept=1.0).with_columns(
        kept=pl.int_range(pl.len()) < 18,  # two more are filtered
        out_of_range=pl.when(outside).then(pl.lit("Number 19 of 20")),
    )
    planned = plan(candidates, batch_size=4)
    for arm in ("shuffle", "clustered", "true_difficulty"):
        deferred = planned.deferred.filter(arm=arm)
        assert sorted(deferred.filter(reason="Number 19 of 20")["prompt_id"]) == sorted(candidates["prompt_id"][:6])
        assert deferred["reason_code"].value_counts().sort("reason_code").rows() == [
            ("filtered", 2),
            ("out_of_range", 6),
        ]
    drawn = planned.deferred.filter(arm="random_drop")
    assert set(drawn["reason_code"]) == {"random_drop"}
    assert drawn["reason"].unique().to_list() == [
        "Dropped at random, in place of what quality and the range of difficulty leave out."
    ]
    assert drawn.height == 8
    assert not set(candidates["prompt_id"][:6]) <= set(drawn["prompt_id"])
    with pytest.raises(
        SaerlError, match="12 were dropped by the quality filter, 8 are outside the range of difficulty"
    ) as none:
        plan(
            candidates_of(20, kept=0.0).with_columns(out_of_range=pl.when(pl.int_range(pl.len()) < 8).then(pl.lit("x")))
        )
    assert "max_rank" in none.value.remedy


def test_a_prompt_that_is_too_long_and_filtered_counts_as_too_long() -> None:
    candidates = candidates_of(20, kept=1.0).with_columns(
        kept=pl.int_range(pl.len()) != 0,
        n_tokens=pl.when(pl.int_range(pl.len()) == 0).then(500).otherwise(10),
    )
    planned = plan(candidates, max_prompt_tokens=100)
    assert set(planned.deferred.filter(prompt_id=candidates["prompt_id"][0])["reason_code"]) == {"too_long"}


def test_the_first_reason_that_fits_is_given() -> None:
    candidates = candidates_of(20, kept=0.5).with_columns(
        n_tokens=pl.when(pl.int_range(pl.len()) == 0).then(500).otherwise(10),
        contaminated=pl.when(pl.int_range(pl.len()) < 2).then(pl.lit("In bench.jsonl:7.")),
        near_duplicate=pl.when(pl.int_range(pl.len()) < 3).then(pl.lit("It nearly repeats x.")),
        kept=pl.int_range(pl.len()) > 3,
    )
    planned = plan(candidates, max_prompt_tokens=100)
    for place, code in enumerate(["too_long", "contaminated", "near_duplicate", "filtered"]):
        rows = planned.deferred.filter(prompt_id=candidates["prompt_id"][place])
        codes = set(rows.filter(pl.col("arm") != "random_drop")["reason_code"])
        assert codes == {code}
    assert "In bench.jsonl:7." in set(planned.deferred["reason"])


def test_without_anything_left_out_the_manifest_is_the_one_without_hygiene() -> None:
    clean = candidates_of(40)
    nulls = clean.with_columns(pl.lit(None, pl.String).alias(code) for code in HYGIENE)
    assert plan(nulls).manifest_id == plan(clean).manifest_id


def test_nothing_left_to_plan_says_what_hygiene_left_out() -> None:
    candidates = candidates_of(10, kept=1.0).with_columns(
        contaminated=pl.when(pl.int_range(pl.len()) < 7).then(pl.lit("c")), near_duplicate=pl.lit("n")
    )
    with pytest.raises(SaerlError, match="7 repeat evaluation rows, 3 repeat each other, 0 were dropped") as caught:
        plan(candidates)
    assert "hygiene" in caught.value.where
    assert "table contamination" in caught.value.remedy


def test_every_arm_is_what_its_name_says() -> None:
    candidates = candidates_of(240, n_clusters=1, kept=1.0)
    candidates = candidates.with_columns(dense_cluster_id=pl.lit(4, pl.UInt32))
    measures = ["difficulty", "n_tokens", "dense_difficulty", "true_difficulty"]
    made = plan(candidates, batch_size=8, mix_fraction=0.0).manifest.join(
        candidates.select("prompt_id", *measures[1:]), on="prompt_id", maintain_order="left"
    )
    # One cluster, so that an arm with a curriculum has one order of difficulty.
    rises = {arm: {name for name in measures if made.filter(arm=arm)[name].is_sorted()} for arm in ARMS}
    by_difficulty = ("balanced", "clustered", "easy_to_hard", "random_clusters", "random_drop")
    assert rises == {arm: {"difficulty"} for arm in by_difficulty} | {
        "length_difficulty": {"n_tokens"},
        "dense_state": {"dense_difficulty"},
        "true_difficulty": {"true_difficulty"},
        "shuffle": set(),
    }
    candidates = candidates_of(240, kept=1.0)
    made = plan(candidates, batch_size=8, mix_fraction=0.0).manifest
    mixed = made.group_by("arm", "step").agg(pl.col("cluster_id").n_unique()).filter(pl.col("cluster_id") > 1)
    n_mixed = {arm: mixed.filter(arm=arm).height for arm in ARMS}
    assert max(n_mixed[arm] for arm in ("clustered", "length_difficulty", "random_drop", "true_difficulty")) <= 4
    assert min(n_mixed[arm] for arm in ("balanced", "dense_state", "easy_to_hard", "random_clusters", "shuffle")) > 20
    by_dense = made.filter(arm="dense_state").join(candidates.select("prompt_id", "dense_cluster_id"), on="prompt_id")
    n_dense = by_dense.group_by("step").agg(pl.col("dense_cluster_id").n_unique())["dense_cluster_id"]
    assert (n_dense > 1).sum() <= 5, "its batches are of the dense states' clusters"


@pytest.mark.parametrize("arm", ["dense_state", "true_difficulty"])
def test_a_control_on_request_leaves_every_other_arm_as_it_is(arm: str) -> None:
    candidates, default = candidates_of(80), BatchSpec().controls
    assert arm not in default
    without, beside = plan(candidates, controls=default), plan(candidates, controls=(*default, arm))
    assert beside.manifest_id != without.manifest_id
    for one, other in ((beside.manifest, without.manifest), (beside.deferred, without.deferred)):
        assert one.filter(pl.col("arm") != arm).drop("manifest_id").equals(other.drop("manifest_id"))
    bare = candidates.drop("dense_cluster_id", "dense_difficulty", "true_difficulty")
    assert plan(bare, controls=default).manifest_id == without.manifest_id


@pytest.mark.parametrize("column", ["dense_cluster_id", "dense_difficulty", "true_difficulty"])
def test_a_control_without_its_signal_is_refused_where_it_is_asked_for(column: str) -> None:
    candidates = candidates_of(20)
    hole = pl.when(pl.int_range(pl.len()) != 3).then(column).alias(column)
    for broken in (candidates.with_columns(hole), candidates.drop(column)):
        with pytest.raises(SaerlError, match=f"has no {column}, on which a control arm is planned") as caught:
            plan(broken)
        assert caught.value.code == "bad_candidates"
        assert "Materialise control_signals" in caught.value.remedy
        plan(broken, controls=("shuffle",))


def test_random_drop_drops_the_same_prompts_in_every_epoch() -> None:
    planned = plan(candidates_of(60, kept=0.7), tail="short", epochs=3)
    dropped = planned.deferred.filter(arm="random_drop", reason_code="random_drop")
    sets = {tuple(rows["prompt_id"]) for rows in dropped.partition_by("epoch")}
    assert len(sets) == 1
    filtered = planned.deferred.filter(arm="clustered", reason_code="filtered", epoch=0)["prompt_id"]
    assert len(filtered) == len(next(iter(sets)))
    assert set(filtered) != set(next(iter(sets)))


def test_one_cluster_and_one_prompt() -> None:
    assert plan(candidates_of(17, n_clusters=1), tail="short").manifest.height > 0
    lonely = plan(candidates_of(1, kept=1.0), tail="short")
    assert lonely.manifest.height == len(ARMS)
    padded = plan(candidates_of(1, kept=1.0), tail="pad").manifest.filter(arm="clustered")
    assert padded["is_padding"].to_list() == [False, True, True, True]


def test_padding_repeats_what_was_seen_earliest() -> None:
    assert fill_up(np.arange(6), 4).tolist() == [0, 1, 2, 3, 4, 5, 0, 1]
    assert fill_up(np.arange(8), 4).tolist() == list(range(8))
    assert fill_up(np.arange(2), 5).tolist() == [0, 1, 0, 1, 0]


@pytest.mark.parametrize("tail", ["drop", "short", "pad"])
def test_nothing_left_to_plan(tail: str) -> None:
    candidates = candidates_of(10).with_columns(kept=pl.col("prompt_id") != pl.col("prompt_id"))
    with pytest.raises(SaerlError, match=r"10 training prompts.*10 were dropped") as caught:
        plan(candidates, tail=tail)
    assert caught.value.code == "no_prompts"
    with pytest.raises(SaerlError, match="None of the 0 training prompts"):
        plan(candidates[:0], tail=tail)


def test_a_batch_larger_than_the_data() -> None:
    with pytest.raises(SaerlError, match="5 prompts do not fill one batch of 8") as caught:
        plan(candidates_of(5, kept=1.0), batch_size=8)
    assert caught.value.code == "batch_too_large"
    assert "batches.batch_size" in caught.value.where
    assert "5 or less" in caught.value.remedy


@pytest.mark.parametrize(
    ("column", "value", "problem"),
    [
        ("difficulty", None, "no finite difficulty"),
        ("difficulty", float("nan"), "no finite difficulty"),
        ("difficulty", float("inf"), "no finite difficulty"),
        ("cluster_id", None, "no cluster"),
        ("kept", None, "neither kept"),
        ("n_tokens", None, "number of tokens"),
        ("prompt_id", None, "no id"),
    ],
)
def test_candidates_without_a_value_are_refused(column: str, value: object, problem: str) -> None:
    candidates = candidates_of(10)
    broken = pl.when(pl.int_range(pl.len()) == 3).then(pl.lit(value)).otherwise(pl.col(column))
    candidates = candidates.with_columns(broken.cast(candidates.schema[column]).alias(column))
    with pytest.raises(SaerlError, match=problem) as caught:
        plan(candidates)
    assert caught.value.code == "bad_candidates"


def test_a_prompt_twice_is_refused() -> None:
    candidates = candidates_of(10)
    with pytest.raises(SaerlError, match="is there twice"):
        plan(pl.concat([candidates, candidates[4:5]]))


def test_a_manifest_keeps_its_name_for_ever() -> None:
    """A change of this name is a change of every user's order: intended, or a bug of a library or machine."""
    place = range(101)
    candidates = pl.DataFrame(
        {
            "prompt_id": [f"{at * 7919 % 65521:032x}" for at in place],
            "cluster_id": [at * at % 7 for at in place],
            "difficulty": [at * 37 % 50 / 8 for at in place],
            "n_tokens": [at * 13 % 90 + 1 for at in place],
            "kept": [at % 11 != 0 for at in place],
            "quality": [0.5] * 101,
        },
        schema_overrides={"cluster_id": pl.UInt32, "n_tokens": pl.UInt32},
    )
    usual = BatchSpec().controls
    names = {
        curriculum: plan(candidates, batch_size=8, curriculum=curriculum, epochs=2, controls=usual).manifest_id[:16]
        for curriculum in ("none", "sorted", "staged")
    }
    assert names == {"none": "64a064be6b88f312", "sorted": "3f60820719a71b6c", "staged": "ff6b353d22226cb7"}
