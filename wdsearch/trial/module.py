"""One trial as a LightningModule, with its learning rate and regularization; plain `L.Trainer` can train it."""

import copy
import math
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from functools import partial
from typing import Any

import lightning as L
import torch
from jaxtyping import Inexact, Shaped
from torch import Tensor, nn

from wdsearch.groups import assigned, split_key
from wdsearch.noise import NoiseStream, derive_seed
from wdsearch.optimizers import OPTIMIZERS, decay_before_step
from wdsearch.regularizers import REGULARIZERS, checked
from wdsearch.tasks.metrics import Sums, total
from wdsearch.tasks.task import Task, losses_and_gaps, widened
from wdsearch.trial.after_step import AfterStep, holding
from wdsearch.trial.batches import Batch, Inputs, fitting, own_copy, split_batch
from wdsearch.trial.dropout import Dropout, replace_dropout
from wdsearch.trial.functional_dropout import function_dropout, functions_with_rates
from wdsearch.trial.generators import rewind_generators
from wdsearch.trial.loaders import train_eval_loader
from wdsearch.trial.recipe import Recipe, decayed_parameters
from wdsearch.trial.resume import Progress, in_checkpoint, of_checkpoint
from wdsearch.trial.scalars import Scalars
from wdsearch.trial.weights import with_dense_gradients
from wdsearch.types import Params, Scalar, Strengths

VALIDATION, TRAINING_ROWS = "validation", "training rows"
"""Phases of an epoch in which batches are evaluated."""


class RegularizedModule(L.LightningModule):
    """A network with its learning rate and strengths.

    `strengths` maps keys of `REGULARIZERS` to values; a regularizer that is not named does not act. A key may name one of
    the recipe's groups, as `weight_decay:head`: it then acts on the parameters (or layers) of that group alone. torch's dropout
    layers and attention in `network` are replaced by layers whose rate is data and whose noise depends on (`seed`, epoch,
    batch) alone. A subclass may override `forward`, `loss`, and `split` for batches of another form.

    Raises ValueError for a strength outside its regularizer's domain or one that does not fit the task.

    >>> module = RegularizedModule(nn.Linear(3, 2), {"weight_decay": 0.1, "l1": 1e-4}, recipe=Recipe("sgd"))
    >>> module.decayed, list(module.regularizers)
    (['network.weight'], ['weight_decay', 'l1'])
    """

    def __init__(
        self,
        network: nn.Module,
        strengths: Mapping[str, float] | None = None,
        lr: float = 1e-3,
        recipe: Recipe | None = None,
        task: Task | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.recipe, self.task, self.seed = recipe or Recipe(), task or Task(), seed
        self.regularizers = {key: checked(key, value, self.task) for key, value in (strengths or {}).items()}
        self.noise = {key: NoiseStream(seed, key) for key in (*(strengths or {}), "dropout")}
        self.network = with_dense_gradients(replace_dropout(network, self.noise["dropout"]))
        self.decayed = [f"network.{name}" for name in decayed_parameters(self.network, self.recipe)]
        self.members = {key: self._members(key) for key, one in self.regularizers.items() if one.acts_on}
        self.strengths = Scalars(strengths or {})
        self.rates = Scalars({"lr": lr})
        self._write_buffers(strengths or {})
        self.function_dropout = function_dropout([key for key, _ in self.acting("buffer")], self.strengths, self.noise)
        self.following = AfterStep(self.regularizers, self.members)
        self.progress = Progress()
        self._resumed: Progress | None = None
        self._ended: tuple[dict[str, Any], Progress] | None = None

    def _members(self, key: str) -> list[str]:
        """Names of the parameters, or of the layers, that a key's regularizer acts on."""
        regularizer, group = split_key(key)
        names = self.layers_of(key) if REGULARIZERS[regularizer].acts_on == "layers" else self.decayed
        if not group:
            return names
        patterns = self.recipe.groups.get(regularizer, {})
        if group not in patterns:
            raise ValueError(f"{key!r}: the recipe has no such group; it has: {', '.join(patterns) or 'none'}")
        shown = {name.removeprefix("network."): name for name in names}
        return [shown[name] for name in assigned(patterns, shown)[group]]

    def layers_of(self, key: str) -> list[str]:
        """Names of the layers that hold the strength of a key's regularizer."""
        buffer = REGULARIZERS[split_key(key)[0]].buffer
        named = self.network.named_modules(prefix="network")
        return [name for name, layer in named if isinstance(layer, Dropout) and buffer in layer._buffers]

    def _write_buffers(self, strengths: Mapping[str, float]) -> None:
        for key, _ in self.acting("buffer"):
            for name in self.members[key]:
                layer: Any = self.get_submodule(name)
                layer.write(strengths[key])

    def acting(self, point: str) -> list[tuple[str, Any]]:
        """Keys and functions of the trial's regularizers that act at a point of training (a field of `Regularizer`)."""
        acts = [(key, getattr(regularizer, point)) for key, regularizer in self.regularizers.items()]
        return [(key, function) for key, function in acts if function is not None]

    # -- methods that a population vmaps -----------------------------------------------------------------------

    def split(self, batch: Batch) -> tuple[Inputs, Shaped[Tensor, "batch ..."]]:
        """Inputs and targets of a batch."""
        inputs, targets = split_batch(batch)
        own_forward = type(self).forward is not RegularizedModule.forward
        return fitting(inputs, self.forward if own_forward else self.network.forward), targets

    def rows(self, batch: Batch) -> int:
        """Number of rows of a batch."""
        return len(self.split(batch)[1])

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Outputs of the network for the inputs of a batch."""
        return self.network(*args, **kwargs)

    def _outputs(self, inputs: Inputs) -> Any:
        """Outputs for a batch in at least 32 bits, as loss and metric need them."""
        with functions_with_rates(self, self.function_dropout):
            return widened(self(*inputs.args, **inputs.kwargs))

    def loss(self, outputs: Any, targets: Shaped[Tensor, "batch ..."]) -> Scalar:
        """Mean loss of a batch without regularizers, for training loss, validation loss and gap."""
        return self.task.loss(outputs, targets)

    def objective(self, batch: Batch) -> Scalar:
        """Training objective on a batch: the loss with augmentation, the regularizers' changes and penalties."""
        inputs, targets = self.split(own_copy(batch, self.network))
        strengths = self.current_strengths()
        for key, augment in self.acting("augment"):
            inputs = inputs.map(partial(augment, strength=strengths[key], noise=self.noise[key]))
        outputs = self._outputs(inputs)
        value = self.loss(outputs, targets)
        for key, changed in self.acting("loss"):
            value = changed(value, *self.task.read(outputs, targets), strengths[key], self.task)
        for key, penalty in self.acting("penalty"):
            if weights := self.parameters_named(self.members[key]):
                value = value + penalty(weights, strengths[key])
        return value

    def evaluation(self, batch: Batch) -> Sums:
        """Sums over a batch's rows of loss and metric, in eval mode and without regularizers."""
        inputs, targets = self.split(own_copy(batch, self.network))
        outputs = self._outputs(inputs)
        value = self.loss(outputs, targets)
        size = self.task.size(value, targets)
        return {"loss": value * size, "size": size} | self.task.sums(outputs, targets)

    def changed_gradients(self, gradients: Params, strengths: Strengths) -> Params:
        """Gradients for the optimizer, after clipping."""
        for key, change in self.acting("gradients"):
            gradients = change(gradients, strengths[key])
        return gradients

    def decay_groups(self) -> list[tuple[tuple[str, ...], list[str]]]:
        """Decayed parameters, grouped by the keys that set their decoupled decay."""
        groups: dict[tuple[str, ...], list[str]] = {}
        members = {key: set(self.members[key]) for key, _ in self.acting("decay")}
        for name in self.decayed:
            groups.setdefault(tuple(key for key in members if name in members[key]), []).append(name)
        return list(groups.items())

    def decay(self, keys: tuple[str, ...], strengths: Strengths) -> Scalar:
        """Decoupled decay λ of the parameters whose decay these keys set."""
        decays = [decay(strengths[key]) for key, decay in self.acting("decay") if key in keys]
        return sum(decays, torch.zeros((), dtype=torch.float64))

    def after_prox(
        self, name: str, weight: Inexact[Tensor, "*shape"], step_size: Inexact[Tensor, "..."], strengths: Strengths
    ) -> Inexact[Tensor, "*shape"]:
        """Decayed weight of a name after the proximal steps that follow the optimizer's step."""
        for key, prox in self.acting("prox"):
            if name in self.members[key]:
                weight = prox(weight, step_size, strengths[key])
        return weight

    def current_strengths(self) -> Strengths:
        """Strengths in the parameters' dtype, so that single and fused trials round alike."""
        return self.strengths.as_dict(next(self.parameters()).dtype.to_real())

    def patience(self) -> float:
        """Epochs without a better validation loss after which this trial stops; ∞ if it does not."""
        values = self.strengths.as_dict()
        return min((patience(float(values[key])) for key, patience in self.acting("patience")), default=math.inf)

    def parameters_named(self, names: Iterable[str]) -> Params:
        """The parameters of these names."""
        parameters = dict(self.named_parameters())
        return {name: parameters[name] for name in names}

    def rewind_noise(self, epoch: int, batch: int, *phase: str) -> None:
        """Set the noise streams, and every generator that the network can reach, to a batch of an epoch.

        `phase` is empty in training, else `VALIDATION` or `TRAINING_ROWS`, whose batches are evaluated.
        """
        for stream in self.noise.values():
            stream.at(epoch, batch, *phase)
        rewind_generators(self, derive_seed(self.seed, epoch, batch, *phase, "network"), self.device)

    # -- one step alone, with torch's own optimizer -------------------------------------------------------------

    def optimizer_and_schedule(self, steps: int) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LambdaLR]:
        """Optimizer of torch with this trial's learning rate and decay, and its schedule over all steps."""
        groups: list[dict[str, Any]] = [
            {
                "params": list(self.parameters_named(names).values()),
                "decay": float(self.decay(keys, self.strengths.as_dict())),
            }
            for keys, names in self.decay_groups()
        ]
        decayed = set(self.decayed)
        others = [parameter for name, parameter in self.named_parameters() if name not in decayed]
        groups.append({"params": others, "decay": 0.0})
        lr = float(self.rates.as_dict()["lr"])
        optimizer = OPTIMIZERS[self.recipe.optimizer].alone(groups, lr, self.recipe.options)
        return optimizer, torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: self.recipe.factor(step, steps))

    @torch.no_grad()
    def before_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Change the gradients, then apply the decay if torch's optimizer has no decoupled one."""
        gradients = {name: p.grad for name, p in self.named_parameters() if p.grad is not None}
        changed = self.changed_gradients(gradients, self.current_strengths())
        for name, gradient in gradients.items():
            if changed[name] is not gradient:
                gradient.copy_(changed[name])
        decay_before_step(optimizer)

    @torch.no_grad()
    def after_step(self, optimizer: torch.optim.Optimizer, step: int) -> None:
        """Apply proximal steps and the regularizers' updates after the optimizer's step number `step`, counted from 1."""
        self._proximal_steps(optimizer)
        if self.following.acts:
            weights, states = self.trained(), self.progress.states
            changed, self.progress.states = self.following.after_step(step, weights, states, self.current_strengths())
            for name, value in changed.items():
                weights[name].copy_(value)

    def _proximal_steps(self, optimizer: torch.optim.Optimizer) -> None:
        if not self.acting("prox"):
            return
        strengths, group = self.current_strengths(), optimizer.param_groups[0]
        step_size_of = OPTIMIZERS[self.recipe.optimizer].step_size
        for name, weight in self.parameters_named(self.decayed).items():
            if weight.grad is not None:
                step_size = step_size_of(optimizer.state[weight], group["lr"], group)
                step_size = torch.as_tensor(step_size, device=weight.device)
                weight.copy_(self.after_prox(name, weight, step_size, strengths))

    def trained(self) -> Params:
        """The parameters that are trained, detached."""
        return {name: value.detach() for name, value in self.named_parameters() if value.requires_grad}

    # -- weights for evaluation, and states of the regularizers ---------------------------------------------------

    def begin(self, progress: Progress | None = None) -> None:
        """Initialise the states of the regularizers from the present weights, or take those of an earlier training."""
        self.progress = (progress or Progress(self.following.init_states(self.trained()))).to(self.device)

    def evaluated_weights(self) -> AbstractContextManager[None]:
        """Context in which the parameters hold the weights for evaluation."""
        return holding(self, self.following.evaluated(self.trained(), self.progress.states))

    def judged_state(self) -> dict[str, Any]:
        """State dict with the weights for evaluation; tensors are shared, not copied."""
        with self.evaluated_weights():
            states = self.state_dict().items()  # of which a network's extra state may be of any type
            return {name: value.detach() if isinstance(value, Tensor) else value for name, value in states}

    # -- training alone by L.Trainer ---------------------------------------------------------------------------

    def on_train_start(self) -> None:
        """Start from the beginning, or resume the training of a checkpoint."""
        self.train()  # Lightning does not call it, but networks may have a `train` of their own, which freezes a part
        self.begin(self._resumed)
        self._resumed, self._ended = None, None

    def training_step(self, batch: Batch, batch_idx: int) -> Scalar:
        self.rewind_noise(self.current_epoch, batch_idx)
        value = self.objective(batch)
        self.log("loss/objective", value, on_step=False, on_epoch=True, batch_size=self.rows(batch))
        return value

    def configure_optimizers(self) -> Any:
        optimizer, schedule = self.optimizer_and_schedule(int(self.trainer.estimated_stepping_batches))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        self.before_step(optimizer)

    def optimizer_step(
        self, epoch: int, batch_idx: int, optimizer: Any, optimizer_closure: Callable[[], Any] | None = None
    ) -> None:
        super().optimizer_step(epoch, batch_idx, optimizer, optimizer_closure)
        self.after_step(getattr(optimizer, "optimizer", optimizer), self.trainer.global_step + 1)

    def on_validation_epoch_start(self) -> None:
        self._validation_sums: list[Sums] = []

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self.rewind_noise(self.current_epoch, batch_idx, VALIDATION)
        with self.evaluated_weights():
            self._validation_sums.append(self.evaluation(batch))

    def on_validation_epoch_end(self) -> None:
        """Log losses and gaps; stop if the patience is exhausted."""
        if self.trainer.sanity_checking:
            return
        metrics = losses_and_gaps(self.task, self._training_sums(), total(self._validation_sums))
        self.log_dict(metrics)
        patience, progress = self.patience(), self.progress
        if metrics["loss/val"] < progress.best_loss:
            progress.best_loss, progress.best_epoch = float(metrics["loss/val"]), self.current_epoch
            progress.best_state = copy.deepcopy(self.judged_state()) if patience < math.inf else None
        self.trainer.should_stop |= self.current_epoch - progress.best_epoch >= patience

    def _training_sums(self) -> Sums:
        loader = train_eval_loader(self.trainer.datamodule)  # type: ignore[attr-defined]
        convert, move = self.trainer.precision_plugin.convert_input, self.trainer.strategy.batch_to_device
        # in the same precision as Lightning's validation step
        with self.evaluated_weights(), self.trainer.precision_plugin.forward_context():
            return total(self._training_row_sums(index, move(convert(batch))) for index, batch in enumerate(loader))

    def _training_row_sums(self, index: int, batch: Batch) -> Sums:
        self.rewind_noise(self.current_epoch, index, TRAINING_ROWS)
        return self.evaluation(batch)

    def on_train_end(self) -> None:
        """Load the state by which the trial is judged: the best one under early stopping, else an average if there is one."""
        if self.progress.best_state is not None or self.following.averages:
            self._ended = copy.deepcopy(self.state_dict()), self.progress
            self.load_state_dict(self.progress.best_state or self.judged_state())
            self.progress = Progress()

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Save the weights for evaluation as the state dict, and beside it the state for resuming training."""
        if self.following.acts or self.patience() < math.inf:
            checkpoint |= in_checkpoint(*(self._ended or (checkpoint["state_dict"], self.progress)))
            checkpoint["state_dict"] = self.judged_state()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Resume the training of a checkpoint if the Trainer fits."""
        training = of_checkpoint(checkpoint)
        if training is not None and self._trainer is not None and self.trainer.state.fn == "fit":
            checkpoint["state_dict"], self._resumed = training
