"""The probe and the watch: what they record is what the measures say, and training is not disturbed."""

import pytest
import torch
import torch.nn.functional as F

import wherefrom as wf
from wherefrom import measures
from wherefrom.config import ModelConfig
from wherefrom.measures.use import content_shuffled
from wherefrom.models.vit import ViT, sincos
from wherefrom.observe.probe import PERMUTATION_SEED, probe


def model(seed=0, **settings) -> ViT:
    torch.manual_seed(seed)
    return ViT(ModelConfig(**{"width": 16, "depth": 2, "num_heads": 2, "patch_size": 2} | settings), (3, 6, 8), 4)


def batch(seed=0, size=8):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(size, 3, 6, 8, generator=generator), torch.arange(size) % 4


def test_the_probe_records_what_the_measures_say():
    vit, (images, labels) = model(), batch()
    rows, arrays = probe(vit, images, labels, permutations=99)
    table = {(r.measure, r.layer, r.head, r.relation, r.distance): r.value for r in rows if r.content != "shuffled"}
    records = wf.capture(vit, images, labels)
    pos = vit.pos_embed.detach()[0].double()
    distance = measures.attention_distance(records[1].attn(), vit.grid).mean(0)
    assert table["attention_distance", 1, 1, None, None] == pytest.approx(float(distance[1]), rel=1e-5)
    assert table["similarity_falloff", None, None, None, None] == pytest.approx(
        float(measures.similarity_falloff(pos, vit.grid))
    )
    assert table["similarity_falloff_null_low", None, None, None, None] < 0
    assert table["accuracy", None, None, None, None] == float((vit(images).argmax(1) == labels).float().mean())
    assert arrays["pressure_offset_map", 1].shape == (2, 5, 7)
    assert arrays["pos_layout"].shape == (12, 2)


def test_the_offset_map_on_shuffled_contents_is_that_of_the_images_that_loops_shuffle():
    vit, (images, labels) = model(), batch()
    arrays = probe(vit, images, labels)[1]
    shuffled = content_shuffled(images, vit.grid, torch.Generator().manual_seed(PERMUTATION_SEED))
    for layer, record in enumerate(wf.capture(vit, shuffled)):
        expected = measures.offset_map(record.attn().mean(0), vit.grid)
        torch.testing.assert_close(torch.as_tensor(arrays["attn_offset_map_shuffled", layer]), expected.float())
    names = {key[0] for key in arrays if isinstance(key, tuple)}
    assert {name for name in names if name.endswith("shuffled")} == {"attn_offset_map_shuffled"}


@pytest.mark.parametrize("pos_embed", ["sincos", "none"])
def test_other_position_embeddings(pos_embed):
    vit = model(pos_embed=pos_embed)
    rows, arrays = probe(vit, *batch())
    assert ("pos_embed" in arrays) == (pos_embed == "sincos")
    assert any(row.measure == "similarity_falloff" for row in rows) == (pos_embed == "sincos")
    if pos_embed == "sincos":
        assert measures.similarity_falloff(sincos(vit.grid, 16), vit.grid) > 0.5


def steps(vit, optimizer, number=7, loss_scale=1.0):
    for step in range(number):
        images, labels = batch(step)
        optimizer.zero_grad()
        (F.cross_entropy(vit(images), labels) * loss_scale).backward()
        optimizer.step()


def test_watching_changes_no_bit_and_records_at_its_cadence(tmp_path):
    plain, watched = model(), model()
    steps(plain, torch.optim.AdamW(plain.parameters(), lr=1e-2))
    optimizer = torch.optim.AdamW(watched.parameters(), lr=1e-2)
    with wf.watch(watched, optimizer, probe=batch(99), every=3, out=tmp_path / "run") as watch:
        steps(watched, optimizer)
    assert watch.step == 7
    for a, b in zip(plain.parameters(), watched.parameters(), strict=True):
        assert torch.equal(a, b)
    table = wf.open_run(tmp_path / "run").measurements()
    assert sorted(table[(table.measure == "advantage") & (table.split == "train")].step.unique()) == [0, 3, 6]
    assert sorted(table[table.measure == "similarity_falloff"].step.unique()) == [0, 3, 6, 7]
    assert not optimizer._optimizer_step_pre_hooks
    assert not optimizer._optimizer_step_post_hooks


def test_watching_divides_out_the_loss_scale(tmp_path):
    tables = []
    for name, scale in (("plain", 1.0), ("scaled", 64.0)):
        vit = model()
        optimizer = torch.optim.SGD(vit.parameters(), lr=0.0)
        with wf.watch(vit, optimizer, out=tmp_path / name, every=1, loss_scale=lambda scale=scale: scale):
            steps(vit, optimizer, 2, scale)
        tables.append(wf.open_run(tmp_path / name).measurements("pressure").value)
    assert tables[0].tolist() == pytest.approx(tables[1].tolist(), rel=1e-4, nan_ok=True)


def test_a_folder_with_a_run_is_not_watched_into(tmp_path):
    vit = model()
    optimizer = torch.optim.SGD(vit.parameters(), lr=0.1)
    with wf.watch(vit, optimizer, out=tmp_path, every=1):
        steps(vit, optimizer, 1)
    with (
        pytest.raises(ValueError, match="already holds a recorded run"),
        wf.watch(vit, optimizer, out=tmp_path, every=1),
    ):
        pass


def test_an_error_in_the_loop_leaves_no_trace_and_keeps_the_record(tmp_path):
    vit, real = model(), F.scaled_dot_product_attention
    optimizer = torch.optim.SGD(vit.parameters(), lr=0.1)

    def break_off():
        with wf.watch(vit, optimizer, probe=batch(), out=tmp_path, every=2):
            steps(vit, optimizer, 3)
            raise KeyError

    with pytest.raises(KeyError):
        break_off()
    assert F.scaled_dot_product_attention is real
    assert wf.open_run(tmp_path).measurements("similarity_falloff").step.tolist() == [0, 2]
    assert wf.open_run(tmp_path).status() == {}
