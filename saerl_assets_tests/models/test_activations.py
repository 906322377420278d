"""Activations that are kept on disk, and the threshold of sinks."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError

from saerl_assets.domain.errors import SaerlError
from saerl_assets.models.activations import ActivationCache, sink_threshold, without_sinks
from saerl_assets.models.device import TokenBudget
from saerl_assets.models.extraction import Activations, read_shard
from saerl_assets.models.texts import Shard, Text, plan_shards
from saerl_assets_tests.models.readers import D_MODEL, LookUp


def a_shard(*texts: Text) -> Shard:
    (shard,) = plan_shards(texts or [Text("a", [1, 2, 3])], texts_per_shard=9)
    return shard


def test_what_is_kept_is_what_was_read_and_is_read_once(tmp_path: Path) -> None:
    shard, reader, cache = (
        a_shard(*(Text(f"{i}", [i, i + 1, 3]) for i in range(9))),
        LookUp(),
        ActivationCache(tmp_path),
    )
    fresh = cache.get_or_read(reader, shard, budget=TokenBudget(12))
    n_passes = len(reader.passes)
    kept = cache.get_or_read(reader, shard, budget=TokenBudget(12))
    assert len(reader.passes) == n_passes
    assert torch.equal(fresh.layers[5], kept.layers[5])
    assert torch.equal(fresh.layers[5], read_shard(LookUp(), shard, budget=TokenBudget(12)).layers[5])


def test_a_truncated_file_is_read_again(tmp_path: Path) -> None:
    shard, reader, cache = a_shard(), LookUp(), ActivationCache(tmp_path)
    cache.get_or_read(reader, shard, budget=TokenBudget(12))
    (file,) = tmp_path.glob("*.safetensors")
    file.write_bytes(file.read_bytes()[:-4])
    assert cache.get(shard) is None
    assert len(cache.get_or_read(reader, shard, budget=TokenBudget(12)).layers[5]) == 3


def test_a_disk_that_refuses_is_named_and_keeps_no_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_args: object) -> None:
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    monkeypatch.setattr("saerl_assets.models.activations.save_file", full)
    with pytest.raises(SaerlError) as caught:
        ActivationCache(tmp_path).get_or_read(LookUp(), a_shard(), budget=TokenBudget(12))
    assert caught.value.code == "disk_full"
    assert list(tmp_path.iterdir()) == []


def test_half_precision_comes_back_as_it_was(tmp_path: Path) -> None:
    shard, states, cache = a_shard(), torch.randn(3, D_MODEL).bfloat16(), ActivationCache(tmp_path)
    cache.put(shard, Activations({5: states, 7: states * 2}))
    kept = cache.get(shard)
    assert kept is not None
    assert sorted(kept.layers) == [5, 7]
    assert kept.layers[5].dtype == torch.bfloat16
    assert torch.equal(kept.layers[5], states)


def test_the_sink_threshold_is_a_multiple_of_the_median_norm() -> None:
    ordinary = torch.nn.functional.normalize(torch.randn(99, D_MODEL), dim=-1) * 2
    sink = torch.full((1, D_MODEL), 100.0)
    blocks = [ordinary[:50], torch.cat([ordinary[50:], sink])]
    threshold = sink_threshold(blocks, 10.0)
    assert threshold == pytest.approx(20.0, rel=1e-4)
    assert len(without_sinks(blocks, threshold)) == 99
