"""Networks of public libraries, with what is to become of each: fused or alone, and which parameters decay."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import lightning as L
from support.public_builders import (
    BART,
    FEATURES,
    GROUPED,
    HEADS,
    LAYERS,
    SIDE,
    TEXT,
    WIDTH,
    Members,
    graph,
    hugging_face,
    of_first,
    of_graphs,
    of_head,
    of_members,
    of_outputs,
    rtdl,
    tabm,
    tabnet,
    timm,
    x_encoder,
    x_vit,
)
from support.public_data import CATEGORIES, graphs, images, pairs_of_images, rows, rows_and_categories, texts, tokens
from torch import Tensor, nn
from torch.utils.data import DataLoader

from wdsearch.trial.module import RegularizedModule


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
        pairs_of_images,
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
        pairs_of_images,
        of_outputs,
        r".*bias|.*norm\d?\.weight|cls_token|pos_embed",
    ),
    "timm, ConvNeXt": Public(
        "timm",
        timm("convnext_atto", ("drop_rate",), depths=(1, 1, 1, 1), dims=(4, 4, 8, 8), patch_size=1),
        pairs_of_images,
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
        pairs_of_images,
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
