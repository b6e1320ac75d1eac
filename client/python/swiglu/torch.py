# SPDX-License-Identifier: Apache-2.0
#
# SwiGLU of a server inside PyTorch's autograd.
"""SwiGLU and MLPs of a server as functions of PyTorch whose passes both run on the server."""
from typing import Any, Optional, Tuple

import torch

import swiglu as _swiglu


class _Swiglu(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, client: _swiglu.Client, e: torch.Tensor, g: torch.Tensor) -> torch.Tensor:
        ctx.client = client
        ctx.save_for_backward(e, g)
        return client.forward(e.detach(), g.detach())

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, dw: torch.Tensor) -> Tuple[None, torch.Tensor, torch.Tensor]:
        e, g = ctx.saved_tensors
        result = ctx.client.backward(dw.detach(), e.detach(), g.detach())
        return None, result.de, result.df


class _MlpFunction(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, layer: _swiglu.Mlp, x: torch.Tensor) -> torch.Tensor:
        ctx.layer = layer
        ctx.save_for_backward(x)
        return layer.forward(x.detach())

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, dy: torch.Tensor) -> Tuple[None, torch.Tensor]:
        [x] = ctx.saved_tensors
        return None, ctx.layer.backward(x.detach(), dy.detach())


def swiglu(e: torch.Tensor, g: torch.Tensor, *, client: Optional[_swiglu.Client] = None) -> torch.Tensor:
    """SiLU(e) * g of two tensors of one dtype and shape. `client` is that of set_default_client unless given."""
    return _Swiglu.apply(_client_or_default(client), e, g)


class Mlp(torch.nn.Module):
    """One layer of an MLP whose weights are at the server. Gradients flow to its input. It has no parameters."""

    def __init__(self, name: str, layer: int, *, client: Optional[_swiglu.Client] = None) -> None:
        super().__init__()
        self.layer = _client_or_default(client).mlp(name, layer)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """y of the tokens x, of shape [..., H]."""
        return _MlpFunction.apply(self.layer, x)

    def extra_repr(self) -> str:
        """What print shows."""
        return f"name={self.layer.name!r}, layer={self.layer.layer}"


_default_client: Optional[_swiglu.Client] = None


def set_default_client(client: Optional[_swiglu.Client]) -> None:
    """Sets the client of this process for swiglu() and Mlp."""
    global _default_client  # pylint: disable=global-statement
    _default_client = client


def _client_or_default(client: Optional[_swiglu.Client]) -> _swiglu.Client:
    chosen = client or _default_client
    if chosen is None:
        raise RuntimeError("no client: pass client=, or call swiglu.torch.set_default_client first")
    return chosen
