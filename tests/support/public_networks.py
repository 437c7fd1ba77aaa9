"""Networks of public libraries at small sizes, with what is to become of each: fused or alone, and which parameters decay."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import lightning as L
import torch
from support.public_data import CATEGORIES, FEATURES, graphs, images, rows, rows_and_categories, texts, tokens
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader

from wdsearch.trial.module import RegularizedModule
from wdsearch.types import Scalar

CLASSES, WIDTH, HEADS, VOCABULARY, LENGTH, SIDE = 3, 16, 2, 30, 6, 8


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


# -- the table --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Public:
    """A network of a library, its batches of so many rows, its loss, and what is to become of it.

    `exempt` is a regular expression of the parameters that do not decay; all others do. `alone` is one of the reason for
    which trials are trained one after another; None if they are fused. `precision` is the Trainer's.
    """

    library: str
    build: Callable[[float], nn.Module]
    batch: Callable[[int, int], Any]
    loss: Callable[[nn.Module, Any], Tensor]
    exempt: str
    alone: str | None = None
    trial: type[RegularizedModule] = RegularizedModule
    precision: str = "64-true"


HF_NORMS = r".*bias|.*(LayerNorm|layernorm|layer_norm|\.norm|ln_.|layernorm_(before|after))\.weight"
HF_TEXT = rf"{HF_NORMS}|.*(embeddings|embed_tokens|embed_positions|wte|wpe|layernorm_embedding|shared)\.weight"

PUBLIC: dict[str, Public] = {
    "BERT": Public(
        "transformers",
        hugging_face(
            "Bert",
            "SequenceClassification",
            **TEXT | LAYERS,
            max_position_embeddings=12,
            rates=("hidden_dropout_prob", "attention_probs_dropout_prob"),
        ),
        texts,
        of_head,
        HF_TEXT,
    ),
    "GPT-2": Public(
        "transformers",
        hugging_face(
            "GPT2",
            "SequenceClassification",
            **TEXT,
            n_positions=12,
            n_embd=WIDTH,
            n_layer=2,
            n_head=HEADS,
            rates=("resid_pdrop", "embd_pdrop", "attn_pdrop"),
        ),
        texts,
        of_head,
        HF_TEXT,
    ),
    "Llama": Public(
        "transformers",
        hugging_face("Llama", "SequenceClassification", **GROUPED, rates=("attention_dropout",)),
        texts,
        of_head,
        HF_TEXT,
    ),
    "BART": Public(
        "transformers",
        hugging_face(
            "Bart",
            "SequenceClassification",
            **TEXT | BART,
            d_model=WIDTH,
            max_position_embeddings=12,
            decoder_start_token_id=2,
            rates=("dropout", "attention_dropout", "activation_dropout", "classifier_dropout"),
        ),
        texts,
        of_head,
        HF_TEXT,
    ),
    "Mixtral": Public(
        "transformers",
        hugging_face("Mixtral", "SequenceClassification", **GROUPED, num_local_experts=4, rates=("attention_dropout",)),
        texts,
        of_head,
        HF_TEXT,
        alone=r"experts \(MixtralExperts\): vmap cannot batch aten::histc",
        precision="32-true",  # its grouped matrix products take no 64 bits
    ),
    "ViT": Public(
        "transformers",
        hugging_face(
            "ViT",
            "ImageClassification",
            **LAYERS,
            image_size=SIDE,
            patch_size=4,
            num_channels=1,
            rates=("hidden_dropout_prob", "attention_probs_dropout_prob"),
        ),
        images,
        of_head,
        rf"{HF_NORMS}|vit\.embeddings\.(cls_token|position_embeddings)",
    ),
    "ResNet": Public(
        "transformers",
        hugging_face(
            "ResNet",
            "ImageClassification",
            num_channels=1,
            embedding_size=8,
            hidden_sizes=[8, 16],
            depths=[1, 1],
            layer_type="basic",
        ),
        images,
        of_head,
        r".*normalization\..*|.*bias",
    ),
    "MLP": Public(
        "rtdl_revisiting_models",
        rtdl("MLP", d_in=FEATURES, d_block=12, rates=("dropout",)),
        rows,
        of_outputs,
        r".*bias",
    ),
    "tabular ResNet": Public(
        "rtdl_revisiting_models",
        rtdl(
            "ResNet",
            d_in=FEATURES,
            d_block=12,
            d_hidden=None,
            d_hidden_multiplier=2.0,
            rates=("dropout1", "dropout2"),
        ),
        rows,
        of_outputs,
        r".*bias|.*normalization\.weight",
    ),
    "FT-Transformer": Public(
        "rtdl_revisiting_models",
        rtdl(
            "FTTransformer",
            n_cont_features=FEATURES,
            cat_cardinalities=CATEGORIES,
            d_block=WIDTH,
            attention_n_heads=HEADS,
            ffn_d_hidden=None,
            ffn_d_hidden_multiplier=4 / 3,
            rates=("attention_dropout", "ffn_dropout", "residual_dropout"),
        ),
        rows_and_categories,
        of_outputs,
        r".*bias|.*normalization\.weight|(cls|cont|cat)_embedding.*",
    ),
    "TabM": Public(
        "tabm", tabm, rows_and_categories, of_members, r".*bias|backbone\.blocks\.\d\.0\.[rs]", trial=Members
    ),
    "TabM, periodic": Public(
        "tabm",
        lambda rate: tabm(rate, periodic=True),
        rows_and_categories,
        of_members,
        r".*bias|backbone\.blocks\.\d\.0\.[rs]|num_module\.periodic\.weight",
        trial=Members,
    ),
    "x-transformers, text": Public(
        "x_transformers", x_encoder, tokens, of_outputs, r".*(bias|gamma)|(token|pos)_emb\.emb\.weight"
    ),
    "x-transformers, images": Public(
        "x_transformers",
        x_vit,
        lambda count, seed: tuple(images(count, seed).values()),
        of_outputs,
        r".*(bias|gamma)|pos_embedding",
    ),
    "TabNet": Public(
        "pytorch_tabnet",
        tabnet,
        rows,
        of_first,
        r".*bias|.*bn\.weight",
        alone=r"selector \(Sparsemax\): its autograd.Function has no setup_context",
        precision="32-true",  # its matrix of groups is a tensor that `double()` does not reach
    ),
    "GCN": Public("torch_geometric", graph("GCN"), graphs, of_graphs, r".*bias|body\.norms\..*"),
    "GIN": Public("torch_geometric", graph("GIN"), graphs, of_graphs, r".*bias|.*norms\..*"),
    "GAT": Public("torch_geometric", graph("GAT"), graphs, of_graphs, r".*bias|body\.norms\..*"),
    "timm, ViT": Public(
        "timm",
        timm(
            "vit_tiny_patch16_224",
            ("drop_rate", "pos_drop_rate", "proj_drop_rate", "attn_drop_rate"),
            img_size=SIDE,
            patch_size=4,
            embed_dim=WIDTH,
            depth=2,
            num_heads=HEADS,
        ),
        lambda count, seed: tuple(images(count, seed).values()),
        of_outputs,
        r".*bias|.*norm\d?\.weight|cls_token|pos_embed",
    ),
    "timm, ConvNeXt": Public(
        "timm",
        timm("convnext_atto", ("drop_rate",), depths=(1, 1, 1, 1), dims=(4, 4, 8, 8), patch_size=1),
        lambda count, seed: tuple(images(count, seed).values()),
        of_outputs,
        r".*bias|.*norm\.weight|stem\.1\.weight|.*downsample\.0\.weight|.*gamma",
    ),
    "timm, Swin": Public(
        "timm",
        timm(
            "swin_tiny_patch4_window7_224",
            ("drop_rate", "proj_drop_rate", "attn_drop_rate"),
            img_size=SIDE,
            patch_size=1,
            window_size=4,
            embed_dim=8,
            depths=(2, 1),
            num_heads=(1, 2),
            drop_path_rate=0.0,
        ),
        lambda count, seed: tuple(images(count, seed).values()),
        of_outputs,
        r".*bias|.*norm\d?\.weight|.*relative_position_bias_table",
    ),
}


class PublicData(L.LightningDataModule):
    """Two batches of unequal sizes to train on, and one for each evaluation; graphs in 64 bits, which no Trainer converts."""

    task, metric = "classification", "accuracy"

    def __init__(self, public: Public, double: bool = False) -> None:
        super().__init__()
        batches = [public.batch(count, seed) for seed, count in enumerate((12, 8, 12))]
        if double and public.library == "torch_geometric":
            batches = [batch.apply(lambda x: x.double() if x.is_floating_point() else x) for batch in batches]
        self.train, self.validation = batches[:2], batches[2:]

    def train_dataloader(self) -> DataLoader:
        return DataLoader(self.train, batch_size=None)

    def train_eval_dataloader(self) -> DataLoader:
        return DataLoader(self.train[:1], batch_size=None)

    def val_dataloader(self) -> DataLoader:
        return DataLoader(self.validation, batch_size=None)
