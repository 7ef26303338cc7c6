"""Nets by name that are made when they are asked for, where a list of them would fill the memory."""

from collections.abc import Callable, Collection, Iterator, Mapping
from typing import TypeVar

from nnlite.network import Network

ROOM = 150_000_000  # bytes: 20 nets of the paper's size

Made = TypeVar("Made")


class OnDemand(Mapping[str, Made]):
    """Values by name, each made whenever it is asked for, and not kept.

    Arguments:
        names: their names, in order.
        make: returns the value of a name, such as the net in a run folder.
    """

    def __init__(self, names: Collection[str], make: Callable[[str], Made]) -> None:
        self._names, self._make = dict.fromkeys(names), make

    def __getitem__(self, name: str) -> Made:
        """Return the value of `name`."""
        if name not in self._names:
            raise KeyError(name)
        return self._make(name)

    def __iter__(self) -> Iterator[str]:
        """Yield the names in their order."""
        return iter(self._names)

    def __len__(self) -> int:
        """Return how many names there are."""
        return len(self._names)


class Nets(OnDemand[Network]):
    """Nets by name, of which the first that fit into ROOM are kept, and the others made again."""

    def __init__(self, names: Collection[str], make: Callable[[str], Network]) -> None:
        super().__init__(names, make)
        self._room, self._kept = ROOM, dict[str, Network]()

    def __getitem__(self, name: str) -> Network:
        """Return the net `name`."""
        if name in self._kept:
            return self._kept[name]
        net = super().__getitem__(name)
        size = sum(array.nbytes for layer in net.all_layers for array in layer.parameters.values())
        if size <= self._room:
            self._kept[name] = net
            self._room -= size
        return net
