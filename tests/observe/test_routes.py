"""Routes: each one is autograd's own gradient on a probe in front of its branch, and nothing else is touched."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from wherefrom.config import ModelConfig
from wherefrom.geometry import PatchGrid
from wherefrom.models.vit import ViT
from wherefrom.observe.account import Account
from wherefrom.observe.routes import Route, RouteTap

WIDTH, HEADS, GRID = 16, 2, PatchGrid(3, 4)


def model(dtype=torch.float64, **settings) -> ViT:
    torch.manual_seed(0)
    config = ModelConfig(**{"width": WIDTH, "depth": 3, "num_heads": HEADS, "patch_size": 2} | settings)
    return ViT(config, (3, 6, 8), 5).to(dtype)


def batch(dtype=torch.float64, size=4):
    generator = torch.Generator().manual_seed(0)
    return torch.randn(size, 3, 6, 8, generator=generator, dtype=dtype), torch.arange(size) % 5


class Fused(nn.Module):
    """Attention with one projection for queries, keys and values, by timm's names."""

    def __init__(self, bias: bool):
        super().__init__()
        self.num_heads = HEADS
        self.qkv, self.proj = nn.Linear(WIDTH, 3 * WIDTH, bias=bias), nn.Linear(WIDTH, WIDTH)

    def forward(self, x):
        q, k, v = self.qkv(x).unflatten(-1, (3, HEADS, -1)).permute(2, 0, 3, 1, 4)
        return self.proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


class Scale(nn.Module):
    def __init__(self):
        super().__init__()
        self.gamma = nn.Parameter(torch.rand(WIDTH) * 0.5 + 0.2)

    def forward(self, x):
        return x * self.gamma


class FusedBlock(nn.Module):
    """timm's layer: norm1, attn, ls1, norm2, mlp, ls2."""

    def __init__(self, norm=nn.LayerNorm, bias=True):
        super().__init__()
        self.norm1, self.norm2, self.attn = norm(WIDTH), norm(WIDTH), Fused(bias)
        self.ls1, self.ls2 = Scale(), Scale()
        self.mlp = nn.Sequential(nn.Linear(WIDTH, 8), nn.GELU(), nn.Linear(8, WIDTH))
        for norm_of in (self.norm1, self.norm2):
            for parameter in norm_of.parameters():
                nn.init.normal_(parameter, 1, 0.3)

    def forward(self, x):
        x = x + self.ls1(self.attn(self.norm1(x)))
        return x + self.ls2(self.mlp(self.norm2(x)))


class PostNorm(FusedBlock):
    def forward(self, x):
        x = self.norm1(x + self.attn(x))
        return self.norm2(x + self.mlp(x))


class Parallel(FusedBlock):
    """Both branches from the same input, each with a norm of its own."""

    def forward(self, x):
        return x + self.ls1(self.attn(self.norm1(x))) + self.ls2(self.mlp(self.norm2(x)))


class Scaled(FusedBlock):
    """A stream that is not passed on as it is."""

    def forward(self, x):
        return 0.5 * super().forward(x)


class ParallelSharedNorm(FusedBlock):
    def forward(self, x):
        y = self.norm1(x)
        return x + self.attn(y) + self.mlp(y)


class TimmLike(nn.Module):
    """A class-token model; `rows` of pos_embed say whether the token has a place too (no_embed_class: it has none)."""

    def __init__(self, block=FusedBlock, depth=2, embed_class=True, prefix=1, **options):
        super().__init__()
        torch.manual_seed(1)
        self.grid, self.num_prefix_tokens = PatchGrid(3, 4, prefix), prefix
        self.patch_embed = nn.Linear(12, WIDTH)
        self.cls_token = nn.Parameter(torch.randn(1, prefix, WIDTH))
        self.pos_embed = nn.Parameter(torch.randn(1, 12 + embed_class * prefix, WIDTH))
        self.blocks = nn.Sequential(*(block(**options) for _ in range(depth)))
        self.norm, self.head = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, 5)
        self.double()

    def tokens(self, images):
        patches = images.unflatten(2, (3, 2)).unflatten(4, (4, 2)).permute(0, 2, 4, 1, 3, 5).flatten(3).flatten(1, 2)
        x, token = self.patch_embed(patches), self.cls_token.expand(len(images), -1, -1)
        if self.pos_embed.shape[1] == 12:
            return torch.cat([token, x + self.pos_embed], 1)
        return torch.cat([token, x], 1) + self.pos_embed

    def forward(self, images):
        return self.read(self.blocks(self.tokens(images)))

    def read(self, x):
        return self.head(self.norm(x)[:, 0])


def tokens_of(vit, images):
    if isinstance(vit, TimmLike):
        return vit.tokens(images)
    x = vit.patch_embed(images) + vit.pos_embed
    return x if vit.cls_token is None else torch.cat([vit.cls_token.expand(len(x), -1, -1), x], 1)


def read_of(vit, x):
    if isinstance(vit, TimmLike):
        return vit.read(x)
    x = vit.norm(x)
    return vit.head(x.mean(1) if vit.cls_token is None else x[:, 0])


def one_head(block, kind, head, x):
    """Queries, keys or values of one head, by a slice of the weights."""
    attn, size = block.attn, WIDTH // HEADS
    if hasattr(attn, "qkv"):
        start = "qkv".index(kind) * WIDTH + head * size
        weight, bias = attn.qkv.weight, attn.qkv.bias
    else:
        start, projection = head * size, getattr(attn, f"w_{kind}")
        weight, bias = projection.weight, projection.bias
    return F.linear(x, weight[start : start + size], None if bias is None else bias[start : start + size])


def by_probes(vit, images, labels):
    """Every route, slowly: ∂L/∂(a zero added to the stream in front of that branch alone), summed over the batch."""
    x, probes = tokens_of(vit, images), {}

    def probed(x, *route):
        probes[Route(*route)] = probe = torch.zeros_like(x, requires_grad=True)
        return x + probe

    for layer, block in enumerate(vit.blocks):
        ls1, ls2 = (getattr(block, name, nn.Identity()) for name in ("ls1", "ls2"))
        heads = []
        for h in range(HEADS):
            q, k, v = (one_head(block, kind, h, block.norm1(probed(x, kind, layer, h))) for kind in "qkv")
            heads.append((q @ k.mT * q.shape[-1] ** -0.5).softmax(-1) @ v)
        project = block.attn.proj if hasattr(block.attn, "proj") else block.attn.w_o
        attended = ls1(project(torch.cat(heads, -1)))
        x = x + attended
        x = x + ls2(block.mlp(block.norm2(probed(x, "mlp", layer))))
    loss = F.cross_entropy(read_of(vit, probed(x, "residual")), labels)
    found = torch.autograd.grad(loss, list(probes.values()))
    prefix = vit.num_prefix_tokens
    return {route: grad.sum(0)[prefix:] for route, grad in zip(probes, found, strict=True)}


def split(vit, images, labels):
    with RouteTap(vit) as tap:
        F.cross_entropy(vit(images), labels).backward()
    return tap.gradients()


MODELS = {
    "mean": model,
    "class": lambda: model(pool="class"),
    "fused": TimmLike,
    "fused_without_bias": lambda: TimmLike(bias=False),
    "no_embed_class": lambda: TimmLike(embed_class=False),
    "registers": lambda: TimmLike(prefix=3),
    "rms_norm": lambda: TimmLike(norm=nn.RMSNorm),
}


@pytest.mark.parametrize("make", MODELS.values(), ids=MODELS)
def test_each_route_is_the_gradient_on_a_probe_in_front_of_it(make):
    vit, (images, labels) = make(), batch()
    found, exact = split(vit, images, labels), by_probes(vit, images, labels)
    assert set(found.routes) == set(exact)
    assert len(found.routes) == 1 + len(vit.blocks) * (3 * HEADS + 1)
    largest = found.total.abs().max()
    for route, gradient in zip(found.routes, found.gradients, strict=True):
        assert (gradient - exact[route]).abs().max() <= 1e-12 * largest, route
    rows = vit.pos_embed.grad[0, -GRID.num_patches :]
    assert torch.equal(found.total, rows)
    assert found.closure <= 1e-12


@pytest.mark.parametrize("pool", ["mean", "class"])
@pytest.mark.parametrize("depth", [3, 6, 12])
def test_routes_add_up(depth, pool):
    assert split(model(depth=depth, pool=pool), *batch()).closure <= 1e-12
    assert split(model(torch.float32, depth=depth, pool=pool), *batch(torch.float32)).closure <= 1e-6


@pytest.mark.parametrize(
    ("block", "error", "sentence"),
    [
        (PostNorm, ValueError, "layer 0 of TimmLike makes queries, keys and values before its norm1 is called"),
        (Parallel, ValueError, "layer 0 of TimmLike runs attention and MLP in parallel"),
        (Scaled, RuntimeError, "routes add up only in a pre-norm model"),
        (ParallelSharedNorm, RuntimeError, "mlp of layer 0 of TimmLike was never called as a module"),
    ],
)
def test_other_layers_are_refused(block, error, sentence):
    with pytest.raises(error, match=sentence):
        split(TimmLike(block), *batch())


def test_a_layer_of_unknown_parts_is_refused():
    vit = model()
    vit.blocks[1] = nn.Sequential(nn.Linear(WIDTH, WIDTH))
    with pytest.raises(ValueError, match="layer 1 of ViT is a Sequential whose parts are not known"), RouteTap(vit):
        pass
    assert_untouched(vit)


@pytest.mark.parametrize("kind", ["sincos", "none"])
def test_a_position_that_is_not_learned_has_no_routes(kind):
    with pytest.raises(ValueError, match="learns no position embedding"):
        RouteTap(model(pos_embed=kind))


def assert_untouched(vit):
    assert not any(m._forward_hooks or m._forward_pre_hooks or m._backward_hooks for m in vit.modules())
    assert not any(p._backward_hooks for p in vit.parameters())


def test_nothing_is_left_behind():
    vit = model()
    split(vit, *batch())
    assert_untouched(vit)
    with pytest.raises(KeyError), RouteTap(vit):
        raise KeyError
    assert_untouched(vit)


def test_two_backward_passes_in_one_scope_are_refused():
    vit, (images, labels) = model(), batch()
    with RouteTap(vit):
        F.cross_entropy(vit(images), labels).backward()
        with pytest.raises(RuntimeError, match="routes split one backward pass"):
            F.cross_entropy(vit(images), labels).backward()
    assert_untouched(vit)


def test_a_scope_without_a_backward_pass_is_refused():
    with RouteTap(model()) as tap:
        pass
    with pytest.raises(RuntimeError, match="no gradient reached the position embedding of ViT"):
        tap.gradients()


def test_an_evaluation_in_between_changes_nothing():
    vit, (images, labels) = model(), batch()
    expected = split(vit, images, labels)
    with RouteTap(vit) as tap:
        loss = F.cross_entropy(vit(images), labels)
        with torch.no_grad():
            vit(images.flip(0)[:2] * 3)
        loss.backward()
    assert torch.equal(tap.gradients().gradients, expected.gradients)


def test_a_branch_behind_a_detach_has_no_part():
    vit, (images, labels) = model(), batch()
    vit.blocks[1].mlp.register_forward_hook(lambda _, inputs, output: output.detach())
    found = split(vit, images, labels)
    parts = dict(zip(found.routes, found.gradients, strict=True))
    assert not parts[Route("mlp", 1)].any()
    assert parts[Route("mlp", 2)].any()
    assert found.closure <= 1e-12


def test_training_is_the_same_bits_with_an_account_and_without():
    trained = []
    for keep in (False, True):
        vit, (images, labels) = model(torch.float32), batch(torch.float32)
        optimizer = torch.optim.AdamW(vit.parameters(), lr=1e-2)
        account = Account(vit, optimizer, vit.grid) if keep else None
        for step in range(3):
            optimizer.zero_grad()
            if account:
                with account.listening(step):
                    F.cross_entropy(vit(images), labels).backward()
                account.take()
                nn.utils.clip_grad_norm_(vit.parameters(), 0.1)
                with account.update():
                    optimizer.step()
            else:
                F.cross_entropy(vit(images), labels).backward()
                nn.utils.clip_grad_norm_(vit.parameters(), 0.1)
                optimizer.step()
        trained.append([p.detach().clone() for p in vit.parameters()])
        assert_untouched(vit)
    assert all(torch.equal(a, b) for a, b in zip(*trained, strict=True))
