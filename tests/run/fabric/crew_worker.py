"""One rank of a crew: runs the steps it is sent, and sends back what they gave or raised.

A step is (name, arguments). The name is a method of the fabric, or, with a dot before it, of the
first argument. An argument ("result", i), or one in a list, stands for the result of step i.
"""

import pickle
import sys
import time
from multiprocessing.connection import Connection
from typing import Any

import torch

from supernode.errors import SupernodeError
from supernode.run.fabric import Fabric, Mailbox, SharedMemoryFabric

FABRICS = {"shared_memory": SharedMemoryFabric.attach}


def run(fabric: Fabric, steps: list[tuple[str, tuple[Any, ...]]]) -> list[Any]:
    results: list[Any] = []
    for name, arguments in steps:
        known = [resolved(x, results) for x in arguments]
        if name == "sleep":
            results.append(time.sleep(known[0]))
        elif name.startswith("."):
            results.append(getattr(known[0], name[1:])(*known[1:]))
        else:
            results.append(getattr(fabric, name)(*known))
    return [portable(x) for x in results]


def resolved(x: Any, results: list[Any]) -> Any:
    if isinstance(x, list):
        return [resolved(y, results) for y in x]
    return results[x[1]] if isinstance(x, tuple) and x[:1] == ("result",) else x


def portable(x: Any) -> Any:
    """A view of an arena would take the whole arena through the pipe; a mailbox stays here."""
    if isinstance(x, list):
        return [portable(y) for y in x]
    if isinstance(x, Mailbox):
        return None
    return x.clone() if isinstance(x, torch.Tensor) else x


def main(kind: str, rank: str, deadline_s: str, connection_fd: str, *fds: str) -> None:
    torch.set_num_threads(1)
    fabric = FABRICS[kind]([int(fd) for fd in fds], int(rank), deadline_s=float(deadline_s))
    connection = Connection(int(connection_fd))
    connection.send_bytes(pickle.dumps("ready"))
    while (steps := pickle.loads(connection.recv_bytes())) is not None:
        try:
            reply: Any = run(fabric, steps)
        except SupernodeError as error:
            reply = error
        connection.send_bytes(pickle.dumps(reply))


if __name__ == "__main__":
    main(*sys.argv[1:])
