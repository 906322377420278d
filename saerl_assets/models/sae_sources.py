"""Where an SAE comes from: a place on disk, or `sae_lens`'s registry of published ones.

Belongs here: one source string to one SAELens directory. Does not belong here: formats (`sae_formats`), encoders
(`saes`), training.
"""

from __future__ import annotations

import pickle
import re
import warnings
from pathlib import Path
from typing import Any

from saerl_assets.disk import new_folder, placed
from saerl_assets.domain.errors import SaerlError, is_passing
from saerl_assets.models.sae_files import SaeContents, unsafe
from saerl_assets.models.sae_formats import conversion, in_two_directions
from saerl_assets.models.saes import load_encoder


def fetch_sae(source: str, *, folder: Path, into: Path) -> Path:
    """A SAELens directory that `load_encoder` opens.

    Args:
        source: `path:PLACE`, a directory of SAELens, sparsify or dictionary_learning or a Qwen-Scope file, told apart
            by what it holds; or `saelens:release/sae_id` of `sae_lens`'s registry, or `saelens:org/name/sae_id` of a
            repository with SAELens directories on the hub.
        folder: What a relative path starts from.
        into: Where a converted or downloaded one is put; a SAELens directory on disk stays where it is.

    Raises:
        SaerlError: `unknown_sae_source`, `hub_failed`, `sae_missing`, `sae_unknown_format`, or what is wrong with the
            SAE; nothing is put at `into` then.
    """
    scheme, _, rest = source.partition(":")
    if scheme == "path":
        # links are not followed: in the hub's cache the names are theirs, not those of what they point at
        place = placed(rest, folder)
        convert = conversion(place)
        if convert is None:
            load_encoder(place, "cpu")
            return place
        where = str(place)
    elif scheme == "saelens" and "/" in rest:
        where, convert = source, lambda made: _download(source, rest, made)
    else:
        remedy = "Write train, path:DIR or saelens:release/sae_id."
        raise SaerlError("unknown_sae_source", f"{source!r} names no SAE.", where="sae.source", remedy=remedy)
    with new_folder(into) as made:
        convert(made)
        try:
            load_encoder(made, "cpu")
        except SaerlError as error:
            raise SaerlError(error.code, error.problem, where=where, remedy=error.remedy) from error
    return into


def _download(source: str, rest: str, made: Path) -> None:
    """Downloads an SAE, or takes it from the hub's cache, converted by `sae_lens` with its input scaling folded in."""
    from sae_lens import SAE
    from sae_lens.loading.pretrained_saes_directory import get_pretrained_saes_directory

    published = get_pretrained_saes_directory()
    release, _, sae_id = rest.partition("/")
    if release not in published and sae_id.count("/"):
        repository, _, sae_id = sae_id.partition("/")
        release = f"{release}/{repository}"
    try:
        with warnings.catch_warnings():  # one is about a scale that is not folded in: load_encoder refuses such an SAE
            warnings.simplefilter("ignore")
            sae: Any = SAE.from_pretrained(release, sae_id)
    except pickle.UnpicklingError as error:
        raise unsafe(source) from error
    except Exception as error:
        remedy = "Check release and id at the SAELens registry and the network, or use path:DIR."
        raise SaerlError("hub_failed", f"{error}", where=source, remedy=remedy, passing=is_passing(error)) from error
    told = re.search(r"average_l0_(\d+)", sae_id)
    known = published[release].expected_l0.get(sae_id) if release in published else None
    l0 = known or (float(told[1]) if told else None)
    config: dict[str, Any] = sae.cfg.to_dict()
    config["metadata"] |= {"converted_from": source} | ({"l0": l0} if l0 else {})
    weights = sae.state_dict()
    sae.process_state_dict_for_saving(weights)
    # sae_lens's own save_model refuses weights that a converter has transposed
    SaeContents(config, weights).save(made)
    if sae.cfg.architecture() == "abstopk":
        in_two_directions(made).save(made)
