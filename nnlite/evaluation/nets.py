"""Nets by name that are made when they are asked for, where a list of them would fill the memory."""

from collections.abc import Callable, Collection, Iterator, Mapping

from nnlite.network import Network

ROOM = 150_000_000  # bytes: 20 nets of the paper's size


class Nets(Mapping[str, Network]):
    """Nets by name, each made when it is asked for; the first that fit into `room` are kept, the others made again.

    Arguments:
        names: their names, in order.
        make: returns the net of a name, such as the one in a run folder.
        room: how many bytes of weights are kept.
    """

    def __init__(self, names: Collection[str], make: Callable[[str], Network], room: int = ROOM) -> None:
        self._names, self._make, self._room = dict.fromkeys(names), make, room
        self._kept: dict[str, Network] = {}

    def __getitem__(self, name: str) -> Network:
        """Return the net `name`."""
        if name in self._kept:
            return self._kept[name]
        if name not in self._names:
            raise KeyError(name)
        net = self._make(name)
        size = sum(array.nbytes for layer in net.all_layers for array in layer.parameters.values())
        if size <= self._room:
            self._kept[name] = net
            self._room -= size
        return net

    def __iter__(self) -> Iterator[str]:
        """Yield the names in their order."""
        return iter(self._names)

    def __len__(self) -> int:
        """Return how many nets there are."""
        return len(self._names)
