"""Tests of the rule for the parameters that decay, on layers of torch, of users, and as published networks name them."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, prune

from wdsearch.errors import BuildError
from wdsearch.trial.copying import copied
from wdsearch.trial.recipe import Recipe, reasons


def layer_with(kind: str = "Block", **shapes: tuple[int, ...]) -> nn.Module:
    """A layer of a class of this name with raw parameters of these shapes."""
    layer = type(kind, (nn.Module,), {})()
    for name, shape in shapes.items():
        layer.register_parameter(name, nn.Parameter(torch.zeros(shape)))
    return layer


def within(kind: str, layer: nn.Module) -> nn.Module:
    """A layer in one of a class of this name."""
    outer = type(kind, (nn.Module,), {})()
    outer.inner = layer
    return nn.ModuleDict({"outer": outer})


def scripted(network: nn.Module) -> nn.Module:
    with pytest.warns(DeprecationWarning, match="is deprecated"):
        return torch.jit.script(network)


def decays(network: nn.Module, name: str) -> bool:
    return reasons(network, Recipe())[name] is None


WEIGHTS = {
    "a column": (nn.Linear(8, 1), "weight"),
    "one by one": (nn.Conv2d(4, 4, 1, groups=4), "weight"),
    "recurrent": (nn.LSTM(4, 5, proj_size=3), "weight_hr_l0"),
    "bilinear": (nn.Bilinear(2, 2, 2), "weight"),
    "attention": (nn.MultiheadAttention(4, 2), "in_proj_weight"),
    "keys of their own size": (nn.MultiheadAttention(4, 2, kdim=3, vdim=3), "k_proj_weight"),
    "direction of weight norm": (parametrizations.weight_norm(nn.Linear(3, 2)), "parametrizations.weight.original1"),
    "spectral norm": (parametrizations.spectral_norm(nn.Linear(3, 2)), "parametrizations.weight.original"),
    "pruned": (prune.l1_unstructured(nn.Linear(8, 1), "weight", 0.5), "weight_orig"),
    "scripted": (scripted(nn.Sequential(nn.Linear(8, 1))), "0.weight"),
    "user's linear": (layer_with("NoisyLinear", weight=(1, 8)), "weight"),
    "einsum": (layer_with(w=(3, 4, 5)), "w"),
    "experts": (layer_with("Experts", gate_up_proj=(1, 4, 6), down_proj=(1, 3, 4)), "gate_up_proj"),
    "query beside key": (layer_with(query=(4, 4), key=(4, 4)), "query"),
    "token mixer": (nn.ModuleDict({"token_mixer": layer_with(weight=(4, 4))}), "token_mixer.weight"),
    "adapter": (layer_with("LoraLinear", lora_A=(2, 4), lora_B=(4, 2)), "lora_B"),
    "patches": (nn.ModuleDict({"patch_embed": nn.Conv2d(3, 4, 2)}), "patch_embed.weight"),
    "Fourier layer": (layer_with("FourierLayer", weight=(4, 5, 3)), "weight"),
    "spectral convolution": (layer_with("SpectralConv2d", weights1=(1, 4, 3, 3)), "weights1"),
    "graph attention": (layer_with("GATConv", att_src=(1, 2, 4)), "att_src"),
    "a member each": (layer_with("LinearEnsemble", weight=(3, 4, 5)), "weight"),
    "a map within an embedding": (
        within("PeriodicEmbeddings", layer_with("_NLinear", weight=(5, 6, 4))),
        "outer.inner.weight",
    ),
    "of the first step": (layer_with(init_weight=(1, 4, 5)), "init_weight"),
    "a text projection": (layer_with(text_projection=(4, 5)), "text_projection"),
    "classifier on embeddings": (layer_with(embed_proj=(4, 5)), "embed_proj"),
}
OTHERS = {
    "class token": (layer_with(cls_token=(1, 1, 8)), "cls_token"),
    "several class tokens": (layer_with(class_tokens=(3, 8)), "class_tokens"),
    "positions": (layer_with(pos_embed=(1, 5, 8)), "pos_embed"),
    "positions of CLIP": (layer_with(positional_embedding=(5, 8)), "positional_embedding"),
    "relative positions": (layer_with(rel_pos_h=(9, 8)), "rel_pos_h"),
    "a table": (layer_with(relative_position_bias_table=(9, 2)), "relative_position_bias_table"),
    "registers": (layer_with(register_tokens=(4, 8)), "register_tokens"),
    "mask token": (layer_with(mask_token=(1, 8)), "mask_token"),
    "query tokens": (layer_with(query_tokens=(1, 4, 8)), "query_tokens"),
    "a query alone": (layer_with(query=(4, 8)), "query"),
    "latents": (layer_with(latents=(4, 8)), "latents"),
    "a list of prompts": (nn.ModuleDict({"prompts": nn.ParameterList([torch.zeros(3, 8)])}), "prompts.0"),
    "unnamed, for every row": (layer_with(memory=(1, 4, 8)), "memory"),
    "layer scale": (layer_with(gamma=(1, 1, 8)), "gamma"),
    "scale of heads": (layer_with(logit_scale=(4, 2)), "logit_scale"),
    "norm with one axis": (layer_with(weight=(1, 8, 1, 1)), "weight"),
    "norm over two axes": (layer_with("MyLayerNorm2d", weight=(4, 5)), "weight"),
    "norm by its attribute": (nn.ModuleDict({"norm1": layer_with("Mine", weight=(4, 5))}), "norm1.weight"),
    "magnitude": (parametrizations.weight_norm(nn.Linear(3, 2)), "parametrizations.weight.original0"),
    "bias of weight norm": (parametrizations.weight_norm(nn.Linear(3, 2)), "bias"),
    "recurrence": (layer_with(A_log=(4, 8)), "A_log"),
    "step of a recurrence": (layer_with(log_dt=(4, 8)), "log_dt"),
    "features' embeddings": (layer_with("LinearEmbeddings", weight=(4, 8), bias=(4, 8)), "weight"),
    "a table within an embedding": (within("TokenEmbedding", layer_with("Table", weight=(5, 4))), "outer.inner.weight"),
    "frequencies": (layer_with("_Periodic", weight=(4, 8)), "weight"),
    "Fourier features": (layer_with("FourierFeatures", weight=(4, 8)), "weight"),
    "initial state": (layer_with(init_state=(2, 8)), "init_state"),
    "biases of experts": (layer_with(w1=(2, 4, 8), b1=(2, 8)), "b1"),
    "rank-1 adapter": (layer_with("LinearBatchEnsemble", weight=(4, 5), r=(3, 5), s=(3, 4)), "s"),
    "scales of members": (layer_with("ScaleEnsemble", weight=(3, 5)), "weight"),
    "scripted norm": (scripted(nn.Sequential(nn.LayerNorm((3, 4)))), "0.weight"),
    "bias of keys": (nn.MultiheadAttention(4, 2, add_bias_kv=True), "bias_k"),
}


def old_weight_norm() -> nn.Module:
    with pytest.warns(FutureWarning):
        return nn.utils.weight_norm(nn.Conv1d(3, 4, 2))


@pytest.mark.parametrize("name", WEIGHTS)
def test_weights_decay(name: str) -> None:
    network, parameter = WEIGHTS[name]
    assert decays(network, parameter), reasons(network, Recipe())


@pytest.mark.parametrize("name", OTHERS)
def test_what_is_added_or_scales_does_not_decay(name: str) -> None:
    network, parameter = OTHERS[name]
    assert not decays(network, parameter)


def test_the_magnitude_of_the_old_weight_norm_does_not_decay() -> None:
    assert reasons(old_weight_norm(), Recipe()) == {
        "bias": "bias",
        "weight_g": "magnitude of weight norm",
        "weight_v": None,
    }


class Declaring(nn.Module):
    """Declares what does not decay as timm's and Swin's networks do."""

    def __init__(self) -> None:
        super().__init__()
        self.lookup, self.head, self.last = layer_with(values=(4, 5)), nn.Linear(4, 4), nn.Linear(4, 4)

    @torch.jit.ignore
    def no_weight_decay(self) -> set[str]:
        return {"head", "lookup.values"}

    def no_weight_decay_keywords(self) -> set[str]:
        return {"ast.w"}


def test_names_that_a_network_or_a_layer_declares_do_not_decay() -> None:
    why = reasons(nn.ModuleDict({"body": Declaring(), "head": nn.Linear(4, 4)}), Recipe(include=(r"body\.lookup",)))
    assert why == {
        "body.lookup.values": None,
        "body.head.weight": "named by no_weight_decay() of Declaring",
        "body.head.bias": "named by no_weight_decay() of Declaring",
        "body.last.weight": "named by no_weight_decay_keywords() of Declaring",
        "body.last.bias": "bias",
        "head.weight": None,
        "head.bias": "bias",
    }
    assert reasons(Declaring(), Recipe(decay="all"))["head.weight"] is None


def test_a_declaration_that_fails_is_refused() -> None:
    class Failing(nn.Linear):
        def no_weight_decay(self, depth: int) -> set[str]:
            return set()

    with pytest.raises(BuildError, match=r"Failing\.no_weight_decay\(\) fails: TypeError"):
        reasons(Failing(3, 2), Recipe())


@pytest.mark.parametrize(("mark", "value"), [("_no_weight_decay", True), ("_optim", {"weight_decay": 0.0})])
def test_a_marked_parameter_does_not_decay_and_its_copy_neither(mark: str, value: object) -> None:
    layer = nn.Linear(3, 2)
    setattr(layer.weight, mark, value)
    assert not decays(layer, "weight")
    assert not decays(copied(layer), "weight")
    setattr(layer.weight, mark, None)
    assert decays(layer, "weight")


def test_a_users_weight_norm_and_its_scale_are_told_apart() -> None:
    class Own(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight_v, self.weight_g = nn.Parameter(torch.ones(4, 3)), nn.Parameter(torch.ones(4, 1))

        def forward(self, x: Tensor) -> Tensor:
            return x @ (self.weight_g * self.weight_v).T

    assert reasons(Own(), Recipe()) == {"weight_v": None, "weight_g": "magnitude of weight norm"}
