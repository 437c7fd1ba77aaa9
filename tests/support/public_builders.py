"""Networks of public libraries, built at small sizes with a dropout rate, and their losses as the libraries compute them."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from support.public_data import CATEGORIES, FEATURES, LENGTH
from torch import Tensor, nn
from torch.nn import functional as F

from wdsearch.trial.module import RegularizedModule
from wdsearch.types import Scalar

CLASSES, WIDTH, HEADS, VOCABULARY, SIDE = 3, 16, 2, 30, 8


class Members(RegularizedModule):
    """TabM as its authors train it: the mean of its members' losses; judged by the mean of their probabilities."""

    def forward(self, *inputs: Tensor) -> Tensor:
        members = self.network(*inputs)
        return members if self.training else members.softmax(-1).mean(1).log()

    def loss(self, outputs: Tensor, targets: Tensor) -> Scalar:
        members = outputs.unbind(1) if outputs.ndim == 3 else [outputs]
        return torch.stack([super(Members, self).loss(one, targets) for one in members]).mean()


# -- losses as the libraries' own documentation computes them ---------------------------------------------------------


def of_head(network: nn.Module, batch: Any) -> Tensor:
    """Loss that a head of Hugging Face computes itself."""
    return network(**batch).loss


def of_outputs(network: nn.Module, batch: Any) -> Tensor:
    return F.cross_entropy(network(*batch[:-1]), batch[-1])


def of_first(network: nn.Module, batch: Any) -> Tensor:
    """Loss of the first of several outputs; TabNet's second is a penalty that its trainer, not the network, applies."""
    return F.cross_entropy(network(*batch[:-1])[0], batch[-1])


def of_members(network: nn.Module, batch: Any) -> Tensor:
    members, targets = network(*batch[:-1]), batch[-1]
    if network.training:
        return F.cross_entropy(members.flatten(0, 1), targets.repeat_interleave(members.shape[1]))
    return F.nll_loss(members.softmax(-1).mean(1).log(), targets)


def of_graphs(network: nn.Module, batch: Any) -> Tensor:
    return F.cross_entropy(network(batch.x, batch.edge_index, batch.batch), batch.y)


# -- networks, built with a dropout rate ------------------------------------------------------------------------------


def hugging_face(kind: str, head: str, **options: Any) -> Callable[[float], nn.Module]:
    """Builder of a head with a configuration, in which `rates` names the options that are dropout rates."""

    def build(rate: float) -> nn.Module:
        import transformers

        rates = dict.fromkeys(options.get("rates", ()), rate)
        others = {name: value for name, value in options.items() if name != "rates"}
        config = getattr(transformers, f"{kind}Config")(num_labels=CLASSES, **others, **rates)
        return getattr(transformers, f"{kind}For{head}")(config)

    return build


TEXT = {"vocab_size": VOCABULARY, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
LAYERS = {"hidden_size": WIDTH, "num_hidden_layers": 2, "num_attention_heads": HEADS, "intermediate_size": 24}
GROUPED = TEXT | LAYERS | {"num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 12}
BART = {
    **{f"{side}_layers": 1 for side in ("encoder", "decoder")},
    **{f"{side}_attention_heads": HEADS for side in ("encoder", "decoder")},
    **{f"{side}_ffn_dim": 24 for side in ("encoder", "decoder")},
}


def rtdl(kind: str, **options: Any) -> Callable[[float], nn.Module]:
    def build(rate: float) -> nn.Module:
        import rtdl_revisiting_models

        rates = dict.fromkeys(options.get("rates", ()), rate)
        others = {name: value for name, value in options.items() if name != "rates"}
        return getattr(rtdl_revisiting_models, kind)(d_out=CLASSES, n_blocks=2, **others, **rates)

    return build


def tabm(rate: float, periodic: bool = False) -> nn.Module:
    from rtdl_num_embeddings import PeriodicEmbeddings
    from tabm import TabM

    embeddings = PeriodicEmbeddings(FEATURES, 4, n_frequencies=3, lite=False) if periodic else None
    sizes = {
        "n_num_features": FEATURES,
        "cat_cardinalities": CATEGORIES,
        "d_out": CLASSES,
        "num_embeddings": embeddings,
    }
    return TabM.make(**sizes, k=4, n_blocks=2, d_block=12, dropout=rate)


def x_encoder(rate: float) -> nn.Module:
    from x_transformers import Encoder, TransformerWrapper

    layers = Encoder(
        dim=WIDTH, depth=2, heads=HEADS, attn_dim_head=8, attn_dropout=rate, ff_dropout=rate, layer_dropout=0.0
    )
    sizes = {"num_tokens": VOCABULARY, "max_seq_len": LENGTH, "logits_dim": CLASSES}
    return TransformerWrapper(**sizes, attn_layers=layers, emb_dropout=rate, average_pool_embed=True)


def x_vit(rate: float) -> nn.Module:
    from x_transformers import Encoder, ViTransformerWrapper

    layers = Encoder(dim=WIDTH, depth=2, heads=HEADS, attn_dim_head=8, attn_dropout=rate, ff_dropout=rate)
    sizes = {"image_size": SIDE, "patch_size": 4, "channels": 1, "num_classes": CLASSES}
    return ViTransformerWrapper(**sizes, attn_layers=layers, emb_dropout=rate)


def tabnet(rate: float) -> nn.Module:
    from pytorch_tabnet.tab_network import TabNet

    sizes = {"n_d": 4, "n_a": 4, "n_steps": 2, "virtual_batch_size": 8}
    return TabNet(FEATURES, CLASSES, **sizes, group_attention_matrix=torch.eye(FEATURES))


class GraphClassifier(nn.Module):
    """A network of PyTorch Geometric with a mean over nodes and a head, as in the library's own tutorial."""

    def __init__(self, kind: str, rate: float) -> None:
        from torch_geometric import nn as layers

        super().__init__()
        options = {"heads": 2} if kind == "GAT" else {}
        self.body = getattr(layers, kind)(FEATURES, WIDTH, 2, dropout=rate, norm="BatchNorm", **options)
        self.pool, self.rate, self.head = layers.global_mean_pool, rate, nn.Linear(WIDTH, CLASSES)

    def forward(self, x: Tensor, edge_index: Tensor, batch: Tensor) -> Tensor:
        pooled = self.pool(self.body(x, edge_index), batch)
        return self.head(F.dropout(pooled, p=self.rate, training=self.training))


def graph(kind: str) -> Callable[[float], nn.Module]:
    return lambda rate: GraphClassifier(kind, rate)


def timm(name: str, rates: Sequence[str], **options: Any) -> Callable[[float], nn.Module]:
    def build(rate: float) -> nn.Module:
        from timm import create_model

        network = create_model(name, num_classes=CLASSES, in_chans=1, **options, **dict.fromkeys(rates, rate))
        for layer in network.modules():
            if isinstance(layer, nn.Dropout):  # some blocks fix it at 0, whatever their network is given
                layer.p = rate
        return network

    return build
