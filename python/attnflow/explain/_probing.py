"""Scores that ask the model instead of a network: attention as it is, gradient times input, tokens left out."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import ModuleType
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from ..errors import InvalidArgumentError
from . import _outcome
from ._plan import Plan
from ._reading import NO_TEXT, Reading

if TYPE_CHECKING:
    from torch import Tensor

    from ..capture import Contributions

__all__ = ["LeaveOut", "Probe", "attention"]

LeaveOut = Literal["mask", "delete"]
Groups = Sequence[Sequence[int]]
_IDS = {"input_ids": "attention_mask", "decoder_input_ids": "decoder_attention_mask"}


def attention(
    captures: Sequence[Contributions], reading: Reading, plan: Plan, players: Groups, layers: Literal["last", "mean"]
) -> NDArray[np.float64]:
    """How much each sink draws from each player in the last layer, or in the mean over layers: (n_sinks, n_players).

    Of several positions the sum; a pooled sink is a mean. What a decoder draws from an encoder is its cross-attention.
    """
    values = np.zeros((len(plan.sinks), len(players)))
    two = captures[0].kind == "encoder-decoder"
    for row, sink in enumerate(plan.sinks):
        captured = captures[row if len(captures) > 1 else 0]
        own = captured.stack("decoder" if captured.stack("decoder") else "encoder")
        at = [position - reading.n_source if two else position for position in sink]
        drawn = np.zeros(len(reading.tokens))
        stacks = [(own, reading.n_source if two else 0), *([(captured.stack("cross"), 0)] if two else [])]
        for stack, first in stacks:
            chosen = stack[-1:] if layers == "last" else stack
            for layer in chosen:
                taken = layer.matrix[at].double().sum(dim=0).cpu().numpy() / len(chosen)
                drawn[first : first + taken.size] += taken
        scale = len(sink) if plan.pooled else 1
        values[row] = [drawn[list(group)].sum() / scale for group in players]
    return values


class Probe:
    """Asks a model about changed inputs.

    Parameters
    ----------
    capture, model, tokenizer, reading, plan, inputs
        What is explained, and what the model reads of it, a batch of one.
    asked
        The objective, as :func:`attnflow.explain` takes it.
    causal
        Whether no position sees those behind it.
    """

    def __init__(
        self,
        capture: ModuleType,
        model: Any,
        tokenizer: Any,
        reading: Reading,
        plan: Plan,
        inputs: Mapping[str, Any],
        asked: Any,
        *,
        causal: bool,
    ) -> None:
        import torch

        self.capture, self.model, self.tokenizer = capture, model, tokenizer
        self.reading, self.plan, self.asked, self.causal = reading, plan, asked, causal
        # One text: arrays have a leading dimension of one.
        self.inputs: dict[str, Any] = {
            name: torch.as_tensor(value) if not isinstance(value, str | bool | int | float) else value
            for name, value in inputs.items()
            if value is not None
        }
        for name in _IDS:
            if name in self.inputs and self.inputs[name].ndim == 1:
                self.inputs[name] = self.inputs[name][None]
        self._tokens: dict[int, list[int]] = {}

    # -- where positions lie in what is read ---------------------------------------------------------------------------

    def _token(self, position: int) -> tuple[str, int] | None:
        """The name and the column of a position's token id; None for a part of an image or a recording."""
        if "input_ids" not in self.inputs and position < self.reading.n_source:
            return None
        behind = self.reading.n_source and position >= self.reading.n_source
        name = "decoder_input_ids" if behind else "input_ids"
        return (name, position - self.reading.n_source if behind else position) if name in self.inputs else None

    def _cells(self, position: int) -> tuple[str, tuple[Any, ...]]:
        """The name of what is no text, and the part of it that a position was cut from."""
        grid = self.reading.grid
        name = next((name for name in NO_TEXT if name in self.inputs), "")
        at = -1 if grid is None else position - grid.start
        if grid is None or not name or not 0 <= at < int(np.prod(grid.shape)):
            raise InvalidArgumentError(
                f"position {position} ({self.reading.tokens[position]!r}) is no token, and no known part of what "
                f"{type(self.model).__name__} reads: it cannot be a player here"
            )
        sizes = self.inputs[name].shape[-len(grid.shape) :]
        index = np.unravel_index(at, grid.shape)
        ends = zip(index, grid.shape, sizes, strict=True)
        return name, (..., *(slice(int(size * i // n), int(size * (i + 1) // n)) for i, n, size in ends))

    # -- gradients -----------------------------------------------------------------------------------------------------

    def gradient_x_input(self, players: Groups) -> NDArray[np.float64]:
        """Sums over what each player put in: (n_sinks, n_players)."""
        objectives = [self._objective(tuple(sink)) for sink in self.plan.sinks]
        values = np.empty((len(self.plan.sinks), len(players)))
        for row, found in enumerate(self.capture.gradient_x_input(self.model, self.inputs, objectives)):
            for column, group in enumerate(players):
                values[row, column] = sum(self._share(found, position) for position in group)
        return values

    def _objective(self, sink: tuple[int, ...]) -> Callable[[Any], Any]:
        derived = _outcome.objective(self.asked, self.tokenizer, self.reading, sink)

        def checked(output: Any) -> Any:
            self._require_a_row(output)
            return derived(output)

        return checked

    def _require_a_row(self, output: Any) -> None:
        """Refuse the mean over positions, where each position says something else."""
        if self.plan.pooled and not callable(self.asked) and _outcome.logits_of(output).ndim == 3:
            raise InvalidArgumentError(
                f"the target is the {self.plan.label}, and {type(self.model).__name__} says something at each of them: "
                "give a position as the target, or an objective, a function of the model's output"
            )

    def _share(self, products: Mapping[str, Tensor], position: int) -> float:
        token = self._token(position)
        if token is not None:
            return float(products[token[0]][token[1]])
        name, part = self._cells(position)
        return float(products[name][part].sum())

    # -- leaving out ---------------------------------------------------------------------------------------------------

    def left_out(
        self, players: Groups, how: LeaveOut, batch_size: int, progress: Callable[[int, int], object] | None
    ) -> NDArray[np.float64]:
        """How far what the model says drops without each player: (n_sinks, n_players)."""
        if how == "mask" and getattr(self.tokenizer, "mask_token_id", None) is None:
            self._keep_positions()
        whole = self._said([self.inputs], [self._columns(())])[0]
        values = np.zeros((len(self.plan.sinks), len(players)))
        done = 0
        for numbers in self._of_one_length(players, how, 1 if callable(self.asked) else batch_size):
            changed = [self._without(players[number], how) for number in numbers]
            columns = [self._columns(players[number] if how == "delete" else ()) for number in numbers]
            for number, said in zip(numbers, self._said(changed, columns), strict=True):
                values[:, number] = whole - said
            done += len(numbers)
            if progress is not None:
                progress(done, len(players))
        if self.causal:  # what a sink cannot see has no part in it, however products are rounded
            for row, sink in enumerate(self.plan.sinks):
                unseen = [min(group) > max(sink) for group in players]
                values[row, unseen] = 0.0
        return values

    def _keep_positions(self) -> None:
        """Tell the model its positions, if it takes them: some (OPT) would count those that are not hidden."""
        import torch

        ids = self.inputs.get("input_ids")
        takes = "position_ids" in inspect.signature(self.model.forward).parameters
        if ids is None or not takes or "position_ids" in self.inputs or self.reading.n_source:
            return
        told = {**self.inputs, "position_ids": torch.arange(ids.shape[1])[None]}
        columns = [self._columns(())]
        if np.allclose(self._said([told], columns), self._said([self.inputs], columns), rtol=1e-3, atol=1e-4):
            self.inputs = told  # else it counts in another way

    def _of_one_length(self, players: Groups, how: LeaveOut, batch_size: int) -> Iterator[list[int]]:
        """Batches of players, by number, without whom texts have one length."""
        lengths: dict[Any, list[int]] = {}
        for number, group in enumerate(players):
            names = sorted(token[0] for token in map(self._token, group) if token is not None)
            lengths.setdefault(tuple(names) if how == "delete" else None, []).append(number)
        for numbers in lengths.values():
            for start in range(0, len(numbers), batch_size):
                yield numbers[start : start + batch_size]

    def _without(self, group: Sequence[int], how: LeaveOut) -> dict[str, Any]:
        """What is read, without some positions."""
        import torch

        inputs = dict(self.inputs)
        gone: dict[str, list[int]] = {}
        for position in group:
            token = self._token(position)
            if token is not None:
                gone.setdefault(token[0], []).append(token[1])
                continue
            if how == "delete":
                raise InvalidArgumentError(
                    f"leave_out='delete' takes tokens out of a text, and position {position} is none: use 'mask'"
                )
            name, part = self._cells(position)
            changed = inputs[name].clone()
            over = tuple(range(1 - len(part), 0))
            changed[part] = self.inputs[name].mean(dim=over, keepdim=True)
            inputs[name] = changed
        for name, columns in gone.items():
            ids, mask = inputs[name], _IDS[name]
            if how == "delete":
                kept = [column for column in range(ids.shape[1]) if column not in columns]
                if not kept:
                    raise InvalidArgumentError("leave_out='delete' would leave nothing of the text: use 'mask'")
                # Masks and types of tokens have a column a token, too.
                for other, value in list(inputs.items()):
                    of_decoder = other.startswith("decoder_")
                    if getattr(value, "shape", ())[:2] == ids.shape[:2] and of_decoder == (name != "input_ids"):
                        inputs[other] = value[:, kept]
                continue
            stands_for = getattr(self.tokenizer, "mask_token_id", None)
            seen = inputs.get(mask, torch.ones_like(ids)).clone()
            seen[:, columns] = 0
            if stands_for is None and not bool(seen.any()):
                raise InvalidArgumentError(
                    f"leave_out='mask' would hide all of {name} from attention, and {type(self.model).__name__} has no "
                    "mask token to put in its place: use smaller units, or 'delete'"
                )
            target = name if stands_for is not None else mask
            array = inputs.get(target, torch.ones_like(ids)).clone()
            array[:, columns] = 0 if stands_for is None else int(stands_for)
            inputs[target] = array
        return inputs

    def _columns(self, deleted: Sequence[int]) -> list[int]:
        """For each sink the row of logits that says it, after some positions were taken out."""
        found = []
        for sink in self.plan.sinks:
            last, behind = max(sink), [p for p in deleted if p >= self.reading.n_source and p <= max(sink)]
            if last in deleted and not self.causal:
                raise InvalidArgumentError(
                    f"leave_out='delete' would take out position {last}, whose output is explained: use 'mask'"
                )
            column = last - self.reading.n_source - len(behind)
            if column < 0:
                raise InvalidArgumentError(
                    f"leave_out='delete' would leave nothing before the output at position {last}: use 'mask'"
                )
            found.append(column)
        return found

    def _said(self, inputs: Sequence[Mapping[str, Any]], columns: Sequence[Sequence[int]]) -> NDArray[np.float64]:
        """For each input and sink the number that is asked for: (n_inputs, n_sinks)."""
        import torch

        together: dict[str, Any] = {}
        for name in dict.fromkeys(name for one in inputs for name in one):
            # Where nothing is hidden there may be no mask.
            ids = next((ids for ids, mask in _IDS.items() if mask == name), name)
            parts = [one[name] if name in one else torch.ones_like(one[ids]) for one in inputs]
            is_array = isinstance(parts[0], torch.Tensor) and parts[0].ndim > 0
            together[name] = torch.cat(parts) if is_array else parts[0]

        def read(output: Any) -> Any:
            self._require_a_row(output)
            if callable(self.asked):
                number = self.asked(output)
                if not isinstance(number, torch.Tensor) or number.numel() != 1:
                    raise InvalidArgumentError(
                        f"the objective must be one number that depends on the model's output, got {number!r}"
                    )
                return number.reshape(1, 1).expand(1, len(self.plan.sinks))
            logits = _outcome.logits_of(output)
            rows = []
            for number, wanted in enumerate(columns):
                mine = [logits[number] if logits.ndim == 2 else logits[number, column] for column in wanted]
                rows.append(torch.stack([self._number(row, sink) for sink, row in enumerate(mine)]))
            return torch.stack(rows)

        found: NDArray[np.float64] = self.capture.outputs(self.model, together, read).numpy()
        if not np.isfinite(found).all():
            raise InvalidArgumentError(
                f"{type(self.model).__name__} says nothing finite where tokens are hidden from it: use "
                "leave_out='delete'"
            )
        return found

    def _number(self, row: Any, sink: int) -> Any:
        """The log-probability of the token in question, or the difference of two tokens' logits."""
        row = row.double()
        if sink not in self._tokens:
            wanted = _outcome.wanted_tokens(self.asked, self.tokenizer)
            self._tokens[sink] = _outcome.meant(wanted, row, self.reading, max(self.plan.sinks[sink]))
        tokens = self._tokens[sink]
        return row[tokens[0]] - row[tokens[1]] if len(tokens) == 2 else row.log_softmax(dim=-1)[tokens[0]]
