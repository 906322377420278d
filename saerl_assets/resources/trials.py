"""The trial of a version: its manifest's arms as exports, its held-out prompts, its policy.

Belongs here: gathering what a trial needs and where its results lie. Does not belong here: training (trial), what the
results show (domain.trial).
"""

import json
from dataclasses import fields
from pathlib import Path

import polars as pl

from saerl_assets.domain.batches import plan_manifest
from saerl_assets.domain.candidates import PlannedOn, gather_candidates
from saerl_assets.domain.errors import SaerlError
from saerl_assets.domain.folds import hash_fractions
from saerl_assets.domain.seeds import derive_seed
from saerl_assets.domain.spec import TrialSpec, digest
from saerl_assets.domain.trial import BASELINE
from saerl_assets.domain.verifiers import needs_answer, verifier_digest
from saerl_assets.resources.compute import ComputeResource
from saerl_assets.resources.exports import export_arm
from saerl_assets.resources.home import HomeResource
from saerl_assets.resources.manifests import current_manifest
from saerl_assets.storage.catalog import Version
from saerl_assets.trainers.export import whole_batches
from saerl_assets.trial.runs import Trial
from saerl_assets.trial.training import Question


def open_trial(home: HomeResource, compute: ComputeResource, key: str) -> Trial:
    """What `[trial]` of a version asks for, ready to be trained.

    Args:
        home: The home.
        compute: The device.
        key: The version's key.

    Raises:
        SaerlError: `no_trial`, `trial_with_feedback`, `no_manifest`, `unknown_arm`, `no_evaluation_prompts`,
            `too_few_steps`; what is wrong with the policy or the verifier.
    """
    from saerl_assets.models.sources import locate_model
    from saerl_assets.storage.home import model_cache

    version = home.version(key)
    spec = version.spec.trial
    if spec is None:
        remedy = "Add a section [trial] to the spec of a new version: policy and verifier at least."
        raise SaerlError("no_trial", f"The spec of {key} asks for no trial.", where="trial", remedy=remedy)
    if version.spec.batches.feedback is not None:
        problem = (
            "The order of [batches.feedback] is made while a training goes on: it cannot be drawn anew for a trial."
        )
        remedy = "Register a version without [batches.feedback] for the trial."
        raise SaerlError("trial_with_feedback", problem, where="batches.feedback", remedy=remedy)
    verifier = verifier_digest(spec.verifier)
    manifest = current_manifest(home, version)
    prompts = home.warehouse().rows("prompts", dataset_version=key)
    questions = _held_out(version, spec, prompts)
    files = locate_model(spec.policy, cache=model_cache(), folder=version.folder, key="trial.policy")
    arms = _arms(spec, manifest)
    n_steps = _n_steps(spec, {arm: _whole_steps(manifest, arm, version.spec.batches.batch_size) for arm in arms})
    manifest_id = str(manifest["manifest_id"][0])
    settled = spec.model_dump(mode="json", exclude={"policy", "arms", "n_seeds", "target"})
    asked = digest([[each.messages, each.answer, each.extra, each.topic] for each in questions])
    identity = digest([manifest_id, files.digest, settled, n_steps, asked, verifier])
    folder = home.open().trials(key) / identity[:16]
    orders = _Orders(home, version, manifest, prompts, folder / "orders")
    return Trial(folder, arms, orders.export, files, questions, spec, n_steps, compute.chosen_device())


MINUTES_TAG = "saerl/trial_minutes"
"""Tag of a run that says after how many minutes it begins no further training; 0: it trains nothing."""


class _Orders:
    """The order of every seed: that of the manifest, and others that only chance has made different.

    Seed 0 follows the manifest. For every other one all arms are planned again from the same prompts and scores with
    other random numbers, as a version with another seed would be: another shuffle, other turns of the clusters, other
    ties, and no difference where difficulty settles everything. Otherwise what one shuffle happened to be like would be
    in the result of every seed.
    """

    def __init__(
        self, home: HomeResource, version: Version, manifest: pl.DataFrame, prompts: pl.DataFrame, folder: Path
    ) -> None:
        self._home, self._version, self._manifest, self._prompts = home, version, manifest, prompts
        self._folder = folder
        self._planned: tuple[int, pl.DataFrame] = (0, manifest)
        self._candidates: pl.DataFrame | None = None

    def export(self, seed: int, arm: str) -> Path:
        """The folder of one seed and arm."""
        manifest_id = str(self._manifest["manifest_id"][0])
        folder = self._folder / f"{arm}-{seed}"
        if seed == 0:
            folder = self._home.open().exports / manifest_id[:16] / arm / "trl"
        if not folder.is_dir():
            if self._planned[0] != seed:
                self._planned = (seed, self._plan(seed))
            export_arm(self._home, self._version, self._planned[1], self._prompts, pl.DataFrame(), "trl", arm, folder)
        return folder

    def _plan(self, seed: int) -> pl.DataFrame:
        if self._candidates is None:
            self._candidates = self._gather()
        spec = self._version.spec
        drawn = spec.seed if seed == 0 else derive_seed(spec.seed, "order of a trial", seed)
        return plan_manifest(self._candidates, spec.batches, key=spec.key, seed=drawn).manifest

    def _gather(self) -> pl.DataFrame:
        """What the manifest was planned on, proven by planning it again.

        Raises:
            SaerlError: `manifest_outdated`.
        """
        key, warehouse = self._version.key, self._home.warehouse()
        names = [field.name for field in fields(PlannedOn) if field.name != "prompts"]
        tables = {name: warehouse.rows(name, dataset_version=key) for name in names}
        found = gather_candidates(PlannedOn(prompts=self._prompts, **tables), self._version.spec)
        spec = self._version.spec
        planned = plan_manifest(found, spec.batches, key=key, seed=spec.seed)
        if planned.manifest_id != str(self._manifest["manifest_id"][0]):
            problem = f"The scores of {key} are newer than its manifest: no other order can be drawn like it."
            remedy = f"Plan it again: saerl run {key} --only batch_manifest"
            raise SaerlError("manifest_outdated", problem, where=key, remedy=remedy)
        return found


def _whole_steps(manifest: pl.DataFrame, arm: str, batch_size: int) -> int:
    """Batches of an arm that are whole; the others are not exported."""
    return whole_batches(manifest.filter(pl.col("arm") == arm), batch_size).select("epoch", "step").n_unique()


def _arms(spec: TrialSpec, manifest: pl.DataFrame) -> list[str]:
    """The arms to be trained on, the baseline first."""
    known = sorted(manifest["arm"].unique().to_list())
    wanted = known if spec.arms is None else list(spec.arms)
    missing = sorted({*wanted, BASELINE} - set(known))
    if missing:
        remedy = f"Name them in batches.controls of the version. Its manifest has {', '.join(known)}."
        problem = f"The manifest has no arm {', '.join(missing)}."
        raise SaerlError("unknown_arm", problem, where="trial.arms", remedy=remedy)
    return [BASELINE, *(arm for arm in dict.fromkeys(wanted) if arm != BASELINE)]


def _n_steps(spec: TrialSpec, of_arms: dict[str, int]) -> int:
    """Steps of every training: as many as the shortest arm has."""
    shortest = min(of_arms.values())
    if spec.n_steps is not None and spec.n_steps > shortest:
        arm = min(of_arms, key=lambda name: of_arms[name])
        remedy = f"Ask for {shortest} at most, or plan more with batches.epochs."
        problem = f"The manifest has {shortest} batches in arm {arm}, fewer than {spec.n_steps} steps."
        raise SaerlError("too_few_steps", problem, where="trial.n_steps", remedy=remedy)
    return spec.n_steps or shortest


def _held_out(version: Version, spec: TrialSpec, prompts: pl.DataFrame) -> list[Question]:
    """Prompts of the evaluation split, chosen by hash; the smaller sample is part of the larger one."""
    usable = prompts.filter(pl.col("split") == "evaluation")
    if needs_answer(spec.verifier):
        usable = usable.filter(pl.col("answer").is_not_null())
    if usable.is_empty():
        remedy = "Set split.evaluation_fraction (0.1, say), or name the column that has the split."
        problem = f"No prompt of {version.key} is set apart for evaluation with an answer to compare with."
        raise SaerlError("no_evaluation_prompts", problem, where="split", remedy=remedy)
    hashed = usable.with_columns(
        at=pl.Series(hash_fractions(usable["prompt_id"].to_list(), seed=version.spec.seed, purpose="trial"))
    )
    chosen = hashed.sort("at", "prompt_id").head(spec.n_evaluation)
    return [
        Question(json.loads(row["messages"]), row["is_chat"], row["answer"], row["extra"], row["topic"])
        for row in chosen.iter_rows(named=True)
    ]
