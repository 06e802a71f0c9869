"""Write a word from the left, letter by letter, and stop.

Words have `min_length` to `max_length` letters 0 ... num_letters - 1. Each is written in one way only (a tree), so its
depth is its length (graded).

States and objects hold a word's letters from the left and then *blanks*, the value `num_letters`, up to `max_length`.
So objects are not all assignments of values to sites, and a target on them declares no `values`.
"""

from typing import Any

import torch
from jaxtyping import Bool, Float64, Int64, Shaped
from torch import Tensor

from gfnmc.core.errors import CapabilityError, ObjectError, OptionError
from gfnmc.core.typing import SiteSpace
from gfnmc.environments.base import DiscreteEnvironment, TokenChange


class Sequences(DiscreteEnvironment):
    """Words of up to `max_length` letters; objects are `(max_length,)`, blank after their end.

    Action a < num_letters writes the letter a; the last action stops, from `min_length` letters on, and is the only one
    at `max_length`. Single changes substitute a letter, append one, or delete the last.

    Attributes:
        blank: The value after a word's end, `num_letters`.

    Args:
        num_letters: Letters of the alphabet.
        max_length: Most letters of a word.
        min_length: Fewest letters of a word; with 0, the empty word is one.
        dtype: Dtype of objects, an integer one that holds the blank.

    Raises:
        OptionError: If there is a single word or none, or the dtype cannot work.
    """

    is_graded = True
    changes_connect = True

    def __init__(
        self, num_letters: int, max_length: int, *, min_length: int = 0, dtype: torch.dtype = torch.int8
    ) -> None:
        if num_letters < 1 or max_length < 1 or not 0 <= min_length <= max_length:
            raise OptionError(f"there are no words of {min_length} ... {max_length} letters out of {num_letters}")
        if num_letters == 1 and min_length == max_length:
            raise OptionError(f"there is a single word of {max_length} letters out of 1; leave the length a choice")
        if dtype is torch.bool or dtype.is_floating_point or torch.iinfo(dtype).max < num_letters:
            raise OptionError(f"dtype is {dtype}; give an integer dtype that holds {num_letters}, which is the blank")
        self.num_letters = num_letters
        self.max_length = max_length
        self.min_length = min_length
        self.dtype = dtype
        self.blank = num_letters
        self.event_shape = (max_length,)
        self.is_fixed_length = min_length == max_length
        self.max_depth = max_length
        self.num_actions = num_letters + 1
        self.exit_action = num_letters
        self.num_tokens = max_length
        self.vocabulary = max_length * (num_letters + 1)
        num_states = sum(num_letters**length for length in range(max_length + 1))
        # Lists of states are searched by codes of 63 bits.
        self.is_enumerable = num_states <= 2**20 and (num_letters + 1) ** max_length < 2**63
        self._offset = torch.arange(max_length) * (num_letters + 1)
        self._num_substitutions = max_length * (num_letters - 1)

    @classmethod
    def for_target(cls, target: SiteSpace, num_letters: int, *, min_length: int = 0) -> "Sequences":
        """Return the environment that writes a target's objects.

        Args:
            target: Defined on words as this environment writes them, blank after their end.
            num_letters: Letters of the alphabet.
            min_length: Fewest letters of a word.

        Raises:
            CapabilityError: If the target's objects are not vectors.
        """
        if len(target.event_shape) != 1:
            raise CapabilityError(f"{target.name} is not defined on words: its objects have shape {target.event_shape}")
        return cls(num_letters, target.event_shape[0], min_length=min_length, dtype=target.dtype)

    def describe(self) -> dict[str, Any]:
        mine = {"num_letters": self.num_letters, "max_length": self.max_length, "min_length": self.min_length}
        return super().describe() | mine

    def source(self, batch: int) -> Tensor:
        return torch.full((batch, self.max_length), self.blank, dtype=self.dtype)

    def step(self, states: Tensor, actions: Tensor) -> Tensor:
        end = self.depth(states).clamp(max=self.max_length - 1)[:, None]
        return states.scatter(1, end, actions[:, None].to(states.dtype))

    def unstep(self, states: Tensor, actions: Tensor) -> Tensor:
        return states.scatter(1, self._last(states), self.blank)

    def is_source(self, states: Tensor) -> Bool[Tensor, " batch"]:
        return states[:, 0] == self.blank

    def depth(self, states: Tensor) -> Int64[Tensor, " batch"]:
        return (states != self.blank).sum(-1)

    def log_num_paths(self, states: Tensor) -> Float64[Tensor, " batch"]:
        return torch.zeros(states.shape[0], dtype=torch.float64, device=states.device)

    def objects(self, states: Tensor) -> Shaped[Tensor, "batch letters"]:
        return states

    def states(self, objects: Tensor) -> Shaped[Tensor, "batch letters"]:
        states = objects.to(self.dtype)
        is_letter = states != self.blank
        wrong = ((states != objects) | (states < 0) | (states > self.blank)).any(-1)
        wrong = wrong | (is_letter[:, 1:] & ~is_letter[:, :-1]).any(-1) | (is_letter.sum(-1) < self.min_length)
        if wrong.any():
            row = int(wrong.nonzero()[0, 0])
            raise ObjectError(
                f"object {row}, {objects[row].tolist()}, is not a word: it holds {self.min_length} letters or more out "
                f"of 0 ... {self.num_letters - 1}, then nothing but the blank {self.blank}"
            )
        return states

    def assigned(self, states: Tensor) -> tuple[Tensor, Bool[Tensor, "batch letters"]]:
        return states, torch.ones_like(states, dtype=torch.bool)

    def forward_mask(self, states: Tensor) -> Bool[Tensor, "batch actions"]:
        length = self.depth(states)[:, None]
        may_write = (length < self.max_length).expand(-1, self.num_letters)
        return torch.cat([may_write, length >= self.min_length], -1)

    def backward_mask(self, states: Tensor) -> Bool[Tensor, "batch actions"]:
        # The last letter of the empty word is a blank, which no action writes.
        wrote = states.gather(1, self._last(states)) == torch.arange(self.num_letters, device=states.device)
        return torch.cat([wrote, torch.zeros_like(wrote[:, :1])], -1)

    def tokens(self, states: Tensor) -> Int64[Tensor, "batch tokens"]:
        return states.to(torch.int64) + self._offset

    def changed_tokens(self, states: Tensor, actions: Tensor) -> TokenChange:
        offset = self._offset[self.depth(states).clamp(max=self.max_length - 1)]
        return TokenChange((offset + self.blank)[:, None], (offset + actions)[:, None])

    @property
    def num_changes(self) -> int:
        return self._num_substitutions + self.num_letters + 1

    def change_mask(self, objects: Tensor) -> Bool[Tensor, "batch changes"]:
        length = self.depth(objects)[:, None]
        may_substitute = (objects != self.blank).repeat_interleave(self.num_letters - 1, -1)
        may_append = (length < self.max_length).expand(-1, self.num_letters)
        return torch.cat([may_substitute, may_append, length > self.min_length], -1)

    def change(self, objects: Tensor, changes: Int64[Tensor, " batch"]) -> Tensor:
        shifts = max(self.num_letters - 1, 1)  # of a single letter there is none, and no change divides by it
        is_substitution = changes < self._num_substitutions
        appended = changes - self._num_substitutions
        position = (changes // shifts)[:, None].clamp(max=self.max_length - 1)
        letter = objects.gather(1, position)[:, 0].to(torch.int64)
        substitute = (letter + changes % shifts + 1) % self.num_letters
        # What follows the letters to append is the blank, which deletes the last letter.
        end = self.depth(objects) - (appended == self.blank).to(torch.int64)
        end = end.clamp(0, self.max_length - 1)[:, None]
        place = torch.where(is_substitution[:, None], position, end)
        value = torch.where(is_substitution, substitute, appended)
        return objects.scatter(1, place, value[:, None].to(objects.dtype))

    def _last(self, states: Tensor) -> Int64[Tensor, "batch 1"]:
        """Return where each word's last letter stands; 0 for the empty word."""
        return (self.depth(states) - 1).clamp(min=0)[:, None]
