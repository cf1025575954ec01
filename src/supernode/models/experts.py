"""Mixture of experts: a router sends each token to a few of many small SwiGLU MLPs.

No token is dropped: the pairs of token and expert are sorted by expert, each expert multiplies
its stretch of them (a grouped matmul), and the results go back to their tokens.

Names of tensors end in their dims: N tokens of the whole batch, D model, E experts, A experts that
a token goes to, P = N A pairs, F width of an expert, Q groups of experts.

**Source:** Gale et al., "MegaBlocks: Efficient Sparse Training with Mixture-of-Experts", MLSys 2023
(dropless routing); DeepSeek-AI, "DeepSeek-V3 Technical Report", 2024, section 2.1.2 (sigmoid
scores, bias of the choice, groups, shared experts).
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True, slots=True, kw_only=True)
class ExpertsConfig:
    """The shape of a layer of experts: each token goes to `top_k` of `n_experts`.

    Scores are a softmax, or with `sigmoid` DeepSeek-V3's: a bias per expert changes the choice
    alone, and a token's experts lie in `top_groups` of `n_groups` groups. A token's scores are
    made to sum to `scale`. With `bias` the router and the experts have biases. Above 0, `limit`
    bounds what gpt-oss's gates are given, and their sizes.
    """

    n_experts: int
    top_k: int
    d_expert: int
    sigmoid: bool = False
    n_groups: int = 1
    top_groups: int = 1
    scale: float = 1.0
    bias: bool = False
    limit: float = 0.0
    init_std: float = 0.02


class Router(nn.Module):
    """Which experts each token goes to, and how much each of them counts; in float32."""

    choice_bias_E: Tensor

    def __init__(self, d_model: int, config: ExpertsConfig) -> None:
        super().__init__()
        self.config = config
        self.weight = nn.Parameter(torch.empty(config.n_experts, d_model))
        nn.init.normal_(self.weight, std=config.init_std)
        self.bias = nn.Parameter(torch.zeros(config.n_experts)) if config.bias else None
        if config.sigmoid:
            self.register_buffer("choice_bias_E", torch.zeros(config.n_experts))

    def forward(self, x_ND: Tensor) -> tuple[Tensor, Tensor]:
        """Shares `[N, A]` of each token's experts, and which they are `[N, A]`."""
        bias_E = None if self.bias is None else self.bias.float()
        logits_NE = F.linear(x_ND.float(), self.weight.float(), bias_E)
        if self.config.sigmoid:
            scores_NE = logits_NE.sigmoid()
            chosen_NA = self._choose(scores_NE + self.choice_bias_E)
            shares_NA = scores_NE.gather(1, chosen_NA)
        else:
            shares_NA, chosen_NA = logits_NE.softmax(-1).topk(self.config.top_k, dim=-1)
        shares_NA = shares_NA / shares_NA.sum(-1, keepdim=True) * self.config.scale
        return shares_NA, chosen_NA

    def _choose(self, scores_NE: Tensor) -> Tensor:
        """The best experts of the best groups; a group counts as its two best experts."""
        groups = self.config.n_groups
        if groups > 1:
            scores_NQE = scores_NE.unflatten(1, (groups, -1))
            best_NQ = scores_NQE.topk(2, dim=-1)[0].sum(-1)
            kept_NQ = best_NQ.topk(self.config.top_groups, dim=-1)[1]
            out_NQ = torch.ones_like(best_NQ).scatter(1, kept_NQ, 0.0).bool()
            scores_NE = scores_NQE.masked_fill(out_NQ[..., None], float("-inf")).flatten(1)
        return scores_NE.topk(self.config.top_k, dim=-1)[1]


class Experts(nn.Module):
    """A router and its experts: `[..., D]` to `[..., D]`, token by token."""

    def __init__(self, d_model: int, config: ExpertsConfig) -> None:
        super().__init__()
        self.config = config
        self.router = Router(d_model, config)
        inward, outward = (config.d_expert, d_model), (d_model, config.d_expert)
        self.gate = nn.Parameter(torch.empty(config.n_experts, *inward))
        self.up = nn.Parameter(torch.empty(config.n_experts, *inward))
        self.down = nn.Parameter(torch.empty(config.n_experts, *outward))
        for weight in self.parameters(recurse=False):
            nn.init.normal_(weight, std=config.init_std)
        if config.bias:
            self.gate_bias = nn.Parameter(torch.zeros(config.n_experts, config.d_expert))
            self.up_bias = nn.Parameter(torch.zeros(config.n_experts, config.d_expert))
            self.down_bias = nn.Parameter(torch.zeros(config.n_experts, d_model))

    def forward(self, x_BTD: Tensor) -> Tensor:
        x_ND = x_BTD.flatten(0, -2)
        shares_NA, chosen_NA = self.router(x_ND)
        expert_P, order_P = chosen_NA.flatten().sort()
        x_PD = x_ND[order_P // self.config.top_k]
        y_PD = self.mlp(x_PD, expert_P)
        y_PD = y_PD * shares_NA.flatten()[order_P, None].to(y_PD.dtype)
        back_P = torch.empty_like(order_P)
        back_P[order_P] = torch.arange(len(order_P), device=order_P.device)
        y_ND = y_PD[back_P].unflatten(0, (-1, self.config.top_k)).sum(1)
        if self.config.bias:
            # A token's biases, each as much as its expert counts: as a product, not row by row.
            shares_NE = torch.zeros_like(x_ND[:, :1]).expand(-1, self.config.n_experts)
            shares_NE = shares_NE.scatter(1, chosen_NA, shares_NA.to(y_ND.dtype))
            y_ND = y_ND + shares_NE @ self.down_bias
        return y_ND.view_as(x_BTD)

    def mlp(self, x_PD: Tensor, expert_P: Tensor) -> Tensor:
        """Each expert's SwiGLU on its stretch of the pairs, which are sorted by expert; without the
        bias of what it gives."""
        ends_E = self._ends(expert_P)
        gate_PF = F.grouped_mm(x_PD, self.gate.transpose(1, 2), offs=ends_E)
        up_PF = F.grouped_mm(x_PD, self.up.transpose(1, 2), offs=ends_E)
        if self.config.bias:
            gate_PF, up_PF = gate_PF + self.gate_bias[expert_P], up_PF + self.up_bias[expert_P]
        h_PF = gated(gate_PF, up_PF, self.config.limit)
        return F.grouped_mm(h_PF, self.down.transpose(1, 2), offs=ends_E)

    def _ends(self, expert_P: Tensor) -> Tensor:
        # By a histogram: a count of bins would give a shape that depends on data.
        bins = self.config.n_experts
        pairs_E = torch.histc(expert_P.float(), bins=bins, min=0, max=bins - 1)
        return pairs_E.cumsum(0, dtype=torch.int32)


def gated(gate: Tensor, up: Tensor, limit: float) -> Tensor:
    """SwiGLU; with a `limit` that of gpt-oss, which is sharper, bounded, and has `up` about 1.

    **Source:** OpenAI, "gpt-oss-120b & gpt-oss-20b Model Card", 2025, section 2.1, and its code.
    """
    if not limit:
        return F.silu(gate) * up
    gate, up = gate.clamp(max=limit), up.clamp(-limit, limit)
    return gate * torch.sigmoid(1.702 * gate) * (up + 1)
