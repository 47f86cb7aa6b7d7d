"""The ledger: it adds up for each optimiser, agrees with slow twins, and finds the one route that was planted."""

import contextlib

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from wherefrom.config import ModelConfig
from wherefrom.geometry import PatchGrid
from wherefrom.measures import coordinate_r2, near_minus_far, pos_similarity, similarity_falloff
from wherefrom.models.vit import ViT
from wherefrom.observe.account import Account
from wherefrom.observe.cuts import parse_cut
from wherefrom.observe.ledger import CARRIED, DECAY, Ledger, RouteMomentum, forces, structures
from wherefrom.observe.routes import KINDS, Route, RouteGradients, RouteTap
from wherefrom.statistics import mantel

GRID = PatchGrid(3, 4)
OPTIMIZERS = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.5),
    "sgd_dampening_unused": lambda p: torch.optim.SGD(p, lr=0.5, dampening=0.5),
    "sgd_momentum": lambda p: torch.optim.SGD(p, lr=0.3, momentum=0.9),
    "sgd_all": lambda p: torch.optim.SGD(p, lr=0.3, momentum=0.9, dampening=0.4, weight_decay=0.1),
    "adam": lambda p: torch.optim.Adam(p, lr=0.002, weight_decay=0.1),
    "adamw": lambda p: torch.optim.AdamW(p, lr=0.002, weight_decay=0.5),
    "adam_decoupled": lambda p: torch.optim.Adam(p, lr=0.002, weight_decay=0.5, decoupled_weight_decay=True),
}


def model(dtype=torch.float64) -> ViT:
    torch.manual_seed(0)
    config = ModelConfig(pos_embed_std=0.02, width=8, depth=2, num_heads=2, patch_size=2, pool="class")
    return ViT(config, (3, 6, 8), 5).to(dtype)


def batch(step, dtype=torch.float64):
    generator = torch.Generator().manual_seed(step)
    return torch.randn(4, 3, 6, 8, generator=generator, dtype=dtype), torch.randint(0, 5, (4,), generator=generator)


class Training:
    """A loop with a learning-rate schedule and clipping; every step's clipped routes, shares and update are kept."""

    def __init__(self, optimizer, clip=0.05, every=1, dtype=torch.float64):
        self.model, self.clip, self.dtype = model(dtype), clip, dtype
        self.optimizer = OPTIMIZERS[optimizer](self.model.parameters())
        self.rate, self.every = self.optimizer.param_groups[0]["lr"], every
        self.gradients, self.shares, self.clipped, self.step = [], [], [], 0
        self.account = None

    def watch(self):
        self.account = Account(self.model, self.optimizer, GRID, every=self.every)
        add = self.account.ledger.add

        def kept(routes, shares, before, update):
            self.shares.append((dict(zip(routes, shares, strict=True)), before, update))
            add(routes, shares, before, update)

        self.account.ledger.add = kept

    def run(self, steps):
        for step in range(self.step, self.step + steps):
            images, labels = batch(step, self.dtype)
            self.optimizer.param_groups[0]["lr"] = self.rate / (1 + step)
            self.optimizer.zero_grad()
            with self.account.listening(step) if self.account else contextlib.nullcontext():
                F.cross_entropy(self.model(images), labels).backward()
            if self.account:
                self.account.take()
            norm = nn.utils.clip_grad_norm_(self.model.parameters(), self.clip)
            factor = min(1.0, self.clip / (float(norm) + 1e-6))
            self.clipped.append(factor < 1)
            if self.account and self.account.found is not None:
                found = self.account.found
                self.gradients.append({r: factor * g for r, g in zip(found.routes, found.gradients, strict=True)})
            with self.account.update() if self.account else contextlib.nullcontext():
                self.optimizer.step()
        self.step += steps

    def residual(self):
        self.account.ledger.look(self.account.position)
        return next(row.value for row in self.account.ledger.measurements() if row.measure == "ledger_residual")


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_the_account_adds_up(name, dtype):
    training = Training(name, dtype=dtype)
    training.watch()
    training.run(12)
    assert all(training.clipped)
    assert training.residual() <= (1e-5 if dtype == torch.float64 else 1e-4)  # steps so small feel the rounding
    for shares, _, update in training.shares:
        total = sum(shares.values())
        assert (total - update).norm() <= 1e-6 * update.norm() + (1e-7 if dtype == torch.float32 else 0)


def slow_shares(training, group):
    """Each route's share of each update, by an optimiser written out for one route at a time."""
    whole, second = [sum(g.values()) for g in training.gradients], 0
    momenta, out = {}, []
    for step, (gradients, (_, before, _)) in enumerate(zip(training.gradients, training.shares, strict=True)):
        lr, decay = training.rate / (1 + step), group["weight_decay"]
        decoupled = group.get("decoupled_weight_decay", False)
        parts = dict(gradients)
        if decay and not decoupled:
            parts[DECAY] = decay * before
        shares = {}
        for route, g in parts.items():
            if "betas" in group:
                b1, b2 = group["betas"]
                momenta[route] = b1 * momenta.get(route, 0) + (1 - b1) * g
                shares[route] = -lr * momenta[route] / (1 - b1 ** (step + 1))
            elif group["momentum"]:
                taken = 1 - group["dampening"] if step else 1
                momenta[route] = group["momentum"] * momenta.get(route, 0) + taken * g
                shares[route] = -lr * momenta[route]
            else:
                shares[route] = -lr * g
        if "betas" in group:
            g = whole[step] + (0 if decoupled else decay * before)
            second = b2 * second + (1 - b2) * g**2
            root = (second / (1 - b2 ** (step + 1))).sqrt() + group["eps"]
            shares = {route: share / root for route, share in shares.items()}
        if decay and decoupled:
            shares[DECAY] = -lr * decay * before
        out.append(shares)
    return out


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_shares_are_those_of_an_optimiser_written_out_by_route(name):
    training = Training(name)
    training.watch()
    training.run(5)
    expected = slow_shares(training, training.optimizer.param_groups[0])
    for (found, _, update), slow in zip(training.shares, expected, strict=True):
        assert set(found) == set(slow)
        for route, share in slow.items():
            assert (found[route] - share).abs().max() <= 1e-8 * update.abs().max(), route


def test_what_was_moving_before_is_carried():
    for name in ("sgd_momentum", "adamw"):
        training = Training(name)
        training.run(3)
        training.watch()
        training.run(6)
        assert training.residual() <= 1e-5
        carried = [shares[CARRIED].norm() for shares, *_ in training.shares]
        assert carried[0] > carried[-1] > 0
        rows = list(training.account.ledger.measurements())
        assert any(row.route == "carried" and row.value for row in rows)


def test_an_account_is_resumed_where_it_was():
    whole, first, second = (Training("sgd_all") for _ in range(3))
    for training in (whole, first):
        training.watch()
    whole.run(6)
    first.run(3)
    second.model.load_state_dict(first.model.state_dict())
    second.optimizer.load_state_dict(first.optimizer.state_dict())
    second.watch()
    second.account.load_state_dict(first.account.state_dict())
    second.step = first.step
    second.run(3)
    assert list(second.account.rows()) == list(whole.account.rows())


def test_contributions_are_the_integral_along_the_update():
    """Twin: a Riemann sum (midpoints of 200 pieces) of ⟨∇M, share⟩, the slope by autograd."""
    torch.manual_seed(3)
    before, update = torch.randn(12, 5).double(), 0.1 * torch.randn(12, 5).double()
    share = torch.randn(12, 5).double()
    routes, shares = (Route("q", 0, 1), Route("v", 1, 0)), torch.stack([share, update - share])
    measures = structures(GRID)
    ledger = Ledger(measures, before)
    ledger.add(routes, shares, before, update)
    for name, structure in measures.items():
        total = torch.zeros(2, dtype=torch.float64)
        for piece in range(200):
            at = (before + (piece + 0.5) / 200 * update).requires_grad_()
            (slope,) = torch.autograd.grad(structure(at), at)
            total += (slope * shares).sum((1, 2)) / 200
        found = torch.tensor([ledger.contributions[name][route] for route in routes], dtype=torch.float64)
        assert (found - total).abs().max() <= 1e-4 * total.abs().max(), name
        assert ledger.residual(name) <= 1e-5


def test_structures_are_the_measures():
    pos = torch.randn(12, 5, dtype=torch.float64)
    exact = [similarity_falloff(pos, GRID), near_minus_far(pos, GRID), coordinate_r2(pos, GRID)[0]]
    assert [float(m(pos)) for m in structures(GRID).values()] == [float(x) for x in exact]


def test_forces_are_the_slope_of_descent_along_one_route():
    vit, (images, labels) = model(), batch(0)
    with RouteTap(vit) as tap:
        F.cross_entropy(vit(images), labels).backward()
    found, pos = tap.gradients(), vit.pos_embed.detach()[0]
    for structure in structures(GRID).values():
        for force, gradient in zip(forces(structure, pos, found), found.gradients, strict=True):
            unit = 1e-5 / float(gradient.norm().clamp(min=1e-12))
            slope = (structure(pos - unit * gradient) - structure(pos + unit * gradient)) / (2 * unit)
            assert float(force) == pytest.approx(float(slope), rel=1e-4, abs=1e-7)


def test_a_sampled_account_says_what_it_misses():
    training = Training("adamw", every=5)
    training.watch()
    training.run(31)
    assert len(training.shares) == 7
    training.account.ledger.look(training.account.position)
    ledger = training.account.ledger
    for name, structure in structures(GRID).items():
        change = float(structure(training.account.position)) - ledger.start[name]
        missed = change - sum(ledger.contributions[name].values())
        assert ledger.residual(name) == pytest.approx(abs(missed) / ledger.travelled[name])
        assert ledger.travelled[name] >= abs(change)
    assert training.residual() > 1e-6


def test_a_sampled_momentum_keeps_its_size():
    """Under a gradient that stays the same, the momentum of a route is right at every sample."""
    for name in ("sgd_all", "adamw"):
        parameter = nn.Parameter(torch.zeros(12, 2, dtype=torch.float64))
        optimizer = OPTIMIZERS[name]([parameter])
        optimizer.param_groups[0]["weight_decay"] = 0.0
        momentum = RouteMomentum(optimizer, parameter, lambda table: table)
        gradients = torch.rand(2, 12, 2).double()
        found = RouteGradients((Route("residual"), Route("q", 0, 0)), gradients, gradients.sum(0))
        for step in range(11):
            parameter.grad = gradients.sum(0)
            if step % 5 == 0:
                momentum.before(found, 5 if step else 1)
            optimizer.step()
            if step % 5 == 0:
                _, shares, update = momentum.after()
                torch.testing.assert_close(shares.sum(0), update)


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda p: torch.optim.RMSprop(p), "knows the updates of SGD, Adam and AdamW; found RMSprop"),
        (lambda p: torch.optim.Adam(p, amsgrad=True), "does not know Adam with amsgrad"),
        (lambda p: torch.optim.AdamW(p, maximize=True), "does not know AdamW with amsgrad, nesterov or maximize"),
        (lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, nesterov=True), "does not know SGD with amsgrad, nesterov"),
    ],
)
def test_updates_that_are_not_known_are_refused(make, sentence):
    vit = model()
    with pytest.raises(ValueError, match=sentence):
        Account(vit, make(vit.parameters()), GRID)


def test_a_model_without_a_learned_position_is_refused():
    vit = ViT(ModelConfig(width=8, depth=1, num_heads=2, patch_size=2, pos_embed="sincos"), (3, 6, 8), 5)
    with pytest.raises(ValueError, match="learns no position embedding"):
        Account(vit, torch.optim.AdamW(vit.parameters()), GRID)


# ---- a planted case: only the queries can form the map

SQUARE = PatchGrid(5, 5)
PLACES, CONTENT = SQUARE.num_patches, 3
WIDTH = PLACES + 2 * CONTENT
"""Of a token: numbers that queries read, its content that values read, and what the model answers."""


class Copy(nn.Module):
    """A norm that changes nothing."""

    def forward(self, x):
        return x * 1.0


class PlantedAttention(nn.Module):
    """Queries read the first numbers of a token; keys are the places, whatever the token; values are content."""

    num_heads = 1

    def __init__(self):
        super().__init__()
        self.w_q, self.w_k, self.w_v = (nn.Linear(WIDTH, WIDTH, bias=False) for _ in range(3))
        nn.init.zeros_(self.w_k.weight)
        with torch.no_grad():
            self.w_q.weight.copy_(torch.diag((torch.arange(WIDTH) < PLACES).float()))
            content = slice(PLACES, PLACES + CONTENT)
            self.w_v.weight.zero_()[-CONTENT:, content] = torch.eye(CONTENT)
        self.keys = torch.cat([torch.eye(PLACES), torch.zeros(PLACES, 2 * CONTENT)], 1).double()

    def forward(self, x):
        q, k, v = self.w_q(x)[:, None], (self.w_k(x) + self.keys)[:, None], self.w_v(x)[:, None]
        return F.scaled_dot_product_attention(q, k, v, scale=4.0)[:, 0]


class PlantedBlock(nn.Module):
    """Every branch sends gradient to pos_embed, but no other than that of the queries knows of places."""

    def __init__(self):
        super().__init__()
        self.norm1, self.norm2, self.attn = Copy(), Copy(), PlantedAttention()
        self.mlp = nn.Sequential(nn.Linear(WIDTH, 8), nn.Tanh(), nn.Linear(8, WIDTH))
        with torch.no_grad():
            self.mlp[0].weight *= torch.arange(WIDTH) >= PLACES
            self.mlp[2].weight *= (torch.arange(WIDTH) >= WIDTH - CONTENT)[:, None]

    def forward(self, x):
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class Planted(nn.Module):
    """Answers what a patch would be without its noise: it must look at those near it."""

    def __init__(self, seed):
        super().__init__()
        torch.manual_seed(seed)
        self.grid, self.num_prefix_tokens, self.patch_embed = SQUARE, 0, nn.Identity()
        self.blocks = nn.Sequential(PlantedBlock())
        self.double().requires_grad_(False)
        self.pos_embed = nn.Parameter(0.02 * torch.randn(1, PLACES, WIDTH, dtype=torch.float64))

    def forward(self, content):
        x = F.pad(content, (PLACES, CONTENT)) + self.pos_embed
        return self.blocks(x)[..., -CONTENT:]


def smooth_fields(generator, size=64):
    """(noisy, clean) numbers on the grid; clean ones of near patches are alike."""
    near = torch.as_tensor(SQUARE.distances).square().div(-2).exp()
    near = near / near.norm(dim=1, keepdim=True)
    clean = near @ torch.randn(size // 2, PLACES, CONTENT, generator=generator, dtype=torch.float64)
    clean = torch.cat([clean, -clean])  # so that the mean answer of a batch does not tell who is near whom
    return clean + torch.randn(clean.shape, generator=generator, dtype=torch.float64), clean


def trained_on_fields(text):
    planted, generator = Planted(seed=0), torch.Generator().manual_seed(0)
    optimizer = torch.optim.SGD([planted.pos_embed], lr=2.0, momentum=0.9)
    account = Account(planted, optimizer, SQUARE, cut=parse_cut(text))
    account.ledger.structures.pop("coordinate_r2")  # the slow one
    for step in range(100):
        noisy, clean = smooth_fields(generator)
        optimizer.zero_grad()
        with account.listening(step):
            F.mse_loss(planted(noisy), clean).backward()
        account.take()
        with account.update():
            optimizer.step()
    return account


def shares_by_kind(account, name):
    rows = [row for row in account.rows() if row.measure == f"ledger_{name}"]
    change = account.ledger.last[name] - account.ledger.start[name]
    return {kind: sum(row.value for row in rows if row.route == kind) / change for kind in KINDS}


def relabelled(account):
    return mantel(pos_similarity(account.position).numpy(), SQUARE.distances)


def test_the_one_route_that_can_form_the_map_is_credited_with_it():
    account = trained_on_fields("")
    assert relabelled(account).correlation > 0.5
    for name in ("similarity_falloff", "near_minus_far"):
        shares = shares_by_kind(account, name)
        assert 0.95 <= shares["q"] <= 1.05
        assert any(abs(shares[kind]) > 1e-6 for kind in ("residual", "v", "mlp"))  # they did move pos_embed
        assert account.ledger.residual(name) <= 1e-3


def test_without_that_route_there_is_no_map():
    test = relabelled(trained_on_fields("pos:q"))
    assert test.low <= test.correlation <= test.high


def test_without_all_others_there_is_the_same_map():
    account = trained_on_fields("pos:k,v,mlp,residual")
    assert relabelled(account).correlation > 0.5
    assert shares_by_kind(account, "similarity_falloff")["q"] == pytest.approx(1, abs=1e-3)
