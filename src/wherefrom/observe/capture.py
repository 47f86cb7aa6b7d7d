"""The one tap: what attention is given, and the gradient that comes back, read where nearly every ViT passes.

Inside `with tap(...)` the name `torch.nn.functional.scaled_dot_product_attention` points to a function that calls the
real one, notes q, k, v and waits for the gradient of its output. Nothing of the model is touched; the name is always
restored.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wherefrom.attention import AttentionRecord
from wherefrom.models.backbone import as_backbone
from wherefrom.observe.inputs import refuse_bad_batch, refuse_bad_labels, run_model

Receive = Callable[[int, AttentionRecord], None]
"""Called with (layer, record) as soon as a layer's record is complete."""


class Tap:
    """Counts of what passed: `calls` of attention, and `records` that were complete.

    Args:
        receive: gets each record; with gradients, layers come in backward order, each as its gradient arrives.
        depth: number of layers; a further forward pass begins with layer 0 again.
        loss_scale: what the mean loss over the batch was multiplied by before backward(): a GradScaler's factor, or
            1 / number of batches under gradient accumulation. It is divided out, and so is the mean's 1 / batch.
    """

    def __init__(self, receive: Receive, depth: int, loss_scale: float = 1.0):
        self.receive = receive
        self.depth = depth
        self.loss_scale = loss_scale
        self.calls = 0
        self.records = 0
        self._thread = threading.get_ident()
        self._real = F.scaled_dot_product_attention

    def attention(
        self, query, key, value, attn_mask=None, dropout_p=0.0, is_causal=False, scale=None, enable_gqa=False
    ):
        """The real attention, noted."""
        arguments = {"attn_mask": attn_mask, "dropout_p": dropout_p, "is_causal": is_causal, "scale": scale}
        if enable_gqa:
            arguments["enable_gqa"] = True
        z = self._real(query, key, value, **arguments)
        if threading.get_ident() == self._thread:
            layer = self.calls % self.depth
            self.calls += 1
            _refuse_unknown(layer, query, key, dropout_p, is_causal, enable_gqa)
            record = _record(query, key, value, attn_mask, scale)
            if z.requires_grad:
                waiting = [record]  # let go when the gradient arrives; what listens lives as long as the whole graph
                z.register_hook(lambda grad: self._arrive(layer, waiting, grad))
            elif not torch.is_grad_enabled():
                self._deliver(layer, record)
        return z

    def expect(self, name: str) -> None:
        """Check that each layer of the model `name` passed, and each gradient arrived.

        Raises:
            RuntimeError: if not; the sentence says what to do.
        """
        if self.calls == 0 or self.calls % self.depth:
            raise RuntimeError(
                f"expected {self.depth} layers of attention in each forward pass, saw {self.calls} calls of "
                f"torch.nn.functional.scaled_dot_product_attention in {name}; {_WHAT_TO_DO}"
            )
        if self.records != self.calls:
            raise RuntimeError(
                f"saw {self.calls} layers of attention in {name}, but a gradient in only {self.records} of "
                f"them; call backward() on a loss of all layers inside the tap, with nothing detached in between"
            )

    def _arrive(self, layer: int, waiting: list[AttentionRecord], grad: Tensor) -> None:
        if not waiting:  # the same graph once more: `expect` will refuse the count
            self.records += 1
            return
        record = waiting.pop()
        grad_z = _float(grad.detach()) * (len(grad) / self.loss_scale)
        self._deliver(layer, AttentionRecord(record.q, record.k, record.v, record.scale, grad_z, record.bias))

    def _deliver(self, layer: int, record: AttentionRecord) -> None:
        self.records += 1
        self.receive(layer, record)


_WHAT_TO_DO = (
    "use fused attention (timm: set fused_attn; transformers: attn_implementation='sdpa'; nn.MultiheadAttention: "
    "need_weights=False and gradients on), no activation checkpointing, and one forward pass inside the tap"
)


@contextlib.contextmanager
def tap(receive: Receive, depth: int, loss_scale: float = 1.0) -> Iterator[Tap]:
    """Observe all attention inside the scope; restored at its end, also after an exception."""
    observer = Tap(receive, depth, loss_scale)
    F.scaled_dot_product_attention = observer.attention
    try:
        yield observer
    finally:
        F.scaled_dot_product_attention = observer._real


def capture(
    model: nn.Module,
    images: Tensor,
    labels: Tensor | None = None,
    *,
    loss: Callable[[Tensor, Tensor], Tensor] = F.cross_entropy,
) -> list[AttentionRecord]:
    """The attention records of all layers, in order: q, k, v and, with labels, grad_z of each example's own loss.

    The model is read in evaluation mode and left as it was: no parameter, no `.grad`, no mode is changed.

    Args:
        model: any Vision Transformer that `as_backbone` knows.
        images: `batch channel y x`.
        labels: their classes, `batch`; without them there are no gradients.
        loss: mean loss over the batch.

    Raises:
        ValueError: for a model that is not known, attention dropout, or a batch that does not fit the model.
        RuntimeError: if not every layer passed the tap.
    """
    records: dict[int, AttentionRecord] = {}
    stream(model, images, labels, records.__setitem__, loss=loss)
    return [records[layer] for layer in sorted(records)]


def stream(
    model: nn.Module,
    images: Tensor,
    labels: Tensor | None,
    receive: Receive,
    *,
    loss: Callable[[Tensor, Tensor], Tensor] = F.cross_entropy,
) -> Tensor:
    """`capture`, but each record is handed to `receive` and let go, so that memory stays that of one pass.

    Returns:
        The model's output, `batch class`, detached.
    """
    refuse_bad_batch(images, labels)
    backbone = as_backbone(model)
    with evaluating(model), tap(receive, backbone.depth) as observer:
        if labels is None:
            with torch.no_grad():
                output = run_model(model, images)
        else:
            with torch.enable_grad():
                start = images.detach().requires_grad_()  # so that gradients flow in a frozen model too
                output = run_model(model, start)
                refuse_bad_labels(labels, output.shape[-1])
                torch.autograd.grad(loss(output, labels), start)
        observer.expect(backbone.name)
    return output.detach()


@contextlib.contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Evaluation mode inside the scope; each module's own mode is restored after it."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode


def _record(
    query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None, scale: float | None
) -> AttentionRecord:
    bias = None
    if attn_mask is not None:
        mask = attn_mask.detach()
        bias = (
            torch.zeros_like(mask, dtype=torch.float32).masked_fill(~mask, -torch.inf)
            if mask.dtype == torch.bool
            else _float(mask)
        )
        bias = bias[(None,) * (4 - bias.dim())]
    q, k, v = (_float(x.detach()) for x in (query, key, value))
    return AttentionRecord(q, k, v, query.shape[-1] ** -0.5 if scale is None else scale, None, bias)


def _float(x: Tensor) -> Tensor:
    return x if x.dtype == torch.float64 else x.float()


def _refuse_unknown(
    layer: int, query: Tensor, key: Tensor, dropout_p: float, is_causal: bool, enable_gqa: bool
) -> None:
    found = None
    if dropout_p > 0:
        found = f"attention dropout {dropout_p}: what it drops cannot be known; set it to 0"
    elif is_causal:
        found = "causal attention: patches of an image have no order; use a model without it"
    elif enable_gqa:
        found = "grouped queries, which are not supported; use as many key heads as query heads"
    elif query.dim() != 4 or query.shape[:2] != key.shape[:2]:
        found = f"queries of shape {tuple(query.shape)}; expected batch × head × token × head_dim"
    if found:
        raise ValueError(f"layer {layer} uses {found}")
